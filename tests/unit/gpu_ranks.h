/* gpu_ranks.h: ranks as threads (rank_threads.h) that have a GPU each, of the CUDA and the NCCL that run on the CPU. A
 * test that has this file is linked with --wrap=fr_nccl_open: whether NCCL is there is the test's to say. */
#ifndef GPU_RANKS_H
#define GPU_RANKS_H

#include "rank_threads.h"

/* A CUDA of `devices` GPUs, with its other defaults, that counts from 0. */
void gpu_ranks_reset(int devices);
/* All of a group of n, each with `input`; nothing of CUDA may be alive then. */
void gpu_ranks_run(rank_thread *ranks, int n, fr_status (*act)(rank_thread *r), const void *input);
/* The same, where all are to end well. */
void gpu_ranks_run_well(int n, fr_status (*act)(rank_thread *r), const void *input);

/* In act(): NCCL is missing on the rank's machine. */
void gpu_rank_is_without_nccl(bool without);

#endif
