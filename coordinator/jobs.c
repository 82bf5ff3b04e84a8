/* jobs.c: see jobs.h. */
#include "jobs.h"

#include <math.h>
#include <stdlib.h>

#include "check.h"
#include "clock.h"
#include "spec.h"

#define MAX_LIVE 100000 /* queued ones, mostly: each keeps its problem in memory */

struct fr_jobs {
    const fr_job_env *env;
    int max_running;
    fr_job *first, **last;
    int n;
    double now; /* while the store's jobs are taken up */
};

/* Takes over the record, whatever happens. */
static fr_status append(fr_jobs *jobs, fr_job_record *record, double now, fr_job **out)
{
    fr_job *job = fr_job_new(jobs->env, record, now);
    if (!job) {
        fr_record_free(record);
        return fr_no_memory();
    }
    *jobs->last = job;
    jobs->last = &job->next;
    jobs->n++;
    *out = job;
    return FR_OK;
}

static fr_status take_up(void *ctx, const fr_job_record *stored)
{
    fr_jobs *jobs = ctx;
    fr_job_record record;
    fr_job *job = NULL;
    FR_TRY(fr_record_copy(stored, &record));
    record.state = FR_JOB_QUEUED; /* in the store it stays as it is */
    return append(jobs, &record, jobs->now, &job);
}

fr_status fr_jobs_open(const fr_job_env *env, int max_running, double now, fr_jobs **out)
{
    fr_jobs *jobs = calloc(1, sizeof *jobs);
    if (!jobs)
        return fr_no_memory();
    *jobs = (fr_jobs){.env = env, .max_running = max_running, .last = &jobs->first, .now = now};
    fr_status st = fr_store_open_jobs(env->store, take_up, jobs);
    if (st != FR_OK) {
        fr_jobs_close(&jobs);
        return st;
    }
    *out = jobs;
    return FR_OK;
}

void fr_jobs_close(fr_jobs **jobs)
{
    if (!*jobs)
        return;
    for (fr_job *job = (*jobs)->first; job;) {
        fr_job *next = job->next;
        fr_job_free(&job);
        job = next;
    }
    free(*jobs);
    *jobs = NULL;
}

fr_status fr_jobs_submit(fr_jobs *jobs, const fr_msg_job_spec *spec, double now, uint64_t *id_out)
{
    fr_job_record record = {0};
    fr_job *job = NULL;
    fr_status st = FR_OK;
    if (jobs->n >= MAX_LIVE)
        return fr_fail(FR_ELIMIT, "%d jobs are queued or running, more are not possible", jobs->n);
    const fr_job_record draft = {
        .spec = *spec, .state = FR_JOB_QUEUED, .submitted_ms = fr_wall_ms()};
    FR_TRY(fr_record_copy(&draft, &record));
    FR_TRY_GOTO(st, fr_spec_check(&record.spec), fail);
    FR_TRY_GOTO(st, fr_job_check_models(jobs->env, &record.spec), fail);
    *id_out = record.id = fr_store_next_job(jobs->env->store);
    FR_TRY(append(jobs, &record, now, &job));
    st = fr_store_add_job(jobs->env->store, &job->record);
    if (st != FR_OK)
        job->record.state = FR_JOB_FAILED; /* never was; the next turn lets go of it */
    return st;
fail:
    fr_record_free(&record);
    return st;
}

fr_job *fr_jobs_find(const fr_jobs *jobs, uint64_t id)
{
    for (fr_job *job = jobs->first; job; job = job->next)
        if (job->record.id == id && !fr_job_over(job))
            return job;
    return NULL;
}

fr_job *fr_jobs_first(const fr_jobs *jobs)
{
    return jobs->first;
}

static int count(const fr_jobs *jobs, fr_job_state state)
{
    int n = 0;
    for (const fr_job *job = jobs->first; job; job = job->next)
        n += job->record.state == state;
    return n;
}

int fr_jobs_running(const fr_jobs *jobs)
{
    return count(jobs, FR_JOB_RUNNING);
}

int fr_jobs_queued(const fr_jobs *jobs)
{
    return count(jobs, FR_JOB_QUEUED);
}

static void remove_over(fr_jobs *jobs)
{
    fr_job **at = &jobs->first;
    while (*at) {
        fr_job *job = *at;
        if (!fr_job_over(job)) {
            at = &job->next;
            continue;
        }
        *at = job->next;
        fr_job_free(&job);
        jobs->n--;
    }
    jobs->last = at;
}

void fr_jobs_turn(fr_jobs *jobs, const char *hold, double now)
{
    for (fr_job *job = jobs->first; job; job = job->next)
        fr_job_check_groups(job);
    int running = fr_jobs_running(jobs);
    for (fr_job *job = jobs->first; job; job = job->next) {
        if (job->record.state == FR_JOB_RUNNING)
            fr_job_look_for_groups(job);
        if (job->record.state != FR_JOB_QUEUED)
            continue;
        fr_job_await_target(job, now);
        if (hold) {
            job->waits_for = hold;
        } else if (fr_job_ready(job, running < jobs->max_running, now)) {
            fr_job_start(job, now);
            running += job->record.state == FR_JOB_RUNNING;
        }
    }
    remove_over(jobs);
}

double fr_jobs_deadline(const fr_jobs *jobs, double now)
{
    double first = INFINITY;
    for (const fr_job *job = jobs->first; job; job = job->next) {
        double at = job->record.state == FR_JOB_QUEUED ? fr_job_deadline(job) : (double)INFINITY;
        if (fr_job_over(job))
            return 0;
        if (at > now) /* a past one has had its effect */
            first = fmin(first, at);
    }
    return first;
}
