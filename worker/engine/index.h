/* index.h: a hash index from keys to entry numbers, open addressing, at most half full. The keys
 * stay with the owner: the index knows hashes and numbers only, so metadata, tensors, tokens and
 * merges share it. Built once, then read. */
#ifndef FR_INDEX_H
#define FR_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct fr_index {
    uint32_t *slots; /* entry number + 1; 0 is an empty slot */
    size_t mask;
} fr_index;

/* Room for n entries. Zero-initialise the index before. */
fr_status fr_index_init(fr_index *ix, size_t n);
void fr_index_free(fr_index *ix);
/* At most n entries may be put in. Entries of equal hash are found in the order they were put. */
void fr_index_put(fr_index *ix, uint64_t hash, uint32_t entry);

/* Walks the entries that may have this hash: the body compares keys and leaves with break or
 * return. */
#define FR_INDEX_EACH(ix, hash, entry)                                \
    for (size_t slot_ = (size_t)(hash) & (ix)->mask, entry;           \
         (ix)->slots[slot_] && ((entry = (ix)->slots[slot_] - 1), 1); \
         slot_ = (slot_ + 1) & (ix)->mask)

#endif
