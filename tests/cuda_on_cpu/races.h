/* races.h: do kernels race? What their threads do to memory is watched as they run on the CPU.
 *
 * The .cu files of a program with fr_watch_races() (CMakeLists.txt) are compiled with -fsanitize=thread, and
 * what the compiler then calls at each access is not a sanitizer's but races.cpp's: two accesses, at least
 * one of them a write, not both atomic, that no rule orders end the program with a message. By bytes:
 *   - Threads of a block are ordered by __syncthreads, and lanes of a warp by each __syncwarp that both take
 *     part in, or a chain of them. Shuffles, votes and matrix products order nothing, as in CUDA.
 *   - Blocks of a launch are not ordered: in global memory any two accesses race, whatever the barriers.
 *   - An asynchronous copy writes from its start until its thread's wait, and nobody else may touch the
 *     place meanwhile, that thread included.
 *   - A kernel, until it awaits the previous one (launch.cuh), is not ordered with those on its stream since
 *     the last copy, memset, NCCL operation, or wait of the host for what it may touch. The start of a graph
 *     and the record of an event are no such waits. cublasLtMatmul is a kernel that awaits at its start.
 *
 * Accesses that happen are found to race in whichever order the threads run. Not seen:
 *   - races of kernels in different streams;
 *   - where some lanes of a warp meet without the others (a __syncwarp of a part of them, of which no kernel has
 *     need): of reads, and of atomic accesses, of a byte by its lanes all but the last two;
 *   - what lies on threads' stacks, though another thread may be given a pointer to it;
 *   - memcpy and memset where gcc calls the library's; in the kernels it never does;
 *   - what asm does in the kernels' own code for GPUs, which is not compiled here.
 * Orders by flags and __threadfence are none here and would be called races: kernels do without them. */
#ifndef FAKE_CUDA_RACES_H
#define FAKE_CUDA_RACES_H

#include <stddef.h>
#include <stdint.h>

#include "cuda_runtime.h"

/* What the emulator tells. Called under the kernel lock; begin_kernel() to end_kernel() by one thread of the
 * operating system. mark() takes that lock, and over() needs none. */
struct fake_race_watcher {
    void (*begin_kernel)(const char *name, cudaStream_t stream, const void *shared,
                         size_t shared_bytes);
    void (*end_kernel)();
    void (*begin_block)();
    void (*barrier)(); /* all threads of the block have met */
    void (*warp_barrier)(int warp, unsigned mask);
    /* Which thread goes on, and whether it has awaited the previous kernel. */
    void (*become)(int thread, bool awaited);
    void (*begin_copy)(const void *to, size_t to_bytes, const void *from, size_t from_bytes,
                       const void *code);
    void (*end_copy)(const void *to, size_t bytes, const void *code);
    /* A kernel of a library, which awaits all before it, and then what it touches. */
    void (*library_kernel)(const char *name, cudaStream_t stream);
    void (*library_touch)(const void *at, size_t bytes, bool writes);
    /* A point in time; and: what the stream had run until then is over. */
    uint32_t (*mark)();
    void (*over)(cudaStream_t stream, uint32_t mark);
};
extern const fake_race_watcher *fake_race_watch; /* NULL: nobody does (grid.cpp) */

/* All that ran on this stream so far is over (streams.cpp). */
void fake_race_all_over(cudaStream_t stream);

#endif
