/* comm_mpi.c: the communicator of a group under mpirun or srun. Here the group is formed and closed; the other concepts
 * have files of their own, which see mpi.h through comm_mpi_impl.h and are all that do:
 *   comm_mpi_start     MPI's start in this process
 *   comm_mpi_sum       sums in rank order
 *   comm_mpi_gather    collectives that carry bytes
 *   comm_mpi_command   commands, and followers that sleep
 *   comm_mpi_alarm     giving up, and waits that hear of it
 * MPI exists once a process and cannot start twice, hence the statics below. All calls come from one thread. */
#include "comm_mpi_impl.h"

#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "check.h"
#include "clock.h"

static int n_open; /* communicators; the close of the last one finalises MPI */

fr_status fr_mpi_check_bytes(const fr_mpi_comm *m, size_t bytes, const char *what)
{
    if (bytes > (size_t)INT_MAX / (size_t)m->base.size)
        return fr_fail(FR_ELIMIT, "%s: a message of %zu bytes is too large", what, bytes);
    return FR_OK;
}

fr_status fr_mpi_make_room(fr_buf *b, size_t bytes)
{
    b->len = 0;
    return fr_buf_reserve(b, bytes > 0 ? bytes : 1);
}

/* How many ranks of `host` may use the same cores as this one. Round by round: it takes no memory, so that no rank can
 * fail alone. */
static fr_status count_alike(MPI_Comm host, int n_ranks, int *n_out)
{
    cpu_set_t mine, other;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof mine, &mine) != 0)
        CPU_ZERO(&mine);
    *n_out = 0;
    for (int r = 0; r < n_ranks; r++) {
        other = mine;
        FR_TRY(fr_mpi_check(MPI_Bcast(&other, sizeof other, MPI_BYTE, r, host), "MPI_Bcast"));
        *n_out += CPU_EQUAL(&mine, &other) != 0;
    }
    return FR_OK;
}

/* Sets here, n_here, n_alike and yield. local_out: all ranks of the group are on one host. */
static fr_status look_around(fr_mpi_comm *m, int *local_out)
{
    MPI_Comm host = MPI_COMM_NULL;
    int of_world = 0, fewest = 0;
    FR_TRY(fr_mpi_check(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host),
                        "MPI_Comm_split_type"));
    FR_TRY(fr_mpi_check(MPI_Comm_size(host, &of_world), "MPI_Comm_size"));
    FR_TRY(fr_mpi_check(MPI_Comm_free(&host), "MPI_Comm_free"));
    m->yield = of_world >= fr_mpi_usable_cores();

    FR_TRY(fr_mpi_check(MPI_Comm_split_type(m->mpi, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host),
                        "MPI_Comm_split_type"));
    FR_TRY(fr_mpi_check(MPI_Comm_rank(host, &m->base.here), "MPI_Comm_rank"));
    FR_TRY(fr_mpi_check(MPI_Comm_size(host, &m->base.n_here), "MPI_Comm_size"));
    FR_TRY(count_alike(host, m->base.n_here, &m->base.n_alike));
    FR_TRY(fr_mpi_check(MPI_Comm_free(&host), "MPI_Comm_free"));
    FR_TRY(fr_mpi_check(MPI_Allreduce(&m->base.n_here, &fewest, 1, MPI_INT, MPI_MIN, m->mpi), "MPI_Allreduce"));
    *local_out = fewest == m->base.size;
    return FR_OK;
}

/* All that a rank may fail in alone. */
static fr_status prepare(fr_mpi_comm *m, int local)
{
    const size_t size = (size_t)m->base.size;
    m->requests = calloc(2 * size, sizeof *m->requests);
    m->bells = calloc(size, sizeof *m->bells);
    m->heard = calloc(size, sizeof *m->heard);
    if (!m->requests || !m->bells || !m->heard)
        return fr_no_memory();
    FR_TRY(fr_mpi_make_room(&m->exchange, FR_COMM_SMALL * (size + 1)));
    return fr_doorbell_open(local, &m->bell);
}

static fr_status exchange_bells(fr_mpi_comm *m)
{
    const fr_doorbell_address where = fr_doorbell_where(m->bell);
    FR_TRY(fr_mpi_all_gather(&m->base, &where, sizeof where, m->bells, 0));
    if (m->base.rank == 0 && getrandom(&m->key, sizeof m->key, 0) != (ssize_t)sizeof m->key)
        m->key = fr_now_ns(); /* the key only keeps other groups' rings apart */
    return fr_mpi_broadcast(&m->base, &m->key, sizeof m->key);
}

static fr_status form_group(fr_mpi_comm *m, int colour)
{
    int local = 0;
    FR_TRY(fr_mpi_check(MPI_Comm_split(MPI_COMM_WORLD, colour, 0, &m->mpi), "MPI_Comm_split"));
    FR_TRY(fr_mpi_check(MPI_Comm_set_errhandler(m->mpi, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
    FR_TRY(fr_mpi_check(MPI_Comm_rank(m->mpi, &m->base.rank), "MPI_Comm_rank"));
    FR_TRY(fr_mpi_check(MPI_Comm_size(m->mpi, &m->base.size), "MPI_Comm_size"));
    FR_TRY(look_around(m, &local));
    FR_TRY(fr_mpi_agree(&m->base, prepare(m, local)));
    return exchange_bells(m);
}

static void free_comm(fr_mpi_comm *m)
{
    fr_doorbell_close(&m->bell);
    fr_buf_free(&m->scratch);
    fr_buf_free(&m->exchange);
    fr_buf_free(&m->command);
    free(m->requests);
    free(m->bells);
    free(m->heard);
    free(m);
}

static void mpi_close(fr_comm **c)
{
    static fr_mpi_comm *unfinished; /* MPI may write there until the process ends */
    if (!c || !*c)
        return;
    fr_mpi_comm *m = fr_mpi_of(*c);
    *c = NULL;
    n_open--;
    if (m->unfinished) {
        unfinished = m;
        return;
    }
    if (m->mpi != MPI_COMM_NULL)
        MPI_Comm_free(&m->mpi);
    free_comm(m);
    if (n_open == 0 && !unfinished)
        MPI_Finalize();
}

static const fr_comm_ops mpi_ops = {
    .name = "mpi",
    .all_reduce_sum = fr_mpi_all_reduce_sum,
    .gather = fr_mpi_gather,
    .all_gather = fr_mpi_all_gather,
    .broadcast = fr_mpi_broadcast,
    .agree = fr_mpi_agree,
    .command_send = fr_mpi_command_send,
    .command_wait = fr_mpi_command_wait,
    .give_up = fr_mpi_give_up,
    .roll_call = fr_mpi_roll_call,
    .look = fr_mpi_look,
    .close = mpi_close,
};

fr_status fr_comm_mpi_open(int colour, fr_comm **out)
{
    if (colour < 0)
        return fr_fail(FR_EINVAL, "group colour %d is negative", colour);
    FR_TRY(fr_mpi_start());
    fr_mpi_comm *m = calloc(1, sizeof *m);
    if (!m)
        return fr_no_memory();
    fr_comm *self = &m->base;
    n_open++;
    m->base.ops = &mpi_ops;
    m->mpi = MPI_COMM_NULL;
    fr_status st = form_group(m, colour);
    if (st != FR_OK)
        mpi_close(&self);
    else
        *out = self;
    return st;
}
