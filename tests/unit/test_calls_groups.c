/* test_calls_groups.c: which group an engine call goes to, and what becomes of it when groups are lost, cannot be
 * reached, or depend on the batch, and when there is no draft. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "calls_fixture.h"

static void stays_with_its_group(void **state)
{
    fixture *f = *state;
    f->b = add_group(f, 2, "target", "b", 5);
    for (int i = 0; i < 4; i++) {
        generate(f, FR_ROLE_TARGET, 4);
        fr_calls_dispatch(f->c, 1);
        assert_int_equal(last(f)->group, f->log[0].group);
    }
    assert_int_equal(f->log[3].sequence, 3); /* at once: each has a sequence of its own */
    fr_call_terms second = {.job = 7, .model = {5, 6}, .delimiter = "", .exact = 1};
    const fr_generate_call g = {.role = FR_ROLE_TARGET, .ids = ids, .n_ids = 4, .max_tokens = 5};
    uint64_t call = 0;
    assert_int_equal(fr_calls_generate(f->c, &second, &g, &call), FR_OK);
    fr_calls_dispatch(f->c, 1);
    assert_int_not_equal(last(f)->group, f->log[0].group); /* the other one has nothing to do */
    fr_calls_cancel(f->c, call);
}

static void every_group_gets_work(void **state)
{
    fixture *f = *state;
    f->a->n_calls = 1;
    for (uint8_t i = 2; i <= 100; i++) {
        char name[8];
        snprintf(name, sizeof name, "g%d", i);
        f->b = add_group(f, i, "target", name, 5);
        f->b->n_calls = i < 100; /* the last one alone has nothing to do */
    }
    generate(f, FR_ROLE_TARGET, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->group, f->b->id);
}

static void exact_jobs_do_without_a_draft(void **state)
{
    fixture *f = *state;
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->n_events, 0);
    assert_true(fr_calls_deadline(f->c) == 2);
    fr_calls_dispatch(f->c, 2);
    assert_int_equal(f->last_event, FR_EVENT_FAILED);
    assert_int_equal(f->last_status, FR_EUNAVAILABLE);
    f->terms.exact = 0; /* others wait */
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1000);
    assert_int_equal(f->n_events, 1);
    assert_int_equal(fr_calls_count(f->c), 1);
    f->b = add_group(f, 2, "draft", "d", 6);
    fr_calls_dispatch(f->c, 1001);
    assert_int_equal(last(f)->group, f->b->id);
    fr_msg_engine_error e = {.request = last(f)->request, .status = FR_ELIMIT, .cause = "too long"};
    fr_calls_error(f->c, f->b, &e);
    assert_int_equal(f->n_failed, 1);
    assert_string_equal(f->last_cause, "too long");
}

/* As policy `step`: a draft that comes back in time is waited for, else the call fails, and the
 * next one goes to a draft again. */
static void jobs_outlive_their_draft(void **state)
{
    fixture *f = *state;
    f->terms.exact = 0;
    f->terms.outlives_draft = 1;
    f->b = add_group(f, 2, "draft", "d", 6);
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->group, f->b->id);
    lose_group(f, f->b); /* at 5, with a grace of 2 */
    fr_calls_dispatch(f->c, 6);
    assert_int_equal(fr_calls_count(f->c), 1);
    f->b = add_group(f, 2, "draft", "d", 6);
    fr_calls_dispatch(f->c, 6.5);
    assert_int_equal(last(f)->group, f->b->id);
    lose_group(f, f->b);
    fr_calls_dispatch(f->c, 6.9);
    assert_int_equal(f->n_events, 0);
    assert_true(fr_calls_deadline(f->c) == 7);
    fr_calls_dispatch(f->c, 7);
    assert_int_equal(f->last_event, FR_EVENT_FAILED);
    assert_int_equal(f->last_status, FR_EUNAVAILABLE);
    assert_int_equal(fr_calls_count(f->c), 0);
    generate(f, FR_ROLE_DRAFT, 4); /* the next step: nobody waits again */
    fr_calls_dispatch(f->c, 8);
    assert_int_equal(f->n_events, 2);
    f->b = add_group(f, 2, "draft", "d", 6);
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 9);
    assert_int_equal(last(f)->group, f->b->id);
    reply_generated(f, f->b, last(f)->request, 1);
    assert_int_equal(f->last_event, FR_EVENT_GENERATED);
    assert_int_equal(f->n_failed, 0);
}

/* A draft that is there and errs is not a lost one. */
static void draft_errors_end_jobs_that_are_not_exact(void **state)
{
    fixture *f = *state;
    f->terms.exact = 0;
    f->terms.outlives_draft = 1;
    f->b = add_group(f, 2, "draft", "d", 6);
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1);
    fr_msg_engine_error e = {.request = last(f)->request, .status = FR_ELIMIT, .cause = "too long"};
    fr_calls_error(f->c, f->b, &e);
    assert_int_equal(f->n_events, 0);
    assert_int_equal(f->n_failed, 1);
    assert_string_equal(f->last_cause, "too long");
}

/* Groups of another model do not count as its draft, and it does not go on: the job is ended. */
static void another_draft_is_no_lost_draft(void **state)
{
    fixture *f = *state;
    f->terms.exact = 0;
    f->terms.outlives_draft = 1;
    f->b = add_group(f, 2, "draft", "d", 66);
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1000);
    assert_int_equal(f->n_events + f->n_failed, 0);
    assert_true(isinf(fr_calls_deadline(f->c)));
}

static void loses_groups_that_cannot_be_reached(void **state)
{
    fixture *f = *state;
    generate(f, FR_ROLE_TARGET, 4);
    f->send_status = FR_EPEER;
    fr_calls_dispatch(f->c, 1);
    assert_false(f->a->alive);
    assert_int_equal(f->n_failed, 0);
    f->send_status = FR_OK;
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->n_sent, 0); /* waits */
    f->b = add_group(f, 2, "target", "b", 5);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->group, f->b->id);
    fr_msg_engine_error e = {
        .request = last(f)->request, .status = FR_EPEER, .cause = "rank 1 is gone"};
    fr_calls_error(f->c, f->b, &e);
    assert_false(f->b->alive);
    assert_int_equal(fr_calls_count(f->c), 1);
    /* A call that every group dies of ends its job. */
    for (uint8_t i = 0; i < 20 && !f->n_failed; i++) {
        char name[8];
        snprintf(name, sizeof name, "g%d", i);
        fr_group *g = add_group(f, (uint8_t)(10 + i), "target", name, 5);
        fr_calls_dispatch(f->c, 1);
        if (f->n_failed)
            break;
        lose_group(f, g);
    }
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->n_failed, 1);
    assert_int_equal(f->last_status, FR_EPEER);
}

/* Calls that lost groups together again and again part: each has a group for itself, or waits until one is idle. */
static void suspects_are_sent_alone(void **state)
{
    fixture *f = *state;
    fr_group *g = f->a;
    for (int i = 0; i < 2; i++)
        generate(f, FR_ROLE_TARGET, 4);
    for (uint8_t i = 0; i < 3; i++) {
        const char name[] = {'g', (char)('0' + i), 0};
        fr_calls_dispatch(f->c, 1);
        assert_int_equal(g->n_calls, 2);
        lose_group(f, g);
        g = add_group(f, (uint8_t)(10 + i), "target", name, 5);
    }
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(g->n_calls, 1);
    const uint64_t first = last(f)->request;
    generate(f, FR_ROLE_TARGET, 4); /* a new one: it is kept out of it */
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(g->n_calls, 1);
    reply_generated(f, g, first, 3); /* the second one's turn */
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(g->n_calls, 1);
    const uint64_t second = last(f)->request;
    f->b = add_group(f, 2, "target", "b", 5); /* for the new one, and one more */
    generate(f, FR_ROLE_TARGET, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->b->n_calls, 2);
    lose_group(f, g); /* the second one waits until b is idle, and newer ones wait for it */
    generate(f, FR_ROLE_TARGET, 4);
    fr_calls_dispatch(f->c, 1);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->b->n_calls, 2);
    reply_generated(f, f->b, second + 1, 3);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->b->n_calls, 1);
    reply_generated(f, f->b, second + 2, 3);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->b->n_calls, 1);
    assert_int_equal(f->n_events, 3);
    const uint64_t request = last(f)->request; /* it gets on: no longer a suspect */
    const fr_msg_tokens m = {.request = request, .position = 4, .ids = ids + 4, .n_ids = 1};
    fr_calls_tokens(f->c, f->b, &m);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->b->n_calls, 2);
    assert_int_equal(f->n_failed, 0);
}

/* An exact job's target calls go to a batch-dependent group only when there is no other, and the
 * job is marked then. */
static void exact_jobs_prefer_batch_invariant_groups(void **state)
{
    fixture *f = *state;
    f->a->batch_dependent = 1;
    generate(f, FR_ROLE_TARGET, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->group, f->a->id);
    assert_int_equal(f->terms.batch_dependent, 1);
    f->terms.batch_dependent = 0;
    fr_group *b = add_group(f, 2, "target", "b", 5);
    generate(f, FR_ROLE_TARGET, 4); /* though its chain is cached by a */
    generate(f, FR_ROLE_TARGET, 4); /* though a has less to do */
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(b->n_calls, 2);
    assert_int_equal(f->terms.batch_dependent, 0);
}

/* Where the text is not exact any group will do, and one that drafts matters too. */
static void batch_dependent_drafts_mark_inexact_jobs(void **state)
{
    fixture *f = *state;
    add_group(f, 3, "draft", "d", 6)->batch_dependent = 1;
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->terms.batch_dependent, 0);
    f->terms.exact = 0;
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->terms.batch_dependent, 1);
    f->a->batch_dependent = 1;
    fr_group *b = add_group(f, 2, "target", "b", 5);
    for (int i = 0; i < 2; i++) {
        f->terms.group[FR_ROLE_TARGET] = 0;
        generate(f, FR_ROLE_TARGET, 4);
        fr_calls_dispatch(f->c, 1);
    }
    assert_int_equal(f->a->n_calls, 1);
    assert_int_equal(b->n_calls, 1);
}

/* A group that leaves in good order gives its calls back; that is held against none, though one is the last. */
static void goodbyes_are_nobodys_fault(void **state)
{
    fixture *f = *state;
    generate(f, FR_ROLE_TARGET, 4);
    for (int i = 0; i < 20; i++) {
        fr_calls_dispatch(f->c, 1);
        assert_int_equal(f->a->n_calls, 1);
        const fr_msg_engine_error back = {.request = last(f)->request, .status = FR_ECANCELLED, .cause = "it leaves"};
        fr_calls_error(f->c, f->a, &back);
    }
    assert_int_equal(f->n_failed, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(stays_with_its_group),
        T(every_group_gets_work),
        T(exact_jobs_do_without_a_draft),
        T(jobs_outlive_their_draft),
        T(draft_errors_end_jobs_that_are_not_exact),
        T(another_draft_is_no_lost_draft),
        T(exact_jobs_prefer_batch_invariant_groups),
        T(batch_dependent_drafts_mark_inexact_jobs),
        T(loses_groups_that_cannot_be_reached),
        T(suspects_are_sent_alone),
        T(goodbyes_are_nobodys_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
