/* comm_exchange.c: see comm_exchange.h. */
#include "comm_exchange.h"

#include "check.h"

enum { ALIGNED = 64 }; /* floats: pieces are multiples, so that kernels find them aligned */

fr_comm_exchange fr_comm_exchange_begin(const fr_comm *c, float *x, size_t n, bool in_pieces)
{
    const size_t row = ALIGNED * (size_t)c->size, piece = (n + row - 1) / row * ALIGNED;
    return (fr_comm_exchange){.rank = c->rank, .size = c->size, .x = x, .n = n, .stride = in_pieces ? piece : n};
}

size_t fr_comm_piece_at(const fr_comm_exchange *e, int rank)
{
    const size_t at = e->stride * (size_t)rank;
    return at < e->n ? at : e->n;
}

size_t fr_comm_piece_len(const fr_comm_exchange *e, int rank)
{
    return fr_comm_piece_at(e, rank + 1) - fr_comm_piece_at(e, rank);
}

static float *part(const fr_comm_exchange *e, int rank)
{
    return e->parts + e->stride * (size_t)rank;
}

fr_comm_transfer fr_comm_whole(const fr_comm_exchange *e, int rank)
{
    return (fr_comm_transfer){e->x, e->n, part(e, rank), e->n};
}

fr_comm_transfer fr_comm_scatter(const fr_comm_exchange *e, int rank)
{
    return (fr_comm_transfer){e->x + fr_comm_piece_at(e, rank), fr_comm_piece_len(e, rank), part(e, rank),
                              fr_comm_piece_len(e, e->rank)};
}

fr_comm_transfer fr_comm_collect(const fr_comm_exchange *e, int rank)
{
    return (fr_comm_transfer){e->x + fr_comm_piece_at(e, e->rank), fr_comm_piece_len(e, e->rank),
                              e->sums + fr_comm_piece_at(e, rank), fr_comm_piece_len(e, rank)};
}

/* What comes before this rank's is summed up in part 0, then x joins, then what comes after. A sum of two does not
 * depend on which is first. */
fr_status fr_comm_add_in_rank_order(const fr_comm_exchange *e, float *x, size_t n,
                                    fr_status (*add)(void *ctx, float *x, const float *y, size_t n), void *ctx)
{
    for (int r = 1; r < e->rank; r++)
        FR_TRY(add(ctx, e->parts, part(e, r), n));
    if (e->rank > 0)
        FR_TRY(add(ctx, x, e->parts, n));
    for (int r = e->rank + 1; r < e->size; r++)
        FR_TRY(add(ctx, x, part(e, r), n));
    return FR_OK;
}
