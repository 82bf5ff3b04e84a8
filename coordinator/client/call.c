/* call.c: see call.h. */
#include "call.h"

#include <stdio.h>
#include <string.h>

#include "check.h"
#include "clock.h"
#include "interrupt.h"
#include "log.h"

#define TICK_MS 200
#define SILENCE_S 3.0  /* then the subscription is renewed: the coordinator may be a new process */
#define GIVE_UP_S 60.0

fr_status fr_call_open(const char *endpoint, fr_call *out)
{
    memset(out, 0, sizeof *out);
    if (strlen(endpoint) >= sizeof out->endpoint)
        return fr_fail(FR_EINVAL, "%.64s...: endpoint too long", endpoint);
    strcpy(out->endpoint, endpoint);
    return fr_link_connect(endpoint, 0, &out->link);
}

void fr_call_close(fr_call *c, int linger_ms)
{
    fr_link_close(&c->link, linger_ms);
}

fr_status fr_call_send(fr_call *c, fr_msg *m)
{
    m->tag = ++c->last_tag;
    return fr_link_send(c->link, NULL, m);
}

fr_status fr_call_next(fr_call *c, int timeout_ms, fr_msg *out)
{
    fr_link *links[1] = {c->link};
    int ready = 0;
    FR_TRY(fr_interrupt_check());
    fr_status st = fr_link_poll(links, 1, NULL, 0, timeout_ms, &ready);
    FR_TRY(fr_interrupt_check());
    if (st == FR_ECANCELLED || st == FR_ETIMEDOUT || (st == FR_OK && !ready))
        return fr_fail(FR_ETIMEDOUT, "no message from %s", c->endpoint);
    FR_TRY(st);
    fr_peer from;
    return fr_link_recv(c->link, 0, &from, out);
}

static void tell(fr_waits *w, uint64_t job, const char *waits_for)
{
    if (job == w->job && strncmp(waits_for, w->told, sizeof w->told - 1) == 0)
        return;
    w->job = job;
    snprintf(w->told, sizeof w->told, "%s", waits_for);
    if (w->told[0])
        fr_log(FR_LOG_INFO, "job %llu: %s", (unsigned long long)job, w->told);
}

void fr_waits_hear(fr_waits *w, uint64_t job, const fr_msg_status_reply *reply)
{
    for (size_t i = 0; i < reply->n_jobs; i++)
        if (reply->jobs[i].job == job && reply->jobs[i].finished_ms == 0)
            tell(w, job, reply->jobs[i].cause);
}

/* The reply itself, an Error turned into a status, or something else that is dropped (*taken stays
 * 0). */
static fr_status take_reply(fr_msg *m, uint64_t tag, fr_msg_kind want, int *taken)
{
    *taken = m->tag == tag && m->kind == want;
    if (*taken)
        return FR_OK;
    fr_status st = FR_OK;
    if (m->tag == tag && m->kind == FR_MSG_ERROR) {
        fr_status remote = (fr_status)m->body.error.status;
        st = fr_fail(remote == FR_OK ? FR_EPROTO : remote, "%s", m->body.error.cause);
    }
    fr_msg_free(m);
    return st;
}

static fr_status silent(const fr_call *c, const fr_waits *waits, int timeout_ms)
{
    if (!waits->told[0])
        return fr_fail(FR_ETIMEDOUT, "no cluster at %s (no answer in %.0f s)", c->endpoint, timeout_ms / 1e3);
    return fr_fail(FR_ETIMEDOUT, "the cluster at %s is silent for %.0f s; its last word was: job %llu: %s",
                   c->endpoint, timeout_ms / 1e3, (unsigned long long)waits->job, waits->told);
}

/* As fr_call_ask(), but FR_ETIMEDOUT for silence; *waits is what the reply waited for last. */
static fr_status ask(fr_call *c, fr_msg *m, fr_msg_kind want, int timeout_ms, fr_waits *waits, fr_msg *reply_out)
{
    FR_TRY(fr_call_send(c, m));
    double end = fr_now_s() + timeout_ms / 1e3;
    for (;;) {
        int left = (int)((end - fr_now_s()) * 1e3), taken = 0;
        fr_msg reply = {0};
        fr_status st = fr_call_next(c, left > 0 ? left : 0, &reply);
        if (st == FR_ETIMEDOUT && left > 0)
            continue; /* a signal that was not for us */
        if (st == FR_ETIMEDOUT)
            return silent(c, waits, timeout_ms);
        FR_TRY(st);
        const fr_msg_status_reply *meanwhile = reply.kind == FR_MSG_STATUS_REPLY ? &reply.body.status_reply : NULL;
        if (meanwhile && want != FR_MSG_STATUS_REPLY && reply.tag == m->tag && meanwhile->n_jobs > 0) {
            fr_waits_hear(waits, meanwhile->jobs[0].job, meanwhile);
            end = fr_now_s() + timeout_ms / 1e3;
        }
        FR_TRY(take_reply(&reply, m->tag, want, &taken));
        if (taken) {
            *reply_out = reply;
            return FR_OK;
        }
    }
}

fr_status fr_call_ask(fr_call *c, fr_msg *m, fr_msg_kind want, int timeout_ms, fr_msg *reply_out)
{
    fr_waits waits = {0};
    fr_status st = ask(c, m, want, timeout_ms, &waits, reply_out);
    return st == FR_ETIMEDOUT ? fr_fail(FR_EUNAVAILABLE, "%s", fr_cause()) : st;
}

fr_status fr_call_submit(fr_call *c, const fr_msg_job_spec *spec, int watch, uint64_t *job_out)
{
    fr_msg m = {.kind = FR_MSG_SUBMIT}, reply = {0};
    fr_waits waits = {0};
    m.body.submit = (fr_msg_submit){.spec = *spec, .watch = watch};
    /* It is answered when it is on the disk. */
    fr_status st = ask(c, &m, FR_MSG_SUBMITTED, 10 * FR_CALL_ANSWER_MS, &waits, &reply);
    if (st == FR_ETIMEDOUT)
        return fr_fail(FR_EUNAVAILABLE, "%s; once it answers, `forerun list` shows whether it has the job", fr_cause());
    if (st == FR_ECANCELLED) /* and is left: a restarted cluster may give a number that was not stored to another job */
        return fr_fail(st, "cancelled before the cluster at %s said that it has the job, which may run", c->endpoint);
    FR_TRY(st);
    *job_out = reply.body.submitted.job;
    fr_msg_free(&reply);
    return FR_OK;
}

typedef struct following {
    fr_call *call;
    const fr_follower *f;
    uint64_t job, watch_tag;
    uint32_t next_step; /* steps before it were seen */
    double heard_s, asked_s;
    int begun; /* something of the chain was seen */
    fr_waits waits;
} following;

/* Renews the subscription. The status query is there for its answer: a sign of life from a
 * coordinator whose job is silent for good reasons (a long prompt), and what a job that has not begun
 * waits for. */
static fr_status subscribe(following *w)
{
    fr_msg watch = {.kind = FR_MSG_WATCH};
    watch.body.watch = (fr_msg_watch){.job = w->job, .from_step = w->next_step};
    FR_TRY(fr_call_send(w->call, &watch));
    w->watch_tag = watch.tag;
    w->asked_s = fr_now_s();
    fr_msg query = {.kind = FR_MSG_STATUS_QUERY};
    query.body.status_query.job = w->job;
    return fr_call_send(w->call, &query);
}

static fr_status on_step(following *w, const fr_msg_step *step)
{
    if (step->job != w->job || step->index < w->next_step)
        return FR_OK;
    w->begun = 1;
    w->next_step = step->index + 1; /* rejected steps are counted too */
    return w->f->step ? w->f->step(w->f->ctx, step) : FR_OK;
}

static fr_status on_message(following *w, const fr_msg *m, int *done)
{
    switch (m->kind) {
    case FR_MSG_STEP:
        return on_step(w, &m->body.step);
    case FR_MSG_PROGRESS:
        w->begun |= m->body.progress.job == w->job;
        if (m->body.progress.job == w->job && w->f->progress)
            return w->f->progress(w->f->ctx, &m->body.progress);
        return FR_OK;
    case FR_MSG_STATUS_REPLY:
        if (!w->begun) /* nothing amid a chain */
            fr_waits_hear(&w->waits, w->job, &m->body.status_reply);
        return FR_OK;
    case FR_MSG_DONE:
        *done = m->body.done.job.job == w->job;
        return FR_OK;
    case FR_MSG_ERROR:
        if (m->body.error.job != w->job && (m->tag == 0 || m->tag != w->watch_tag))
            return FR_OK;
        return fr_fail(m->body.error.status ? (fr_status)m->body.error.status : FR_EPROTO, "%s",
                       m->body.error.cause);
    default:
        return FR_OK;
    }
}

static fr_status on_silence(following *w)
{
    if (w->f->idle)
        FR_TRY(w->f->idle(w->f->ctx));
    double now = fr_now_s();
    if (now - w->heard_s > GIVE_UP_S)
        return fr_fail(FR_EUNAVAILABLE, "no cluster at %s (silent for %.0f s)", w->call->endpoint,
                       GIVE_UP_S);
    if (now - w->heard_s > SILENCE_S && now - w->asked_s > SILENCE_S)
        return subscribe(w);
    return FR_OK;
}

fr_status fr_call_follow(fr_call *c, uint64_t job, uint32_t from_step, int subscribed,
                         const fr_follower *f, fr_msg *done_out)
{
    following w = {.call = c, .f = f, .job = job, .next_step = from_step, .heard_s = fr_now_s()};
    if (!subscribed)
        FR_TRY(subscribe(&w));
    for (;;) {
        fr_msg m = {0};
        int done = 0;
        fr_status st = fr_call_next(c, TICK_MS, &m);
        if (st == FR_ETIMEDOUT) {
            FR_TRY(on_silence(&w));
            continue;
        }
        FR_TRY(st);
        w.heard_s = fr_now_s();
        st = on_message(&w, &m, &done);
        if (st == FR_OK && done) {
            *done_out = m;
            return FR_OK;
        }
        fr_msg_free(&m);
        FR_TRY(st);
    }
}

fr_status fr_job_status(const fr_msg_job_info *job)
{
    if (job->status == FR_OK)
        return FR_OK;
    const char *cause = job->cause[0] ? job->cause : fr_status_text((fr_status)job->status);
    return fr_fail((fr_status)job->status, "job %llu: %s", (unsigned long long)job->job, cause);
}
