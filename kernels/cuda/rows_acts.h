/* rows_acts.h: launchers of norms and SiLU that also make of their result what quantised matrices need of it
 * (matmul.h): a launch less where a product comes next. The same bits as from the launchers one after the other. */
#ifndef FR_CUDA_ROWS_ACTS_H
#define FR_CUDA_ROWS_ACTS_H

#include "matmul.h"
#include "rows.h"

#ifdef __cplusplus
extern "C" {
#endif

FR_CUDA_ARGS_BEGIN

/* acts.x is norm.y [acts.n = norm.n, acts.cols = norm.dim]. */
typedef struct fr_cuda_norm_acts_args {
    fr_cuda_norm_args norm;
    fr_cuda_prepare_args acts;
} fr_cuda_norm_acts_args;

/* acts.x is silu.gate, silu.count = acts.n * acts.cols. */
typedef struct fr_cuda_silu_acts_args {
    fr_cuda_silu_args silu;
    fr_cuda_prepare_args acts;
} fr_cuda_silu_acts_args;
FR_CUDA_ARGS_END

void fr_cuda_norm_quantise(cudaStream_t stream, const void *args);
void fr_cuda_norm_quantise_super(cudaStream_t stream, const void *args);
void fr_cuda_silu_quantise(cudaStream_t stream, const void *args);
void fr_cuda_silu_quantise_super(cudaStream_t stream, const void *args);

#ifdef __cplusplus
}
#endif

#endif
