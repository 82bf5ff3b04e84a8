/* test_coordinator.c: what clients see of a whole coordinator (live_coordinator.h): jobs of every
 * policy, watching, status, refusals, malformed frames, the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zmq.h>

#include "clock.h"
#include "live_coordinator.h"
#include "log.h"

static void runs_every_policy(void **state)
{
    fixture *f = *state;
    f->target = engine(f, "target", "t", 0);
    f->draft = engine(f, "draft", "d", 0);
    await_groups(f->client, 2);
    submit(f->client, "target", 1);
    follow_to(f->client, &f->expected);
    submit(f->client, "token", 1);
    follow_to(f->client, &f->expected);
    assert_true(atomic_load(&fake_engine_counts(f->target)->verifies) > 0);
    assert_true(atomic_load(&fake_engine_counts(f->draft)->generates) > 0);
    submit(f->client, "step", 1);
    fr_buf text = {0};
    fr_msg done;
    follow(f->client, 0, &text, &done);
    assert_string_equal(done.body.done.job.state, "done");
    assert_text(&text, done.body.done.job.text.data, done.body.done.job.text.len);
    assert_true(done.body.done.job.drafted > done.body.done.job.accepted);
    assert_true(done.body.done.job.accepted > 0);
    assert_true(done.body.done.job.passes > 0);
    fr_msg_free(&done);
    fr_buf_free(&text);
}

static void status_and_list_tell_the_truth(void **state)
{
    fixture *f = *state;
    uint64_t id = submit(f->client, "step", 0);
    fr_msg m = status_of(f->client, id);
    assert_int_equal(m.body.status_reply.n_jobs, 1);
    assert_string_equal(m.body.status_reply.jobs[0].state, "queued");
    assert_string_equal(m.body.status_reply.jobs[0].cause, "waiting for a target group");
    fr_msg_free(&m);
    f->target = engine(f, "target", "t", 0);
    await_groups(f->client, 1);
    for (int i = 0, seen = 0; !seen; i++) {
        m = status_of(f->client, id);
        seen = !strcmp(m.body.status_reply.jobs[0].cause, "waiting for a draft group");
        fr_msg_free(&m);
        assert_true(i < 100);
    }
    f->draft = engine(f, "draft", "d", 0);
    watch(f->client, id, 0);
    fr_msg done;
    hear_kind(f->client, FR_MSG_DONE, &done);
    assert_int_equal(done.tag, 9);
    fr_msg_free(&done);
    m = status_of(f->client, id);
    assert_string_equal(m.body.status_reply.jobs[0].state, "done");
    assert_true(m.body.status_reply.jobs[0].text.len > 0);
    fr_msg_free(&m);
    fr_msg list = {.kind = FR_MSG_LIST_QUERY, .body.list_query = {.state = "done"}};
    tell(f->client, &list);
    hear_kind(f->client, FR_MSG_LIST_REPLY, &m);
    assert_int_equal(m.body.list_reply.n_jobs, 1);
    assert_string_equal(m.body.list_reply.jobs[0].spec.problem, PROBLEM);
    fr_msg_free(&m);
    list.body.list_query.state = "finished";
    expect_error(f->client, &list, FR_EINVAL, "\"finished\" is unknown");
}

/* More texts than a frame holds: the beginnings are told, in whole characters. */
static void a_list_shows_beginnings(void **state)
{
    fixture *f = *state;
    enum { JOBS = 66, BYTES = 1 << 20 };
    char *system = malloc(BYTES + 1);
    assert_non_null(system);
    for (int i = 0; i + 3 <= BYTES; i += 3)
        memcpy(system + i, "\xe5\xad\x97", 4);
    for (int i = 0; i < JOBS; i++) {
        fr_msg m = submit_msg("target", 0), reply;
        m.body.submit.spec.system = system;
        tell(f->client, &m);
        hear_kind(f->client, FR_MSG_SUBMITTED, &reply);
        fr_msg_free(&reply);
    }
    fr_msg list = {.kind = FR_MSG_LIST_QUERY, .body.list_query = {.state = "", .limit = JOBS}}, m;
    tell(f->client, &list);
    hear_kind(f->client, FR_MSG_LIST_REPLY, &m);
    assert_int_equal(m.body.list_reply.n_jobs, JOBS);
    for (int i = 0; i < JOBS; i++) {
        assert_int_equal(strlen(m.body.list_reply.jobs[i].spec.system), 1023);
        assert_memory_equal(m.body.list_reply.jobs[i].spec.system, system, 1023);
    }
    fr_msg_free(&m);
    free(system);
}

static void refuses_bad_specs(void **state)
{
    fixture *f = *state;
    f->target = engine(f, "target", "t", 0);
    await_groups(f->client, 1);
    fr_msg m = submit_msg("tokens", 0);
    expect_error(f->client, &m, FR_EINVAL,
                 "policy: \"tokens\" is unknown; there are target, draft, token, step");
    m = submit_msg("step", 0);
    m.body.submit.spec.judge = "oracle";
    expect_error(f->client, &m, FR_EINVAL, "judge: \"oracle\" is unknown");
    m.body.submit.spec.judge = "score";
    m.body.submit.spec.threshold = 10;
    expect_error(f->client, &m, FR_EINVAL, "threshold: 10 is out of range");
    m = submit_msg("target", 0);
    m.body.submit.spec.problem = " \n";
    expect_error(f->client, &m, FR_EINVAL, "problem: it is empty");
    m = submit_msg("target", 0);
    m.body.submit.spec.sampling.temperature = -1;
    expect_error(f->client, &m, FR_EINVAL, "temperature: -1 is out of range");
    m.body.submit.spec.sampling.temperature = 1e-38f;
    expect_error(f->client, &m, FR_EINVAL, "temperature: 1e-38 is out of range");
    m.body.submit.spec.sampling = (fr_msg_sampling){.top_p = 2};
    expect_error(f->client, &m, FR_EINVAL, "top_p: 2 is out of range");
    m = submit_msg("target", 0);
    m.body.submit.spec.max_tokens = 1u << 30;
    expect_error(f->client, &m, FR_EINVAL, "max_tokens: 1073741824 is out of range");
    char *longest = calloc(1, 20001);
    memset(longest, 'x', 20000);
    m = submit_msg("target", 0);
    m.body.submit.spec.problem = longest;
    expect_error(f->client, &m, FR_ELIMIT, "the context of fake holds 4096");
    free(longest);
}

static void cancels(void **state)
{
    fixture *f = *state;
    f->target = engine(f, "target", "t", 20);
    uint64_t id = submit(f->client, "target", 1);
    fr_msg m;
    hear_kind(f->client, FR_MSG_PROGRESS, &m);
    fr_msg_free(&m);
    fr_msg cancel = {.kind = FR_MSG_CANCEL_JOB, .tag = 5, .body.cancel_job.job = id};
    tell(f->client, &cancel);
    hear_kind(f->client, FR_MSG_OK, &m);
    assert_int_equal(m.tag, 5);
    fr_msg_free(&m);
    hear_kind(f->client, FR_MSG_DONE, &m);
    assert_string_equal(m.body.done.job.state, "cancelled");
    assert_int_equal(m.body.done.job.status, FR_ECANCELLED);
    fr_msg_free(&m);
    tell(f->client, &cancel); /* once more is fine */
    hear_kind(f->client, FR_MSG_OK, &m);
    fr_msg_free(&m);
    cancel.body.cancel_job.job = 999;
    expect_error(f->client, &cancel, FR_ENOTFOUND, "there is no job 999");
    fr_msg lost = {.kind = FR_MSG_WATCH, .body.watch = {999, 0}};
    expect_error(f->client, &lost, FR_ENOTFOUND, "there is no job 999");
}

static void two_watchers_see_the_same(void **state)
{
    fixture *f = *state;
    f->target = engine(f, "target", "t", 3);
    uint64_t id = submit(f->client, "target", 1);
    fr_link *second = NULL;
    assert_int_equal(fr_link_connect(f->server.endpoint, 0, &second), FR_OK);
    fr_sleep_ms(80);
    watch(second, id, 0); /* late, from the beginning */
    follow_to(f->client, &f->expected);
    follow_to(second, &f->expected);
    watch(second, id, 2); /* of a finished job, not from the beginning */
    fr_buf text = {0};
    fr_msg done;
    follow(second, 2, &text, &done);
    assert_true(text.len < f->expected.len);
    assert_memory_equal(text.data, f->expected.data + (f->expected.len - text.len), text.len);
    fr_buf_free(&text);
    fr_msg_free(&done);
    fr_link_close(&second, 0);
}

/* Bytes that are no frame, frames that are no message, and messages that no client sends. */
static void malformed_frames_do_no_harm(void **state)
{
    fixture *f = *state;
    void *context = zmq_ctx_new(), *raw = zmq_socket(context, ZMQ_DEALER);
    int linger = 0;
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof linger);
    assert_int_equal(zmq_connect(raw, f->server.endpoint), 0);
    static const char *const frames[] = {"", "x", "FRN\x01\x04\0\0\0\xff\xff\xff\xff",
                                         "FRN\x09\0\0\0\0", "GET / HTTP/1.1\r\n\r\n"};
    static const size_t sizes[] = {0, 1, 12, 8, 18};
    char reply[512];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_true(zmq_send(raw, frames[i], sizes[i], 0) >= 0);
        assert_true(zmq_recv(raw, reply, sizeof reply, 0) > 8); /* the error */
    }
    zmq_close(raw);
    zmq_ctx_term(context);
    fr_msg odd = {.kind = FR_MSG_OK, .tag = 4};
    expect_error(f->client, &odd, FR_EPROTO, "nothing to tell a coordinator");
    f->target = engine(f, "target", "t", 0);
    submit(f->client, "target", 1);
    follow_to(f->client, &f->expected);
}

/* A watcher that never reads does not hold up the others. */
static void slow_watchers_hold_up_nobody(void **state)
{
    fixture *f = *state;
    f->target = engine(f, "target", "t", 0);
    fr_link *slow = NULL;
    assert_int_equal(fr_link_connect(f->server.endpoint, 0, &slow), FR_OK);
    for (int i = 0; i < 20; i++) {
        uint64_t id = submit(f->client, "target", 0);
        for (int k = 0; k < 40; k++)
            watch(slow, id, 0);
        watch(f->client, id, 0);
        fr_buf text = {0};
        fr_msg done;
        follow(f->client, 0, &text, &done);
        assert_done(&done, &f->expected);
        fr_buf_free(&text);
        fr_msg_free(&done);
    }
    fr_link_close(&slow, 0);
}

static void stops_when_told(void **state)
{
    fixture *f = *state;
    f->target = engine(f, "target", "t", 2);
    uint64_t id = submit(f->client, "target", 1);
    fr_msg m, stop = {.kind = FR_MSG_STOP_CLUSTER, .body.stop_cluster.drain = 1};
    hear_kind(f->client, FR_MSG_PROGRESS, &m);
    fr_msg_free(&m);
    tell(f->client, &stop);
    hear_kind(f->client, FR_MSG_OK, &m);
    fr_msg_free(&m);
    fr_msg late = submit_msg("target", 0);
    tell(f->client, &late);
    for (int refused = 0; !refused; fr_msg_free(&m)) {
        hear(f->client, &m);
        refused = m.kind == FR_MSG_ERROR;
        if (refused)
            assert_int_equal(m.body.error.status, FR_EUNAVAILABLE);
    }
    hear_kind(f->client, FR_MSG_DONE, &m); /* what runs is finished first */
    assert_int_equal(m.body.done.job.job, id);
    assert_string_equal(m.body.done.job.state, "done");
    fr_msg_free(&m);
    fake_engine_stop(&f->target);
    server_join(&f->server);
    server_start(&f->server, "tcp://127.0.0.1:*", NULL); /* for the tear-down */
}

static void busy_port_and_store(void **state)
{
    fixture *f = *state;
    server second;
    server_start(&second, f->server.endpoint, NULL);
    assert_int_equal(second.open_status, FR_EBUSY);
    server_join(&second);
}

int main(void)
{
    fr_log_open("test_coordinator", FR_LOG_ERROR);
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(runs_every_policy),
        T(status_and_list_tell_the_truth),
        T(a_list_shows_beginnings),
        T(refuses_bad_specs),
        T(cancels),
        T(two_watchers_see_the_same),
        T(malformed_frames_do_no_harm),
        T(slow_watchers_hold_up_nobody),
        T(stops_when_told),
        T(busy_port_and_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
