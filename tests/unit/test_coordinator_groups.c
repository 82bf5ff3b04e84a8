/* test_coordinator_groups.c: a whole coordinator (live_coordinator.h) and its groups: they die, hang,
 * come back, forget and err, and are sent no more than they need. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "chain.h"
#include "clock.h"
#include "live_coordinator.h"
#include "log.h"

/* A group dies in the middle of a job: at once, silently, or politely. */
static void survives_loss(fixture *f, const char *policy, int hangs)
{
    fake_options first = {.endpoint = f->server.endpoint,
                          .role = "target",
                          .name = "first",
                          .model_digest = 11,
                          .tokenizer = f->tokenizer,
                          .token_ms = 2,
                          .dies_after = hangs ? 7 : 0};
    fake_engine *doomed = fake_engine_start(&first);
    f->draft = engine(f, "draft", "d", 0);
    await_groups(f->client, 2);
    uint64_t id = submit(f->client, policy, 0);
    fr_sleep_ms(30);
    f->target = engine(f, "target", "second", 1);
    await_groups(f->client, 3);
    if (!hangs)
        fake_engine_kill(&doomed);
    watch(f->client, id, 0);
    follow_to(f->client, &f->expected);
    assert_true(atomic_load(&fake_engine_counts(f->target)->generates) +
                    atomic_load(&fake_engine_counts(f->target)->verifies) >
                0);
    if (hangs)
        fake_engine_kill(&doomed);
}

static void survives_a_killed_group(void **state)
{
    survives_loss(*state, "target", 0);
}

static void survives_a_hanging_group(void **state)
{
    survives_loss(*state, "token", 1);
}

enum { STEP = 9 }; /* tokens of a step of the fake model */

/* The group that takes a stream over computes a near-tie differently, in front of the place that the first
 * one got to: 15 tokens, of which the first step is committed. */
static void takes_over_a_stream(fixture *f, int near_tie, const fr_buf *expected)
{
    fake_options o = {.endpoint = f->server.endpoint,
                      .role = "target",
                      .name = "first",
                      .model_digest = 11,
                      .tokenizer = f->tokenizer,
                      .dies_after = 16};
    fake_engine *doomed = fake_engine_start(&o);
    await_groups(f->client, 1);
    uint64_t id = submit(f->client, "target", 0);
    while (atomic_load(&fake_engine_counts(doomed)->generates) == 0)
        fr_sleep_ms(5);
    o.name = "second";
    o.dies_after = 0;
    o.near_tie = near_tie;
    f->target = fake_engine_start(&o);
    watch(f->client, id, 0);
    follow_to(f->client, expected);
    fake_engine_kill(&doomed);
}

/* In the step under way: that step is the second group's, from its first token. */
static void a_stream_is_not_joined_to_another_ones(void **state)
{
    fixture *f = *state;
    fr_buf second = {0};
    fake_text_otherwise(f->tokenizer, PROBLEM, 1000, STEP + 3, &second);
    takes_over_a_stream(f, STEP + 3, &second);
    fr_buf_free(&second);
}

/* In the committed one, which stands: the second group goes on behind it. */
static void what_is_committed_is_gone_on_from(void **state)
{
    fixture *f = *state;
    takes_over_a_stream(f, 3, &f->expected);
}

static void waits_for_a_group_to_come_back(void **state)
{
    fixture *f = *state;
    f->target = engine(f, "target", "t", 2);
    submit(f->client, "target", 1);
    fr_sleep_ms(60);
    fake_engine_stop(&f->target);
    fr_sleep_ms(200);
    f->target = engine(f, "target", "t", 0);
    follow_to(f->client, &f->expected);
}

/* An exact job needs no draft: it goes on without. */
static void goes_on_without_the_draft(void **state)
{
    fixture *f = *state;
    f->target = engine(f, "target", "t", 2);
    f->draft = engine(f, "draft", "d", 2);
    await_groups(f->client, 2);
    submit(f->client, "token", 1);
    fr_sleep_ms(50);
    fake_engine_kill(&f->draft);
    follow_to(f->client, &f->expected);
}

static fake_engine *engine_with_context(fixture *f, const char *role, const char *name, size_t context)
{
    const fake_options o = {.endpoint = f->server.endpoint,
                            .role = role,
                            .name = name,
                            .model_digest = role[0] == 't' ? 11 : 22,
                            .tokenizer = f->tokenizer,
                            .max_context = (uint32_t)context};
    return fake_engine_start(&o);
}

/* Where the draft's context ends, be it before the chain begins, an exact job goes on alone. */
static void goes_on_behind_the_drafts_context(void **state)
{
    fixture *f = *state;
    fr_chain chain = {0};
    assert_int_equal(fr_chain_open(&chain, f->tokenizer, NULL, NULL, PROBLEM, 0), FR_OK);
    const size_t prompt = chain.ids.len;
    fr_chain_close(&chain);
    f->target = engine(f, "target", "t", 0);
    for (int i = 0; i < 2; i++) {
        f->draft = engine_with_context(f, "draft", "d", i ? prompt + 20 : prompt - 1);
        await_groups(f->client, 2);
        submit(f->client, "token", 1);
        follow_to(f->client, &f->expected);
        assert_int_equal(atomic_load(&fake_engine_counts(f->draft)->generates) > 0, i);
        fake_engine_stop(&f->draft);
        await_groups(f->client, 1);
    }
}

/* Also when it comes to a running job for the first time. */
static void uses_a_draft_that_comes_late(void **state)
{
    fixture *f = *state;
    f->target = engine(f, "target", "t", 5);
    await_groups(f->client, 1);
    uint64_t id = submit(f->client, "token", 0);
    for (int i = 0, runs = 0; !runs; i++) {
        fr_sleep_ms(5);
        fr_msg m = status_of(f->client, id);
        runs = !strcmp(m.body.status_reply.jobs[0].state, "running");
        fr_msg_free(&m);
        assert_true(i < 400);
    }
    f->draft = engine(f, "draft", "d", 0);
    watch(f->client, id, 0);
    follow_to(f->client, &f->expected);
    assert_true(atomic_load(&fake_engine_counts(f->draft)->generates) > 0);
}

/* Where the text depends on the draft a lost one is waited for, but not for ever: then the target
 * writes the steps alone. */
static void steps_go_on_without_the_draft(void **state)
{
    fixture *f = *state;
    const fake_options doomed = {.endpoint = f->server.endpoint,
                                 .role = "draft",
                                 .name = "d",
                                 .model_digest = 22,
                                 .tokenizer = f->tokenizer,
                                 .dies_after = 12};
    f->target = engine(f, "target", "t", 0);
    f->draft = fake_engine_start(&doomed);
    await_groups(f->client, 2);
    submit(f->client, "step", 1);
    int drafted = 0, alone = 0;
    fr_msg m;
    for (hear(f->client, &m); m.kind != FR_MSG_DONE; hear(f->client, &m)) {
        drafted += m.kind == FR_MSG_STEP && !strcmp(m.body.step.origin, "draft");
        alone += m.kind == FR_MSG_STEP && !strcmp(m.body.step.origin, "target");
        fr_msg_free(&m);
    }
    assert_string_equal(m.body.done.job.state, "done");
    assert_string_equal(m.body.done.job.stop, "end");
    assert_int_equal(drafted, 1);
    assert_true(alone > 1);
    fr_msg_free(&m);
}

static void resends_what_an_engine_forgot(void **state)
{
    fixture *f = *state;
    const fake_options o = {.endpoint = f->server.endpoint,
                            .role = "target",
                            .name = "t",
                            .model_digest = 11,
                            .tokenizer = f->tokenizer,
                            .forgets = 1};
    f->target = fake_engine_start(&o);
    f->draft = engine(f, "draft", "d", 0);
    await_groups(f->client, 2);
    submit(f->client, "token", 1);
    follow_to(f->client, &f->expected);
    assert_true(atomic_load(&fake_engine_counts(f->target)->need_prefix) > 0);
}

static void sends_only_what_is_new(void **state)
{
    fixture *f = *state;
    f->target = engine(f, "target", "t", 0);
    f->draft = engine(f, "draft", "d", 0);
    await_groups(f->client, 2);
    submit(f->client, "token", 1);
    follow_to(f->client, &f->expected);
    const fake_counts *c = fake_engine_counts(f->target);
    int calls = atomic_load(&c->verifies) + atomic_load(&c->generates);
    assert_int_equal(atomic_load(&c->need_prefix), 0);
    /* The prompt once, and a few tokens a call. */
    assert_true(atomic_load(&c->prefix_tokens) < 60 + 12 * calls);
    for (int i = 0; i < 100 && !atomic_load(&c->released); i++)
        fr_sleep_ms(10);
    assert_true(atomic_load(&c->released) > 0);
}

static void engine_errors_reach_the_client(void **state)
{
    fixture *f = *state;
    const fake_options o = {.endpoint = f->server.endpoint,
                            .role = "target",
                            .name = "t",
                            .model_digest = 11,
                            .tokenizer = f->tokenizer,
                            .refuses = FR_ELIMIT};
    f->target = fake_engine_start(&o);
    submit(f->client, "target", 1);
    fr_msg done;
    hear_kind(f->client, FR_MSG_DONE, &done);
    assert_string_equal(done.body.done.job.state, "failed");
    assert_int_equal(done.body.done.job.status, FR_ELIMIT);
    assert_string_equal(done.body.done.job.cause, "the fake engine refuses");
    fr_msg_free(&done);
}

/* A second target group that must not join the first: of another model, or another context. */
static void refuses_a_second(fixture *f, uint64_t model, uint32_t context)
{
    f->target = engine(f, "target", "t", 0);
    await_groups(f->client, 1);
    const fake_options o = {.endpoint = f->server.endpoint,
                            .role = "target",
                            .name = "other",
                            .model_digest = model,
                            .tokenizer = f->tokenizer,
                            .max_context = context};
    fake_engine *other = fake_engine_start(&o);
    for (int i = 0; i < 200 && !atomic_load(&fake_engine_counts(other)->refused); i++)
        fr_sleep_ms(10);
    assert_true(atomic_load(&fake_engine_counts(other)->refused) > 0);
    await_groups(f->client, 1);
    fake_engine_stop(&other);
}

static int is_over(fixture *f, uint64_t job)
{
    fr_msg m = status_of(f->client, job);
    assert_int_equal(m.body.status_reply.n_jobs, 1);
    const char *state = m.body.status_reply.jobs[0].state;
    const int over = strcmp(state, "queued") && strcmp(state, "running");
    fr_msg_free(&m);
    return over;
}

/* Every group dies as soon as it is sent the one job's call, and takes the other jobs' with it. It is always
 * replaced; the others live. */
static void a_job_that_kills_groups_fails_alone(void **state)
{
    enum { HEALTHY = 3, KILLS_MAX = 30, DEADLY_SEED = 666 };
    fixture *f = *state;
    const fake_options o = {.endpoint = f->server.endpoint,
                            .role = "target",
                            .name = "t",
                            .model_digest = 11,
                            .tokenizer = f->tokenizer,
                            .dies_of_seed = DEADLY_SEED};
    uint64_t jobs[1 + HEALTHY];
    f->draft = engine(f, "draft", "d", 0);
    await_groups(f->client, 1); /* all jobs begin with the first target */
    fr_msg m = submit_msg("target", 0), reply;
    m.body.submit.spec.sampling.seed = DEADLY_SEED;
    tell(f->client, &m);
    hear_kind(f->client, FR_MSG_SUBMITTED, &reply);
    jobs[0] = reply.body.submitted.job;
    fr_msg_free(&reply);
    for (int i = 1; i <= HEALTHY; i++)
        jobs[i] = submit(f->client, "token", 0);
    int n_over = 0, kills = 0;
    f->target = fake_engine_start(&o);
    while (n_over <= HEALTHY) {
        if (atomic_load(&fake_engine_counts(f->target)->struck)) {
            assert_true(++kills < KILLS_MAX);
            fake_engine_kill(&f->target);
            f->target = fake_engine_start(&o);
        }
        fr_sleep_ms(5);
        n_over += is_over(f, jobs[n_over]);
    }
    for (int i = 1; i <= HEALTHY; i++) {
        watch(f->client, jobs[i], 0);
        follow_to(f->client, &f->expected);
    }
    m = status_of(f->client, jobs[0]);
    const fr_msg_job_info *deadly = &m.body.status_reply.jobs[0];
    assert_string_equal(deadly->state, "failed");
    assert_int_equal(deadly->status, FR_EPEER);
    assert_string_equal(deadly->cause, "8 target groups were lost over the same call, which was alone on them");
    fr_msg_free(&m);
}

static void refuses_a_second_model(void **state)
{
    refuses_a_second(*state, 12, 4096);
}

static void refuses_a_second_context(void **state)
{
    refuses_a_second(*state, 11, 100);
}

/* Submits, and tells of the finished job whether it is marked. */
static int ends_batch_dependent(fixture *f, const char *policy)
{
    fr_msg done;
    submit(f->client, policy, 1);
    hear_kind(f->client, FR_MSG_DONE, &done);
    assert_done(&done, &f->expected);
    int marked = done.body.done.job.batch_dependent;
    fr_msg_free(&done);
    return marked;
}

static void tells_of_batch_dependent_groups(void **state)
{
    fixture *f = *state;
    fake_options o = {.endpoint = f->server.endpoint,
                      .role = "target",
                      .name = "fast",
                      .model_digest = 11,
                      .tokenizer = f->tokenizer,
                      .batch_dependent = 1};
    fake_engine *fast = fake_engine_start(&o);
    o = (fake_options){.endpoint = f->server.endpoint,
                       .role = "draft",
                       .name = "d",
                       .model_digest = 22,
                       .tokenizer = f->tokenizer,
                       .batch_dependent = 1};
    f->draft = fake_engine_start(&o);
    await_groups(f->client, 2);
    assert_int_equal(ends_batch_dependent(f, "token"), 1);
    assert_int_equal(ends_batch_dependent(f, "target"), 1);
    f->target = engine(f, "target", "exact", 0);
    await_groups(f->client, 3);
    fr_msg m = status_of(f->client, 0);
    for (size_t i = 0; i < m.body.status_reply.n_groups; i++) {
        const fr_msg_group_info *g = &m.body.status_reply.groups[i];
        assert_int_equal(g->batch_dependent, strcmp(g->name, "exact") != 0);
    }
    fr_msg_free(&m);
    assert_int_equal(ends_batch_dependent(f, "token"), 0);
    assert_int_equal(ends_batch_dependent(f, "target"), 0);
    fr_msg list = {.kind = FR_MSG_LIST_QUERY};
    tell(f->client, &list);
    hear_kind(f->client, FR_MSG_LIST_REPLY, &m);
    assert_int_equal(m.body.list_reply.n_jobs, 4);
    for (size_t i = 0; i < 4; i++) /* the latest first */
        assert_int_equal(m.body.list_reply.jobs[i].batch_dependent, i >= 2);
    fr_msg_free(&m);
    fake_engine_stop(&fast);
}

int main(void)
{
    fr_log_open("test_coordinator_groups", FR_LOG_ERROR);
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(survives_a_killed_group),
        T(survives_a_hanging_group),
        T(a_stream_is_not_joined_to_another_ones),
        T(what_is_committed_is_gone_on_from),
        T(waits_for_a_group_to_come_back),
        T(goes_on_without_the_draft),
        T(goes_on_behind_the_drafts_context),
        T(uses_a_draft_that_comes_late),
        T(steps_go_on_without_the_draft),
        T(resends_what_an_engine_forgot),
        T(sends_only_what_is_new),
        T(engine_errors_reach_the_client),
        T(a_job_that_kills_groups_fails_alone),
        T(refuses_a_second_model),
        T(refuses_a_second_context),
        T(tells_of_batch_dependent_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
