/* memory.c: one rank of a group runs out of memory while the group opens its session, at every
 * allocation in turn: all ranks are told, and none is left waiting for another. Run under mpirun:
 *
 *     memory MODEL */
#include <stdio.h>
#include <stdlib.h>

#include "fault_alloc.h"
#include "session.h"

static void need(int fine, const char *what, long n)
{
    if (!fine) {
        fprintf(stderr, "FAILED: %s, allocation %ld (cause: %s)\n", what, n, fr_cause());
        exit(1); /* a test program's own end; mpirun ends the other ranks */
    }
}

/* Allocation n of the last rank fails. *over_out: there are not so many. */
static void open_without(const char *model, fr_comm *comm, fr_draft_weights weights, long n,
                         int *over_out)
{
    fr_session *s = NULL;
    const fr_session_options o = {.threads = 1, .max_rows = 16, .max_context = 64,
                                  .kv_positions = 64, .draft_weights = weights};
    const int unlucky = comm->rank == comm->size - 1;
    if (unlucky)
        fr_fault_alloc_arm(n);
    fr_status st = fr_session_open(model, comm, &o, &s);
    *over_out = st == FR_OK;
    if (unlucky)
        need(fr_fault_alloc_disarm() != *over_out, "a failure was lost", n);
    need(st == FR_OK || (st == FR_ENOMEM && !s), "another status than out of memory", n);
    if (st == FR_OK && comm->rank != 0)
        need(fr_session_follow(s) == FR_OK, "the follower did not end", n);
    fr_session_close(&s);
}

static void open_at_all_costs(const char *model, fr_comm *comm, fr_draft_weights weights)
{
    long n = 0;
    for (int over = 0; !over; n++)
        open_without(model, comm, weights, n, &over);
    if (comm->rank == 0)
        printf("%d ranks, %ld allocations: ok\n", comm->size, n - 1);
    need(n > 20, "hardly anything was allocated", n);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    fr_comm *comm = NULL;
    need(fr_comm_mpi_open(1, &comm) == FR_OK, "no group", 0);
    open_at_all_costs(argv[1], comm, FR_DRAFT_WEIGHTS_FILE);
    open_at_all_costs(argv[1], comm, FR_DRAFT_WEIGHTS_Q4_0);
    comm->ops->close(&comm);
    return 0;
}
