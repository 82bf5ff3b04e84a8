/* held.c: see held.h. */
#include "held.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "clock.h"
#include "hash.h"
#include "ops.h"

uint64_t fr_ids_digest(const int32_t *ids, size_t n)
{
    uint64_t h = FR_HASH_INIT;
    for (size_t i = 0; i < n; i++) {
        uint32_t v = (uint32_t)ids[i];
        h = fr_hash(
            h, (uint8_t[4]){(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)},
            4);
    }
    return h;
}

void fr_holdings_close(fr_holdings *h)
{
    while (h->n > 0)
        fr_held_drop(h, h->list[h->n - 1]);
    free(h->list);
    *h = (fr_holdings){0};
}

fr_held *fr_held_find(const fr_holdings *h, uint64_t job, uint32_t sequence)
{
    for (int i = 0; i < h->n; i++)
        if (h->list[i]->job == job && h->list[i]->sequence == sequence)
            return h->list[i];
    return NULL;
}

uint64_t fr_held_epoch(const fr_holdings *h, uint64_t job)
{
    uint64_t newest = 0;
    for (int i = 0; i < h->n; i++)
        if (h->list[i]->job == job && h->list[i]->epoch > newest)
            newest = h->list[i]->epoch;
    return newest;
}

/* The idle one not used for longest, other than `keep`. */
static fr_held *oldest_idle(const fr_holdings *h, const fr_held *keep)
{
    fr_held *oldest = NULL;
    for (int i = 0; i < h->n; i++) {
        fr_held *e = h->list[i];
        if (!e->request && e != keep && (!oldest || e->used_s < oldest->used_s))
            oldest = e;
    }
    return oldest;
}

/* Does not forget `keep`, if it makes a new one. */
static fr_status get(fr_holdings *h, uint64_t job, uint32_t sequence, const fr_held *keep, fr_held **out)
{
    fr_held *e = fr_held_find(h, job, sequence);
    if (e) {
        *out = e;
        return FR_OK;
    }
    if (h->n >= FR_HELD_MOST && (e = oldest_idle(h, keep)))
        fr_held_drop(h, e);
    if (h->n == h->cap) {
        int cap = h->cap ? 2 * h->cap : 16;
        fr_held **list = realloc(h->list, (size_t)cap * sizeof *list);
        if (!list)
            return fr_no_memory();
        h->list = list;
        h->cap = cap;
    }
    e = calloc(1, sizeof *e);
    if (!e)
        return fr_no_memory();
    *e = (fr_held){.job = job, .sequence = sequence, .seq = -1};
    fr_held_touch(e);
    h->list[h->n++] = e;
    *out = e;
    return FR_OK;
}

fr_status fr_held_get(fr_holdings *h, uint64_t job, uint32_t sequence, fr_held **out)
{
    return get(h, job, sequence, NULL, out);
}

void fr_held_touch(fr_held *e)
{
    e->used_s = fr_now_s();
}

void fr_held_drop(fr_holdings *h, fr_held *e)
{
    for (int i = 0; i < h->n; i++)
        if (h->list[i] == e) {
            h->list[i] = h->list[--h->n];
            break;
        }
    fr_held_uncache(h, e);
    fr_ids_free(&e->ids);
    free(e);
}

int fr_held_cached(const fr_holdings *h, const fr_held *e)
{
    return e->seq >= 0 ? fr_seq_len(h->session, e->seq) : 0;
}

void fr_held_uncache(fr_holdings *h, fr_held *e)
{
    if (e->seq >= 0)
        fr_seq_free(h->session, e->seq);
    e->seq = -1;
}

void fr_held_shrink(fr_holdings *h, fr_held *e)
{
    const int n = (fr_held_cached(h, e) - 1) / FR_PAGE * FR_PAGE;
    if (n <= 0 || fr_seq_truncate(h->session, e->seq, n) != FR_OK)
        fr_held_uncache(h, e);
}

/* How many of the first n of e's ids its own sequence caches. */
static int own_shared(const fr_holdings *h, const fr_held *e, int n)
{
    if (e->seq < 0)
        return 0;
    const int32_t *cached = fr_seq_tokens(h->session, e->seq);
    int len = fr_seq_len(h->session, e->seq), i = 0;
    while (i < n && i < len && cached[i] == e->ids.data[i])
        i++;
    return i;
}

fr_status fr_held_attach(fr_holdings *h, fr_held *e, int n_positions)
{
    int own = own_shared(h, e, n_positions), shared = 0, seq = -1;
    int best = fr_seq_match(h->session, e->ids.data, n_positions, &shared);
    if (best >= 0 && best != e->seq && shared > own &&
        fr_seq_fork(h->session, best, shared, &seq) == FR_OK) {
        fr_held_uncache(h, e);
        e->seq = seq;
        return FR_OK;
    }
    if (e->seq >= 0)
        return fr_seq_truncate(h->session, e->seq, own);
    return fr_seq_new(h->session, &e->seq);
}

void fr_held_cut(fr_holdings *h, fr_held *e, size_t n)
{
    if (n < e->ids.len)
        e->ids.len = n;
    if (fr_held_cached(h, e) > (int)e->ids.len &&
        fr_seq_truncate(h->session, e->seq, (int)e->ids.len) != FR_OK)
        fr_held_uncache(h, e);
}

fr_status fr_held_fork(fr_holdings *h, fr_held *e, uint32_t sequence, size_t n)
{
    fr_held *to = NULL;
    FR_TRY(get(h, e->job, sequence, e, &to));
    if (to == e) {
        fr_held_cut(h, e, n);
        return FR_OK;
    }
    fr_held_uncache(h, to);
    to->ids.len = 0;
    to->epoch = e->epoch;
    fr_held_touch(to);
    FR_TRY(fr_ids_put(&to->ids, e->ids.data, n < e->ids.len ? n : e->ids.len));
    int cached = own_shared(h, e, (int)to->ids.len);
    if (cached > 0 && fr_seq_fork(h->session, e->seq, cached, &to->seq) != FR_OK)
        to->seq = -1; /* it is computed again when it is needed */
    return FR_OK;
}

int64_t fr_held_free_positions(const fr_holdings *h)
{
    int64_t n = fr_session_kv_free(h->session), all = fr_session_info_of(h->session)->kv_positions;
    for (int i = 0; i < h->n; i++)
        if (!h->list[i]->request)
            n += fr_held_cached(h, h->list[i]);
    return n < all ? n : all; /* forks share positions */
}
