/* comm.h: the communicator table: the ranks of one group. Every collective is called by all ranks of the group in the
 * same order; rank 0 is the leader. Sums are taken in rank order whatever the size of the message, so a row's sum does
 * not depend on what else is in the batch.
 *
 * A host communicator (comm_self, comm_mpi) moves plain memory. Where device memory is none, another communicator lies
 * over it, which sums, gathers and broadcasts device memory and passes all else on (comm_device.h). */
#ifndef FR_COMM_H
#define FR_COMM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct fr_comm fr_comm;

enum {
    FR_COMM_SMALL = 256, /* bytes of each rank that a group over MPI has room for from the start: an all_gather of so
                          * few takes no memory there, so that no rank can fail alone in it */
    FR_COMM_WHY = 200,       /* bytes of a reason in a roll call, its end included */
    FR_COMM_LEAVE_MS = 2000, /* for the others to notice that this rank gives up, and to say a word */
    FR_COMM_TIMEOUT_MS = 30000, /* what a serving group allows a rank to be late, unless it is told otherwise */
    FR_COMM_STOP_MS = 1500, /* how much longer a rank that is to end waits for others, who may just be slow */
};

/* What bounds a wait for other ranks. */
typedef struct fr_comm_patience {
    int ms;                 /* FR_EPEER after so long; 0: never */
    const atomic_int *stop; /* not 0: this rank is to end, and the wait does with FR_ECANCELLED, FR_COMM_STOP_MS later.
                             * NULL: nobody tells it to */
} fr_comm_patience;

typedef struct fr_comm_ops {
    const char *name; /* "self", "mpi", "staged", "nccl" */
    /* Of memory of the session's device. Each takes its place in the order of the device's calls; only a host
     * communicator wants the device synchronised before. */

    /* x [n] := the sum over ranks, the same bits on every rank. */
    fr_status (*all_reduce_sum)(fr_comm *c, float *x, size_t n);
    /* out [size][bytes], host memory, on rank 0: every rank's `bytes` bytes, in rank order. out is ignored on the
     * others. The device has done all that it was asked for when this returns. */
    fr_status (*gather)(fr_comm *c, const void *mine, size_t bytes, void *out);
    /* The leader's `bytes` bytes to every rank; all know the size. */
    fr_status (*broadcast)(fr_comm *c, void *data, size_t bytes);

    /* Of host memory. */

    /* out [size][bytes] on every rank. FR_EPEER when some are not there after wait_ms; 0: as long as this communicator
     * waits for anything. */
    fr_status (*all_gather)(fr_comm *c, const void *mine, size_t bytes, void *out, int wait_ms);
    /* How the work that each rank does alone went: status and cause of the first rank that failed, on every rank, so
     * that all give up together and none waits for another. Takes no memory: it may just have run out. */
    fr_status (*agree)(fr_comm *c, fr_status mine);
    /* One command from the leader to all (any size). Followers wait in command_wait: they spin for a moment, then
     * sleep until the leader's command wakes them; an idle rank uses no CPU. */
    fr_status (*command_send)(fr_comm *c, const void *data, size_t bytes); /* leader */
    /* Followers; the data are valid until the next wait. */
    fr_status (*command_wait)(fr_comm *c, const void **data_out, size_t *bytes_out);
    /* This rank cannot go on, for the cause of the last error, which may then also name ranks that are not heard of.
     * The others end with that cause what they wait for. From then on the group can only be closed. No collective; does
     * nothing when the group was given up already. NULL in a group of one rank. */
    void (*give_up)(fr_comm *c);
    /* The same with more to say and to learn. Every rank calls it once: when it notices a failure, or when look() tells
     * of one. Sets heard_out [size] for those that called within wait_ms, this one included. why [FR_COMM_WHY]: what
     * this rank noticed; when that is "", it becomes what another one did. NULL in a group of one rank, and in
     * communicators over another. */
    fr_status (*roll_call)(fr_comm *c, int wait_ms, char *why, bool *heard_out);
    /* Whether this rank could go on, as far as it knows without waiting: FR_EPEER, with the cause, when another one has
     * given up, or is gone where that can be seen. No collective. NULL in a group of one rank. */
    fr_status (*look)(fr_comm *c);
    void (*close)(fr_comm **c);
} fr_comm_ops;

struct fr_comm {
    const fr_comm_ops *ops;
    int rank, size;
    bool on_stream; /* device memory goes from device to device, as part of the device's own work */
    int here, n_here; /* this rank among the group's on this host, from 0 */
    int n_alike; /* of those, itself included, how many may use the same cores: fewer than n_here when the launcher
                  * bound them apart */
    /* Of every wait for the others from now on, but a follower's for a command, which knows no end but stop. Where this
     * lies over a host communicator, that one's holds. Unset while a group is formed and loads, at different speeds:
     * then a wait takes as long as the communicator was opened for. */
    fr_comm_patience patience;
};

/* One rank, no communication. */
fr_status fr_comm_self_open(fr_comm **out);
/* All ranks of MPI_COMM_WORLD that call with the same colour (collective over the whole world), as when one mpirun
 * starts coordinator and workers together. Initialises MPI if that was not done yet; the last close finalises it. */
fr_status fr_comm_mpi_open(int colour, fr_comm **out);
/* 1 when this process was started by mpirun or srun as an MPI rank. */
int fr_comm_mpi_launched(void);
/* Over the whole world, before fr_comm_mpi_open: text [cap] of the one rank where it is not empty goes to every rank.
 * How workers learn the endpoint of a coordinator started by the same mpirun. */
fr_status fr_comm_mpi_share_text(char *text, size_t cap);

#endif
