/* watch.c: see watch.h. Watchers are kept in order of their job's number, as the live jobs are, so
 * that one walk over both finds every watcher its job. */
#include "watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "log.h"

#define MAX_WATCHERS 4096
#define PROGRESS_S 0.1  /* at most one progress message in this time */
#define RETRY_S 0.1     /* until a client that does not read is tried again */
#define PATIENCE_S 30.0 /* until it is dropped */

typedef struct watcher {
    fr_client client;
    uint64_t job;
    uint32_t next;         /* step */
    uint32_t tail_version; /* last shown */
    double progress_at;    /* no progress message before */
    double busy_since;     /* it does not read; 0: it does */
} watcher;

struct fr_watchers {
    fr_jobs *jobs;
    fr_store *store;
    fr_watch_send send;
    void *ctx;
    watcher *list;
    int n, cap;
    double deadline;
};

fr_status fr_watchers_new(fr_jobs *jobs, fr_store *store, fr_watch_send send, void *ctx,
                          fr_watchers **out)
{
    fr_watchers *w = calloc(1, sizeof *w);
    if (!w)
        return fr_no_memory();
    *w =
        (fr_watchers){.jobs = jobs, .store = store, .send = send, .ctx = ctx, .deadline = INFINITY};
    *out = w;
    return FR_OK;
}

void fr_watchers_free(fr_watchers **w)
{
    if (!*w)
        return;
    free((*w)->list);
    free(*w);
    *w = NULL;
}

int fr_watchers_count(const fr_watchers *w)
{
    return w->n;
}

/* A client that asks again (it heard nothing, or came back) goes on as the one watcher it was. */
static watcher *find_watcher(fr_watchers *w, const fr_client *client, uint64_t job)
{
    for (int i = 0; i < w->n; i++) {
        watcher *one = &w->list[i];
        if (one->job == job && one->client.link == client->link &&
            fr_peer_equal(&one->client.peer, &client->peer))
            return one;
    }
    return NULL;
}

fr_status fr_watchers_add(fr_watchers *w, const fr_client *client, uint64_t job, uint32_t from_step)
{
    watcher *known = find_watcher(w, client, job);
    if (known) {
        known->client.tag = client->tag;
        known->next = from_step;
        return FR_OK;
    }
    if (w->n == MAX_WATCHERS)
        return fr_fail(FR_ELIMIT, "%d clients watch jobs, more are not possible", w->n);
    if (w->n == w->cap) {
        int cap = w->cap ? 2 * w->cap : 16;
        watcher *list = realloc(w->list, (size_t)cap * sizeof *list);
        if (!list)
            return fr_no_memory();
        w->list = list;
        w->cap = cap;
    }
    int at = w->n++;
    for (; at > 0 && w->list[at - 1].job > job; at--)
        w->list[at] = w->list[at - 1];
    w->list[at] = (watcher){.client = *client, .job = job, .next = from_step};
    return FR_OK;
}

/* ---- messages */

typedef struct stepper {
    fr_watchers *w;
    watcher *one;
} stepper;

static fr_status send_step(void *ctx, const fr_store_step *step)
{
    stepper *s = ctx;
    const char *verdict = !step->accepted                   ? "rejected"
                          : step->origin == FR_ORIGIN_DRAFT ? "accepted"
                                                            : "own";
    fr_msg m = {.kind = FR_MSG_STEP, .tag = s->one->client.tag};
    m.body.step = (fr_msg_step){
        .job = s->one->job,
        .index = step->index,
        .origin = fr_origin_name((fr_origin)step->origin),
        .verdict = verdict,
        .score = step->score,
        .text = step->text,
        .tokens = (uint32_t)step->n_ids,
        .drafted = step->drafted,
        .accepted = step->kept,
        .seconds = step->seconds,
    };
    FR_TRY(s->w->send(s->w->ctx, &s->one->client, &m));
    s->one->next = step->index + 1;
    return FR_OK;
}

static fr_status send_steps(fr_watchers *w, watcher *one)
{
    stepper s = {w, one};
    return fr_store_steps(w->store, one->job, one->next, send_step, &s);
}

static fr_status send_progress(fr_watchers *w, watcher *one, const fr_job *job, double now)
{
    const fr_job_counts *counts = &job->record.counts;
    fr_buf tail = {0};
    fr_status st = FR_OK;
    one->tail_version = job->tail_version;
    one->progress_at = now + PROGRESS_S;
    FR_TRY_GOTO(st, fr_job_tail_text(job, &tail), done);
    fr_msg m = {.kind = FR_MSG_PROGRESS, .tag = one->client.tag};
    m.body.progress = (fr_msg_progress){
        .job = one->job,
        .chain_tokens = counts->chain_tokens + (uint32_t)job->tail.len,
        .drafted = counts->drafted,
        .accepted = counts->accepted,
        .passes = job->before_passes + job->terms.passes,
        .seconds = fr_job_seconds(job),
        .tail = {tail.data, tail.len},
    };
    st = w->send(w->ctx, &one->client, &m);
done:
    fr_buf_free(&tail);
    return st == FR_EBUSY ? FR_OK : st; /* the next one says more */
}

static fr_status add_text(void *ctx, const fr_store_step *step)
{
    return step->accepted ? fr_buf_put(ctx, step->text.data, step->text.len) : FR_OK;
}

typedef struct stored {
    fr_store *store;
    fr_info_fn fn;
    void *ctx;
} stored;

static fr_status tell_stored(void *ctx, const fr_job_record *r)
{
    stored *s = ctx;
    fr_msg_job_info info;
    fr_buf text = {0};
    fr_status st = FR_OK;
    fr_record_info(r, &info);
    FR_TRY_GOTO(st, fr_store_steps(s->store, r->id, 0, add_text, &text), done);
    info.text = (fr_bytes){text.data, text.len};
    st = s->fn(s->ctx, &info);
done:
    fr_buf_free(&text);
    return st;
}

fr_status fr_stored_info(fr_store *store, uint64_t job, fr_info_fn fn, void *ctx)
{
    stored s = {store, fn, ctx};
    return fr_store_job(store, job, tell_stored, &s);
}

static fr_status send_done(void *ctx, const fr_msg_job_info *info)
{
    stepper *s = ctx;
    fr_msg m = {.kind = FR_MSG_DONE, .tag = s->one->client.tag, .body.done.job = *info};
    return s->w->send(s->w->ctx, &s->one->client, &m);
}

/* ---- pumping */

static fr_status note_end(void *ctx, const fr_job_record *r)
{
    *(int *)ctx = fr_record_over(r);
    return FR_OK;
}

/* Whether the store knows that the job is over; it may not know of the job at all. */
static fr_status end_is_stored(fr_store *store, uint64_t job, int *out)
{
    *out = 0;
    fr_status st = fr_store_job(store, job, note_end, out);
    return st == FR_ENOTFOUND ? FR_OK : st;
}

/* Sends one watcher what is new. *over_out: it has seen the end. */
static fr_status serve(fr_watchers *w, watcher *one, const fr_job *job, int held, double now, int *over_out)
{
    if (job) {
        if (one->next < job->n_records)
            FR_TRY(send_steps(w, one));
        /* The tail follows the last step, which may not be stored. */
        int fresh = job->policy && !held && one->tail_version != job->tail_version;
        return fresh && now >= one->progress_at ? send_progress(w, one, job, now) : FR_OK;
    }
    stepper s = {w, one};
    int is_over = 1;
    FR_TRY(send_steps(w, one));
    if (held)
        FR_TRY(end_is_stored(w->store, one->job, &is_over));
    if (is_over)
        FR_TRY(fr_stored_info(w->store, one->job, send_done, &s));
    *over_out = is_over;
    return FR_OK;
}

static void tell_end(fr_watchers *w, const watcher *one, fr_status status, const char *why)
{
    fr_msg m = {.kind = FR_MSG_ERROR,
                .tag = one->client.tag,
                .body.error = {.status = status, .cause = why, .job = one->job}};
    if (w->send(w->ctx, &one->client, &m) != FR_OK)
        fr_log(FR_LOG_DEBUG, "a watcher of job %llu was gone already", (unsigned long long)one->job);
}

/* Whether the watcher stays. One that does not is told why, if it can be. */
static int keep(fr_watchers *w, watcher *one, fr_status st, double now)
{
    if (st == FR_OK) {
        one->busy_since = 0;
        return 1;
    }
    if (st == FR_EBUSY) {
        if (one->busy_since == 0)
            one->busy_since = now;
        if (now - one->busy_since < PATIENCE_S)
            return 1;
    }
    fr_log(FR_LOG_DEBUG, "a watcher of job %llu is dropped: %s", (unsigned long long)one->job,
           fr_cause());
    tell_end(w, one, st, fr_cause());
    return 0;
}

void fr_watchers_pump(fr_watchers *w, int held, double now)
{
    const fr_job *job = fr_jobs_first(w->jobs);
    int kept = 0;
    w->deadline = INFINITY;
    for (int i = 0; i < w->n; i++) {
        watcher *one = &w->list[i];
        int over = 0;
        while (job &&
               (job->record.id < one->job || (job->record.id == one->job && fr_job_over(job))))
            job = job->next;
        const fr_job *live = job && job->record.id == one->job ? job : NULL;
        fr_status st = serve(w, one, live, held, now, &over);
        if (over || !keep(w, one, st, now))
            continue;
        if (one->busy_since > 0)
            w->deadline = fmin(w->deadline, now + RETRY_S);
        else if (live && live->policy && one->tail_version != live->tail_version)
            w->deadline = fmin(w->deadline, one->progress_at);
        w->list[kept++] = *one;
    }
    w->n = kept;
}

double fr_watchers_deadline(const fr_watchers *w)
{
    return w->deadline;
}

void fr_watchers_dismiss(fr_watchers *w, const char *why)
{
    for (int i = 0; i < w->n; i++)
        tell_end(w, &w->list[i], FR_EUNAVAILABLE, why);
    w->n = 0;
}
