/* rank_facts.h: what the ranks of a group tell each other when a session opens, before anything is loaded. A rank may
 * have been started by a command line of its own; what it was told there must fit what the others were told, or they
 * would compute parts of different things. */
#ifndef FR_RANK_FACTS_H
#define FR_RANK_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "ops.h"
#include "status.h"

/* Ranks run the same build, so it travels as it lies in memory. */
typedef struct fr_rank_facts {
    char backend[16];
    uint8_t device[FR_DEVICE_ID]; /* zeros: none of its own */
    char model[64];               /* the file's name, cut */
    uint64_t file_digest, rough_digest; /* of the model file; of the rough head's tokens */
    int64_t max_context, kv_positions, max_rows, n_rough;
    int32_t draft_weights;        /* fr_draft_weights */
    bool share_gpu, batch_dependent;
} fr_rank_facts;

/* Whether ranks [n] fit together, the same verdict wherever it is asked. FR_EMISMATCH: the first one that does not fit
 * rank 0, and in what. FR_EINVAL: the first two that have one device and may not share it. *shared_out: two have. */
fr_status fr_rank_facts_compare(const fr_rank_facts *ranks, int n, bool *shared_out);

#endif
