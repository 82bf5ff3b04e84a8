/* fake_cuda.h: what tests ask of the CUDA on the CPU beyond CUDA: what is alive, what ran, and knobs.
 *
 * How the fake behaves (cuda_runtime_api.h):
 *   memory   cudaMalloc's bytes are poisoned under ASan except while queued work runs, so that a host
 *            access fails the test; fresh memory is 0xFF (NaN in every float type, -1 in integers).
 *            Copies check both pointers against their kind and one allocation's bounds.
 *   streams  queue; work runs in order, when somebody waits: a synchronize, an event's wait, cudaFree,
 *            a blocking copy (for streams without cudaStreamNonBlocking). A query runs one piece and
 *            says cudaErrorNotReady while there is more. Copies from pageable memory read it at the
 *            call, from pinned memory when they run; to any host memory they write when they run.
 *   capture  records; malloc, free, waits and blocking copies fail and invalidate it.
 *   kernels  block by block, threads as fibres; broken rules (a deadlock, a lane missing from a
 *            shuffle) print the kernel's name and abort().
 *
 * Environment: FAKE_CUDA_ORDER = forward | backward | a seed, as fake_cuda_set_order().
 * Thread-safe: ranks may be threads; one kernel or copy runs at a time. */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <stdint.h>
#include <stdio.h>

#include "cuda_runtime_api.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FAKE_CUDA_MAX_DEVICES 8

typedef struct fake_cuda_counts {
    /* Alive now: all 0 when nothing leaks. */
    int allocations, host_allocations, streams, events, graphs, graph_execs;
    int lt_handles, lt_descriptors; /* cuBLASLt: handles; descriptors, layouts and preferences */
    int comms;                      /* NCCL */
    size_t device_bytes;            /* of all devices */
    /* Since the start or fake_cuda_reset(). */
    int launches;       /* kernels asked for, captured ones included */
    int kernels_run;    /* kernels run, replayed ones included */
    int graph_launches; /* cudaGraphLaunch */
    int captures;       /* captures that ended well */
} fake_cuda_counts;

fake_cuda_counts fake_cuda_count(void);
/* True when nothing is alive; else prints what is to stderr. */
int fake_cuda_all_freed(void);
/* Knobs back to their defaults (the order to the environment's), counts since the start to 0. What is alive stays. */
void fake_cuda_reset(void);
/* Every kernel run since the start: its name at the launch, how often, "awaits" if it awaited the one before, and its
 * symbol's value, which tells instantiations of a template apart: a line each. Also written when the program ends,
 * below its path, to the file that the environment's FAKE_CUDA_KERNELS names. */
void fake_cuda_print_kernels(FILE *out);

/* Order of blocks, of warps in a block and of lanes in a warp, between two barriers; shuffled: another
 * one for each launch. Results must not depend on it: where they do, a barrier is missing. */
typedef enum { FAKE_CUDA_FORWARD, FAKE_CUDA_BACKWARD, FAKE_CUDA_SHUFFLED } fake_cuda_order;
void fake_cuda_set_order(fake_cuda_order order, uint32_t seed);

void fake_cuda_set_devices(int n);             /* 0 .. FAKE_CUDA_MAX_DEVICES; default 1 */
/* The newest CUDA that the driver is for, 12040: 12.4; default: the runtime's. 0: there is no driver. */
void fake_cuda_set_driver(int version);
void fake_cuda_set_total_memory(size_t bytes); /* of each device; default 16 GiB */
/* Dynamic shared memory that a kernel may ask for at most; default 227 KiB. */
void fake_cuda_set_shared_memory(int bytes);
void fake_cuda_set_first_device_shared_memory(int bytes); /* of device 0 alone */
/* The nth call from now (1 = the next) of the function called `name` (a CUDA, cuBLASLt or NCCL call;
 * "kernel" = a launch) fails with `code` (cudaError_t, cublasStatus_t or ncclResult_t) and does
 * nothing else. One such order at a time; nth 0 takes it back. */
void fake_cuda_fail(const char *name, int nth, int code);
/* The same of calls by threads whose current device is this one. */
void fake_cuda_fail_on(int device, const char *name, int nth, int code);
/* The nth NCCL operation from now (1 = the next) that runs on `rank` hangs, and with it all later
 * ones; unless code is 0 (ncclSuccess), ncclCommGetAsyncError then says so on that rank. nth 0: none. */
void fake_nccl_trouble(int rank, int nth, int code);
/* ncclCommInitRankConfig and ncclCommAbort do nothing for so long on that rank. */
typedef enum { FAKE_NCCL_INIT, FAKE_NCCL_ABORT } fake_nccl_slow_call;
void fake_nccl_slow(fake_nccl_slow_call call, int rank, int ms);

#ifdef __cplusplus
}
#endif

#endif
