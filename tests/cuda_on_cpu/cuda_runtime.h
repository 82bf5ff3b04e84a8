/* cuda_runtime.h: CUDA's device side on the CPU, for .cu files compiled unchanged as C++17.
 *
 * A kernel is a plain function. FR_LAUNCH queues it on a stream with its arguments; when the stream
 * runs, grid.cpp calls it once a thread, threads as fibres that switch only at barriers and warp
 * operations. Static shared memory is static storage: blocks run one after another, and it keeps
 * what the last block left (zeros at first), unlike dynamic shared memory, which is 0xFF in every
 * block. */
#ifndef FAKE_CUDA_RUNTIME_H
#define FAKE_CUDA_RUNTIME_H

#define FR_CUDA_ON_CPU 1

#include "cuda_runtime_api.h"

#ifdef __cplusplus /* C files see the host side only */

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>

#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

/* kernels/cuda/launch.cuh has these for nvcc. */
#define FR_KERNEL(...)
#define FR_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    fake_cuda_launch(#kernel, kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)
#define FR_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(fake_cuda_dynamic_shared())

/* A grid runs when the one before is over; that every thread awaits that is checked all the same, and what
 * it touches before then where races are watched (races.h). */
#define FR_AWAIT_PREVIOUS() fake_cuda_await_previous()
void fake_cuda_await_previous();
#define FR_START_NEXT()

/* Of the thread that runs; set whenever a fibre goes on. */
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

struct fake_cuda_kernel {
    const char *name;
    const void *function;
    dim3 grid, block;
    size_t shared_bytes;
    std::function<void()> body; /* one thread */
};
void fake_cuda_push_kernel(fake_cuda_kernel kernel, cudaStream_t stream);
void *fake_cuda_dynamic_shared();

template <typename T> struct fake_cuda_same {
    using type = T;
};

/* Arguments are converted to the parameters' types and kept by value, as CUDA does at the call. */
template <typename... P>
void fake_cuda_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                      size_t shared_bytes, cudaStream_t stream,
                      typename fake_cuda_same<P>::type... args)
{
    std::tuple<P...> values(args...);
    static_assert(sizeof values <= 4096, "CUDA's limit of a kernel's arguments");
    fake_cuda_push_kernel({name, reinterpret_cast<const void *>(kernel), grid, block, shared_bytes,
                           [kernel, values] { std::apply(kernel, values); }},
                          stream);
}

#include "device_functions.h"

#endif

#endif
