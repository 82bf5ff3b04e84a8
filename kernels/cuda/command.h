/* command.h: one launch, ready to be pushed to a device's queue: a launcher (launch.cuh) and its
 * arguments, copied. C and C++. */
#ifndef FR_CUDA_COMMAND_H
#define FR_CUDA_COMMAND_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

#define FR_CUDA_ARGS_MAX 256

typedef struct fr_cuda_command {
    void (*launch)(cudaStream_t stream, const void *args);
    size_t bytes; /* of args */
    uint8_t args[FR_CUDA_ARGS_MAX];
} fr_cuda_command;

#endif
