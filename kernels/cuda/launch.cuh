/* launch.cuh: how kernels are declared and launched: the only place that knows nvcc's own syntax.
 *
 * The same .cu files also compile as C++ against tests/cuda_on_cpu, whose cuda_runtime.h defines
 * FR_CUDA_ON_CPU and its own versions of these macros.
 *
 *   FR_KERNEL(max_threads) void name(...)   a kernel, for blocks of at most max_threads
 *   FR_KERNEL(max_threads, min_blocks)      and registers for that many on a multiprocessor
 *   FR_DYNAMIC_SHARED(type, name);          in a kernel: `type *name`, the shared memory asked for at
 *                                           the launch; 128-byte aligned; one a kernel
 *   FR_LAUNCH(kernel, grid, block, dynamic_shared_bytes, stream, args...)
 *                                           a template with several arguments: through a variable called
 *                                           NAME_kernel, by which tests tell which kernels ran */
#ifndef FR_CUDA_LAUNCH_CUH
#define FR_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

#ifndef FR_CUDA_ON_CPU

#define FR_KERNEL(...) __global__ __launch_bounds__(__VA_ARGS__)

#define FR_DYNAMIC_SHARED(type, name)                                \
    extern __shared__ __align__(128) unsigned char fr_dynamic_shared[]; \
    type *name = reinterpret_cast<type *>(fr_dynamic_shared)

#define FR_LAUNCH(kernel, grid, block, dynamic_shared_bytes, stream, ...) \
    kernel<<<grid, block, dynamic_shared_bytes, stream>>>(__VA_ARGS__)

#endif

#endif
