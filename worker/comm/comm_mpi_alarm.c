/* comm_mpi_alarm.c: giving up, and the waits that hear of it.
 *
 * A rank that cannot go on calls the roll: each sends a word to all others and listens until its time is over; nothing
 * waits for that send. All other waits look for such words, and what they wait for is abandoned then. MPI may still
 * write to what was to be received, so that is always memory of the communicator, kept until the process ends. It may
 * still read what was to be sent, but only in this rank's calls, the last of which is the roll call, and in those of a
 * rank that has not heard of it.
 *
 * A rank that was lost, or a collective that was left under way, would let MPI_Finalize wait for ever, so then it is
 * left out: mpirun and srun end what is left of a group in which a rank ended without it. */
#include "comm_mpi_impl.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "clock.h"
#include "comm_roll.h"
#include "comm_wait.h"

enum {
    ROUNDS = 16, /* of a wait, until it looks for alarms and gives its core away: neither is free */
};

/* Takes in a word of a roll call if there is one. */
static fr_status hear(fr_mpi_comm *m, int *found_out)
{
    MPI_Status status;
    char word[FR_COMM_WHY] = "";
    FR_TRY(fr_mpi_check(MPI_Iprobe(MPI_ANY_SOURCE, FR_MPI_ROLL_TAG, m->mpi, found_out, &status), "roll_call"));
    if (!*found_out)
        return FR_OK;
    FR_TRY(fr_mpi_check(
        MPI_Recv(word, sizeof word, MPI_BYTE, status.MPI_SOURCE, FR_MPI_ROLL_TAG, m->mpi, MPI_STATUS_IGNORE),
        "roll_call"));
    m->heard[status.MPI_SOURCE] = true;
    if (!m->heard_why[0])
        memcpy(m->heard_why, word, sizeof word);
    return FR_OK;
}

static bool alarmed(fr_mpi_comm *m)
{
    int found = 0;
    if (!m->heard) /* the group is not formed yet */
        return false;
    return hear(m, &found) != FR_OK || memchr(m->heard, true, (size_t)m->base.size) != NULL;
}

fr_status fr_mpi_look(fr_comm *c)
{
    fr_mpi_comm *m = fr_mpi_of(c);
    if (!m->rolled && !m->unfinished && !alarmed(m))
        return FR_OK;
    return fr_fail(FR_EPEER, "%s", m->heard_why[0] ? m->heard_why : "a rank gave the group up");
}

fr_status fr_mpi_check_group(fr_mpi_comm *m)
{
    return m->rolled || m->unfinished ? fr_mpi_look(&m->base) : FR_OK;
}

fr_status fr_mpi_await(fr_mpi_comm *m, int n, MPI_Request *requests, int wait_ms, const char *what)
{
    const int ms = wait_ms > 0 ? wait_ms : m->base.patience.ms;
    fr_comm_wait wait = fr_comm_wait_begin((fr_comm_patience){.ms = ms, .stop = m->base.patience.stop});
    int done = 0;
    fr_status st = fr_mpi_check(MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE), what);
    for (unsigned round = 1; st == FR_OK && !done; round++) {
        if (round % ROUNDS == 0)
            st = fr_mpi_look(&m->base);
        if (round % ROUNDS == 0 && m->yield)
            sched_yield();
        const fr_status over = st == FR_OK && round % ROUNDS == 0 ? fr_comm_wait_check(&wait) : FR_OK;
        if (over == FR_ECANCELLED)
            st = fr_fail(over, "rank %d: %s: stopped while it waited for the others", m->base.rank, what);
        else if (over != FR_OK)
            st = fr_fail(FR_EPEER, "rank %d: %s: not all ranks were there in %d ms", m->base.rank, what, ms);
        if (st == FR_OK)
            st = fr_mpi_check(MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE), what);
    }
    m->unfinished = m->unfinished || st != FR_OK;
    return st;
}

fr_status fr_mpi_roll_call(fr_comm *c, int wait_ms, char *why, bool *heard_out)
{
    fr_mpi_comm *m = fr_mpi_of(c);
    const uint64_t end = fr_now_ns() + (uint64_t)wait_ms * 1000000;
    m->rolled = true;
    m->heard[m->base.rank] = true;
    memcpy(m->roll_word, why, sizeof m->roll_word);
    for (int r = 0; r < m->base.size; r++) {
        MPI_Request send;
        if (r == m->base.rank)
            continue;
        FR_TRY(fr_mpi_check(MPI_Isend(m->roll_word, sizeof m->roll_word, MPI_BYTE, r, FR_MPI_ROLL_TAG, m->mpi, &send),
                            "roll_call"));
        FR_TRY(fr_mpi_check(MPI_Request_free(&send), "roll_call"));
    }
    while (memchr(m->heard, false, (size_t)m->base.size) && fr_now_ns() < end) {
        int found = 0;
        FR_TRY(hear(m, &found));
        if (!found)
            fr_sleep_ms(1);
    }
    m->unfinished = m->unfinished || memchr(m->heard, false, (size_t)m->base.size);
    if (!why[0])
        memcpy(why, m->heard_why, sizeof m->heard_why);
    if (heard_out)
        memcpy(heard_out, m->heard, (size_t)m->base.size * sizeof *heard_out);
    return FR_OK;
}

void fr_mpi_give_up(fr_comm *c)
{
    fr_mpi_comm *m = fr_mpi_of(c);
    char why[FR_COMM_WHY] = "", silent[128] = "";
    snprintf(why, sizeof why, "%s", fr_cause());
    if (m->rolled)
        return;
    if (fr_mpi_roll_call(c, FR_COMM_LEAVE_MS, why, NULL) != FR_OK)
        m->unfinished = true;
    else
        fr_comm_name_silent(m->heard, c->size, silent, sizeof silent);
    fr_fail(FR_EPEER, "%s%s", why, silent);
}
