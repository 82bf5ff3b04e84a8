/* loop.c: see loop.h. A turn: 1. take in what has arrived, 2. notice groups that are silent, 3.
 * send calls, start jobs, send their first calls, 4. make everything durable, 5. tell clients what
 * is durable now. While the store cannot be written, 4 is tried again every second, then 5 tells what
 * was durable before and what other replies wait for, and no job starts. */
#include "loop.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "core.h"
#include "log.h"

#define TURN_MESSAGES 256 /* of one link, before the other things get their turn */
#define CLIENT_FRAME (64u << 20)
#define FLUSH_RETRY_S 1.0
#define LINGER_MS 500 /* for the farewells */
#define FEW_CORES 4

struct fr_coordinator {
    fr_core core;
    fr_coordinator_options options;
    double retry_flush_at; /* INFINITY: the store is well */
};

fr_status fr_core_send(fr_core *core, int link, const fr_peer *to, const fr_msg *m)
{
    return fr_link_send(core->links[link], to, m);
}

/* ---- what the parts call */

static fr_status send_to_group(void *ctx, const fr_group *g, const fr_msg *m)
{
    return fr_core_send(ctx, g->link, &g->peer, m);
}

static void event_to_job(void *ctx, uint64_t id, const fr_policy_event *event)
{
    fr_core *core = ctx;
    fr_job *job = fr_jobs_find(core->jobs, id);
    if (job)
        fr_job_event(job, event);
}

static void fail_job(void *ctx, uint64_t id, fr_status status, const char *cause)
{
    fr_core *core = ctx;
    fr_job *job = fr_jobs_find(core->jobs, id);
    if (job)
        fr_job_end(job, FR_JOB_FAILED, status, cause);
}

static void lose_group(void *ctx, fr_group *g, const char *why)
{
    fr_core_lose_group(ctx, g, why, fr_now_s());
}

static fr_status send_to_watcher(void *ctx, const fr_client *to, const fr_msg *m)
{
    return fr_core_send(ctx, to->link, &to->peer, m);
}

/* ---- opening and closing */

static fr_status open_parts(fr_coordinator *c)
{
    fr_core *core = &c->core;
    const fr_coordinator_options *o = &c->options;
    const double now = fr_now_s();
    const fr_calls_host host = {.ctx = core,
                                .send = send_to_group,
                                .event = event_to_job,
                                .fail = fail_job,
                                .lost = lose_group};
    core->started = now;
    FR_TRY(fr_store_open(o->store, &core->store));
    FR_TRY(fr_link_listen(o->bind, CLIENT_FRAME, &core->links[FR_LINK_OUTER]));
    core->n_links = 1;
    if (o->inner) {
        FR_TRY(fr_link_listen(o->inner, CLIENT_FRAME, &core->links[FR_LINK_INNER]));
        core->n_links = 2;
    }
    int dead_after_ms = o->dead_after_ms > 0 ? o->dead_after_ms : 3 * o->heartbeat_ms;
    /* Milliseconds of the wall clock: later coordinators begin at later epochs. */
    FR_TRY(fr_registry_new(o->heartbeat_ms, dead_after_ms, (uint64_t)fr_wall_ms(), now,
                           &core->registry));
    FR_TRY(fr_calls_new(core->registry, &host, o->grace_ms / 1000.0, &core->calls));
    core->env = (fr_job_env){.registry = core->registry,
                             .calls = core->calls,
                             .store = core->store,
                             .overlap = o->overlap,
                             .few_cores = sysconf(_SC_NPROCESSORS_ONLN) < FEW_CORES,
                             .draft_comes = o->inner != NULL,
                             .grace_s = o->grace_ms / 1000.0};
    FR_TRY(fr_jobs_open(&core->env, o->max_running, now, &core->jobs));
    return fr_watchers_new(core->jobs, core->store, send_to_watcher, core, &core->watchers);
}

fr_status fr_coordinator_open(const fr_coordinator_options *options, fr_coordinator **out)
{
    fr_coordinator *c = calloc(1, sizeof *c);
    if (!c)
        return fr_no_memory();
    c->options = *options;
    c->retry_flush_at = INFINITY;
    fr_status st = open_parts(c);
    if (st != FR_OK) {
        fr_coordinator_close(&c);
        return st;
    }
    *out = c;
    return FR_OK;
}

/* Replies that waited for the store, which could not be written to the end. */
static void take_back_acks(fr_core *core)
{
    for (size_t i = 0; i < core->n_acks; i++) {
        const fr_ack *ack = &core->acks[i];
        const char *why = ack->kind == FR_MSG_SUBMITTED
                              ? "the coordinator stops, and could not store the job: it does not run"
                              : "the coordinator stops, and could not store that the job is cancelled: it may go on";
        fr_core_reply_error(core, &ack->client, FR_EUNAVAILABLE, why, ack->job);
    }
    core->n_acks = 0;
}

void fr_coordinator_farewell(fr_coordinator *c)
{
    fr_core *core = c ? &c->core : NULL;
    if (!core || !core->watchers)
        return;
    const fr_msg m = {.kind = FR_MSG_SHUTDOWN, .body.shutdown.reason = "the coordinator stops"};
    take_back_acks(core);
    fr_watchers_dismiss(
        core->watchers,
        "the coordinator stops; an open job goes on when it is back with its store");
    fr_watchers_free(&core->watchers);
    fr_jobs_close(&core->jobs);
    for (int i = 0; i < fr_registry_count(core->registry); i++) {
        const fr_group *g = fr_registry_at(core->registry, i);
        if (g->alive && fr_core_send(core, g->link, &g->peer, &m) != FR_OK)
            fr_log(FR_LOG_DEBUG, "group %s was gone already", g->name);
    }
}

void fr_coordinator_close(fr_coordinator **c)
{
    if (!c || !*c)
        return;
    fr_core *core = &(*c)->core;
    fr_coordinator_farewell(*c);
    fr_watchers_free(&core->watchers);
    fr_jobs_close(&core->jobs); /* half-built: there was no farewell */
    fr_calls_free(&core->calls);
    fr_registry_free(&core->registry);
    fr_store_close(&core->store);
    for (int i = 0; i < FR_N_LINKS; i++)
        fr_link_close(&core->links[i], LINGER_MS);
    free(core->acks);
    free(*c);
    *c = NULL;
}

const char *fr_coordinator_endpoint(const fr_coordinator *c)
{
    return fr_link_endpoint(c->core.links[FR_LINK_OUTER]);
}

void fr_coordinator_stop(fr_coordinator *c)
{
    c->core.stop = 1;
}

void fr_coordinator_no_drafter(fr_coordinator *c)
{
    c->core.env.draft_comes = 0;
}

/* ---- a turn */

static void handle(fr_core *core, int link, const fr_peer *from, const fr_msg *m, double now)
{
    const fr_client client = {link, *from, m->tag};
    if (fr_engines_handle(core, link, from, m, now) || fr_api_handle(core, &client, m, now))
        return;
    core->malformed++;
    fr_fail(FR_EPROTO, "a %s is nothing to tell a coordinator", fr_msg_kind_name(m->kind));
    fr_core_reply_error(core, &client, FR_EPROTO, fr_cause(), 0);
}

/* A frame that gave no message; its sender is told, where it is known. */
static void refuse_frame(fr_core *core, int link, const fr_peer *from, fr_status st)
{
    const fr_client client = {.link = link, .peer = *from};
    core->malformed += st == FR_EPROTO;
    if (fr_log_limit_pass(&core->warnings, fr_now_s()))
        fr_log(FR_LOG_WARN, "%s", fr_cause());
    if (from->len)
        fr_core_reply_error(core, &client, st, fr_cause(), 0);
}

/* Takes in what has arrived at one link, up to a limit. */
static fr_status take_in(fr_core *core, int link)
{
    for (int i = 0; i < TURN_MESSAGES; i++) {
        fr_peer from;
        fr_msg m;
        fr_status st = fr_link_recv(core->links[link], 0, &from, &m);
        if (st == FR_ETIMEDOUT)
            return FR_OK;
        if (st == FR_EPROTO || st == FR_ENOMEM) {
            refuse_frame(core, link, &from, st);
            continue;
        }
        if (st == FR_ECANCELLED) /* a signal; the wake descriptor tells more */
            continue;
        FR_TRY(st);
        handle(core, link, &from, &m, fr_now_s());
        fr_msg_free(&m);
    }
    return FR_OK;
}

static void notice_silence(fr_core *core, double now)
{
    for (fr_group *g; (g = fr_registry_silent(core->registry, now));) {
        fr_fail(FR_ETIMEDOUT, "silent for %.1f s", now - g->last_seen);
        fr_core_lose_group(core, g, fr_cause(), now);
    }
}

static void count_warnings(fr_core *core, double now)
{
    uint64_t n = fr_log_limit_count(&core->warnings, now);
    if (n)
        fr_log(FR_LOG_WARN, "%llu more warnings about peers' messages are left out",
               (unsigned long long)n);
}

static void send_acks(fr_core *core)
{
    for (size_t i = 0; i < core->n_acks; i++) {
        const fr_ack *ack = &core->acks[i];
        fr_msg m = {.kind = ack->kind};
        if (ack->kind == FR_MSG_SUBMITTED)
            m.body.submitted.job = ack->job;
        else
            m.body.ok.job = ack->job;
        fr_core_reply(core, &ack->client, &m);
    }
    core->n_acks = 0;
}

static const char waits_for_store[] = "waiting for the store to be written";

/* It is not said how the job is, which is not durable. */
static void tell_what_acks_wait_for(fr_core *core)
{
    for (size_t i = 0; i < core->n_acks; i++) {
        const fr_ack *ack = &core->acks[i];
        const fr_msg_job_info job = {
            .job = ack->job,
            .cause = ack->kind == FR_MSG_SUBMITTED ? waits_for_store
                                                   : "it runs no more; its end waits for the store to be written"};
        fr_msg m = {.kind = FR_MSG_STATUS_REPLY, .body.status_reply = {.jobs = &job, .n_jobs = 1}};
        fr_core_reply(core, &ack->client, &m);
    }
}

fr_status fr_core_flush(fr_core *core)
{
    FR_TRY(fr_store_flush(core->store));
    send_acks(core);
    return FR_OK;
}

static void make_durable(fr_coordinator *c, double now)
{
    fr_core *core = &c->core;
    const int was_well = isinf(c->retry_flush_at);
    const int is_well = fr_core_flush(core) == FR_OK;
    if (was_well && !is_well)
        fr_log(FR_LOG_ERROR, "%s; clients wait until it can be written", fr_cause());
    if (!was_well && is_well)
        fr_log(FR_LOG_INFO, "the store is written again");
    c->retry_flush_at = is_well ? (double)INFINITY : now + FLUSH_RETRY_S;
    if (!is_well)
        tell_what_acks_wait_for(core);
    fr_watchers_pump(core->watchers, !is_well, now);
}

/* Why no job may start; NULL: one may. */
static const char *reason_to_hold(const fr_coordinator *c)
{
    if (c->core.draining)
        return "waiting: this coordinator ends";
    return isinf(c->retry_flush_at) ? NULL : waits_for_store;
}

static void turn(fr_coordinator *c)
{
    fr_core *core = &c->core;
    const double now = fr_now_s();
    if (now >= c->retry_flush_at) /* first: jobs that were held back start in this turn */
        make_durable(c, now);
    count_warnings(core, now);
    notice_silence(core, now);
    fr_calls_dispatch(core->calls, now);
    fr_jobs_turn(core->jobs, reason_to_hold(c), now);
    fr_calls_dispatch(core->calls, now);
    if (isinf(c->retry_flush_at)) {
        make_durable(c, now);
        if (!isinf(c->retry_flush_at)) /* jobs that wait, wait for this now */
            fr_jobs_turn(core->jobs, reason_to_hold(c), now);
    }
    if (core->draining && fr_jobs_running(core->jobs) == 0 && !fr_store_pending(core->store))
        core->stop = 1;
}

static int wait_ms(const fr_coordinator *c)
{
    const fr_core *core = &c->core;
    const double now = fr_now_s();
    double at = fmin(fr_registry_deadline(core->registry), fr_calls_deadline(core->calls));
    at = fmin(at, fr_jobs_deadline(core->jobs, now));
    at = fmin(at, fmin(c->retry_flush_at, fr_log_limit_deadline(&core->warnings)));
    if (isinf(c->retry_flush_at))
        at = fmin(at, fr_watchers_deadline(core->watchers));
    if (isinf(at))
        return -1;
    double ms = ceil((at - now) * 1000.0);
    return ms < 0 ? 0 : ms > 60000 ? 60000 : (int)ms;
}

fr_status fr_coordinator_run(fr_coordinator *c)
{
    fr_core *core = &c->core;
    const int n_fds = c->options.wake_fd >= 0;
    turn(c);
    while (!core->stop) {
        int ready[FR_N_LINKS + 1] = {0};
        fr_status st =
            fr_link_poll(core->links, core->n_links, &c->options.wake_fd, n_fds, wait_ms(c), ready);
        if (st != FR_OK && st != FR_ECANCELLED)
            return st;
        if (n_fds && ready[core->n_links])
            c->options.woken(c->options.ctx);
        for (int i = 0; i < core->n_links; i++)
            if (ready[i])
                FR_TRY(take_in(core, i));
        turn(c);
    }
    return FR_OK;
}
