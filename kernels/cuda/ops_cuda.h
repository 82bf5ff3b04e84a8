/* ops_cuda.h: the GPU backend that ops.c chooses where FR_HAVE_CUDA. Internal to kernels/. */
#ifndef FR_OPS_CUDA_H
#define FR_OPS_CUDA_H

#include "ops.h"

extern const fr_ops fr_ops_cuda;
/* FR_OK: this process sees a GPU that it can use. FR_EUNSUPPORTED: why not. */
fr_status fr_cuda_usable(void);

#endif
