/* scheduler.h: which group gets a call: a pure function of what is known of the groups. */
#ifndef FR_SCHEDULER_H
#define FR_SCHEDULER_H

#include <stdint.h>

typedef struct fr_choice {
    uint32_t group;
    int n_calls;      /* outstanding there */
    uint64_t kv_free; /* positions, by its last heartbeat */
} fr_choice;

/* The index of the group to take, -1 when there is none. A job stays with the group that caches its
 * chain (sticky; 0: none yet); else the least loaded group takes it, of equals the one with more
 * free cache, then the older one. */
int fr_schedule(const fr_choice *choices, int n, uint32_t sticky);

#endif
