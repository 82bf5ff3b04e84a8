/* runtime.h: what the parts of the CUDA on the CPU share. Not for tests: those see fake_cuda.h.
 *
 * Locks, in this order: a stream's run lock (who runs its work), the kernel lock (kernels and copies,
 * one at a time in the process), the table lock (everything else, short). */
#ifndef FAKE_CUDA_RUNTIME_INTERNAL_H
#define FAKE_CUDA_RUNTIME_INTERNAL_H

#include <stdint.h>

#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda_runtime.h"
#include "fake_cuda.h"

/* One piece of a stream's work. It returns false when it waits for others (a collective) and is then
 * called again, with the same `state`; when may_wait it returns false only after waiting a while. */
struct work_run {
    bool may_wait;
    cudaStream_t stream; /* that runs it */
    std::shared_ptr<void> state; /* of this execution; a graph's work runs many times */
};
typedef std::function<bool(work_run *)> work;

struct CUgraph_st {
    std::vector<std::shared_ptr<const work>> nodes;
};

struct CUgraphExec_st {
    std::vector<std::shared_ptr<const work>> nodes;
};

/* runtime.cpp */

extern std::mutex fake_kernel_lock;
extern std::recursive_mutex fake_table_lock;
extern fake_cuda_counts fake_counts; /* table lock */
typedef std::lock_guard<std::recursive_mutex> table_guard;

/* Every API function begins with this: does a test want it to fail (then with *code)? */
bool fake_told_to_fail(const char *name, int *code);
/* Remembers an error as the thread's last one and returns it. */
cudaError_t fake_error(cudaError_t error);
/* The same, and says on stderr what the caller did wrong. */
cudaError_t fake_misuse(cudaError_t error, const char *call, const char *what, ...)
    __attribute__((format(printf, 3, 4)));
int fake_current_device();
size_t fake_total_memory();
int fake_shared_memory();

#define FAKE_CALL(name)                                              \
    do {                                                             \
        int fake_code_;                                              \
        if (fake_told_to_fail(name, &fake_code_))                    \
            return fake_error(static_cast<cudaError_t>(fake_code_)); \
    } while (0)

/* memory.cpp */

/* Device memory of this device may be touched while such an object lives. */
struct device_access {
    explicit device_access(int device);
    ~device_access();
    device_access(const device_access &) = delete;
    int device;
};
/* Which device owns all of [p, p + bytes)? -1: it is no device memory at all; -2: it starts in an
 * allocation but does not lie in it. */
int fake_owner(const void *p, size_t bytes);
bool fake_is_pinned(const void *p);
/* The allocation that `at` lies in, if any. */
bool fake_allocation_of(uintptr_t at, uintptr_t *start, size_t *bytes);
size_t fake_device_bytes(int device); /* allocated now */

/* streams.cpp */

/* Queues work (or records it, while the stream captures). */
cudaError_t fake_push(cudaStream_t stream, const char *call, work w);
/* The device that a stream belongs to; the current one for the default stream. */
int fake_stream_device(cudaStream_t stream);
/* Is a capture active that forbids this thread a call like cudaMalloc? Then invalidates it. */
cudaError_t fake_forbidden_in_capture(const char *call);
/* What this stream's work is captured into; NULL: it is not. */
const void *fake_captured_into(cudaStream_t stream);
/* What was captured on this stream, if anything, is of no use any more. */
void fake_break_capture(cudaStream_t stream);
/* Runs one piece of a stream's work without waiting. False: there is none left. */
bool fake_poke(cudaStream_t stream);
/* The same of a stream of another thread, which may be gone; not while a thread is at work for its device. */
void fake_poke_of(int device, cudaStream_t stream);
/* Runs all the work of a device: of every stream, or only of those that block the default one. */
void fake_drain_device(int device, bool non_blocking_too);

/* grid.cpp */

int fake_thread();                 /* the running thread's place in its block */
extern uint64_t fake_block_number; /* of all blocks ever run */
void fake_reset_order();           /* to what the environment says */

#endif
