/* comm_mpi_command.c: commands, which the leader sends point to point. A follower probes for a moment, then sleeps on
 * its doorbell until the leader rings or IDLE_WAKE_MS are over (rings can be lost). Order matters: the leader starts
 * the send before it rings, and the follower takes old rings before it probes the last time, so a command is seen or
 * its ring is still to come. */
#include "comm_mpi_impl.h"

#include <sched.h>
#include <string.h>

#include "check.h"
#include "clock.h"
#include "comm_wait.h"

enum {
    SPIN_NS = 200000,        /* a follower probes for so long before it sleeps */
    RUNG_SPIN_NS = 50000000, /* rung, but the command is still under way: the longest wait for it */
    IDLE_WAKE_MS = 100,      /* a sleeper looks for a command whose ring was lost */
};

fr_status fr_mpi_command_send(fr_comm *c, const void *data, size_t bytes)
{
    fr_mpi_comm *m = fr_mpi_of(c);
    if (m->base.rank != 0)
        return fr_fail(FR_EINVAL, "command_send: rank %d is not the leader", m->base.rank);
    FR_TRY(fr_mpi_look(c));
    FR_TRY(fr_mpi_check_bytes(m, bytes, "command_send"));
    m->n_commands++;
    const int n_followers = m->base.size - 1;
    for (int r = 1; r <= n_followers; r++)
        FR_TRY(fr_mpi_check(MPI_Isend(data, (int)bytes, MPI_BYTE, r, FR_MPI_COMMAND_TAG, m->mpi, &m->requests[r - 1]),
                            "command_send"));
    /* Before the wait below: a large command leaves only when its receiver is awake. */
    for (int r = 1; r <= n_followers; r++)
        fr_doorbell_ring(m->bell, &m->bells[r], m->key, m->n_commands);
    return fr_mpi_await(m, n_followers, m->requests, 0, "command_send");
}

/* Probes for a command for up to `ns` nanoseconds, at least once. */
static fr_status probe(fr_mpi_comm *m, uint64_t ns, int *found_out, MPI_Status *status_out)
{
    const uint64_t start = fr_now_ns();
    do {
        FR_TRY(fr_mpi_check(MPI_Iprobe(0, FR_MPI_COMMAND_TAG, m->mpi, found_out, status_out), "command_wait"));
        if (!*found_out && m->yield)
            sched_yield();
    } while (!*found_out && fr_now_ns() - start < ns);
    return FR_OK;
}

/* Sleeps until a command is there. */
static fr_status await_command(fr_mpi_comm *m, MPI_Status *status_out)
{
    fr_comm_wait wait = fr_comm_wait_begin((fr_comm_patience){.stop = m->base.patience.stop});
    int found = 0;
    FR_TRY(probe(m, SPIN_NS, &found, status_out));
    uint64_t rung = found ? 0 : fr_doorbell_wait(m->bell, m->key, 0);
    while (!found) {
        FR_TRY(fr_mpi_look(&m->base));
        if (fr_comm_wait_check(&wait) != FR_OK)
            return fr_fail(FR_ECANCELLED, "rank %d: stopped while it waited for a command", m->base.rank);
        FR_TRY(probe(m, rung > m->n_commands ? RUNG_SPIN_NS : 0, &found, status_out));
        if (!found)
            rung = fr_doorbell_wait(m->bell, m->key, IDLE_WAKE_MS);
    }
    return FR_OK;
}

fr_status fr_mpi_command_wait(fr_comm *c, const void **data_out, size_t *bytes_out)
{
    fr_mpi_comm *m = fr_mpi_of(c);
    if (m->base.rank == 0)
        return fr_fail(FR_EINVAL, "command_wait: the leader has no commands to wait for");
    MPI_Status status;
    memset(&status, 0, sizeof status);
    FR_TRY(await_command(m, &status));
    int bytes = 0;
    FR_TRY(fr_mpi_check(MPI_Get_count(&status, MPI_BYTE, &bytes), "command_wait: size"));
    FR_TRY(fr_mpi_make_room(&m->command, (size_t)bytes));
    FR_TRY(fr_mpi_check(MPI_Irecv(m->command.data, bytes, MPI_BYTE, 0, FR_MPI_COMMAND_TAG, m->mpi, m->requests),
                        "command_wait"));
    FR_TRY(fr_mpi_await(m, 1, m->requests, 0, "command_wait"));
    m->n_commands++;
    *data_out = m->command.data;
    *bytes_out = (size_t)bytes;
    return FR_OK;
}
