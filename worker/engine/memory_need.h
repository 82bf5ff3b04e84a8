/* memory_need.h: what a model needs of a device whose memory is its own, told before any of it is loaded: a model that
 * does not fit is refused with what it needs and the number of ranks that would do.
 *
 * What the backend and the communicator keep for themselves is allocated before the check (fr_memory_reserve,
 * comm_device.h), so it is not among what is free then, and what is counted here are the model, its cache and the
 * arrays of a pass. From there on a pass allocates nothing but the recent head, which does without. */
#ifndef FR_MEMORY_NEED_H
#define FR_MEMORY_NEED_H

#include "config.h"
#include "draft_weights.h"

/* Left to the driver, which loads kernels with their first use and keeps recorded passes: an estimate. */
#define FR_MEMORY_DRIVER ((int64_t)256 << 20)

/* What is to be loaded, and for which passes. */
typedef struct fr_memory_load {
    const fr_model_file *file;
    const fr_config *config;
    const fr_ops *ops;        /* of a device whose memory is its own, but for fr_memory_reserve() */
    int n_ranks;
    int n_rough;              /* tokens of the rough head (model.h); 0: there is none */
    fr_draft_weights weights;
    int64_t kv_positions;     /* whole pages */
    int max_rows, max_context;
} fr_memory_load;

typedef struct fr_memory_need {
    int64_t weights, cache, scratch; /* bytes on one rank */
} fr_memory_need;

/* Lets this rank's device reserve what those passes need of it (ops.h). Does nothing where its memory is the host's. */
fr_status fr_memory_reserve(const fr_memory_load *l, fr_device *dev, int rank);
/* Of the rank that needs most. */
fr_status fr_memory_need_of(const fr_memory_load *l, fr_memory_need *out);
/* FR_ENOMEM when `room` bytes on each rank do not do; the cause says how much is needed for what, and the least
 * number of ranks that fits. */
fr_status fr_memory_check(const fr_memory_load *l, int64_t room);

#endif
