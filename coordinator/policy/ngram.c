/* ngram.c: see ngram.h. The tables chain equal hashes from the latest position back, so entries
 * are added and removed at the front only. A hash may be shared: every candidate is compared
 * with the text itself. */
#include "ngram.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

#define LOOK_AT 32   /* candidates of one hash: of a common n-gram the latest say most */
#define LOOK_BACK 16 /* tokens compared: beyond that a longer match says no more */

void fr_ngram_free(fr_ngram *g)
{
    for (int i = 0; i <= FR_NGRAM_MAX - FR_NGRAM_MIN; i++) {
        free(g->tables[i].head);
        free(g->tables[i].prev);
    }
    fr_ids_free(&g->ids);
    *g = (fr_ngram){0};
}

/* Of the n tokens before position `at`. */
static size_t hash_before(const int32_t *ids, size_t at, int n, size_t size)
{
    uint64_t h = 0;
    for (int i = 1; i <= n; i++)
        h = (h ^ (uint32_t)ids[at - (size_t)i]) * 0x9e3779b97f4a7c15u;
    return (size_t)(h >> 32) & (size - 1);
}

static void link_position(fr_ngram *g, size_t at)
{
    for (int n = FR_NGRAM_MIN; n <= FR_NGRAM_MAX; n++) {
        if (at < (size_t)n)
            continue;
        fr_ngram_table *t = &g->tables[n - FR_NGRAM_MIN];
        size_t h = hash_before(g->ids.data, at, n, g->size);
        t->prev[at] = t->head[h];
        t->head[h] = (int32_t)at;
    }
}

static void unlink_position(fr_ngram *g, size_t at)
{
    for (int n = FR_NGRAM_MIN; n <= FR_NGRAM_MAX; n++) {
        if (at < (size_t)n)
            continue;
        fr_ngram_table *t = &g->tables[n - FR_NGRAM_MIN];
        t->head[hash_before(g->ids.data, at, n, g->size)] = t->prev[at];
    }
}

/* Room for positions up to n: tables of twice the size are filled anew, so the cost a token
 * stays constant. */
static fr_status grow(fr_ngram *g, size_t n)
{
    if (n < g->size)
        return FR_OK;
    size_t size = g->size ? g->size : 256;
    while (size <= n)
        size *= 2;
    for (int i = 0; i <= FR_NGRAM_MAX - FR_NGRAM_MIN; i++) {
        fr_ngram_table *t = &g->tables[i];
        int32_t *head = calloc(size, sizeof *head), *prev = malloc(size * sizeof *prev);
        if (!head || !prev) {
            free(head);
            free(prev);
            fr_ngram_free(g); /* tables of two sizes are none: the next sync begins anew */
            return fr_no_memory();
        }
        free(t->head);
        free(t->prev);
        *t = (fr_ngram_table){head, prev};
    }
    g->size = size;
    for (size_t at = 1; at <= g->ids.len; at++)
        link_position(g, at);
    return FR_OK;
}

fr_status fr_ngram_sync(fr_ngram *g, const int32_t *ids, size_t n)
{
    size_t same = 0;
    while (same < n && same < g->ids.len && ids[same] == g->ids.data[same])
        same++;
    for (; g->ids.len > same; g->ids.len--)
        unlink_position(g, g->ids.len);
    FR_TRY(grow(g, n));
    FR_TRY(fr_ids_put(&g->ids, ids + same, n - same));
    for (size_t at = same + 1; at <= n; at++)
        link_position(g, at);
    return FR_OK;
}

/* The longest match of the text's suffix among the candidates of one table; its length, and
 * where it ends. */
static int best_match(const fr_ngram *g, int n, size_t *at_out)
{
    const int32_t *ids = g->ids.data;
    size_t end = g->ids.len;
    int best = 0, left = LOOK_AT;
    if (end < (size_t)n)
        return 0;
    const fr_ngram_table *t = &g->tables[n - FR_NGRAM_MIN];
    /* The newest entry is the suffix itself: nothing follows it. */
    for (size_t at = (size_t)t->prev[end]; at > 0 && left > 0; at = (size_t)t->prev[at], left--) {
        int k = 0;
        while (k < LOOK_BACK && (size_t)k < at &&
               ids[at - 1 - (size_t)k] == ids[end - 1 - (size_t)k])
            k++;
        if (k >= n && k > best) {
            best = k;
            *at_out = at;
        }
    }
    return best;
}

int fr_ngram_draft(const fr_ngram *g, int min_match, int want, int32_t *out, int *match_out)
{
    size_t at = 0;
    *match_out = 0;
    for (int n = FR_NGRAM_MAX; n >= FR_NGRAM_MIN && *match_out == 0; n--)
        *match_out = best_match(g, n, &at);
    if (*match_out < min_match || *match_out == 0)
        return 0;
    /* A match that overlaps the suffix repeats itself: past the text's end the draft goes on
     * with its own tokens. */
    for (int i = 0; i < want; i++) {
        size_t from = at + (size_t)i;
        out[i] = from < g->ids.len ? g->ids.data[from] : out[from - g->ids.len];
    }
    return want > 0 ? want : 0;
}
