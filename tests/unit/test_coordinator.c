/* test_coordinator.c: a whole coordinator in a thread, with engines and clients over TCP. The
 * engines are fake ones whose text is a pure function of the prefix (fake_engine.h): whatever
 * happens on the way, the text must be that one. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

#include "clock.h"
#include "fake_engine.h"
#include "log.h"
#include "loop.h"

#define PROBLEM "What is 2 + 3?"
enum { WAIT_MS = 20000 };

/* ---- a coordinator in a thread */

typedef struct server {
    fr_coordinator_options options;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t opened;
    int is_open;
    fr_status open_status;
    fr_status status;
    char endpoint[256];
    fr_coordinator *c;
} server;

static void on_wake(void *ctx)
{
    server *s = ctx;
    uint64_t n;
    if (read(s->options.wake_fd, &n, sizeof n) == sizeof n)
        fr_coordinator_stop(s->c);
}

static void *serve(void *arg)
{
    server *s = arg;
    fr_status st = fr_coordinator_open(&s->options, &s->c);
    pthread_mutex_lock(&s->lock);
    s->is_open = 1;
    s->open_status = st;
    if (st == FR_OK)
        snprintf(s->endpoint, sizeof s->endpoint, "%s", fr_coordinator_endpoint(s->c));
    pthread_cond_signal(&s->opened);
    pthread_mutex_unlock(&s->lock);
    if (st == FR_OK)
        s->status = fr_coordinator_run(s->c);
    fr_coordinator_close(&s->c);
    return NULL;
}

static void server_start(server *s, const char *bind, const char *store)
{
    const fr_coordinator_options options = FR_COORDINATOR_OPTIONS;
    *s = (server){
        .options = options, .lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER};
    s->options.bind = bind;
    s->options.store = store;
    s->options.heartbeat_ms = 100;
    s->options.dead_after_ms = 500;
    s->options.grace_ms = 300;
    s->options.overlap = 1;
    s->options.wake_fd = eventfd(0, 0);
    s->options.woken = on_wake;
    s->options.ctx = s;
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
    pthread_mutex_lock(&s->lock);
    while (!s->is_open)
        pthread_cond_wait(&s->opened, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

static void server_join(server *s)
{
    pthread_join(s->thread, NULL);
    close(s->options.wake_fd);
}

static void server_stop(server *s)
{
    const uint64_t one = 1;
    assert_int_equal(write(s->options.wake_fd, &one, sizeof one), sizeof one);
    server_join(s);
    assert_int_equal(s->status, FR_OK);
}

/* ---- the cluster that most tests want */

typedef struct fixture {
    server server;
    fr_tokenizer *tokenizer;
    fake_engine *target, *draft;
    fr_link *client;
    fr_buf expected;
} fixture;

static fake_engine *engine(fixture *f, const char *role, const char *name, int token_ms)
{
    const fake_options o = {.endpoint = f->server.endpoint,
                            .role = role,
                            .name = name,
                            .token_ms = token_ms,
                            .model_digest = role[0] == 't' ? 11 : 22,
                            .tokenizer = f->tokenizer};
    return fake_engine_start(&o);
}

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->tokenizer = fake_tokenizer();
    fake_text(f->tokenizer, PROBLEM, 1000, &f->expected);
    server_start(&f->server, "tcp://127.0.0.1:*", NULL);
    assert_int_equal(f->server.open_status, FR_OK);
    assert_int_equal(fr_link_connect(f->server.endpoint, 0, &f->client), FR_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    fr_link_close(&f->client, 0);
    fake_engine_stop(&f->target);
    fake_engine_stop(&f->draft);
    server_stop(&f->server);
    fr_buf_free(&f->expected);
    fr_tokenizer_free(&f->tokenizer);
    free(f);
    return 0;
}

/* ---- a client */

static void tell(fr_link *l, const fr_msg *m)
{
    assert_int_equal(fr_link_send(l, NULL, m), FR_OK);
}

static void hear(fr_link *l, fr_msg *m)
{
    fr_status st = fr_link_recv(l, WAIT_MS, NULL, m);
    if (st != FR_OK)
        fail_msg("no message: %s", fr_cause());
}

/* The next message of that kind; others are dropped, but an error fails the test unless it is what
 * is waited for. */
static void hear_kind(fr_link *l, fr_msg_kind kind, fr_msg *m)
{
    for (;;) {
        hear(l, m);
        if (m->kind == kind)
            return;
        if (m->kind == FR_MSG_ERROR)
            fail_msg("error instead of %s: %s", fr_msg_kind_name(kind), m->body.error.cause);
        fr_msg_free(m);
    }
}

static fr_msg submit_msg(const char *policy, int watch)
{
    fr_msg m = {.kind = FR_MSG_SUBMIT, .tag = 7};
    m.body.submit = (fr_msg_submit){.watch = watch,
                                    .spec = {.problem = PROBLEM,
                                             .system = "",
                                             .policy = policy,
                                             .judge = "",
                                             .delimiter = "",
                                             .name = "",
                                             .threshold = NAN,
                                             .max_tokens = 1000}};
    return m;
}

static uint64_t submit(fr_link *l, const char *policy, int watch)
{
    fr_msg m = submit_msg(policy, watch), reply;
    tell(l, &m);
    hear(l, &reply);
    if (reply.kind == FR_MSG_ERROR)
        fail_msg("submit: %s", reply.body.error.cause);
    assert_int_equal(reply.kind, FR_MSG_SUBMITTED);
    assert_int_equal(reply.tag, 7);
    uint64_t id = reply.body.submitted.job;
    fr_msg_free(&reply);
    return id;
}

static void watch(fr_link *l, uint64_t job, uint32_t from)
{
    fr_msg m = {.kind = FR_MSG_WATCH, .tag = 9, .body.watch = {job, from}};
    tell(l, &m);
}

/* Watches to the end: the steps' numbers have no gap, and accepted ones add up to the text. */
static void follow(fr_link *l, uint32_t from, fr_buf *text, fr_msg *done)
{
    uint32_t next = from;
    for (;;) {
        fr_msg m;
        hear(l, &m);
        if (m.kind == FR_MSG_ERROR)
            fail_msg("watching: %s", m.body.error.cause);
        if (m.kind == FR_MSG_DONE) {
            *done = m;
            return;
        }
        if (m.kind == FR_MSG_STEP) {
            assert_int_equal(m.body.step.index, next++);
            if (strcmp(m.body.step.verdict, "rejected"))
                assert_int_equal(fr_buf_put(text, m.body.step.text.data, m.body.step.text.len),
                                 FR_OK);
        }
        fr_msg_free(&m);
    }
}

static void assert_text(const fr_buf *expected, const void *data, size_t n)
{
    if (expected->len != n || memcmp(expected->data, data, n))
        fail_msg("text of %zu bytes, want %zu:\n%.*s\n---- want\n%.*s", n, expected->len, (int)n,
                 (const char *)data, (int)expected->len, (const char *)expected->data);
}

static void assert_done(const fr_msg *done, const fr_buf *expected)
{
    const fr_msg_job_info *job = &done->body.done.job;
    if (strcmp(job->state, "done"))
        fail_msg("job %s: %s", job->state, job->cause);
    assert_string_equal(job->stop, "end");
    assert_text(expected, job->text.data, job->text.len);
}

static void follow_to(fr_link *l, const fr_buf *expected)
{
    fr_buf text = {0};
    fr_msg done;
    follow(l, 0, &text, &done);
    assert_done(&done, expected);
    assert_text(expected, text.data, text.len);
    fr_buf_free(&text);
    fr_msg_free(&done);
}

static void expect_error(fr_link *l, const fr_msg *m, fr_status status, const char *part)
{
    fr_msg reply;
    tell(l, m);
    hear(l, &reply);
    assert_int_equal(reply.kind, FR_MSG_ERROR);
    if (reply.body.error.status != (int)status || !strstr(reply.body.error.cause, part))
        fail_msg("error %d \"%s\", want %d \"%s\"", reply.body.error.status, reply.body.error.cause,
                 status, part);
    fr_msg_free(&reply);
}

static fr_msg status_of(fr_link *l, uint64_t job)
{
    fr_msg m = {.kind = FR_MSG_STATUS_QUERY, .tag = 3, .body.status_query.job = job}, reply;
    tell(l, &m);
    hear_kind(l, FR_MSG_STATUS_REPLY, &reply);
    return reply;
}

/* Waits until the cluster counts so many live groups. */
static void await_groups(fr_link *l, size_t want)
{
    for (int i = 0; i < 400; i++) {
        fr_msg m = status_of(l, 0);
        size_t live = 0;
        for (size_t k = 0; k < m.body.status_reply.n_groups; k++)
            live += m.body.status_reply.groups[k].alive != 0;
        fr_msg_free(&m);
        if (live == want)
            return;
        fr_sleep_ms(20);
    }
    fail_msg("%zu live groups never came", want);
}

/* ---- tests */

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

static void refuses_a_second_model(void **state)
{
    fixture *f = *state;
    f->target = engine(f, "target", "t", 0);
    await_groups(f->client, 1);
    const fake_options o = {.endpoint = f->server.endpoint,
                            .role = "target",
                            .name = "other",
                            .model_digest = 12,
                            .tokenizer = f->tokenizer};
    fake_engine *other = fake_engine_start(&o);
    for (int i = 0; i < 200 && !atomic_load(&fake_engine_counts(other)->refused); i++)
        fr_sleep_ms(10);
    assert_true(atomic_load(&fake_engine_counts(other)->refused) > 0);
    await_groups(f->client, 1);
    fake_engine_stop(&other);
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

/* ---- restarts: the store in a file, and the same endpoint again */

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
        server_start(&f.server, "tcp://127.0.0.1:*", path);
        assert_int_equal(f.server.open_status, FR_OK);
        char endpoint[256];
        memcpy(endpoint, f.server.endpoint, sizeof endpoint);
        f.target = engine(&f, "target", "t", 5);
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
        server_start(&f.server, endpoint, path);
        if (f.server.open_status != FR_OK)
            fail_msg("the second coordinator does not start");
        f.target = engine(&f, "target", "t", 0);
        f.draft = engine(&f, "draft", "d", 0);
        assert_int_equal(fr_link_connect(endpoint, 0, &f.client), FR_OK);
        watch(f.client, id, 0);
        follow_to(f.client, &f.expected);
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
        T(refuses_bad_specs),
        T(cancels),
        T(two_watchers_see_the_same),
        T(survives_a_killed_group),
        T(survives_a_hanging_group),
        T(waits_for_a_group_to_come_back),
        T(goes_on_without_the_draft),
        T(resends_what_an_engine_forgot),
        T(sends_only_what_is_new),
        T(engine_errors_reach_the_client),
        T(refuses_a_second_model),
        T(malformed_frames_do_no_harm),
        T(slow_watchers_hold_up_nobody),
        T(stops_when_told),
        T(busy_port_and_store),
        cmocka_unit_test(restart_continues),
        cmocka_unit_test(restart_refuses_another_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
