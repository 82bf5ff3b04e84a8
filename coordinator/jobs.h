/* jobs.h: the live jobs, in order of submission: who may run, and who does. Finished ones are in
 * the store only. */
#ifndef FR_JOBS_H
#define FR_JOBS_H

#include "job.h"

typedef struct fr_jobs fr_jobs;

/* Takes up the open jobs of the store. The environment outlives it. */
fr_status fr_jobs_open(const fr_job_env *env, int max_running, double now, fr_jobs **out);
void fr_jobs_close(fr_jobs **jobs); /* running ones stay so in the store */

/* Checks, fills the defaults in, and queues a copy. */
fr_status fr_jobs_submit(fr_jobs *jobs, const fr_msg_job_spec *spec, double now, uint64_t *id_out);
fr_job *fr_jobs_find(const fr_jobs *jobs, uint64_t id); /* live ones; NULL: none */
fr_job *fr_jobs_first(const fr_jobs *jobs);             /* then job->next; ascending ids */
int fr_jobs_running(const fr_jobs *jobs);
int fr_jobs_queued(const fr_jobs *jobs);

/* Starts what may run, oldest first, unless `hold` says why nothing may, which jobs keep (a
 * literal); lets go of what is over. */
void fr_jobs_turn(fr_jobs *jobs, const char *hold, double now);
/* When the next turn is due without a message. */
double fr_jobs_deadline(const fr_jobs *jobs, double now);

#endif
