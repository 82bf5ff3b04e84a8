/* comm_link.h: a host communicator (comm.h) over Forerun's own link, for groups whose launcher brings no MPI: srun of a
 * Slurm without PMIx, or processes started by hand. Sums are taken by rank 0, in rank order; that is slow beside MPI,
 * so it is meant for ranks with a GPU each, whose sums go through NCCL. Every wait but that for a command has a
 * deadline, and the error at its end names the rank that did not come. A rank whose process ended is named at once. */
#ifndef FR_COMM_LINK_H
#define FR_COMM_LINK_H

#include "comm.h"
#include "ranks.h"

enum { FR_COMM_LINK_CONNECT_MS = 60000, FR_COMM_LINK_WAIT_MS = 600000 }; /* until it serves: ranks may load at different
                                                                         * speeds */

/* All ranks of the group. */
fr_status fr_comm_link_open(const fr_ranks_options *options, fr_comm **out);

#endif
