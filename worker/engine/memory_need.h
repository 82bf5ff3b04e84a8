/* memory_need.h: what a model needs of a device whose memory is its own, told before any of it is loaded: a model that
 * does not fit is refused with what it needs and the number of ranks that would do. */
#ifndef FR_MEMORY_NEED_H
#define FR_MEMORY_NEED_H

#include "config.h"

typedef struct fr_memory_need {
    int64_t weights, cache, scratch; /* bytes on one rank */
} fr_memory_need;

/* Of the rank that needs most of n_ranks. Without what backends keep for themselves: a rough head, room for partial
 * results, libraries. */
fr_status fr_memory_need_of(const fr_model_file *file, const fr_config *c, const fr_ops *ops, int n_ranks,
                            int64_t kv_positions, int max_rows, fr_memory_need *out);
/* FR_ENOMEM when `room` bytes on each rank do not do; the cause says how much is needed for what, and the least
 * number of ranks that fits. */
fr_status fr_memory_check(const fr_model_file *file, const fr_config *c, const fr_ops *ops, int n_ranks,
                          int64_t kv_positions, int max_rows, int64_t room);

#endif
