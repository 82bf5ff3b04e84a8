/* kv_cache.h: which tokens of which sequence lie in which page. Pure bookkeeping on the leader: the pages themselves
 * are device memory on every rank (kv of forward.h), and the plan of a pass carries page numbers to them.
 *
 * Pages of FR_PAGE positions are counted by reference. A fork shares every page it needs; whoever then appends into a
 * shared, unfinished page first gets a copy of its own (copy on write), by a copy order that the next plan carries. */
#ifndef FR_KV_CACHE_H
#define FR_KV_CACHE_H

#include <stdint.h>

#include "ops.h"
#include "status.h"

typedef struct fr_kv_cache fr_kv_cache;

/* Copy the first n positions of a page; carried out in order, before the pass writes anything. */
typedef struct fr_page_copy {
    int32_t from, to, n;
} fr_page_copy;

/* max_len: positions of one sequence. */
fr_status fr_kv_cache_new(int n_pages, int max_len, fr_kv_cache **out);
void fr_kv_cache_free(fr_kv_cache **c);

fr_status fr_kv_seq_new(fr_kv_cache *c, int *seq_out);
fr_status fr_kv_seq_fork(fr_kv_cache *c, int seq, int n_positions, int *seq_out);
/* Cuts the sequence to n_positions, at most its length. */
fr_status fr_kv_seq_truncate(fr_kv_cache *c, int seq, int n_positions);
/* Appends tokens; all or nothing: FR_ELIMIT when the length or the pages do not suffice. */
fr_status fr_kv_seq_append(fr_kv_cache *c, int seq, const int32_t *tokens, int n);
void fr_kv_seq_free(fr_kv_cache *c, int seq);

int fr_kv_seq_valid(const fr_kv_cache *c, int seq);
int fr_kv_seq_len(const fr_kv_cache *c, int seq);
const int32_t *fr_kv_seq_tokens(const fr_kv_cache *c, int seq);
const int32_t *fr_kv_seq_pages(const fr_kv_cache *c, int seq, int *n_out);
/* The sequence that shares the longest prefix with tokens; -1 when none shares any. The lowest id wins a tie. */
int fr_kv_match(const fr_kv_cache *c, const int32_t *tokens, int n, int *n_shared_out);

/* Loose pages for a branch; they go back with fr_kv_pages_put(). */
fr_status fr_kv_pages_get(fr_kv_cache *c, int n, int32_t *pages_out);
void fr_kv_pages_put(fr_kv_cache *c, const int32_t *pages, int n);
int fr_kv_pages_free(const fr_kv_cache *c);

/* Copy orders since the last clear, in order. */
const fr_page_copy *fr_kv_copies(const fr_kv_cache *c, int *n_out);
void fr_kv_copies_clear(fr_kv_cache *c);

#endif
