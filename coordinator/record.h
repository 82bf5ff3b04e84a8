/* record.h: what is kept of a job, in memory and in the store: its spec, state, counters and end. A
 * live job owns its record's texts (fr_record_copy, fr_record_free); a record handed out by the
 * store borrows them for one call. */
#ifndef FR_RECORD_H
#define FR_RECORD_H

#include "codec.h"
#include "status.h"

typedef enum {
    FR_JOB_QUEUED,
    FR_JOB_RUNNING,
    FR_JOB_DONE,
    FR_JOB_FAILED,
    FR_JOB_CANCELLED
} fr_job_state;

const char *fr_job_state_name(fr_job_state state); /* "queued" */
/* FR_EINVAL for an unknown name, with those there are. */
fr_status fr_job_state_parse(const char *name, fr_job_state *out);

typedef struct fr_job_counts {
    uint32_t steps, chain_tokens; /* committed */
    uint32_t drafted, accepted;   /* drafted tokens proposed, and kept */
    uint32_t target_tokens;       /* tokens of the chain that the target itself produced */
    uint64_t passes;              /* target forward passes */
    double seconds;               /* running time */
} fr_job_counts;

typedef struct fr_job_record {
    uint64_t id;
    fr_job_state state;
    fr_msg_job_spec spec;
    fr_job_counts counts;
    uint64_t target_digest,
        draft_digest; /* of the models that write the chain; 0: not begun, or no draft */
    const char *target_model, *draft_model; /* their names, for error texts */
    uint32_t context;                       /* positions that bound the chain, as it was begun; 0: not begun */
    fr_status status;                       /* failed: why */
    const char *cause, *stop, *answer;
    int64_t submitted_ms, finished_ms; /* wall clock; 0: not yet */
    int batch_dependent; /* 1: a group that the text depends on computed so (registry.h) */
} fr_job_record;

int fr_record_over(const fr_job_record *r); /* in a final state */

/* Deep copies; *out is zeroed first and frees with the matching _free. NULL texts become "". */
fr_status fr_spec_copy(const fr_msg_job_spec *spec, fr_msg_job_spec *out);
void fr_spec_free(fr_msg_job_spec *spec);
fr_status fr_record_copy(const fr_job_record *r, fr_job_record *out);
void fr_record_free(fr_job_record *r);
/* Replaces an owned text; on FR_ENOMEM the old one stays. */
fr_status fr_text_set(const char **text, const char *value);

/* The wire's view of a record; borrows everything, text is left empty. */
void fr_record_info(const fr_job_record *r, fr_msg_job_info *out);

#endif
