/* cublas_lt.h: BF16 and F16 products of many tokens through cuBLASLt, for devices that were opened
 * without the promise of batch invariance: x is rounded to the weights' type, and the algorithm
 * depends on n. Faster there than the own kernels (one term of activations instead of three, and
 * Hopper's own instructions), and less exact. Internal to kernels/cuda/.
 *
 * One thread a time uses it, and its launches are on one stream, since they share a workspace. */
#ifndef FR_CUBLAS_LT_H
#define FR_CUBLAS_LT_H

#include "command.h"
#include <stdbool.h>
#include <stdint.h>

#include "status.h"

#define FR_CUBLAS_TOKENS 64 /* fewest tokens it is used for */

FR_CUDA_ARGS_BEGIN

typedef struct fr_cublas fr_cublas;

/* Needs the current GPU. FR_EUNSUPPORTED, with the cause, when cuBLASLt does not work there. */
fr_status fr_cublas_open(fr_cublas **out);
void fr_cublas_close(fr_cublas **lt); /* NULL is fine */

typedef struct fr_cublas_shape {
    int32_t rows, stride, n;
    int32_t bf16; /* else F16 */
} fr_cublas_shape;

typedef struct fr_cublas_args {
    fr_cublas *lt;
    const void *w; /* [rows, stride] */
    const void *x; /* [n, stride], of the type of w */
    float *y;      /* [n, rows] */
    fr_cublas_shape shape;
    uint64_t algorithm[8]; /* of this shape */
} fr_cublas_args;
FR_CUDA_ARGS_END

/* The algorithm for a shape; false when cuBLASLt has none. Asked again, the answer is the same. */
bool fr_cublas_choose(fr_cublas *lt, const fr_cublas_shape *shape, uint64_t algorithm[8]);
/* FR_EIO when a launch since the last call failed: what it should have written is anything. */
fr_status fr_cublas_status(fr_cublas *lt);
/* A launcher (command.h). */
void fr_cublas_matmul(cudaStream_t stream, const void *args);

#endif
