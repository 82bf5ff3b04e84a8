/* command.h: one call of a launcher, kept for later. A launcher starts kernels (or library calls) on a
 * stream and does nothing else, so a command may be run, captured into a graph, and replayed. */
#ifndef FR_CUDA_COMMAND_H
#define FR_CUDA_COMMAND_H

#include <cuda_runtime_api.h>
#include <stddef.h>
#include <stdint.h>

/* Commands are told apart by their bytes (graphs.h): no struct of arguments may have padding, whose bytes are anything.
 * Headers of launchers begin and end their structs with these. */
#define FR_CUDA_ARGS_BEGIN _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic error \"-Wpadded\"")
#define FR_CUDA_ARGS_END _Pragma("GCC diagnostic pop")

#define FR_CUDA_ARGS 256 /* most bytes of a command's arguments */

typedef void (*fr_cuda_launch)(cudaStream_t stream, const void *args);

typedef struct fr_cuda_command {
    fr_cuda_launch launch;
    size_t bytes;
    uint64_t args[FR_CUDA_ARGS / sizeof(uint64_t)];
} fr_cuda_command;

#endif
