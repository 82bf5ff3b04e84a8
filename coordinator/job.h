/* job.h: one live job: queued, then running, then done, failed or cancelled. It holds the chain and
 * the policy, is the policy's host (policy.h), and keeps the counters. jobs.h owns the jobs and
 * calls these functions, all on the coordinator's one loop; a policy is never entered while it
 * runs.
 *
 * What it commits goes to the store's write queue; watchers read it from there after the flush. */
#ifndef FR_JOB_H
#define FR_JOB_H

#include "calls.h"
#include "policy.h"
#include "record.h"
#include "registry.h"
#include "store.h"

typedef struct fr_job_env { /* what jobs work with; outlives them */
    fr_registry *registry;
    fr_calls *calls;
    fr_store *store;
    int overlap;     /* 0, 1; -1: as the machines allow */
    int few_cores;   /* draft and target would only take the cores from each other */
    int draft_comes; /* a drafter is loading: exact jobs wait for it too */
    double grace_s;  /* how long an exact job waits for a draft group that may not come */
} fr_job_env;

typedef struct fr_job {
    struct fr_job *next; /* jobs.h: in order of submission */
    const fr_job_env *env;
    fr_job_record record; /* owned */
    const fr_policy_ops *ops;
    fr_policy *policy; /* NULL: not running */
    fr_policy_params params;
    fr_policy_host host;
    fr_call_terms terms;
    fr_chain chain;
    uint32_t n_records; /* steps in the store, rejected ones counted: the next one's index */
    double before_s;    /* running time before this process, and when it began in this one */
    double began;
    uint64_t before_passes;
    double grace_from;     /* queued: when the grace for a draft group begins, with the first target group */
    const char *waits_for; /* why it does not run yet or, while it runs, does not get on; "": it does */
    fr_ids tail;           /* approved, not yet committed */
    uint32_t tail_version; /* counts its changes */
    const char *finished;  /* the policy's word that the chain is complete */
} fr_job;

/* Checks an owned spec against the models that are there; what cannot be known yet is checked by
 * fr_job_start(). */
fr_status fr_job_check_models(const fr_job_env *env, const fr_msg_job_spec *spec);

/* Takes over the record. */
fr_job *fr_job_new(const fr_job_env *env, fr_job_record *record, double now);
void fr_job_free(fr_job **job); /* also drops its calls */

/* Of a queued job, whether it may start or not: while no target group is there its grace does not begin. */
void fr_job_await_target(fr_job *job, double now);
/* 1: it is its turn, which the caller knows, and the models it needs are there. 0: not yet, and waits_for says what
 * for. */
int fr_job_ready(fr_job *job, int is_its_turn, double now);
/* Of a running job: waits_for says which group it cannot get on without, if there is none. */
void fr_job_look_for_groups(fr_job *job);
/* When a job that is not ready may become so by time alone. */
double fr_job_deadline(const fr_job *job);

/* Opens chain and policy, brings back the committed steps of an earlier run, and begins. An error
 * has failed the job. */
void fr_job_start(fr_job *job, double now);
void fr_job_event(fr_job *job, const fr_policy_event *event);
/* Ends it in a final state; the record goes to the store. Only once. */
void fr_job_end(fr_job *job, fr_job_state state, fr_status status, const char *cause);
/* Fails a running job when the cluster has another model than its own, or less context: its chain cannot be continued
 * here. */
void fr_job_check_groups(fr_job *job);
int fr_job_over(const fr_job *job); /* in a final state */
double fr_job_seconds(const fr_job *job);
/* The text of the tail, whole characters only. */
fr_status fr_job_tail_text(const fr_job *job, fr_buf *out);

#endif
