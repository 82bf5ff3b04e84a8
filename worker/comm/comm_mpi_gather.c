/* comm_mpi_gather.c: the collectives that carry bytes: gathers, broadcasts, agreement. They work on copies, which MPI
 * may go on to use when a rank gives up. */
#include "comm_mpi_impl.h"

#include <stdio.h>
#include <string.h>

#include "check.h"

fr_status fr_mpi_gather(fr_comm *c, const void *mine, size_t bytes, void *out)
{
    fr_mpi_comm *m = fr_mpi_of(c);
    const size_t n_out = c->rank == 0 ? bytes * (size_t)c->size : 0;
    MPI_Request request;
    FR_TRY(fr_mpi_check_group(m));
    FR_TRY(fr_mpi_check_bytes(m, bytes, "gather"));
    FR_TRY(fr_mpi_make_room(&m->exchange, bytes + n_out));
    uint8_t *in = m->exchange.data, *all = in + bytes;
    memcpy(in, mine, bytes);
    FR_TRY(
        fr_mpi_check(MPI_Igather(in, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, 0, m->mpi, &request), "gather"));
    FR_TRY(fr_mpi_await(m, 1, &request, 0, "gather"));
    if (n_out > 0)
        memcpy(out, all, n_out);
    return FR_OK;
}

fr_status fr_mpi_all_gather(fr_comm *c, const void *mine, size_t bytes, void *out, int wait_ms)
{
    fr_mpi_comm *m = fr_mpi_of(c);
    const size_t n_out = bytes * (size_t)c->size;
    MPI_Request request;
    FR_TRY(fr_mpi_check_group(m));
    FR_TRY(fr_mpi_check_bytes(m, bytes, "all_gather"));
    FR_TRY(fr_mpi_make_room(&m->exchange, bytes + n_out));
    uint8_t *in = m->exchange.data, *all = in + bytes;
    memcpy(in, mine, bytes);
    FR_TRY(fr_mpi_check(MPI_Iallgather(in, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, m->mpi, &request),
                        "all_gather"));
    FR_TRY(fr_mpi_await(m, 1, &request, wait_ms, "all_gather"));
    memcpy(out, all, n_out);
    return FR_OK;
}

fr_status fr_mpi_broadcast(fr_comm *c, void *data, size_t bytes)
{
    fr_mpi_comm *m = fr_mpi_of(c);
    MPI_Request request;
    FR_TRY(fr_mpi_check_group(m));
    FR_TRY(fr_mpi_check_bytes(m, bytes, "broadcast"));
    FR_TRY(fr_mpi_make_room(&m->exchange, bytes));
    if (c->rank == 0)
        memcpy(m->exchange.data, data, bytes);
    FR_TRY(fr_mpi_check(MPI_Ibcast(m->exchange.data, (int)bytes, MPI_BYTE, 0, m->mpi, &request), "broadcast"));
    FR_TRY(fr_mpi_await(m, 1, &request, 0, "broadcast"));
    memcpy(data, m->exchange.data, bytes);
    return FR_OK;
}

/* Which rank is the first that failed; the number of ranks when none did. */
static fr_status find_first_failure(fr_mpi_comm *m, fr_status mine, int *first_out)
{
    MPI_Request request;
    m->vote = mine == FR_OK ? m->base.size : m->base.rank;
    FR_TRY(fr_mpi_check(MPI_Iallreduce(&m->vote, &m->first, 1, MPI_INT, MPI_MIN, m->mpi, &request), "agree"));
    FR_TRY(fr_mpi_await(m, 1, &request, 0, "agree"));
    *first_out = m->first;
    return FR_OK;
}

fr_status fr_mpi_agree(fr_comm *c, fr_status mine)
{
    fr_mpi_comm *m = fr_mpi_of(c);
    int first = 0;
    MPI_Request request;
    char cause[sizeof m->told.cause] = "";
    if (mine != FR_OK)
        snprintf(cause, sizeof cause, "%s", fr_cause());
    FR_TRY(fr_mpi_check_group(m));
    m->told = (fr_mpi_verdict){.status = mine};
    memcpy(m->told.cause, cause, sizeof cause);
    FR_TRY(find_first_failure(m, mine, &first));
    if (first == c->size)
        return FR_OK;
    FR_TRY(fr_mpi_check(MPI_Ibcast(&m->told, sizeof m->told, MPI_BYTE, first, m->mpi, &request), "agree: cause"));
    FR_TRY(fr_mpi_await(m, 1, &request, 0, "agree: cause"));
    return fr_fail((fr_status)m->told.status, "%s", m->told.cause);
}
