/* codec_arena.h: memory of one message: allocations that are freed all at once. The codec's own
 * helper; a decoded message's `owned` is an arena. A budget keeps a small hostile frame from
 * unfolding into gigabytes. */
#ifndef FR_CODEC_ARENA_H
#define FR_CODEC_ARENA_H

#include <stddef.h>

#include "status.h"

typedef struct fr_arena fr_arena;

/* At most `budget` bytes. */
fr_status fr_arena_new(size_t budget, fr_arena **out);
void fr_arena_free(fr_arena **a); /* NULL is fine */
/* n bytes (0 is fine), zeroed, aligned for anything. NULL when that fails, and then always:
 * fr_arena_status() tells why, FR_ENOMEM or, over the budget, FR_ELIMIT. */
void *fr_arena_take(fr_arena *a, size_t n);
fr_status fr_arena_status(const fr_arena *a);

/* For functions that return a status: pointer = n bytes. */
#define FR_ARENA_TAKE(a, pointer, n)            \
    do {                                        \
        (pointer) = fr_arena_take((a), (n));    \
        if (!(pointer))                         \
            return fr_arena_status(a);          \
    } while (0)

#endif
