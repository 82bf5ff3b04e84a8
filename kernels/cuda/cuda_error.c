/* cuda_error.c: see cuda_error.h. */
#include "cuda_error.h"

#include <stdio.h>

fr_status fr_cuda_status(cudaError_t e, const char *what, ...)
{
    char text[256];
    va_list ap;
    if (e == cudaSuccess)
        return FR_OK;
    (void)cudaGetLastError(); /* or it would be found again by whoever asks next */
    va_start(ap, what);
    vsnprintf(text, sizeof text, what, ap);
    va_end(ap);
    return fr_fail(e == cudaErrorMemoryAllocation ? FR_ENOMEM : FR_EIO, "GPU: %s: %s", text,
                   cudaGetErrorString(e));
}
