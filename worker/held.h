/* held.h: the sequences that a group holds for the coordinator, by (job, sequence): the ids as last
 * told, and the session's sequence that caches their beginning. The cache is only a cache: it
 * gives way to others (room.h) while the ids stay, so that the coordinator need not send a prefix
 * again. Owned by the serving thread. */
#ifndef FR_HELD_H
#define FR_HELD_H

#include "session.h"

struct fr_request;

enum { FR_HELD_MOST = 1024 }; /* with so many, an idle one is forgotten for a new one, ids and all */

typedef struct fr_held {
    uint64_t job, epoch;        /* epoch: the newest seen */
    uint32_t sequence;
    fr_ids ids;
    int seq; /* of the session, or -1; its tokens need not be a prefix of ids until attached */
    double used_s;              /* fr_now_s() of the last time; while idle, since when it is */
    struct fr_request *request; /* works on it now; NULL: idle */
} fr_held;

typedef struct fr_holdings {
    fr_session *session; /* borrowed */
    fr_held **list;
    int n, cap;
} fr_holdings;

void fr_holdings_close(fr_holdings *h); /* frees all; every one must be idle */

/* fr_hash over ids, 4 bytes each, little-endian: the digest of Prefix. */
uint64_t fr_ids_digest(const int32_t *ids, size_t n);

fr_held *fr_held_find(const fr_holdings *h, uint64_t job, uint32_t sequence); /* NULL: none */
/* That one, or a new one without ids. */
fr_status fr_held_get(fr_holdings *h, uint64_t job, uint32_t sequence, fr_held **out);
/* It is used now. */
void fr_held_touch(fr_held *e);
/* Forgets an idle one. */
void fr_held_drop(fr_holdings *h, fr_held *e);
/* The newest epoch seen for the job. */
uint64_t fr_held_epoch(const fr_holdings *h, uint64_t job);

/* Caches as much of e's ids as is cached anywhere, at most n_positions, and nothing else. Not
 * between fr_pass_begin() and fr_pass_run(). */
fr_status fr_held_attach(fr_holdings *h, fr_held *e, int n_positions);
/* Cached positions. */
int fr_held_cached(const fr_holdings *h, const fr_held *e);
/* Frees the cache of one, its ids stay. */
void fr_held_uncache(fr_holdings *h, fr_held *e);
/* Frees the last page of one that has something cached. */
void fr_held_shrink(fr_holdings *h, fr_held *e);
/* Cuts an idle one to n ids; more than it has is fine. */
void fr_held_cut(fr_holdings *h, fr_held *e, size_t n);
/* A copy of the first n ids, as (e's job, sequence); an idle one of that name is replaced. */
fr_status fr_held_fork(fr_holdings *h, fr_held *e, uint32_t sequence, size_t n);

/* Positions free, or free once idle ones are evicted. */
int64_t fr_held_free_positions(const fr_holdings *h);

#endif
