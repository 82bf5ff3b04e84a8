/* test_coordinator_restart.c: a coordinator that starts again (live_coordinator.h): the store in a
 * file, and the same endpoint again; and one whose disk is full for a while. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "chain.h"
#include "clock.h"
#include "live_coordinator.h"
#include "log.h"
#include "own_loopback.h"

static void restart_continues(void **state)
{
    static const char *const policies[] = {"target", "token"};
    char path[64];
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_coordinator_%d.db", getpid());
    fixture f = {.tokenizer = fake_tokenizer()};
    fake_text(f.tokenizer, PROBLEM, 1000, &f.expected);
    for (size_t i = 0; i < 2; i++) {
        unlink(path);
        char endpoint[256];
        const struct in_addr own = {htonl(own_loopback())};
        snprintf(endpoint, sizeof endpoint, "tcp://%s:*", inet_ntoa(own));
        server_start(&f.server, endpoint, path);
        assert_int_equal(f.server.open_status, FR_OK);
        memcpy(endpoint, f.server.endpoint, sizeof endpoint);
        const fake_options slow = {.endpoint = endpoint,
                                   .role = "target",
                                   .name = "t",
                                   .model_digest = 11,
                                   .tokenizer = f.tokenizer,
                                   .token_ms = 5,
                                   .batch_dependent = 1};
        f.target = fake_engine_start(&slow);
        f.draft = engine(&f, "draft", "d", 0);
        assert_int_equal(fr_link_connect(endpoint, 0, &f.client), FR_OK);
        await_groups(f.client, 2);
        uint64_t id = submit(f.client, policies[i], 1);
        fr_msg m;
        hear_kind(f.client, FR_MSG_STEP, &m); /* something is committed */
        fr_msg_free(&m);
        server_stop(&f.server);
        fake_engine_stop(&f.target);
        fake_engine_stop(&f.draft);
        fr_link_close(&f.client, 0);
        server_start_again(&f.server, endpoint, path);
        if (f.server.open_status != FR_OK)
            fail_msg("the second coordinator does not start: %s", f.server.cause);
        f.target = engine(&f, "target", "t", 0);
        f.draft = engine(&f, "draft", "d", 0);
        assert_int_equal(fr_link_connect(endpoint, 0, &f.client), FR_OK);
        watch(f.client, id, 0);
        follow_to(f.client, &f.expected);
        m = status_of(f.client, id);
        assert_int_equal(m.body.status_reply.jobs[0].batch_dependent, 1); /* as its beginning was */
        fr_msg_free(&m);
        server_stop(&f.server);
        fake_engine_stop(&f.target);
        fake_engine_stop(&f.draft);
        fr_link_close(&f.client, 0);
    }
    unlink(path);
    fr_buf_free(&f.expected);
    fr_tokenizer_free(&f.tokenizer);
}

/* An open job is not continued with another model. */
static void restart_refuses_another_model(void **state)
{
    char path[64];
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_coordinator_%d.db", getpid());
    fixture f = {.tokenizer = fake_tokenizer()};
    unlink(path);
    server_start(&f.server, "tcp://127.0.0.1:*", path);
    f.target = engine(&f, "target", "t", 5);
    assert_int_equal(fr_link_connect(f.server.endpoint, 0, &f.client), FR_OK);
    uint64_t id = submit(f.client, "target", 1);
    fr_msg m;
    hear_kind(f.client, FR_MSG_STEP, &m);
    fr_msg_free(&m);
    server_stop(&f.server);
    fake_engine_stop(&f.target);
    fr_link_close(&f.client, 0);
    server_start(&f.server, "tcp://127.0.0.1:*", path);
    const fake_options other = {.endpoint = f.server.endpoint,
                                .role = "target",
                                .name = "t",
                                .model_digest = 99,
                                .tokenizer = f.tokenizer};
    f.target = fake_engine_start(&other);
    assert_int_equal(fr_link_connect(f.server.endpoint, 0, &f.client), FR_OK);
    watch(f.client, id, 0);
    hear_kind(f.client, FR_MSG_DONE, &m);
    assert_string_equal(m.body.done.job.state, "failed");
    assert_int_equal(m.body.done.job.status, FR_EMISMATCH);
    assert_non_null(strstr(m.body.done.job.cause, "was begun with target fake"));
    fr_msg_free(&m);
    server_stop(&f.server);
    fake_engine_stop(&f.target);
    fr_link_close(&f.client, 0);
    fr_tokenizer_free(&f.tokenizer);
    unlink(path);
}

/* A chain ends where the context ends that it was begun with, though the groups that come back have more. */
static void restart_keeps_the_context(void **state)
{
    enum { ROOM = 30 };
    char path[64];
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_coordinator_%d.db", getpid());
    fixture f = {.tokenizer = fake_tokenizer()};
    fr_chain chain = {0};
    fr_buf text = {0};
    fr_msg m;
    assert_int_equal(fr_chain_open(&chain, f.tokenizer, NULL, NULL, PROBLEM, 0), FR_OK);
    fake_text(f.tokenizer, PROBLEM, ROOM, &f.expected);
    unlink(path);
    server_start(&f.server, "tcp://127.0.0.1:*", path);
    const fake_options slow = {.endpoint = f.server.endpoint,
                               .role = "target",
                               .name = "t",
                               .model_digest = 11,
                               .tokenizer = f.tokenizer,
                               .token_ms = 5,
                               .max_context = (uint32_t)chain.ids.len + ROOM};
    f.target = fake_engine_start(&slow);
    assert_int_equal(fr_link_connect(f.server.endpoint, 0, &f.client), FR_OK);
    uint64_t id = submit(f.client, "target", 1);
    hear_kind(f.client, FR_MSG_STEP, &m);
    fr_msg_free(&m);
    server_stop(&f.server);
    fake_engine_stop(&f.target);
    fr_link_close(&f.client, 0);
    server_start(&f.server, "tcp://127.0.0.1:*", path);
    f.target = engine(&f, "target", "t", 0);
    assert_int_equal(fr_link_connect(f.server.endpoint, 0, &f.client), FR_OK);
    watch(f.client, id, 0);
    follow(f.client, 0, &text, &m);
    assert_string_equal(m.body.done.job.stop, "context");
    assert_text(&f.expected, text.data, text.len);
    fr_msg_free(&m);
    server_stop(&f.server);
    fake_engine_stop(&f.target);
    fr_link_close(&f.client, 0);
    fr_chain_close(&chain);
    fr_buf_free(&text);
    fr_buf_free(&f.expected);
    fr_tokenizer_free(&f.tokenizer);
    unlink(path);
}

/* The disk of this process takes no more, until it is as before. */
static void fill_disk(struct rlimit *before)
{
    getrlimit(RLIMIT_FSIZE, before);
    struct rlimit none = *before;
    none.rlim_cur = 0;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
}

static void assert_begins_with(const fr_buf *whole, fr_bytes part)
{
    assert_true(part.len > 0 && part.len < whole->len);
    assert_memory_equal(whole->data, part.data, part.len);
}

/* A coordinator with a store, and a target that takes so long for a token. */
static void set_up_on_disk(fixture *f, char path[64], int token_ms)
{
    snprintf(path, 64, "/tmp/test_coordinator_%d.db", getpid());
    f->tokenizer = fake_tokenizer();
    fake_text(f->tokenizer, PROBLEM, 1000, &f->expected);
    unlink(path);
    server_start(&f->server, "tcp://127.0.0.1:*", path);
    f->target = engine(f, "target", "t", token_ms);
    assert_int_equal(fr_link_connect(f->server.endpoint, 0, &f->client), FR_OK);
}

static void tear_down_on_disk(fixture *f, const char *path)
{
    server_stop(&f->server);
    fake_engine_stop(&f->target);
    fr_link_close(&f->client, 0);
    fr_buf_free(&f->expected);
    fr_tokenizer_free(&f->tokenizer);
    unlink(path);
}

/* While the disk takes no more, what it holds of jobs is read, and no end is told that it does not hold. */
static void full_disk_is_read(void **state)
{
    char path[64];
    fixture f = {0};
    (void)state;
    set_up_on_disk(&f, path, 5);
    fr_msg m;
    const uint64_t stored = submit(f.client, "target", 1);
    hear_kind(f.client, FR_MSG_DONE, &m);
    fr_msg_free(&m);
    const uint64_t begun = submit(f.client, "target", 1);
    hear_kind(f.client, FR_MSG_STEP, &m);
    fr_msg_free(&m);
    struct rlimit before;
    fill_disk(&before);
    fr_link *other = NULL; /* the client above hears how the second job gets on */
    assert_int_equal(fr_link_connect(f.server.endpoint, 0, &other), FR_OK);
    for (uint32_t running = 1; running > 0; fr_msg_free(&m)) {
        m = status_of(other, 0);
        running = m.body.status_reply.running;
        fr_sleep_ms(10);
    }

    m = status_of(other, stored);
    assert_string_equal(m.body.status_reply.jobs[0].state, "done");
    assert_text(&f.expected, m.body.status_reply.jobs[0].text.data, m.body.status_reply.jobs[0].text.len);
    fr_msg_free(&m);
    m = status_of(other, begun);
    assert_string_equal(m.body.status_reply.jobs[0].state, "running");
    assert_begins_with(&f.expected, m.body.status_reply.jobs[0].text);
    fr_msg_free(&m);
    fr_msg list = {.kind = FR_MSG_LIST_QUERY, .body.list_query.state = ""};
    tell(other, &list);
    hear_kind(other, FR_MSG_LIST_REPLY, &m);
    assert_int_equal(m.body.list_reply.n_jobs, 2);
    fr_msg_free(&m);
    watch(other, stored, 0);
    follow_to(other, &f.expected);
    watch(other, begun, 0);
    hear_kind(other, FR_MSG_STEP, &m);
    assert_begins_with(&f.expected, m.body.step.text);
    fr_msg_free(&m);

    m = submit_msg("target", 0);
    tell(other, &m); /* nothing is heard of it yet, but that it is there */
    m = status_of(other, begun + 1);
    assert_string_equal(m.body.status_reply.jobs[0].state, "queued");
    fr_msg_free(&m);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    hear_kind(f.client, FR_MSG_DONE, &m);
    assert_done(&m, &f.expected);
    fr_msg_free(&m);
    fr_link_close(&other, 0);
    tear_down_on_disk(&f, path);
}

/* What list and status tell of a job: the same. */
static void assert_shown(fr_link *l, uint64_t job, const char *state, const char *cause)
{
    fr_msg m = {.kind = FR_MSG_LIST_QUERY, .tag = 4, .body.list_query.state = state};
    const fr_msg_job_info *listed = NULL;
    tell(l, &m);
    hear_reply(l, m.tag, FR_MSG_LIST_REPLY, &m);
    for (size_t i = 0; i < m.body.list_reply.n_jobs; i++)
        if (m.body.list_reply.jobs[i].job == job)
            listed = &m.body.list_reply.jobs[i];
    assert_non_null(listed);
    assert_string_equal(listed->state, state);
    assert_string_equal(listed->cause, cause);
    assert_string_equal(listed->spec.problem, PROBLEM);
    fr_msg_free(&m);
    m = status_of(l, job);
    assert_int_equal(m.body.status_reply.n_jobs, 1);
    assert_string_equal(m.body.status_reply.jobs[0].state, state);
    assert_string_equal(m.body.status_reply.jobs[0].cause, cause);
    assert_string_equal(m.body.status_reply.jobs[0].spec.problem, PROBLEM);
    fr_msg_free(&m);
}

/* Before the reply with that tag comes: what it waits for. */
static uint64_t assert_waits(fr_link *l, uint64_t tag, const char *cause)
{
    fr_msg m;
    hear_reply(l, tag, FR_MSG_STATUS_REPLY, &m);
    assert_int_equal(m.body.status_reply.n_jobs, 1);
    assert_string_equal(m.body.status_reply.jobs[0].cause, cause);
    const uint64_t job = m.body.status_reply.jobs[0].job;
    fr_msg_free(&m);
    return job;
}

/* While the disk takes no more, who submits or cancels hears what the reply waits for, and status, list and watch know
 * the jobs that are not stored. */
static void full_disk_is_told_of(void **state)
{
    char path[64];
    fixture f = {0};
    (void)state;
    set_up_on_disk(&f, path, 100); /* no job gets to its end */
    await_groups(f.client, 1);
    fr_link *watcher = NULL, *other = NULL;
    assert_int_equal(fr_link_connect(f.server.endpoint, 0, &watcher), FR_OK);
    assert_int_equal(fr_link_connect(f.server.endpoint, 0, &other), FR_OK);
    struct rlimit before;
    fill_disk(&before);
    static const char waits_for_store[] = "waiting for the store to be written",
                      end_waits[] = "it is over; its end waits for the store to be written";
    uint64_t jobs[2];
    fr_msg m;
    for (uint64_t i = 0; i < 2; i++) {
        fr_msg submission = submit_msg("target", 0);
        submission.tag = 10 + i;
        tell(f.client, &submission);
        jobs[i] = assert_waits(f.client, 10 + i, waits_for_store);
        if (i == 0) /* it has begun in the turn that found the disk full */
            assert_shown(other, jobs[i], "running", "");
        else
            assert_shown(other, jobs[i], "queued", waits_for_store);

        const fr_msg cancel = {.kind = FR_MSG_CANCEL_JOB, .tag = 20 + i, .body.cancel_job.job = jobs[i]};
        tell(f.client, &cancel);
        assert_int_equal(assert_waits(f.client, 20 + i, "it runs no more; its end waits for the store to be written"),
                         jobs[i]);
        assert_shown(other, jobs[i], "queued", end_waits);
        expect_error(other, &cancel, FR_EINVAL, end_waits);
        watch(watcher, jobs[i], 0);
    }
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    for (uint64_t i = 0; i < 2; i++) {
        hear_reply(f.client, 10 + i, FR_MSG_SUBMITTED, &m);
        fr_msg_free(&m);
        hear_reply(f.client, 20 + i, FR_MSG_OK, &m);
        fr_msg_free(&m);
        hear_kind(watcher, FR_MSG_DONE, &m);
        assert_int_equal(m.body.done.job.job, jobs[i]);
        assert_string_equal(m.body.done.job.state, "cancelled");
        fr_msg_free(&m);
        assert_shown(other, jobs[i], "cancelled", "cancelled by a client");
    }
    fr_link_close(&watcher, 0);
    fr_link_close(&other, 0);
    tear_down_on_disk(&f, path);
}

/* A coordinator that stops before its disk takes more says that it does not have what it could not store. */
static void full_disk_to_the_end(void **state)
{
    char path[64];
    fixture f = {0};
    (void)state;
    set_up_on_disk(&f, path, 5);
    await_groups(f.client, 1);
    struct rlimit before;
    fill_disk(&before);
    fr_msg m = submit_msg("target", 0);
    tell(f.client, &m);
    assert_waits(f.client, 7, "waiting for the store to be written");
    server_stop(&f.server);
    hear_kind(f.client, FR_MSG_ERROR, &m);
    assert_int_equal(m.tag, 7);
    assert_int_equal(m.body.error.status, FR_EUNAVAILABLE);
    assert_string_equal(m.body.error.cause, "the coordinator stops, and could not store the job: it does not run");
    fr_msg_free(&m);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    server_start(&f.server, "tcp://127.0.0.1:*", path);
    tear_down_on_disk(&f, path);
}

/* A disk that takes no more for a while: what is submitted then waits, and runs afterwards. */
static void full_disk_loses_no_job(void **state)
{
    enum { MOST = 50 };
    char path[64];
    fixture f = {0};
    (void)state;
    set_up_on_disk(&f, path, 0);
    await_groups(f.client, 1);
    struct rlimit before;
    fill_disk(&before);
    fr_msg m = submit_msg("target", 0), reply;
    int n = 0, held = 0;
    while (!held && n < MOST) { /* the first ones find it full when they start */
        tell(f.client, &m);
        n++;
        fr_sleep_ms(20);
        reply = status_of(f.client, 0);
        held = reply.body.status_reply.queued > 0;
        fr_msg_free(&reply);
    }
    assert_true(held);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    uint64_t ids[MOST];
    for (int i = 0; i < n; i++) {
        hear_kind(f.client, FR_MSG_SUBMITTED, &reply);
        ids[i] = reply.body.submitted.job;
        fr_msg_free(&reply);
    }
    for (int i = 0; i < n; i++) {
        watch(f.client, ids[i], 0);
        follow_to(f.client, &f.expected);
    }
    tear_down_on_disk(&f, path);
}

int main(void)
{
    fr_log_open("test_coordinator_restart", FR_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(restart_continues),
        cmocka_unit_test(restart_refuses_another_model),
        cmocka_unit_test(restart_keeps_the_context),
        cmocka_unit_test(full_disk_is_read),
        cmocka_unit_test(full_disk_is_told_of),
        cmocka_unit_test(full_disk_to_the_end),
        cmocka_unit_test(full_disk_loses_no_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
