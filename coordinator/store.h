/* store.h: jobs and their steps in SQLite, so that a restarted coordinator goes on where the last
 * one stopped.
 *
 * Writes are queued in memory and applied by fr_store_flush() in one durable transaction a loop
 * turn (WAL, synchronous=FULL). When the disk refuses them they stay queued and the next flush
 * tries again, so a full disk delays a coordinator and loses nothing. Nothing may be confirmed to a
 * client before the flush that holds it succeeded. Readers see only what was flushed, and of that no
 * step that is to be trimmed; fr_store_new_jobs() has the rest. One coordinator owns a file (exclusive
 * locking); one thread uses a store.
 *
 * Refused at opening: a file that is no store or a damaged one (FR_EFORMAT), one of another version
 * (FR_EUNSUPPORTED), one that another coordinator has open (FR_EBUSY). */
#ifndef FR_STORE_H
#define FR_STORE_H

#include "record.h"

typedef struct fr_store fr_store;

typedef struct fr_store_step {
    uint32_t index;     /* among the job's records, rejected ones counted */
    const int32_t *ids; /* the target's */
    size_t n_ids;
    int origin; /* fr_origin */
    int accepted;
    float score; /* NaN: none */
    uint32_t drafted, kept;
    double seconds;  /* running time of the job when it was committed */
    uint64_t passes; /* target passes of the job when it was committed */
    fr_bytes text;
} fr_store_step;

/* path NULL: nothing outlives the process. */
fr_status fr_store_open(const char *path, fr_store **out);
/* Drops what is not flushed. NULL is fine. */
void fr_store_close(fr_store **s);
/* A job number that was never used before in this store. */
uint64_t fr_store_next_job(fr_store *s);

/* Queued writes (FR_ENOMEM only). Everything is copied. */
fr_status fr_store_add_job(fr_store *s, const fr_job_record *r);
fr_status fr_store_set_job(fr_store *s, const fr_job_record *r); /* all but the spec */
fr_status fr_store_add_step(fr_store *s, uint64_t job, const fr_store_step *step);
fr_status fr_store_trim_steps(fr_store *s, uint64_t job, uint32_t from_index);
int fr_store_pending(const fr_store *s); /* queued writes */
fr_status fr_store_flush(fr_store *s);

/* Reads. A callback's error ends the reading and is passed up. */
typedef fr_status (*fr_store_job_fn)(void *ctx, const fr_job_record *r);
typedef fr_status (*fr_store_step_fn)(void *ctx, const fr_store_step *step);
fr_status fr_store_job(fr_store *s, uint64_t job, fr_store_job_fn fn, void *ctx); /* FR_ENOTFOUND */
/* Newest first; state -1: all; at most limit. */
fr_status fr_store_jobs(fr_store *s, int state, uint32_t limit, fr_store_job_fn fn, void *ctx);
/* Those of which nothing is flushed yet, as they were added; newest first, and newer than all that are flushed. */
fr_status fr_store_new_jobs(fr_store *s, fr_store_job_fn fn, void *ctx);
/* One of these: FR_ENOTFOUND. */
fr_status fr_store_new_job(fr_store *s, uint64_t job, fr_store_job_fn fn, void *ctx);
/* Queued and running ones, oldest first. */
fr_status fr_store_open_jobs(fr_store *s, fr_store_job_fn fn, void *ctx);
fr_status fr_store_steps(fr_store *s, uint64_t job, uint32_t from_index, fr_store_step_fn fn,
                         void *ctx);

#endif
