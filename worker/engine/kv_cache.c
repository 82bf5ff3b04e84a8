/* kv_cache.c: see kv_cache.h. */
#include "kv_cache.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "grow.h"

typedef struct seq {
    int used, len, n_pages;
    int cap_tokens, cap_pages;
    int32_t *tokens, *pages;
} seq;

struct fr_kv_cache {
    int n_pages, max_len;
    int32_t *refs;        /* [n_pages] */
    int32_t *free_pages;  /* stack */
    int n_free;
    seq *seqs;
    int n_seqs;
    fr_page_copy *copies;
    int n_copies, cap_copies;
};

static int pages_for(int positions)
{
    return (positions + FR_PAGE - 1) / FR_PAGE;
}

static int32_t page_take(fr_kv_cache *c)
{
    int32_t page = c->free_pages[--c->n_free];
    c->refs[page] = 1;
    return page;
}

static void page_release(fr_kv_cache *c, int32_t page)
{
    if (--c->refs[page] == 0)
        c->free_pages[c->n_free++] = page;
}

fr_status fr_kv_cache_new(int n_pages, int max_len, fr_kv_cache **out)
{
    fr_kv_cache *c = calloc(1, sizeof *c);
    if (!c)
        return fr_no_memory();
    c->n_pages = n_pages;
    c->max_len = max_len;
    c->refs = calloc((size_t)n_pages, sizeof *c->refs);
    c->free_pages = calloc((size_t)n_pages, sizeof *c->free_pages);
    if (!c->refs || !c->free_pages) {
        fr_kv_cache_free(&c);
        return fr_no_memory();
    }
    for (int i = 0; i < n_pages; i++)
        c->free_pages[i] = n_pages - 1 - i; /* page 0 is taken first */
    c->n_free = n_pages;
    *out = c;
    return FR_OK;
}

void fr_kv_cache_free(fr_kv_cache **p)
{
    fr_kv_cache *c = *p;
    if (!c)
        return;
    for (int i = 0; i < c->n_seqs; i++) {
        free(c->seqs[i].tokens);
        free(c->seqs[i].pages);
    }
    free(c->seqs);
    free(c->refs);
    free(c->free_pages);
    free(c->copies);
    free(c);
    *p = NULL;
}

int fr_kv_seq_valid(const fr_kv_cache *c, int id)
{
    return id >= 0 && id < c->n_seqs && c->seqs[id].used;
}

static fr_status find(fr_kv_cache *c, int id, seq **out)
{
    if (!fr_kv_seq_valid(c, id))
        return fr_fail(FR_EINVAL, "there is no sequence %d", id);
    *out = &c->seqs[id];
    return FR_OK;
}

fr_status fr_kv_seq_new(fr_kv_cache *c, int *seq_out)
{
    int id = 0;
    while (id < c->n_seqs && c->seqs[id].used)
        id++;
    if (id == c->n_seqs) {
        int n = c->n_seqs ? 2 * c->n_seqs : 8;
        seq *seqs = realloc(c->seqs, (size_t)n * sizeof *seqs);
        if (!seqs)
            return fr_no_memory();
        memset(seqs + c->n_seqs, 0, (size_t)(n - c->n_seqs) * sizeof *seqs);
        c->seqs = seqs;
        c->n_seqs = n;
    }
    c->seqs[id].used = 1;
    *seq_out = id;
    return FR_OK;
}

fr_status fr_kv_seq_fork(fr_kv_cache *c, int parent, int n_positions, int *seq_out)
{
    seq *from = NULL;
    FR_TRY(find(c, parent, &from));
    if (n_positions < 0 || n_positions > from->len)
        return fr_fail(FR_EINVAL, "cannot fork sequence %d of %d positions at %d", parent, from->len, n_positions);
    int id = -1;
    FR_TRY(fr_kv_seq_new(c, &id));
    from = &c->seqs[parent]; /* fr_kv_seq_new may move the array */
    seq *to = &c->seqs[id];
    int n_pages = pages_for(n_positions);
    fr_status st = fr_grow((void **)&to->tokens, &to->cap_tokens, n_positions, sizeof *to->tokens);
    if (st == FR_OK)
        st = fr_grow((void **)&to->pages, &to->cap_pages, n_pages, sizeof *to->pages);
    if (st != FR_OK) {
        to->used = 0;
        return st;
    }
    if (n_positions > 0)
        memcpy(to->tokens, from->tokens, (size_t)n_positions * sizeof *to->tokens);
    for (int i = 0; i < n_pages; i++) {
        to->pages[i] = from->pages[i];
        c->refs[to->pages[i]]++;
    }
    to->len = n_positions;
    to->n_pages = n_pages;
    *seq_out = id;
    return FR_OK;
}

fr_status fr_kv_seq_truncate(fr_kv_cache *c, int id, int n_positions)
{
    seq *s = NULL;
    FR_TRY(find(c, id, &s));
    if (n_positions < 0 || n_positions > s->len)
        return fr_fail(FR_EINVAL, "cannot cut sequence %d of %d positions to %d", id, s->len, n_positions);
    while (s->n_pages > pages_for(n_positions))
        page_release(c, s->pages[--s->n_pages]);
    s->len = n_positions;
    return FR_OK;
}

fr_status fr_kv_seq_append(fr_kv_cache *c, int id, const int32_t *tokens, int n)
{
    seq *s = NULL;
    FR_TRY(find(c, id, &s));
    if (n < 0 || n > c->max_len - s->len)
        return fr_fail(FR_ELIMIT, "%d positions are longer than the context of %d", s->len + n, c->max_len);
    int total = pages_for(s->len + n);
    int part = s->len % FR_PAGE; /* positions in the unfinished page */
    int copy = n > 0 && part > 0 && c->refs[s->pages[s->n_pages - 1]] > 1;
    int need = total - s->n_pages + copy;
    if (need > c->n_free)
        return fr_fail(FR_ELIMIT, "the KV cache is full: %d pages needed, %d of %d free", need, c->n_free,
                       c->n_pages);
    FR_TRY(fr_grow((void **)&s->tokens, &s->cap_tokens, s->len + n, sizeof *s->tokens));
    FR_TRY(fr_grow((void **)&s->pages, &s->cap_pages, total, sizeof *s->pages));
    FR_TRY(fr_grow((void **)&c->copies, &c->cap_copies, c->n_copies + 1, sizeof *c->copies));
    if (copy) {
        int32_t *last = &s->pages[s->n_pages - 1], own = page_take(c);
        c->copies[c->n_copies++] = (fr_page_copy){.from = *last, .to = own, .n = part};
        page_release(c, *last);
        *last = own;
    }
    while (s->n_pages < total)
        s->pages[s->n_pages++] = page_take(c);
    if (n > 0)
        memcpy(s->tokens + s->len, tokens, (size_t)n * sizeof *tokens);
    s->len += n;
    return FR_OK;
}

void fr_kv_seq_free(fr_kv_cache *c, int id)
{
    if (!fr_kv_seq_valid(c, id))
        return;
    seq *s = &c->seqs[id];
    for (int i = 0; i < s->n_pages; i++)
        page_release(c, s->pages[i]);
    s->used = s->len = s->n_pages = 0; /* the arrays stay for the next user of the id */
}

int fr_kv_seq_len(const fr_kv_cache *c, int id)
{
    return fr_kv_seq_valid(c, id) ? c->seqs[id].len : 0;
}

const int32_t *fr_kv_seq_tokens(const fr_kv_cache *c, int id)
{
    return fr_kv_seq_valid(c, id) ? c->seqs[id].tokens : NULL;
}

const int32_t *fr_kv_seq_pages(const fr_kv_cache *c, int id, int *n_out)
{
    *n_out = fr_kv_seq_valid(c, id) ? c->seqs[id].n_pages : 0;
    return *n_out ? c->seqs[id].pages : NULL;
}

int fr_kv_match(const fr_kv_cache *c, const int32_t *tokens, int n, int *n_shared_out)
{
    int best = -1, best_shared = 0;
    for (int i = 0; i < c->n_seqs; i++) {
        const seq *s = &c->seqs[i];
        int end = s->used ? (s->len < n ? s->len : n) : 0, k = 0;
        while (k < end && s->tokens[k] == tokens[k])
            k++;
        if (k > best_shared) {
            best = i;
            best_shared = k;
        }
    }
    *n_shared_out = best_shared;
    return best;
}

fr_status fr_kv_pages_get(fr_kv_cache *c, int n, int32_t *pages_out)
{
    if (n > c->n_free)
        return fr_fail(FR_ELIMIT, "the KV cache is full: %d pages needed for a branch, %d of %d free", n,
                       c->n_free, c->n_pages);
    for (int i = 0; i < n; i++)
        pages_out[i] = page_take(c);
    return FR_OK;
}

void fr_kv_pages_put(fr_kv_cache *c, const int32_t *pages, int n)
{
    for (int i = 0; i < n; i++)
        page_release(c, pages[i]);
}

int fr_kv_pages_free(const fr_kv_cache *c)
{
    return c->n_free;
}

const fr_page_copy *fr_kv_copies(const fr_kv_cache *c, int *n_out)
{
    *n_out = c->n_copies;
    return c->copies;
}

void fr_kv_copies_clear(fr_kv_cache *c)
{
    c->n_copies = 0;
}
