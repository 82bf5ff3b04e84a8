/* test_watch.c: watchers that read slowly, not at all, or are gone, over a store with a finished
 * job. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fault_alloc.h"
#include "jobs.h"
#include "watch.h"

enum { N_STEPS = 5 };

typedef struct fixture {
    fr_store *store;
    fr_job_env env;
    fr_jobs *jobs;
    fr_watchers *w;
    int room;         /* messages that the clients still take */
    fr_status beyond; /* what sending more gives */
    int n_steps, n_done, n_errors;
} fixture;

static fr_status on_send(void *ctx, const fr_client *to, const fr_msg *m)
{
    fixture *f = ctx;
    if (f->room == 0)
        return fr_fail(f->beyond, "no room");
    f->room--;
    assert_int_equal(m->tag, to->tag);
    if (m->kind == FR_MSG_STEP)
        assert_int_equal(m->body.step.index, f->n_steps++ % N_STEPS);
    f->n_done += m->kind == FR_MSG_DONE;
    f->n_errors += m->kind == FR_MSG_ERROR;
    return FR_OK;
}

static int set_up(void **state)
{
    static const int32_t ids[] = {1, 2};
    fixture *f = calloc(1, sizeof *f);
    assert_int_equal(fr_store_open(NULL, &f->store), FR_OK);
    fr_job_record r = {.id = fr_store_next_job(f->store), .state = FR_JOB_DONE};
    assert_int_equal(fr_store_add_job(f->store, &r), FR_OK);
    for (uint32_t i = 0; i < N_STEPS; i++) {
        const fr_store_step step = {.index = i,
                                    .ids = ids,
                                    .n_ids = 2,
                                    .accepted = 1,
                                    .score = NAN,
                                    .text = {(const uint8_t *)"x", 1}};
        assert_int_equal(fr_store_add_step(f->store, r.id, &step), FR_OK);
    }
    assert_int_equal(fr_store_flush(f->store), FR_OK);
    f->env.store = f->store;
    assert_int_equal(fr_jobs_open(&f->env, 8, 0, &f->jobs), FR_OK);
    assert_int_equal(fr_watchers_new(f->jobs, f->store, on_send, f, &f->w), FR_OK);
    f->beyond = FR_EBUSY;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    fr_watchers_free(&f->w);
    fr_jobs_close(&f->jobs);
    fr_store_close(&f->store);
    free(f);
    return 0;
}

static void add(fixture *f, uint8_t id)
{
    const fr_client client = {.peer = {.id = {id}, .len = 1}, .tag = id};
    assert_int_equal(fr_watchers_add(f->w, &client, 1, 0), FR_OK);
}

static void slow_ones_lag_without_gaps(void **state)
{
    fixture *f = *state;
    add(f, 1);
    double now = 100;
    for (int i = 0; i < 3; i++, now += 0.1) {
        f->room = 2;
        fr_watchers_pump(f->w, 0, now);
    }
    assert_int_equal(f->n_steps, N_STEPS);
    assert_int_equal(f->n_done, 1);
    assert_int_equal(fr_watchers_count(f->w), 0);
    assert_true(isinf(fr_watchers_deadline(f->w)));
}

static void those_that_never_read_are_dropped(void **state)
{
    fixture *f = *state;
    add(f, 1);
    f->room = 1;
    fr_watchers_pump(f->w, 0, 100);
    assert_true(fr_watchers_deadline(f->w) > 100 && fr_watchers_deadline(f->w) < 101);
    fr_watchers_pump(f->w, 0, 125);
    assert_int_equal(fr_watchers_count(f->w), 1);
    fr_watchers_pump(f->w, 0, 131);
    assert_int_equal(fr_watchers_count(f->w), 0);
}

static void those_that_are_gone_are_dropped_at_once(void **state)
{
    fixture *f = *state;
    add(f, 1);
    f->beyond = FR_EPEER;
    fr_watchers_pump(f->w, 0, 100);
    assert_int_equal(fr_watchers_count(f->w), 0);
}

static void those_that_cannot_be_served_are_told(void **state)
{
    fixture *f = *state;
    add(f, 1);
    f->room = 100;
    fr_fault_alloc_arm(0);
    fr_watchers_pump(f->w, 0, 100);
    assert_true(fr_fault_alloc_disarm());
    assert_int_equal(fr_watchers_count(f->w), 0);
    assert_int_equal(f->n_errors, 1);
}

static void asking_again_begins_anew(void **state)
{
    fixture *f = *state;
    add(f, 1);
    f->room = N_STEPS;
    fr_watchers_pump(f->w, 0, 100); /* all but the end */
    add(f, 1);
    assert_int_equal(fr_watchers_count(f->w), 1);
    f->room = 100;
    fr_watchers_pump(f->w, 0, 100.2);
    assert_int_equal(f->n_steps, 2 * N_STEPS);
    assert_int_equal(f->n_done, 1);
}

static void all_are_told_of_the_end(void **state)
{
    fixture *f = *state;
    add(f, 1);
    add(f, 2);
    f->room = 1; /* the second one does not read */
    fr_watchers_dismiss(f->w, "the end");
    assert_int_equal(f->n_errors, 1);
    assert_int_equal(fr_watchers_count(f->w), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(slow_ones_lag_without_gaps),
        T(those_that_never_read_are_dropped),
        T(those_that_are_gone_are_dropped_at_once),
        T(those_that_cannot_be_served_are_told),
        T(asking_again_begins_anew),
        T(all_are_told_of_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
