/* candidates_cuda.h: the answers about rows of logits (candidates.h) that lie in device memory.
 * They equal fr_row_query_answer() to the bit. Internal to kernels/cuda. */
#ifndef FR_CANDIDATES_CUDA_H
#define FR_CANDIDATES_CUDA_H

#include "command.h"
#include <stddef.h>
#include <stdint.h>

#include "candidates.h"

#ifdef __cplusplus
extern "C" {
#endif

FR_CUDA_ARGS_BEGIN

/* Everything lies in device memory. As in fr_row_query_answer(), of top and wanted_logit only what a
 * query asks for is written. */
typedef struct fr_cuda_candidates_args {
    const float *logits;         /* [n, vocab] */
    const int32_t *tokens;       /* [vocab], ascending; NULL: column i is token first_token + i */
    const fr_row_query *queries; /* [n] */
    uint8_t *answers;            /* [n] fr_row_answer, each in answer_bytes (fr_answer_bytes) */
    void *scratch; /* fr_cuda_candidates_scratch_bytes(n, vocab), aligned to 16 bytes */
    int64_t n, answer_bytes;
    int32_t vocab, first_token;
} fr_cuda_candidates_args;
FR_CUDA_ARGS_END

size_t fr_cuda_candidates_scratch_bytes(int n, int vocab);

/* Queues the four kernels; `args` is a fr_cuda_candidates_args. */
void fr_cuda_candidates(cudaStream_t stream, const void *args);

#ifdef __cplusplus
}
#endif

#endif
