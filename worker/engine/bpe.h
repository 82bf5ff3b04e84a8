/* bpe.h: byte-pair merges over one piece of text, from bytes to token ids. Part of a tokenizer;
 * immutable once built. */
#ifndef FR_BPE_H
#define FR_BPE_H

#include "tokenizer.h"
#include "vocab.h"

typedef struct fr_merge {
    int32_t left, right, result; /* its rank is its place in the list: lower goes first */
} fr_merge;

typedef struct fr_bpe {
    fr_merge *merges;
    size_t n, cap;
    fr_index index; /* by (left, right) */
    int32_t byte_id[256]; /* -1: no token is this byte, and text with it gets none for it */
} fr_bpe;

/* Room for n merges. Zero-initialise before; fr_bpe_free() also after a failure. The vocabulary
 * must be indexed. */
fr_status fr_bpe_init(fr_bpe *b, const fr_vocab *v, size_t n);
void fr_bpe_free(fr_bpe *b);
/* Takes the next rank. FR_EFORMAT when the vocabulary lacks the two together; beyond the room
 * given, FR_ELIMIT. A pair given before keeps its lower rank. */
fr_status fr_bpe_add(fr_bpe *b, const fr_vocab *v, int32_t left, int32_t right);

/* Memory of one call of the tokenizer, reused for its pieces. Zero-initialise;
 * fr_bpe_scratch_free() at the end. */
typedef struct fr_bpe_scratch {
    struct fr_bpe_symbol *symbols;
    size_t symbols_cap;
    struct fr_bpe_pair *heap;
    size_t heap_len, heap_cap;
} fr_bpe_scratch;
void fr_bpe_scratch_free(fr_bpe_scratch *s);

/* Appends the ids of one piece of n < 2^31 bytes. O(n log n). */
fr_status fr_bpe_piece(const fr_bpe *b, fr_bpe_scratch *s, const char *piece, size_t n,
                       fr_ids *ids);

#endif
