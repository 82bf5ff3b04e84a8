/* launch.cuh: how kernels are declared and launched: the only place that knows nvcc's own syntax.
 *
 * The same .cu files also compile as C++ against tests/cuda_on_cpu, whose cuda_runtime.h defines
 * FR_CUDA_ON_CPU and its own versions of these macros.
 *
 *   FR_KERNEL(max_threads) void name(...)   a kernel, for blocks of at most max_threads
 *   FR_KERNEL(max_threads, min_blocks)      and registers for that many on a multiprocessor
 *   FR_DYNAMIC_SHARED(type, name);          in a kernel: `type *name`, the shared memory asked for at
 *                                           the launch; 128-byte aligned; one a kernel
 *   FR_AWAIT_PREVIOUS();                    in a kernel, once, by every thread of every block: on Hopper a kernel may
 *                                           start before the last one is over ("programmatic dependent launch",
 *                                           CUDA programming guide), and read weights, which nothing writes; from
 *                                           here on the last one is over, with all that came before it
 *   FR_START_NEXT();                        in a kernel: the next one may start when all blocks have come here or
 *                                           returned. Late where blocks have long work: those of the next would
 *                                           crowd on the multiprocessors that are free first
 *   FR_LAUNCH(kernel, grid, block, dynamic_shared_bytes, stream, args...)
 *                                           a template with several arguments: through a variable called
 *                                           NAME_kernel */
#ifndef FR_CUDA_LAUNCH_CUH
#define FR_CUDA_LAUNCH_CUH

#include <cuda_runtime.h>

/* Of the GPU that the calling thread uses (gpu.h). */
extern "C" __thread int fr_cuda_starts_early;

#ifndef FR_CUDA_ON_CPU

#define FR_KERNEL(...) __global__ __launch_bounds__(__VA_ARGS__)

#define FR_DYNAMIC_SHARED(type, name)                                \
    extern __shared__ __align__(128) unsigned char fr_dynamic_shared[]; \
    type *name = reinterpret_cast<type *>(fr_dynamic_shared)

static __device__ __forceinline__ void fr_await_previous()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
#define FR_AWAIT_PREVIOUS() fr_await_previous()

static __device__ __forceinline__ void fr_start_next()
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
#define FR_START_NEXT() fr_start_next()

template <typename T> struct fr_same {
    typedef T type;
};

/* Does nothing but launch; an error is the last one, as with <<<>>>. */
template <typename... P>
static inline void fr_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t dynamic_shared_bytes,
                             cudaStream_t stream, typename fr_same<P>::type... args)
{
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = dynamic_shared_bytes;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = fr_cuda_starts_early ? 1 : 0;
    cudaLaunchKernelEx(&config, kernel, args...);
}
#define FR_LAUNCH(kernel, grid, block, dynamic_shared_bytes, stream, ...) \
    fr_launch(kernel, grid, block, dynamic_shared_bytes, stream, __VA_ARGS__)

#endif

#endif
