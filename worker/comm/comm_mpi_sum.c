/* comm_mpi_sum.c: sums of host memory, always in rank order.
 *
 * MPI_Allreduce picks its algorithm, hence its order of additions, by the size of the message, and a row's sum would
 * depend on what else is in the batch. So the values travel by MPI and are added here, always ((r0 + r1) + r2)...:
 *   small messages, 2 ranks   everything goes to everyone, each adds all;
 *   large messages            each rank adds its piece for all, then the pieces go to everyone.
 * Every rank gets the same bits, since they are computed in the same order or once. */
#include "comm_mpi_impl.h"

#include <string.h>

#include "check.h"
#include "comm_exchange.h"

enum {
    SMALL_SUM = 4096, /* floats: above it, the extra bytes cost more than a second exchange */
};

/* From and to every other rank. Receives are posted first, so that what comes early need not be copied twice. */
static fr_status begin(fr_mpi_comm *m, const fr_comm_exchange *e,
                       fr_comm_transfer (*with)(const fr_comm_exchange *e, int rank), int *n_out)
{
    for (int r = 0; r < m->base.size; r++) {
        const fr_comm_transfer t = with(e, r);
        if (r != m->base.rank && t.n_receive > 0)
            FR_TRY(fr_mpi_check(
                MPI_Irecv(t.receive, (int)t.n_receive, MPI_FLOAT, r, FR_MPI_SUM_TAG, m->mpi, &m->requests[(*n_out)++]),
                "all_reduce_sum: receive"));
    }
    for (int r = 0; r < m->base.size; r++) {
        const fr_comm_transfer t = with(e, r);
        if (r != m->base.rank && t.n_send > 0)
            FR_TRY(fr_mpi_check(
                MPI_Isend(t.send, (int)t.n_send, MPI_FLOAT, r, FR_MPI_SUM_TAG, m->mpi, &m->requests[(*n_out)++]),
                "all_reduce_sum: send"));
    }
    return FR_OK;
}

static fr_status exchange(fr_mpi_comm *m, const fr_comm_exchange *e,
                          fr_comm_transfer (*with)(const fr_comm_exchange *e, int rank))
{
    int n = 0;
    const fr_status st = begin(m, e, with, &n);
    if (st == FR_OK)
        return fr_mpi_await(m, n, m->requests, 0, "all_reduce_sum");
    m->unfinished = true;
    return st;
}

static fr_status add(void *unused, float *restrict x, const float *restrict y, size_t n)
{
    (void)unused;
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
    return FR_OK;
}

static fr_status sum_whole(fr_mpi_comm *m, const fr_comm_exchange *e)
{
    FR_TRY(exchange(m, e, fr_comm_whole));
    return fr_comm_add_in_rank_order(e, e->x, e->n, add, NULL);
}

static fr_status sum_pieces(fr_mpi_comm *m, const fr_comm_exchange *e)
{
    const size_t at = fr_comm_piece_at(e, e->rank), len = fr_comm_piece_len(e, e->rank), end = at + len;
    FR_TRY(exchange(m, e, fr_comm_scatter));
    FR_TRY(fr_comm_add_in_rank_order(e, e->x + at, len, add, NULL));
    FR_TRY(exchange(m, e, fr_comm_collect));
    memcpy(e->x, e->sums, at * sizeof *e->x);
    memcpy(e->x + end, e->sums + end, (e->n - end) * sizeof *e->x);
    return FR_OK;
}

/* What an abandoned exchange was to receive MPI may still write: so that is in scratch, never in x. */
fr_status fr_mpi_all_reduce_sum(fr_comm *c, float *x, size_t n)
{
    fr_mpi_comm *m = fr_mpi_of(c);
    const bool in_pieces = n > SMALL_SUM && c->size > 2;
    if (c->size == 1 || n == 0)
        return FR_OK;
    FR_TRY(fr_mpi_check_group(m));
    FR_TRY(fr_mpi_check_bytes(m, n, "all_reduce_sum"));
    fr_comm_exchange e = fr_comm_exchange_begin(c, x, n, in_pieces);
    FR_TRY(fr_mpi_make_room(&m->scratch, (size_t)e.size * e.stride * sizeof *x));
    e.parts = e.sums = (float *)m->scratch.data;
    return in_pieces ? sum_pieces(m, &e) : sum_whole(m, &e);
}
