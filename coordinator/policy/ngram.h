/* ngram.h: drafts that cost nothing: what followed the last time the text ended as it ends now.
 * An index over the prompt and the approved chain, extended as the chain grows and cut when it
 * is cut. */
#ifndef FR_NGRAM_H
#define FR_NGRAM_H

#include "tokenizer.h"

#define FR_NGRAM_MIN 2  /* shortest suffix looked up */
#define FR_NGRAM_MAX 3  /* longest with a table of its own; longer matches are found from it */

typedef struct fr_ngram_table {
    int32_t *head; /* [size] by hash: the position behind the latest n-gram of that hash; 0: none */
    int32_t *prev; /* [size] by position: the one before it with the same hash */
} fr_ngram_table;

typedef struct fr_ngram {
    fr_ids ids;    /* what is indexed */
    size_t size;   /* of the tables, a power of two above ids.len */
    fr_ngram_table tables[FR_NGRAM_MAX - FR_NGRAM_MIN + 1];
} fr_ngram;

void fr_ngram_free(fr_ngram *g); /* a zeroed one is an empty index */
/* Makes ids[n] what is indexed, touching only what differs from before. */
fr_status fr_ngram_sync(fr_ngram *g, const int32_t *ids, size_t n);
/* Drafts up to `want` tokens behind the indexed text into out, from the longest earlier match of
 * its suffix that has at least min_match tokens (the latest among equals). Returns their number;
 * *match_out: the length of the match. */
int fr_ngram_draft(const fr_ngram *g, int min_match, int want, int32_t *out, int *match_out);

#endif
