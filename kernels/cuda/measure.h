/* measure.h: how fast the GPU reads its memory: what passes over few rows are measured against. */
#ifndef FR_CUDA_MEASURE_H
#define FR_CUDA_MEASURE_H

#include "command.h"
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

FR_CUDA_ARGS_BEGIN

/* Reads data [bytes, a multiple of 16]; *sum is written only if all of it adds up to one number, so that nothing is
 * left out. */
typedef struct fr_cuda_read_args {
    const void *data;
    size_t bytes;
    unsigned *sum;
} fr_cuda_read_args;
FR_CUDA_ARGS_END
void fr_cuda_read(cudaStream_t stream, const void *args);

#ifdef __cplusplus
}
#endif

#endif
