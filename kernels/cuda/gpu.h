/* gpu.h: the GPU that a thread works with. A thread may have several (a target's and a draft's), and CUDA launches and
 * allocates on the one that it used last: so whoever does either says first which. Internal to kernels/cuda/. */
#ifndef FR_CUDA_GPU_H
#define FR_CUDA_GPU_H

#include <stdbool.h>

#include "status.h"

typedef struct fr_cuda_gpu {
    int number;        /* CUDA's */
    bool starts_early; /* a kernel may start before the one before it is over (launch.cuh) */
} fr_cuda_gpu;

/* What a number stands for; FR_EIO. */
fr_status fr_cuda_gpu_find(int number, fr_cuda_gpu *out);
/* From here on the calling thread's. FR_EIO. */
fr_status fr_cuda_gpu_use(fr_cuda_gpu gpu);

#endif
