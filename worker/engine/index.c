/* index.c: see index.h. */
#include "index.h"

#include <stdlib.h>

fr_status fr_index_init(fr_index *ix, size_t n)
{
    size_t size = 16;
    while (size < n * 2)
        size *= 2;
    ix->slots = calloc(size, sizeof *ix->slots);
    if (!ix->slots)
        return fr_no_memory();
    ix->mask = size - 1;
    return FR_OK;
}

void fr_index_free(fr_index *ix)
{
    free(ix->slots);
    *ix = (fr_index){0};
}

void fr_index_put(fr_index *ix, uint64_t hash, uint32_t entry)
{
    size_t slot = (size_t)hash & ix->mask;
    while (ix->slots[slot])
        slot = (slot + 1) & ix->mask;
    ix->slots[slot] = entry + 1;
}
