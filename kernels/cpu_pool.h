/* cpu_pool.h: a few threads that share the items of one loop at a time.
 *
 * A pool belongs to one caller thread, which works along. Idle threads spin for some tens of
 * microseconds (the next operation of a forward pass comes at once), then sleep on a condition
 * variable: an idle pool uses no CPU, and a pool beside another process on the same cores gets out
 * of its way. A thread that wakes too late for a loop is not waited for. A pool of one thread has
 * no threads and runs everything inline. */
#ifndef FR_CPU_POOL_H
#define FR_CPU_POOL_H

#include <stdint.h>

#include "status.h"

typedef struct fr_pool fr_pool;

/* Works on items begin .. end-1. Each thread has a portion of its own, but takes from the others'
 * when it is done, so which one gets which items is chance: results must not depend on it. */
typedef void (*fr_pool_fn)(void *ctx, int64_t begin, int64_t end);

/* `threads` counts the caller; 0: one a core (cpu_place.h). They run where the caller may run.
 * FR_EUNAVAILABLE when no thread can be had. */
fr_status fr_pool_new(int threads, fr_pool **out);
void fr_pool_free(fr_pool **p); /* NULL is fine */
int fr_pool_threads(const fr_pool *p);
/* Runs fn over items 0 .. n-1 in pieces of `grain` items (the last may be shorter) and returns when
 * all are done. */
void fr_pool_run(fr_pool *p, int64_t n, int64_t grain, fr_pool_fn fn, void *ctx);

#endif
