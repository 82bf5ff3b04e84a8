/* nccl_group.h: groups over NCCL for the tests of comm_nccl.c: each rank a thread with a GPU (gpu_ranks.h), which opens
 * a stream_device and the communicator over it, and then does what its test says. */
#ifndef NCCL_GROUP_H
#define NCCL_GROUP_H

#include "comm_device.h"
#include "gpu_ranks.h"
#include "stream_device.h"

typedef struct nccl_plan {
    fr_comm_device_options options;
    /* Of both, while they are open. What it leaves in r->summed is freed once the communicator is closed: in a group
     * that failed, freeing waits for that. */
    fr_status (*use)(rank_thread *r, fr_comm *c, fr_device *dev);
} nccl_plan;

/* For gpu_ranks_run, with an nccl_plan as its input: opens, uses and closes. */
fr_status nccl_group_act(rank_thread *r);
/* cmocka's set-up of a test: a GPU for each of MOST_RANKS. */
int nccl_group_set_up(void **state);

#endif
