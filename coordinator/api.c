/* api.c: what clients ask: submit, watch, status, list, cancel, stop. Every reply carries the
 * request's tag. What a reply tells is durable: queries flush first, and Submitted and the Ok of a
 * cancelled job wait for the turn's flush. While the store cannot be written, queries tell what it
 * holds, and how far the live jobs are, those too that it does not hold yet; and who waits for a reply
 * hears now and then what it waits for: a StatusReply with the request's tag. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "clock.h"
#include "core.h"
#include "log.h"
#include "version.h"

#define LIST_LIMIT 100 /* when the client names none */
#define LIST_MOST 10000
#define SHOWN_IN_LIST 1024 /* bytes of a text in a list; a single job's is told whole */

/* ---- replies */

void fr_core_reply(fr_core *core, const fr_client *to, fr_msg *m)
{
    m->tag = to->tag;
    fr_status st = fr_core_send(core, to->link, &to->peer, m);
    if (st == FR_OK)
        return;
    fr_log(FR_LOG_DEBUG, "a %s is not delivered: %s", fr_msg_kind_name(m->kind), fr_cause());
    if (st == FR_ELIMIT && m->kind != FR_MSG_ERROR)
        fr_core_reply_error(core, to, st, fr_cause(), 0);
}

void fr_core_reply_error(fr_core *core, const fr_client *to, fr_status status, const char *cause,
                         uint64_t job)
{
    fr_msg m = {.kind = FR_MSG_ERROR, .body.error = {.status = status, .cause = cause, .job = job}};
    fr_core_reply(core, to, &m);
}

fr_status fr_core_ack(fr_core *core, const fr_ack *ack)
{
    if (core->n_acks == core->cap_acks) {
        size_t cap = core->cap_acks ? 2 * core->cap_acks : 16;
        fr_ack *acks = realloc(core->acks, cap * sizeof *acks);
        if (!acks)
            return fr_no_memory();
        core->acks = acks;
        core->cap_acks = cap;
    }
    core->acks[core->n_acks++] = *ack;
    return FR_OK;
}

/* A list of jobs that owns its records; the infos borrow them. */
typedef struct job_list {
    fr_core *core;
    int filter;     /* of jobs that are not stored: fr_job_state, -1 for all */
    uint32_t limit; /* of these */
    fr_job_record *records;
    fr_msg_job_info *infos;
    size_t n, cap;
} job_list;

static void job_list_free(job_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        fr_record_free(&l->records[i]);
    free(l->records);
    free(l->infos);
    *l = (job_list){0};
}

/* Live jobs know more than their rows. */
static void fill_live(const fr_job *job, fr_job_record *r)
{
    r->state = job->record.state;
    r->counts.seconds = fr_job_seconds(job);
    if (job->policy) {
        r->counts.passes = job->before_passes + job->terms.passes;
        r->batch_dependent |= job->terms.batch_dependent;
    }
    if (!fr_job_over(job))
        r->cause = job->waits_for;
}

/* Of a job that is neither live nor stored as over. */
static const char end_not_stored[] = "it is over; its end waits for the store to be written";

static fr_job_record shown_record(const fr_core *core, const fr_job_record *stored)
{
    const fr_job *live = fr_jobs_find(core->jobs, stored->id);
    fr_job_record shown = live ? live->record : *stored;
    if (live)
        fill_live(live, &shown);
    else if (!fr_record_over(stored))
        shown.cause = end_not_stored;
    return shown;
}

/* A list shows the beginnings: what its jobs were given and answered may be 64 MB together. */
static void cut_shown(char *text)
{
    if (text && strlen(text) > SHOWN_IN_LIST)
        text[SHOWN_IN_LIST - fr_utf8_unfinished(text, SHOWN_IN_LIST)] = 0;
}

static fr_status job_list_put(job_list *l, const fr_job_record *shown)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 32;
        fr_job_record *records = realloc(l->records, cap * sizeof *records);
        if (!records)
            return fr_no_memory();
        l->records = records;
        l->cap = cap;
    }
    fr_job_record *r = &l->records[l->n];
    FR_TRY(fr_record_copy(shown, r));
    l->n++;
    const char *const long_texts[] = {r->spec.problem, r->spec.system, r->answer};
    for (size_t i = 0; i < sizeof long_texts / sizeof *long_texts; i++)
        cut_shown((char *)long_texts[i]);
    return FR_OK;
}

static fr_status job_list_add(void *ctx, const fr_job_record *stored)
{
    job_list *l = ctx;
    const fr_job_record shown = shown_record(l->core, stored);
    return job_list_put(l, &shown);
}

/* One that is not stored yet. */
static fr_status job_list_add_new(void *ctx, const fr_job_record *added)
{
    job_list *l = ctx;
    if (l->n == l->limit)
        return FR_OK;
    const fr_job_record shown = shown_record(l->core, added);
    return l->filter < 0 || (int)shown.state == l->filter ? job_list_put(l, &shown) : FR_OK;
}

static fr_status job_list_infos(job_list *l)
{
    l->infos = calloc(l->n ? l->n : 1, sizeof *l->infos);
    if (!l->infos)
        return fr_no_memory();
    for (size_t i = 0; i < l->n; i++)
        fr_record_info(&l->records[i], &l->infos[i]);
    return FR_OK;
}

/* ---- requests */

/* Before the store is read. A disk that takes nothing is told of by the turn's own flush. */
static void flush_if_possible(fr_core *core)
{
    if (fr_core_flush(core) != FR_OK)
        fr_log(FR_LOG_DEBUG, "a query is answered without what waits for the store: %s", fr_cause());
}

static fr_status on_submit(fr_core *core, const fr_client *from, const fr_msg_submit *m, double now)
{
    uint64_t id = 0;
    if (core->draining)
        return fr_fail(FR_EUNAVAILABLE, "the cluster is stopping and takes no more jobs");
    FR_TRY(fr_jobs_submit(core->jobs, &m->spec, now, &id));
    fr_ack ack = {FR_MSG_SUBMITTED, *from, id};
    FR_TRY(fr_core_ack(core, &ack));
    return m->watch ? fr_watchers_add(core->watchers, from, id, 0) : FR_OK;
}

static fr_status nothing(void *ctx, const fr_job_record *r)
{
    (void)ctx;
    (void)r;
    return FR_OK;
}

/* A job as the store has it, or as it was added if it is not stored yet. FR_ENOTFOUND. */
static fr_status known_job(fr_core *core, uint64_t job, fr_store_job_fn fn, void *ctx)
{
    flush_if_possible(core);
    fr_status st = fr_store_job(core->store, job, fn, ctx);
    return st == FR_ENOTFOUND ? fr_store_new_job(core->store, job, fn, ctx) : st;
}

static fr_status on_watch(fr_core *core, const fr_client *from, const fr_msg_watch *m)
{
    if (!fr_jobs_find(core->jobs, m->job))
        FR_TRY(known_job(core, m->job, nothing, NULL));
    return fr_watchers_add(core->watchers, from, m->job, m->from_step);
}

static void group_info(const fr_group *g, double now, fr_msg_group_info *out)
{
    *out = (fr_msg_group_info){
        .group = g->id,
        .name = g->name,
        .role = fr_role_name(g->role),
        .model = g->model_name,
        .ranks = g->ranks,
        .threads = g->threads,
        .alive = fr_group_usable(g, g->role, 0),
        .kv_positions = g->kv_positions,
        .kv_free = g->load.kv_free,
        .active = g->load.active,
        .passes = g->load.passes,
        .last_seen_s = now - g->last_seen,
        .backend = g->backend,
        .model_digest = g->model_digest,
        .pid = g->pid,
        .busy_seconds = g->load.busy_seconds,
        .batch_dependent = g->batch_dependent,
    };
}

static fr_status on_cluster_status(fr_core *core, const fr_client *from, double now)
{
    int n_groups = fr_registry_count(core->registry);
    job_list jobs = {.core = core};
    fr_status st = FR_OK;
    fr_msg_group_info *groups = calloc((size_t)(n_groups ? n_groups : 1), sizeof *groups);
    if (!groups)
        return fr_no_memory();
    for (int i = 0; i < n_groups; i++)
        group_info(fr_registry_at(core->registry, i), now, &groups[i]);
    for (fr_job *job = fr_jobs_first(core->jobs); job && jobs.n < LIST_MOST; job = job->next)
        if (!fr_job_over(job) && (job->policy || jobs.n < LIST_LIMIT))
            FR_TRY_GOTO(st, job_list_add(&jobs, &job->record), done);
    FR_TRY_GOTO(st, job_list_infos(&jobs), done);
    fr_msg m = {.kind = FR_MSG_STATUS_REPLY};
    m.body.status_reply = (fr_msg_status_reply){
        .groups = groups,
        .n_groups = (size_t)n_groups,
        .jobs = jobs.infos,
        .n_jobs = jobs.n,
        .uptime = now - core->started,
        .queued = (uint32_t)fr_jobs_queued(core->jobs),
        .running = (uint32_t)fr_jobs_running(core->jobs),
        .version = FR_VERSION,
    };
    fr_core_reply(core, from, &m);
done:
    free(groups);
    job_list_free(&jobs);
    return st;
}

typedef struct one_job {
    fr_core *core;
    const fr_client *from;
    double now;
} one_job;

static fr_status reply_one_job(void *ctx, const fr_msg_job_info *stored)
{
    one_job *o = ctx;
    fr_msg_job_info info = *stored;
    const fr_job *live = fr_jobs_find(o->core->jobs, stored->job);
    if (live) {
        fr_job_record shown = live->record;
        fill_live(live, &shown);
        fr_record_info(&shown, &info);
        info.text = stored->text;
    } else if (stored->finished_ms == 0) {
        info.cause = end_not_stored;
    }
    fr_msg m = {.kind = FR_MSG_STATUS_REPLY};
    m.body.status_reply = (fr_msg_status_reply){
        .jobs = &info,
        .n_jobs = 1,
        .uptime = o->now - o->core->started,
        .queued = (uint32_t)fr_jobs_queued(o->core->jobs),
        .running = (uint32_t)fr_jobs_running(o->core->jobs),
        .version = FR_VERSION,
    };
    fr_core_reply(o->core, o->from, &m);
    return FR_OK;
}

static fr_status reply_new_job(void *ctx, const fr_job_record *added)
{
    fr_msg_job_info info;
    fr_record_info(added, &info);
    return reply_one_job(ctx, &info);
}

static fr_status on_status(fr_core *core, const fr_client *from, const fr_msg_status_query *m,
                           double now)
{
    one_job o = {core, from, now};
    if (m->job == 0)
        return on_cluster_status(core, from, now);
    flush_if_possible(core);
    fr_status st = fr_stored_info(core->store, m->job, reply_one_job, &o);
    return st == FR_ENOTFOUND ? fr_store_new_job(core->store, m->job, reply_new_job, &o) : st;
}

static fr_status on_list(fr_core *core, const fr_client *from, const fr_msg_list_query *m)
{
    job_list jobs = {.core = core, .filter = -1};
    fr_job_state state = FR_JOB_QUEUED;
    fr_status st = FR_OK;
    if (m->state[0]) {
        FR_TRY(fr_job_state_parse(m->state, &state));
        jobs.filter = state;
    }
    jobs.limit = m->limit == 0 ? LIST_LIMIT : m->limit < LIST_MOST ? m->limit : LIST_MOST;
    flush_if_possible(core);
    FR_TRY_GOTO(st, fr_store_new_jobs(core->store, job_list_add_new, &jobs), done);
    FR_TRY_GOTO(st, fr_store_jobs(core->store, jobs.filter, jobs.limit - (uint32_t)jobs.n, job_list_add, &jobs), done);
    FR_TRY_GOTO(st, job_list_infos(&jobs), done);
    fr_msg reply = {.kind = FR_MSG_LIST_REPLY, .body.list_reply = {jobs.infos, jobs.n}};
    fr_core_reply(core, from, &reply);
done:
    job_list_free(&jobs);
    return st;
}

static fr_status refuse_finished(void *ctx, const fr_job_record *r)
{
    (void)ctx;
    if (r->state == FR_JOB_CANCELLED)
        return FR_OK;
    if (!fr_record_over(r))
        return fr_fail(FR_EINVAL, "job %llu: %s", (unsigned long long)r->id, end_not_stored);
    return fr_fail(FR_EINVAL, "job %llu is %s already", (unsigned long long)r->id,
                   fr_job_state_name(r->state));
}

static fr_status on_cancel(fr_core *core, const fr_client *from, const fr_msg_cancel_job *m)
{
    fr_job *job = fr_jobs_find(core->jobs, m->job);
    if (job) {
        const fr_ack ack = {FR_MSG_OK, *from, m->job};
        fr_job_end(job, FR_JOB_CANCELLED, FR_ECANCELLED, "cancelled by a client");
        return fr_core_ack(core, &ack);
    }
    FR_TRY(known_job(core, m->job, refuse_finished, NULL));
    fr_msg reply = {.kind = FR_MSG_OK, .body.ok.job = m->job};
    fr_core_reply(core, from, &reply);
    return FR_OK;
}

static fr_status on_stop(fr_core *core, const fr_client *from, const fr_msg_stop_cluster *m)
{
    fr_log(FR_LOG_INFO, "a client stops the cluster%s",
           m->drain ? " when the running jobs are done" : "");
    core->draining = 1;
    core->stop = core->stop || !m->drain;
    fr_msg reply = {.kind = FR_MSG_OK};
    fr_core_reply(core, from, &reply);
    return FR_OK;
}

int fr_api_handle(fr_core *core, const fr_client *from, const fr_msg *m, double now)
{
    fr_status st = FR_OK;
    uint64_t job = 0;
    switch (m->kind) {
    case FR_MSG_SUBMIT:
        st = on_submit(core, from, &m->body.submit, now);
        break;
    case FR_MSG_WATCH:
        st = on_watch(core, from, &m->body.watch);
        job = m->body.watch.job;
        break;
    case FR_MSG_STATUS_QUERY:
        st = on_status(core, from, &m->body.status_query, now);
        job = m->body.status_query.job;
        break;
    case FR_MSG_LIST_QUERY:
        st = on_list(core, from, &m->body.list_query);
        break;
    case FR_MSG_CANCEL_JOB:
        st = on_cancel(core, from, &m->body.cancel_job);
        job = m->body.cancel_job.job;
        break;
    case FR_MSG_STOP_CLUSTER:
        st = on_stop(core, from, &m->body.stop_cluster);
        break;
    default:
        return 0;
    }
    if (st != FR_OK)
        fr_core_reply_error(core, from, st, fr_cause(), job);
    return 1;
}
