/* weight.h: matrices as the matmul kernels want them (layouts: matmul.h), packed on the host piece
 * by piece: the caller uploads each piece, so host memory stays small. Internal to kernels/cuda/.
 */
#ifndef FR_CUDA_WEIGHT_H
#define FR_CUDA_WEIGHT_H

#include "ops.h"

typedef enum {
    FR_CUDA_F32,
    FR_CUDA_BF16,
    FR_CUDA_F16,
    FR_CUDA_CODES, /* Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 */
    FR_CUDA_Q4_K,
    FR_CUDA_Q5_K,
    FR_CUDA_Q6_K,
    FR_CUDA_KINDS
} fr_cuda_kind;

typedef struct fr_weight {
    fr_dtype dtype; /* of the source */
    fr_cuda_kind kind;
    int32_t rows, cols;
    int32_t stride; /* cols as padded */
    size_t bytes;   /* of data */
    void *data;     /* device memory, the owner's to set and free */
} fr_weight;

/* Everything but data. FR_EINVAL when rows do not hold whole blocks, or are too many. */
fr_status fr_cuda_weight_describe(const fr_matrix *src, fr_weight *out);
/* Where row `row` begins in data, a multiple of 16 or the number of rows: pieces end there. */
size_t fr_cuda_weight_offset(const fr_weight *w, int64_t row);
/* Rows that lie together: 1, or in packed kinds a tile's. */
int fr_cuda_weight_line_rows(const fr_weight *w);
/* The rows first .. end-1 of src into out, the bytes from offset(first) to offset(end). */
void fr_cuda_weight_pack(const fr_weight *w, const fr_matrix *src, int64_t first, int64_t end,
                         void *out);

#endif
