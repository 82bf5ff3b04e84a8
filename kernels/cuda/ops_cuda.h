/* ops_cuda.h: the GPU backend that ops.c chooses where FR_HAVE_CUDA. Internal to kernels/. */
#ifndef FR_OPS_CUDA_H
#define FR_OPS_CUDA_H

#include "ops.h"

extern const fr_ops fr_ops_cuda;
/* How many GPUs this process sees that it can use; 0 also without a driver. */
int fr_cuda_count(void);

#endif
