/* races.h: whether kernels race: what their threads do to memory, watched as they run on the CPU.
 *
 * A program that is linked with fr_cuda_races, its .cu files compiled with -fsanitize=thread, ends at the first race, with
 * one message (races.cpp). The compiler reports each access; the emulator tells of the rest through fake_race_watch.
 *
 * A race, by bytes, at least one of the two accesses a write, not both atomic:
 *   threads of one block, with no __syncthreads between them, unless they are lanes of one warp that both took part in a
 *     __syncwarp since (or a chain of them). Shuffles, votes and matrix products order no memory;
 *   blocks of one launch, in global memory, whatever the barriers;
 *   an asynchronous copy, from its start to its thread's wait, with whoever touches where it goes to;
 *   a kernel before it awaits the previous one (launch.cuh), with all those on its stream that may still run: since the
 *     last copy, memset, or wait of the host. An event's record does not count as a wait of the stream, and cublasLtMatmul
 *     is a kernel that awaits at its start.
 *
 * A race shows whatever the order that threads run in, if their accesses come to pass at all. Not seen:
 *   kernels of different streams that no event orders; NCCL's operations count as copies;
 *   orders by __threadfence and flags: the kernels have none, and they would be called races;
 *   of each word, more than the last write and three reads (the last, and before it one of the same and one of another
 *     warp): where threads share a word by bytes, or mix atomic with plain accesses, one in the middle may be forgotten;
 *   local arrays on a thread's stack that another thread is given a pointer to;
 *   memcpy and memset, where the compiler calls the library's: it does not in the kernels there are. */
#ifndef FAKE_CUDA_RACES_H
#define FAKE_CUDA_RACES_H

#include <stddef.h>
#include <stdint.h>

#include "cuda_runtime.h"

/* Called under the kernel lock; begin_kernel() to end_kernel() by one thread of the operating system. mark() takes that
 * lock, and over() needs none. */
struct fake_race_watcher {
    void (*begin_kernel)(const char *name, cudaStream_t stream, const void *shared, size_t shared_bytes);
    void (*end_kernel)();
    void (*begin_block)();
    void (*barrier)(); /* all threads of the block have met */
    void (*warp_barrier)(int warp, unsigned mask);
    void (*become)(int thread, bool awaited); /* which thread goes on, and whether it has awaited the previous kernel */
    void (*begin_copy)(const void *to, size_t to_bytes, const void *from, size_t from_bytes, const void *code);
    void (*end_copy)(const void *to, size_t bytes, const void *code);
    /* A kernel of a library, which awaits all before it, and then what it touches. */
    void (*library_kernel)(const char *name, cudaStream_t stream);
    void (*library_touch)(const void *at, size_t bytes, bool writes);
    /* Kernels that have run so far, in all streams; and: the stream's first `kernels` of them are over. */
    uint32_t (*mark)();
    void (*over)(cudaStream_t stream, uint32_t kernels);
};
extern const fake_race_watcher *fake_race_watch; /* NULL: nobody does (grid.cpp) */

/* All that ran on this stream so far is over (streams.cpp). */
void fake_race_all_over(cudaStream_t stream);

#endif
