/* gpu.c: see gpu.h. */
#include "gpu.h"

#include "check.h"
#include "cuda_error.h"

enum { STARTS_EARLY = 9 }; /* compute capability: Hopper */

_Thread_local int fr_cuda_starts_early; /* for launch.cuh */

fr_status fr_cuda_gpu_find(int number, fr_cuda_gpu *out)
{
    int major = 0;
    FR_TRY_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, number), "device %d", number);
    *out = (fr_cuda_gpu){number, major >= STARTS_EARLY};
    return FR_OK;
}

fr_status fr_cuda_gpu_use(fr_cuda_gpu gpu)
{
    FR_TRY_CUDA(cudaSetDevice(gpu.number), "device %d", gpu.number);
    fr_cuda_starts_early = gpu.starts_early;
    return FR_OK;
}
