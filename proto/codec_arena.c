/* codec_arena.c: see codec_arena.h. Blocks grow by doubling: a large message costs few mallocs. */
#include "codec_arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_BLOCK 2048u
#define LARGEST_BLOCK (1u << 20) /* larger ones are made to measure */

typedef struct block {
    struct block *next;
    size_t used, size;
    alignas(max_align_t) unsigned char data[];
} block;

struct fr_arena {
    block *blocks; /* the newest first; only it has room */
    size_t spent, budget;
    fr_status failed;
};

fr_status fr_arena_new(size_t budget, fr_arena **out)
{
    fr_arena *a = calloc(1, sizeof *a);
    if (!a)
        return fr_no_memory();
    a->budget = budget;
    *out = a;
    return FR_OK;
}

void fr_arena_free(fr_arena **a)
{
    if (!a || !*a)
        return;
    for (block *b = (*a)->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(*a);
    *a = NULL;
}

fr_status fr_arena_status(const fr_arena *a)
{
    if (a->failed == FR_ENOMEM)
        return fr_no_memory();
    if (a->failed)
        return fr_fail(a->failed, "message unfolds to more than %zu bytes", a->budget);
    return FR_OK;
}

static fr_status add_block(fr_arena *a, size_t n)
{
    size_t size = a->blocks ? a->blocks->size * 2 : FIRST_BLOCK;
    if (size > LARGEST_BLOCK)
        size = LARGEST_BLOCK;
    if (size < n)
        size = n;
    block *b = malloc(sizeof *b + size);
    if (!b)
        return FR_ENOMEM;
    *b = (block){.next = a->blocks, .size = size};
    a->blocks = b;
    return FR_OK;
}

void *fr_arena_take(fr_arena *a, size_t n)
{
    const size_t align = alignof(max_align_t);
    if (!a->failed && n > a->budget - a->spent)
        a->failed = FR_ELIMIT;
    if (a->failed)
        return NULL;
    a->spent += n;
    size_t room = (n + align - 1) / align * align;
    if (!a->blocks || room > a->blocks->size - a->blocks->used)
        a->failed = add_block(a, room);
    if (a->failed)
        return NULL;
    void *p = a->blocks->data + a->blocks->used;
    a->blocks->used += room;
    return memset(p, 0, n);
}
