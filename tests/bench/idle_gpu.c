/* idle_gpu.c: see idle_gpu.h. The names are the linker's: it sends calls of F to __wrap_F, and those of __real_F to
 * F. */
#include "idle_gpu.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <time.h>

static bool idle;
static idle_gpu_counts counts;

void idle_gpu_begin(void)
{
    idle = true;
}

idle_gpu_counts idle_gpu_count(void)
{
    return counts;
}

double idle_gpu_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* cudaError_t NAME PARAMETERS: done already once the GPU is idle, else what NAME does with ARGUMENTS. */
#define WRAP(name, parameters, arguments)     \
    cudaError_t __real_##name parameters;     \
    cudaError_t __wrap_##name parameters;     \
    cudaError_t __wrap_##name parameters      \
    {                                         \
        counts.calls++;                       \
        if (idle)                             \
            return cudaSuccess;               \
        return __real_##name arguments;       \
    }

WRAP(cudaMemcpyAsync, (void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream),
     (dst, src, bytes, kind, stream))
WRAP(cudaEventRecord, (cudaEvent_t event, cudaStream_t stream), (event, stream))
WRAP(cudaEventQuery, (cudaEvent_t event), (event))
WRAP(cudaStreamQuery, (cudaStream_t stream), (stream))
WRAP(cudaGetLastError, (void), ())

cudaError_t __real_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t __wrap_cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    counts.calls++;
    counts.graph_launches++;
    counts.started_us = idle_gpu_now_us();
    return idle ? cudaSuccess : __real_cudaGraphLaunch(exec, stream);
}

/* fake_cuda_push_kernel(fake_cuda_kernel, cudaStream_t): C++, the former by address. */
void __real__Z21fake_cuda_push_kernel16fake_cuda_kernelP11CUstream_st(void *kernel, cudaStream_t stream);
void __wrap__Z21fake_cuda_push_kernel16fake_cuda_kernelP11CUstream_st(void *kernel, cudaStream_t stream);
void __wrap__Z21fake_cuda_push_kernel16fake_cuda_kernelP11CUstream_st(void *kernel, cudaStream_t stream)
{
    counts.kernels++;
    if (!idle)
        __real__Z21fake_cuda_push_kernel16fake_cuda_kernelP11CUstream_st(kernel, stream);
}
