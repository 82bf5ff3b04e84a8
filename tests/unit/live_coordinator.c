/* live_coordinator.c: see live_coordinator.h. */
#include "live_coordinator.h"

#include <math.h>
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

#include "clock.h"

enum { WAIT_MS = 20000 };

/* ---- a coordinator in a thread */

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
    else
        snprintf(s->cause, sizeof s->cause, "%s", fr_cause());
    pthread_cond_signal(&s->opened);
    pthread_mutex_unlock(&s->lock);
    if (st == FR_OK)
        s->status = fr_coordinator_run(s->c);
    fr_coordinator_close(&s->c);
    return NULL;
}

void server_start(server *s, const char *bind, const char *store)
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

void server_start_again(server *s, const char *bind, const char *store)
{
    for (int tries = 0; tries < WAIT_MS / 10; tries++) {
        server_start(s, bind, store);
        if (s->open_status != FR_EBUSY)
            return;
        server_join(s);
        fr_sleep_ms(10);
    }
    fail_msg("%s", s->cause);
}

void server_join(server *s)
{
    pthread_join(s->thread, NULL);
    close(s->options.wake_fd);
}

void server_stop(server *s)
{
    const uint64_t one = 1;
    assert_int_equal(write(s->options.wake_fd, &one, sizeof one), sizeof one);
    server_join(s);
    assert_int_equal(s->status, FR_OK);
}

/* ---- the cluster that most tests want */

fake_engine *engine(fixture *f, const char *role, const char *name, int token_ms)
{
    const fake_options o = {.endpoint = f->server.endpoint,
                            .role = role,
                            .name = name,
                            .token_ms = token_ms,
                            .model_digest = role[0] == 't' ? 11 : 22,
                            .tokenizer = f->tokenizer};
    return fake_engine_start(&o);
}

int set_up(void **state)
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

int tear_down(void **state)
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

void tell(fr_link *l, const fr_msg *m)
{
    assert_int_equal(fr_link_send(l, NULL, m), FR_OK);
}

void hear(fr_link *l, fr_msg *m)
{
    fr_status st = fr_link_recv(l, WAIT_MS, NULL, m);
    if (st != FR_OK)
        fail_msg("no message: %s", fr_cause());
}

void hear_kind(fr_link *l, fr_msg_kind kind, fr_msg *m)
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

void hear_reply(fr_link *l, uint64_t tag, fr_msg_kind kind, fr_msg *m)
{
    while (hear_kind(l, kind, m), m->tag != tag)
        fr_msg_free(m);
}

fr_msg submit_msg(const char *policy, int watch)
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

uint64_t submit(fr_link *l, const char *policy, int watch)
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

void watch(fr_link *l, uint64_t job, uint32_t from)
{
    fr_msg m = {.kind = FR_MSG_WATCH, .tag = 9, .body.watch = {job, from}};
    tell(l, &m);
}

void follow(fr_link *l, uint32_t from, fr_buf *text, fr_msg *done)
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

void assert_text(const fr_buf *expected, const void *data, size_t n)
{
    if (expected->len != n || memcmp(expected->data, data, n))
        fail_msg("text of %zu bytes, want %zu:\n%.*s\n---- want\n%.*s", n, expected->len, (int)n,
                 (const char *)data, (int)expected->len, (const char *)expected->data);
}

void assert_done(const fr_msg *done, const fr_buf *expected)
{
    const fr_msg_job_info *job = &done->body.done.job;
    if (strcmp(job->state, "done"))
        fail_msg("job %s: %s", job->state, job->cause);
    assert_string_equal(job->stop, "end");
    assert_text(expected, job->text.data, job->text.len);
}

void follow_to(fr_link *l, const fr_buf *expected)
{
    fr_buf text = {0};
    fr_msg done;
    follow(l, 0, &text, &done);
    assert_done(&done, expected);
    assert_text(expected, text.data, text.len);
    fr_buf_free(&text);
    fr_msg_free(&done);
}

void expect_error(fr_link *l, const fr_msg *m, fr_status status, const char *part)
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

fr_msg status_of(fr_link *l, uint64_t job)
{
    fr_msg m = {.kind = FR_MSG_STATUS_QUERY, .tag = 3, .body.status_query.job = job}, reply;
    tell(l, &m);
    hear_reply(l, m.tag, FR_MSG_STATUS_REPLY, &reply);
    return reply;
}

void await_groups(fr_link *l, size_t want)
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
