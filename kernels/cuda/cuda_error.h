/* cuda_error.h: CUDA's errors as Forerun's. */
#ifndef FR_CUDA_ERROR_H
#define FR_CUDA_ERROR_H

#include <cuda_runtime_api.h>

#include "status.h"

/* FR_OK, FR_ENOMEM or FR_EIO; the cause is "GPU: <what>: <CUDA's text>". Takes CUDA's last error with it. */
fr_status fr_cuda_status(cudaError_t e, const char *what, ...) __attribute__((format(printf, 2, 3)));

#define FR_TRY_CUDA(call, ...) FR_TRY(fr_cuda_status((call), __VA_ARGS__))

#endif
