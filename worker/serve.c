/* serve.c: see serve.h. One loop: 1. what time asks for: registering, heartbeats, giving up; 2.
 * messages; 3. one pass (batch.c) over the live requests (requests.c). Without requests it sleeps
 * in 2, and looks in 1, at every heartbeat at the latest, whether its ranks are still there.
 *
 * A group is registered while the coordinator knows it. A coordinator that was restarted answers
 * the next heartbeat with FR_ENOTFOUND, and the group registers again; a new welcome begins a new
 * epoch, and what was asked before it is dropped. Registering again is also the way out when a
 * reply could not be sent: the coordinator then repeats its requests. Only what the coordinator
 * sends shows that it lives, and it has nothing to say to an idle group: one that is to give up
 * some day asks it for something when half of that time has passed in silence. */
#include "serve.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "batch.h"
#include "check.h"
#include "clock.h"
#include "link.h"
#include "log.h"
#include "requests.h"

#define DEFAULT_PREFILL_CHUNK 64
#define REGISTER_S 0.5        /* between two tries */
#define TRIES_PER_LINK 10 /* then a new link, as the old one would deliver all of them at last */
#define BLOB_S 2.0            /* between two sendings of the tokenizer */
#define STOP_MS 200           /* how often *stop is looked at */
#define MESSAGES_PER_PASS 256
#define LINGER_MS 500

typedef struct serve {
    fr_session *session;
    const fr_serve_options *options;
    char name[128];
    fr_link *link;
    fr_requests requests;
    fr_batch batch;
    int registered, tries;
    int blob_wanted;
    double heartbeat_s;
    double next_register, next_heartbeat, next_blob,
        next_question; /* seconds of the monotonic clock */
    double last_heard;
    char complaint[256];     /* the last malformed frame; named when giving up */
    int done;                /* told to end */
    fr_status refused;       /* the coordinator does not take this group */
} serve;

/* ---- what time asks for */

static fr_status send_register(serve *s)
{
    const fr_session_info *info = fr_session_info_of(s->session);
    const fr_msg_register m = {.role = s->options->role,
                               .name = s->name,
                               .model_digest = info->model_digest,
                               .tokenizer_digest = info->tokenizer_digest,
                               .model_name = info->model_name,
                               .ranks = (uint32_t)info->n_ranks,
                               .threads = (uint32_t)info->threads,
                               .max_context = (uint32_t)fr_requests_context(&s->requests),
                               .kv_positions = (uint64_t)info->kv_positions,
                               .backend = info->backend,
                               .pid = (uint32_t)getpid(),
                               .batch_dependent = info->batch_dependent};
    fr_status st =
        fr_link_send(s->link, NULL, &(fr_msg){.kind = FR_MSG_REGISTER, .body.register_ = m});
    return st == FR_EBUSY ? FR_OK : st; /* nobody reads: tried again soon */
}

static fr_status new_link(serve *s)
{
    fr_link_close(&s->link, 0);
    fr_status st = fr_link_connect(s->options->endpoint, 0, &s->link);
    s->requests.link = s->link;
    return st;
}

static fr_status register_group(serve *s, double now)
{
    if (s->tries == TRIES_PER_LINK) {
        FR_TRY(new_link(s));
        s->tries = 0;
    }
    s->tries++;
    s->next_register = now + REGISTER_S;
    return send_register(s);
}

static void send_heartbeat(serve *s, double now)
{
    const fr_msg_heartbeat m = {.kv_free = (uint64_t)fr_held_free_positions(&s->requests.held),
                                .active = (uint32_t)s->requests.n,
                                .passes = s->batch.passes,
                                .rows = s->batch.rows,
                                .busy_seconds = s->batch.busy_seconds};
    s->next_heartbeat = now + s->heartbeat_s;
    if (fr_link_send(s->link, NULL, &(fr_msg){.kind = FR_MSG_HEARTBEAT, .body.heartbeat = m}) !=
        FR_OK)
        fr_log(FR_LOG_DEBUG, "heartbeat: %s", fr_cause());
}

static fr_status send_blob(serve *s, double now)
{
    fr_buf blob = {0};
    fr_status st = fr_tokenizer_pack(fr_session_tokenizer(s->session), &blob);
    s->blob_wanted = 0;
    s->next_blob = now + BLOB_S;
    if (st == FR_OK)
        fr_requests_send(&s->requests,
                         &(fr_msg){.kind = FR_MSG_TOKENIZER_BLOB,
                                   .body.tokenizer_blob.blob = {blob.data, blob.len}});
    fr_buf_free(&blob);
    return st;
}

/* Any answer will do; a list of one job is a short one. */
static void send_question(serve *s, double now)
{
    s->next_question = now + fmax(s->options->give_up_ms / 8000.0, 0.1);
    if (fr_link_send(s->link, NULL,
                     &(fr_msg){.kind = FR_MSG_LIST_QUERY, .body.list_query.limit = 1}) != FR_OK)
        fr_log(FR_LOG_DEBUG, "sign of life: %s", fr_cause());
}

static fr_status give_up(const serve *s)
{
    const char *complaint = s->complaint[0] ? s->complaint : NULL;
    return fr_fail(FR_EUNAVAILABLE, "coordinator at %s was not heard from for %d ms%s%s",
                   s->options->endpoint, s->options->give_up_ms, complaint ? ": " : "",
                   complaint ? complaint : "");
}

static fr_status keep_time(serve *s)
{
    double now = fr_now_s(), patience = s->options->give_up_ms / 1000.0;
    if (s->requests.n == 0 || s->batch.wait_s > 0)
        FR_TRY(fr_session_check_group(s->session)); /* a pass notices by itself */
    if (patience > 0 && s->requests.n == 0) {
        if (now - s->last_heard >= patience)
            return give_up(s);
        if (s->registered && now - s->last_heard >= patience / 2 && now >= s->next_question)
            send_question(s, now);
    }
    if (s->registered && s->requests.reply_lost) {
        fr_requests_forget(&s->requests);
        s->registered = 0;
    }
    if (!s->registered && now >= s->next_register)
        FR_TRY(register_group(s, now));
    if (s->registered && now >= s->next_heartbeat)
        send_heartbeat(s, now);
    if (s->registered && s->blob_wanted && now >= s->next_blob)
        FR_TRY(send_blob(s, now));
    return FR_OK;
}

/* How long the loop may sleep: there is no request, or none that can go on. */
static int idle_ms(const serve *s)
{
    double now = fr_now_s(), next = s->registered ? s->next_heartbeat : s->next_register;
    if (s->blob_wanted)
        next = fmin(next, s->next_blob);
    if (s->requests.n > 0) {
        next = fmin(next, now + s->batch.wait_s);
    } else if (s->options->give_up_ms > 0) {
        double patience = s->options->give_up_ms / 1000.0;
        next = fmin(next, fmin(fmax(s->last_heard + patience / 2, s->next_question),
                               s->last_heard + patience));
    }
    double ms = ceil((next - now) * 1000);
    if (s->options->stop && ms > STOP_MS)
        ms = STOP_MS;
    return ms > 0 ? (int)ms : 0;
}

/* Within a long pass: a group that computes is alive; one whose ranks hang falls silent. */
static void beat_in_pass(void *ctx)
{
    serve *s = ctx;
    double now = fr_now_s();
    if (s->registered && now >= s->next_heartbeat)
        send_heartbeat(s, now);
}

/* ---- messages */

static void welcome(serve *s, const fr_msg_welcome *m)
{
    fr_log(FR_LOG_INFO, "registered with %s as %s group %u %s", s->options->endpoint,
           s->options->role, m->group, s->name);
    fr_requests_forget(&s->requests);
    s->registered = 1;
    s->tries = 0;
    s->heartbeat_s = m->heartbeat_ms ? fmin(fmax(m->heartbeat_ms, 20), 60000) / 1000.0 : 1;
    s->next_heartbeat = fr_now_s() + s->heartbeat_s;
    s->blob_wanted = m->want_tokenizer;
}

static void about_the_group(serve *s, const fr_msg_engine_error *m)
{
    if (m->status == FR_ENOTFOUND) {
        s->registered = 0;
    } else if (m->status == FR_EMISMATCH || m->status == FR_EINVAL || m->status == FR_ELIMIT) {
        s->refused = fr_fail((fr_status)m->status, "coordinator at %s refuses this group: %s",
                             s->options->endpoint, m->cause);
    } else {
        fr_log(FR_LOG_WARN, "coordinator: %s", m->cause);
    }
}

static void handle(serve *s, fr_msg *m)
{
    switch (m->kind) {
    case FR_MSG_WELCOME:
        welcome(s, &m->body.welcome);
        break;
    case FR_MSG_GENERATE:
    case FR_MSG_VERIFY:
        fr_requests_add(&s->requests, m);
        break;
    case FR_MSG_TRUNCATE:
        fr_requests_truncate(&s->requests, &m->body.truncate);
        break;
    case FR_MSG_FORK:
        fr_requests_fork(&s->requests, &m->body.fork);
        break;
    case FR_MSG_RELEASE:
        fr_requests_release(&s->requests, &m->body.release);
        break;
    case FR_MSG_CANCEL_REQUEST:
        fr_requests_cancel(&s->requests, m->body.cancel_request.request);
        break;
    case FR_MSG_ENGINE_ERROR:
        about_the_group(s, &m->body.engine_error);
        break;
    case FR_MSG_SHUTDOWN:
        fr_log(FR_LOG_INFO, "shut down by the coordinator: %s", m->body.shutdown.reason);
        s->done = 1;
        break;
    case FR_MSG_LIST_REPLY:
    case FR_MSG_ERROR: /* to send_question() */
        break;
    default:
        fr_log(FR_LOG_WARN, "ignored a %s, which is no engine request", fr_msg_kind_name(m->kind));
        break;
    }
    fr_msg_free(m);
}

/* Takes what is there, or waits for the first message when there is nothing else to do. */
static fr_status receive(serve *s)
{
    int timeout_ms = s->requests.n > 0 && s->batch.wait_s <= 0 ? 0 : idle_ms(s);
    for (int i = 0; i < MESSAGES_PER_PASS && !s->done && !s->refused; i++, timeout_ms = 0) {
        fr_msg m;
        fr_status st = fr_link_recv(s->link, timeout_ms, NULL, &m);
        if (st == FR_ETIMEDOUT || st == FR_ECANCELLED)
            return FR_OK;
        if (st == FR_EPROTO || st == FR_ENOMEM) {
            snprintf(s->complaint, sizeof s->complaint, "%s", fr_cause());
            fr_log(FR_LOG_WARN, "message ignored: %s", s->complaint);
            continue;
        }
        FR_TRY(st);
        s->last_heard = fr_now_s();
        handle(s, &m);
    }
    return s->refused;
}

/* ---- the loop */

static int stopped(const serve *s)
{
    return s->done || (s->options->stop && atomic_load(s->options->stop));
}

static fr_status loop(serve *s)
{
    while (!stopped(s)) {
        FR_TRY(keep_time(s));
        FR_TRY(receive(s));
        if (s->requests.n > 0 && !stopped(s))
            FR_TRY(fr_batch_pass(&s->batch, &s->requests));
    }
    return FR_OK;
}

static void say_goodbye(serve *s, fr_status st, const char *cause)
{
    fr_requests_fail_all(&s->requests, st == FR_OK ? FR_ECANCELLED : FR_EUNAVAILABLE, cause);
    fr_requests_send(&s->requests, &(fr_msg){.kind = FR_MSG_GOODBYE, .body.goodbye.reason = cause});
}

fr_status fr_serve(fr_session *session, const fr_serve_options *options)
{
    serve s = {.session = session, .options = options, .heartbeat_s = 1};
    char host[64] = "", cause[512];
    gethostname(host, sizeof host - 1);
    if (options->name && options->name[0])
        snprintf(s.name, sizeof s.name, "%s", options->name);
    else
        snprintf(s.name, sizeof s.name, "%s-%s-%d", options->role, host, (int)getpid());
    s.requests = (fr_requests){.session = session, .held.session = session};
    s.batch.prefill_chunk =
        options->prefill_chunk > 0 ? options->prefill_chunk : DEFAULT_PREFILL_CHUNK;
    s.last_heard = fr_now_s();

    FR_TRY(new_link(&s));
    fr_session_on_progress(session, beat_in_pass, &s);
    fr_status st = loop(&s);
    fr_session_on_progress(session, NULL, NULL);
    snprintf(cause, sizeof cause, "%s", st == FR_OK ? "stopped" : fr_cause());
    if (st != FR_EUNAVAILABLE)
        say_goodbye(&s, st, cause);
    fr_requests_close(&s.requests);
    fr_batch_close(&s.batch);
    fr_link_close(&s.link, LINGER_MS);
    return st == FR_OK ? FR_OK : fr_fail(st, "%s", cause);
}
