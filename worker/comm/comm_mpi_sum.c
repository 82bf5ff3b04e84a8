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

enum {
    SMALL_SUM = 4096, /* floats: above it, the extra bytes cost more than a second exchange */
};

/* A sum under way: x [n] is what this rank adds to it, then the sum. Large ones are cut in a piece for each rank. */
typedef struct sum {
    fr_mpi_comm *m;
    float *x;
    size_t n;
    float *others; /* scratch: what comes from the other ranks */
} sum;

static size_t piece_at(const sum *s, int rank)
{
    return s->n * (size_t)rank / (size_t)s->m->base.size;
}

static size_t piece_len(const sum *s, int rank)
{
    return piece_at(s, rank + 1) - piece_at(s, rank);
}

/* What goes to a rank and what comes from it; a part of 0 values does neither. */
typedef struct transfer {
    const float *send;
    size_t n_send;
    float *receive;
    size_t n_receive;
} transfer;

/* Everything, in both directions. */
static transfer whole(const sum *s, int rank)
{
    return (transfer){s->x, s->n, s->others + (size_t)rank * s->n, s->n};
}

/* The rank's piece of x goes to it, and this rank's piece comes from it. */
static transfer scattered(const sum *s, int rank)
{
    const size_t mine = piece_len(s, s->m->base.rank);
    return (transfer){s->x + piece_at(s, rank), piece_len(s, rank), s->others + (size_t)rank * mine, mine};
}

/* This rank's piece, added up in x, goes to the rank, and the rank's own comes to where it lies in x. */
static transfer collected(const sum *s, int rank)
{
    const int mine = s->m->base.rank;
    return (transfer){s->x + piece_at(s, mine), piece_len(s, mine), s->others + piece_at(s, rank), piece_len(s, rank)};
}

/* From and to every other rank. Receives are posted first, so that what comes early need not be copied twice. */
static fr_status begin(const sum *s, transfer (*with)(const sum *s, int rank), int *n_out)
{
    fr_mpi_comm *m = s->m;
    for (int r = 0; r < m->base.size; r++) {
        const transfer t = with(s, r);
        if (r != m->base.rank && t.n_receive > 0)
            FR_TRY(fr_mpi_check(
                MPI_Irecv(t.receive, (int)t.n_receive, MPI_FLOAT, r, FR_MPI_SUM_TAG, m->mpi, &m->requests[(*n_out)++]),
                "all_reduce_sum: receive"));
    }
    for (int r = 0; r < m->base.size; r++) {
        const transfer t = with(s, r);
        if (r != m->base.rank && t.n_send > 0)
            FR_TRY(fr_mpi_check(
                MPI_Isend(t.send, (int)t.n_send, MPI_FLOAT, r, FR_MPI_SUM_TAG, m->mpi, &m->requests[(*n_out)++]),
                "all_reduce_sum: send"));
    }
    return FR_OK;
}

static fr_status exchange(const sum *s, transfer (*with)(const sum *s, int rank))
{
    int n = 0;
    const fr_status st = begin(s, with, &n);
    if (st == FR_OK)
        return fr_mpi_await(s->m, n, s->m->requests, 0, "all_reduce_sum");
    s->m->unfinished = true;
    return st;
}

/* x [n] := ((r0 + r1) + r2)... where rank r's part is parts + r * n, but this rank's is x itself: what comes before it
 * is summed up in part 0, then x joins, then what comes after. */
static void add_in_rank_order(const fr_mpi_comm *m, float *restrict x, float *restrict parts, size_t n)
{
    const size_t rank = (size_t)m->base.rank, size = (size_t)m->base.size;
    for (size_t r = 1; r < rank; r++)
        for (size_t i = 0; i < n; i++)
            parts[i] += parts[r * n + i];
    for (size_t i = 0; rank > 0 && i < n; i++)
        x[i] = parts[i] + x[i];
    for (size_t r = rank + 1; r < size; r++)
        for (size_t i = 0; i < n; i++)
            x[i] += parts[r * n + i];
}

static fr_status sum_small(fr_mpi_comm *m, float *x, size_t n)
{
    FR_TRY(fr_mpi_make_room(&m->scratch, (size_t)m->base.size * n * sizeof *x));
    const sum s = {m, x, n, (float *)m->scratch.data};
    FR_TRY(exchange(&s, whole));
    add_in_rank_order(m, x, s.others, n);
    return FR_OK;
}

static fr_status sum_large(fr_mpi_comm *m, float *x, size_t n)
{
    const size_t size = (size_t)m->base.size;
    FR_TRY(fr_mpi_make_room(&m->scratch, (n + size) * sizeof *x)); /* size pieces; some are one longer than n / size */
    const sum s = {m, x, n, (float *)m->scratch.data};
    const size_t at = piece_at(&s, m->base.rank), end = piece_at(&s, m->base.rank + 1);
    FR_TRY(exchange(&s, scattered));
    add_in_rank_order(m, x + at, s.others, end - at);
    FR_TRY(exchange(&s, collected));
    memcpy(x, s.others, at * sizeof *x);
    memcpy(x + end, s.others + end, (n - end) * sizeof *x);
    return FR_OK;
}

fr_status fr_mpi_all_reduce_sum(fr_comm *c, float *x, size_t n)
{
    fr_mpi_comm *m = fr_mpi_of(c);
    if (m->base.size == 1 || n == 0)
        return FR_OK;
    FR_TRY(fr_mpi_check_group(m));
    FR_TRY(fr_mpi_check_bytes(m, n, "all_reduce_sum"));
    return n <= SMALL_SUM || m->base.size == 2 ? sum_small(m, x, n) : sum_large(m, x, n);
}
