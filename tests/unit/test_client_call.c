/* test_client_call.c: requests, replies and followed jobs against a server of the test's own, which
 * also falls silent and comes back as a restarted coordinator does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "call.h"
#include "clock.h"
#include "interrupt.h"

enum { PATIENCE_MS = 1000 };

/* One thread that answers: what it does depends on the request. */
typedef struct server {
    pthread_t thread;
    char endpoint[128];
    atomic_int ready, stop, watches;
    int silent_first; /* the first watch gets two steps and then nothing */
    int falls_silent; /* what a submission waits for is told, but no reply comes */
} server;

static void reply(fr_link *l, const fr_peer *to, uint64_t tag, fr_msg *m)
{
    m->tag = tag;
    fr_link_send(l, to, m);
}

static void send_step(fr_link *l, const fr_peer *to, uint64_t job, uint32_t index,
                      const char *verdict)
{
    fr_msg m = {.kind = FR_MSG_STEP};
    m.body.step = (fr_msg_step){.job = job, .index = index, .origin = "draft", .verdict = verdict,
                                .text = {(const uint8_t *)"x", 1}};
    reply(l, to, 0, &m);
}

static void send_done(fr_link *l, const fr_peer *to)
{
    fr_msg m = {.kind = FR_MSG_DONE};
    fr_msg_job_info *j = &m.body.done.job;
    *j = (fr_msg_job_info){.job = 7,
                           .state = "failed",
                           .answer = "",
                           .cause = "it broke",
                           .stop = "",
                           .status = FR_EPEER,
                           .steps = 3};
    j->spec = (fr_msg_job_spec){
        .problem = "", .system = "", .policy = "step", .judge = "", .delimiter = "", .name = ""};
    reply(l, to, 0, &m);
}

/* For longer than the client waits for a word. */
static void tell_what_it_waits_for(const server *s, fr_link *l, const fr_peer *to, uint64_t tag)
{
    const fr_msg_job_info job = {.job = 7, .cause = "waiting for the store to be written"};
    fr_msg m = {.kind = FR_MSG_STATUS_REPLY, .body.status_reply = {.jobs = &job, .n_jobs = 1}};
    for (int ms = 0; ms < (s->falls_silent ? 1 : 2 * PATIENCE_MS); ms += PATIENCE_MS / 10) {
        reply(l, to, tag, &m);
        fr_sleep_ms(PATIENCE_MS / 10);
    }
}

static void answer(server *s, fr_link *l, const fr_peer *from, const fr_msg *m)
{
    fr_msg out = {0};
    switch (m->kind) {
    case FR_MSG_CANCEL_JOB:
        out.kind = FR_MSG_ERROR;
        out.body.error = (fr_msg_error){.status = FR_ENOTFOUND, .cause = "no job 9", .job = 9};
        reply(l, from, m->tag, &out);
        return;
    case FR_MSG_STATUS_QUERY:
        send_step(l, from, 8, 99, "accepted"); /* something of another job comes in between */
        out.kind = FR_MSG_STATUS_REPLY;
        out.body.status_reply = (fr_msg_status_reply){.version = "v"};
        reply(l, from, m->tag, &out);
        return;
    case FR_MSG_SUBMIT:
        if (strcmp(m->body.submit.spec.name, "waits") == 0)
            tell_what_it_waits_for(s, l, from, m->tag);
        if (s->falls_silent)
            return;
        out.kind = m->body.submit.spec.problem[0] ? FR_MSG_SUBMITTED : FR_MSG_ERROR;
        if (out.kind == FR_MSG_SUBMITTED)
            out.body.submitted.job = m->body.submit.watch ? 7 : 8;
        else
            out.body.error = (fr_msg_error){.status = FR_EINVAL, .cause = "problem: it is empty"};
        reply(l, from, m->tag, &out);
        return;
    case FR_MSG_WATCH:
        if (atomic_fetch_add(&s->watches, 1) == 0 && s->silent_first) {
            send_step(l, from, 7, 0, "rejected"); /* counted like the others */
            send_step(l, from, 7, 1, "accepted");
            return;
        }
        for (uint32_t i = m->body.watch.from_step > 0 ? m->body.watch.from_step - 1 : 0; i < 3; i++)
            send_step(l, from, 7, i, "accepted"); /* one too many: it was seen before */
        send_done(l, from);
        return;
    default:
        return; /* no answer */
    }
}

static void *serve(void *arg)
{
    server *s = arg;
    fr_link *l = NULL;
    if (fr_link_listen("tcp://127.0.0.1:0", 0, &l) != FR_OK)
        return NULL;
    snprintf(s->endpoint, sizeof s->endpoint, "%s", fr_link_endpoint(l));
    atomic_store(&s->ready, 1);
    while (!atomic_load(&s->stop)) {
        fr_peer from;
        fr_msg m = {0};
        if (fr_link_recv(l, 50, &from, &m) != FR_OK)
            continue;
        answer(s, l, &from, &m);
        fr_msg_free(&m);
    }
    fr_link_close(&l, 100);
    return NULL;
}

static void start(server *s)
{
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
    while (!atomic_load(&s->ready))
        sched_yield();
}

static void stop(server *s)
{
    atomic_store(&s->stop, 1);
    pthread_join(s->thread, NULL);
}

static void test_ask(void **state)
{
    (void)state;
    server s = {0};
    fr_call c = {0};
    start(&s);
    assert_int_equal(fr_call_open(s.endpoint, &c), FR_OK);
    fr_msg query = {.kind = FR_MSG_STATUS_QUERY}, out = {0};
    assert_int_equal(fr_call_ask(&c, &query, FR_MSG_STATUS_REPLY, 3000, &out), FR_OK);
    assert_string_equal(out.body.status_reply.version, "v");
    fr_msg_free(&out);
    fr_msg cancel = {.kind = FR_MSG_CANCEL_JOB};
    assert_int_equal(fr_call_ask(&c, &cancel, FR_MSG_OK, 3000, &out), FR_ENOTFOUND);
    assert_string_equal(fr_cause(), "no job 9");
    fr_msg list = {.kind = FR_MSG_LIST_QUERY};
    list.body.list_query.state = "";
    assert_int_equal(fr_call_ask(&c, &list, FR_MSG_LIST_REPLY, 100, &out), FR_EUNAVAILABLE);
    assert_non_null(strstr(fr_cause(), s.endpoint));
    fr_call_close(&c, 0);
    stop(&s);
}

static void test_submit(void **state)
{
    (void)state;
    server s = {0};
    fr_call c = {0};
    uint64_t job = 0;
    fr_msg_job_spec spec = {
        .problem = "1 + 1", .system = "", .policy = "", .judge = "", .delimiter = "", .name = ""};
    start(&s);
    assert_int_equal(fr_call_open(s.endpoint, &c), FR_OK);
    assert_int_equal(fr_call_submit(&c, &spec, 1, &job), FR_OK);
    assert_int_equal(job, 7);
    assert_int_equal(fr_call_submit(&c, &spec, 0, &job), FR_OK);
    assert_int_equal(job, 8);
    spec.problem = "";
    assert_int_equal(fr_call_submit(&c, &spec, 0, &job), FR_EINVAL);
    assert_string_equal(fr_cause(), "problem: it is empty");
    fr_call_close(&c, 0);
    stop(&s);
}

static void ask_to_wait(fr_call *c, fr_status want)
{
    fr_msg m = {.kind = FR_MSG_SUBMIT}, out = {0};
    m.body.submit.spec = (fr_msg_job_spec){
        .problem = "1 + 1", .system = "", .policy = "", .judge = "", .delimiter = "", .name = "waits"};
    assert_int_equal(fr_call_ask(c, &m, FR_MSG_SUBMITTED, PATIENCE_MS, &out), want);
    fr_msg_free(&out);
}

/* Who tells what a reply waits for is there. */
static void test_reply_waits(void **state)
{
    (void)state;
    for (int falls_silent = 0; falls_silent < 2; falls_silent++) {
        server s = {.falls_silent = falls_silent};
        fr_call c = {0};
        start(&s);
        assert_int_equal(fr_call_open(s.endpoint, &c), FR_OK);
        ask_to_wait(&c, falls_silent ? FR_EUNAVAILABLE : FR_OK);
        if (falls_silent) {
            assert_null(strstr(fr_cause(), "no cluster"));
            assert_non_null(strstr(fr_cause(), "its last word was: job 7: waiting for the store to be written"));
        }
        fr_call_close(&c, 0);
        stop(&s);
    }
}

static void test_nobody(void **state)
{
    (void)state;
    fr_call c = {0};
    fr_msg query = {.kind = FR_MSG_STATUS_QUERY}, out = {0};
    assert_int_equal(fr_call_open("tcp://127.0.0.1:1", &c), FR_OK);
    assert_int_equal(fr_call_ask(&c, &query, FR_MSG_STATUS_REPLY, 100, &out), FR_EUNAVAILABLE);
    fr_call_close(&c, 0);
    assert_int_equal(fr_call_open("nonsense", &c), FR_EINVAL);
    fr_call_close(&c, 0);
}

typedef struct seen {
    int accepted, rejected;
    uint32_t last;
} seen;

static fr_status on_step(void *ctx, const fr_msg_step *step)
{
    seen *s = ctx;
    if (strcmp(step->verdict, "rejected") == 0)
        s->rejected++;
    else
        s->accepted++;
    s->last = step->index;
    return FR_OK;
}

static void follow(int silent_first, uint32_t from, int want_accepted)
{
    server s = {.silent_first = silent_first};
    fr_call c = {0};
    fr_msg done = {0};
    seen x = {0};
    fr_follower f = {.ctx = &x, .step = on_step};
    start(&s);
    assert_int_equal(fr_call_open(s.endpoint, &c), FR_OK);
    assert_int_equal(fr_call_follow(&c, 7, from, 0, &f, &done), FR_OK);
    assert_int_equal(x.accepted, want_accepted);
    assert_int_equal(x.rejected, silent_first);
    assert_int_equal(x.last, 2);
    assert_int_equal(fr_job_status(&done.body.done.job), FR_EPEER);
    assert_string_equal(fr_cause(), "job 7: it broke");
    fr_msg_free(&done);
    fr_call_close(&c, 0);
    stop(&s);
}

static void test_follow(void **state)
{
    (void)state;
    follow(0, 0, 3);
    follow(0, 2, 1);
}

static void test_follow_over_silence(void **state)
{
    (void)state;
    follow(1, 0, 2); /* no step twice, none left out */
}

/* The last one: there is no way back from an interrupt. */
static void test_submit_interrupted(void **state)
{
    (void)state;
    server s = {0};
    fr_call c = {0};
    uint64_t job = 0;
    const fr_msg_job_spec spec = {
        .problem = "2 + 3?", .system = "", .policy = "", .judge = "", .delimiter = "", .name = ""};
    start(&s);
    assert_int_equal(fr_call_open(s.endpoint, &c), FR_OK);
    fr_interrupt_arm();
    raise(SIGINT);
    assert_int_equal(fr_call_submit(&c, &spec, 1, &job), FR_ECANCELLED);
    assert_non_null(strstr(fr_cause(), "before the cluster at tcp://"));
    assert_non_null(strstr(fr_cause(), "said that it has the job, which may run"));
    fr_call_close(&c, 0);
    stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ask),
        cmocka_unit_test(test_submit),
        cmocka_unit_test(test_reply_waits),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_follow),
        cmocka_unit_test(test_follow_over_silence),
        cmocka_unit_test(test_submit_interrupted),
    };
    return cmocka_run_group_tests_name("client_call", tests, NULL, NULL);
}
