/* store_queue.h: the store's writes between two flushes, as whole operations that own their data.
 */
#ifndef FR_STORE_QUEUE_H
#define FR_STORE_QUEUE_H

#include "store.h"

typedef enum {
    FR_STORE_ADD_JOB,
    FR_STORE_SET_JOB,
    FR_STORE_ADD_STEP,
    FR_STORE_TRIM_STEPS
} fr_store_op_kind;

typedef struct fr_store_op {
    struct fr_store_op *next, *prev;
    fr_store_op_kind kind;
    uint64_t job;
    fr_job_record record; /* owned; the spec of FR_STORE_ADD_JOB only */
    fr_store_step step;   /* ids and text owned; FR_STORE_TRIM_STEPS: index only */
} fr_store_op;

typedef struct fr_store_queue { /* zero-initialise */
    fr_store_op *first, *last;
    size_t len;
} fr_store_queue;

/* Append in order; FR_ENOMEM leaves the queue as it was. */
fr_status fr_store_queue_job(fr_store_queue *q, fr_store_op_kind kind, const fr_job_record *r);
fr_status fr_store_queue_step(fr_store_queue *q, uint64_t job, const fr_store_step *step);
fr_status fr_store_queue_trim(fr_store_queue *q, uint64_t job, uint32_t from_index);
/* From this index on the job's stored steps are to be removed, as far as the queue says; UINT32_MAX: none are. */
uint32_t fr_store_queue_trims(const fr_store_queue *q, uint64_t job);
void fr_store_queue_clear(fr_store_queue *q);

#endif
