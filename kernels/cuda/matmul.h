/* matmul.h: the kernels behind y [n, rows] f32 = x [n, cols] f32 * W^T, their arguments and the
 * layouts they agree on with weight.c. matmul_plan.h says which of them a product takes. C and C++.
 *
 * Batch invariance. An element of y is the sum, in order, of the partial results of chunks of 256
 * columns, and a chunk is one fixed sequence of tensor-core and f32 instructions, whose shape does
 * not change with n. So who computes a chunk is free: few tokens split a row's chunks among the
 * warps of a block and add them up in shared memory, many tokens keep a tile in registers over all
 * columns, and both give the same bits.
 *
 * Tensor cores multiply 16 rows of weights by 8 tokens: one to eight tokens cost the same.
 *
 * Layouts of weights ("lane" as in mma.cuh: rows lane / 4 and lane / 4 + 8 of a tile of 16):
 *   F32         row-major, stride = cols
 *   BF16, F16   row-major, rows padded with zeros to a multiple of 64 values, which both the own
 *               kernels (16 bytes a lane and load) and cuBLASLt read
 *   CODES       Q8_0, Q4_0, Q4_1, Q5_0, Q5_1: a record a tile of 16 rows and chunk of 256 columns:
 *               8-bit codes of 8 blocks [8][32 lanes][16], f16 scales [16 rows][8], then, where the
 *               type has them, f16 shifts [16 rows][8]; columns padded with zeros to 256
 *   Q4_K        a record a tile of 16 rows and super-block: nibbles [4][32 lanes][16], f16 d and
 *               dmin [16 rows][2], scales u8 [16 rows][8], mins u8 [16 rows][8]
 *   Q5_K        the same with 8-bit codes [8][32 lanes][16] instead of nibbles
 *   Q6_K        8-bit codes, f16 d and 0 [16 rows][2], scales i8 [16 rows][16]
 * So Q4_K takes 4.6 bits a value and the others 8.5 to 9.0 (Q8_0 8.5, Q5_K and Q6_K 8.6), where the
 * file has 4.5 to 6.6 of most. Codes in 8 bits keep their scales, and so every value, exact, and
 * need no unpacking; F16 would take 16 bits and round: a 4-bit code times an f16 scale has 15. */
#ifndef FR_CUDA_MATMUL_H
#define FR_CUDA_MATMUL_H

#include "command.h"
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FR_CUDA_TILE_ROWS 16
#define FR_CUDA_TILE_TOKENS 8
#define FR_CUDA_CHUNK 256      /* columns whose products are summed apart */
#define FR_CUDA_ROW_PAD 64     /* BF16 and F16: values a row is a multiple of */
#define FR_CUDA_NARROW 32      /* most tokens of the kernels that split columns among warps */
#define FR_CUDA_WIDE_TOKENS 64 /* tokens of a tile of the others */
#ifndef FR_CUDA_AHEAD
#define FR_CUDA_AHEAD (16 << 20)
#endif
#define FR_CUDA_FIRST_ROWS (2 * 132 * 32) /* rows whose blocks an H200 takes in at once */
#define FR_CUDA_GROUP 4        /* matrices of one kind in one launch */

/* x is split into that many terms of the weights' type, of 8 bits in BF16 and 11 in F16: 3 and 2
 * hold all 24 (22) bits, so a product is as exact as in f32. With 2 terms of BF16 the error of a
 * product is up to 2^-17 of it; products of one row are then 2 to 6% faster on an H200, of 16 rows
 * 8 to 14%. */
#define FR_CUDA_BF16_TERMS 3
#define FR_CUDA_F16_TERMS 2

#define FR_CUDA_CODES_BYTES(shifts) (8 * 512 + 256 * (1 + (shifts)))
#define FR_CUDA_Q4_K_BYTES (4 * 512 + 320)
#define FR_CUDA_Q8_K_BYTES (8 * 512 + 320) /* Q5_K and Q6_K */

FR_CUDA_ARGS_BEGIN

typedef struct fr_cuda_matrix {
    const void *data;
    float *y; /* [n, rows] */
    int64_t has_shifts; /* CODES only, as is offset */
    float offset;       /* shift = scale * offset where none is stored */
    int32_t rows;
} fr_cuda_matrix;

/* What the next product reads first: `width` bytes (a multiple of 16) of each line of its matrices. A line is a row, or in
 * packed types a tile of rows; the first `lines` of a matrix are meant. */
typedef struct fr_cuda_ahead {
    const void *data[FR_CUDA_GROUP];
    int32_t lines[FR_CUDA_GROUP];
    int32_t line_bytes;
    int32_t width; /* 0: nothing */
} fr_cuda_ahead;

/* What every product takes. x, acts, scales: as the kind needs them, below. */
typedef struct fr_cuda_matmul_args {
    const float *x;      /* [n, cols] */
    const void *acts;    /* what a preparation made of x */
    const float *scales; /* F16: [n][2], what x is multiplied with first and y last */
    int32_t n, cols;
    int32_t stride; /* padded columns: of rows in BF16 and F16, of activations in CODES */
    int32_t n_matrices;
    fr_cuda_matrix matrices[FR_CUDA_GROUP];
    fr_cuda_ahead ahead;
} fr_cuda_matmul_args;

/* One preparation of x for all matrices that share it. */
typedef struct fr_cuda_prepare_args {
    const float *x; /* [n, cols] */
    void *out;
    const float *scales; /* as above, NULL but for F16 */
    int64_t n;
    int32_t cols, stride;
} fr_cuda_prepare_args;
FR_CUDA_ARGS_END

/* Activations in 8 bits for `tiles` groups of 8 tokens, cols padded to 256; where each part begins:
 *   codes   [tiles][cols / 64][32 lanes][16]
 *   CODES   f32 scale and scale * sum of codes [tiles][cols / 32][8 tokens][2]
 *   K types sums of 16 and of 32 codes in digits, sum = low + 128 * high: [tiles][cols / 256]
 *           [16 low, 16 high, 32 low, 32 high][32 lanes][4], then f32 scale
 *           [tiles][cols / 256][8 tokens] */
#define FR_CUDA_ACTS_CODES(tiles, cols) ((size_t)(tiles) * (size_t)(cols)*8)
#define FR_CUDA_ACTS_DIGITS(tiles, cols) ((size_t)(tiles) * (size_t)((cols) / 256) * 512)

/* Preparations. */
void fr_cuda_matmul_scale_rows(cudaStream_t stream, const void *args);     /* F16: scales */
void fr_cuda_matmul_split_bf16(cudaStream_t stream, const void *args);     /* wide BF16: terms */
void fr_cuda_matmul_split_f16(cudaStream_t stream, const void *args);      /* wide F16: terms */
void fr_cuda_matmul_round_bf16(cudaStream_t stream, const void *args);     /* [n, stride] */
void fr_cuda_matmul_round_f16(cudaStream_t stream, const void *args);      /* the same */
void fr_cuda_matmul_quantise(cudaStream_t stream, const void *args);       /* CODES */
void fr_cuda_matmul_quantise_super(cudaStream_t stream, const void *args); /* K types */

/* out [n, cols] f32 times scales[row][1]: what the own kernels do with F16 themselves. */
void fr_cuda_matmul_unscale(cudaStream_t stream, const void *args);

/* Products of up to FR_CUDA_NARROW tokens, and of more. */
void fr_cuda_matmul_f32(cudaStream_t stream, const void *args); /* any n */
void fr_cuda_matmul_bf16(cudaStream_t stream, const void *args);
void fr_cuda_matmul_f16(cudaStream_t stream, const void *args);
void fr_cuda_matmul_codes(cudaStream_t stream, const void *args);
void fr_cuda_matmul_q4_k(cudaStream_t stream, const void *args);
void fr_cuda_matmul_q5_k(cudaStream_t stream, const void *args);
void fr_cuda_matmul_q6_k(cudaStream_t stream, const void *args);
/* Two matrices of as many rows, up to FR_CUDA_NARROW tokens: afterwards y of the first is silu(y) * y of the second. */
void fr_cuda_matmul_gated_bf16(cudaStream_t stream, const void *args);
void fr_cuda_matmul_gated_f16(cudaStream_t stream, const void *args);
void fr_cuda_matmul_wide_bf16(cudaStream_t stream, const void *args);
void fr_cuda_matmul_wide_f16(cudaStream_t stream, const void *args);
void fr_cuda_matmul_wide_codes(cudaStream_t stream, const void *args);
void fr_cuda_matmul_wide_q4_k(cudaStream_t stream, const void *args);
void fr_cuda_matmul_wide_q5_k(cudaStream_t stream, const void *args);
void fr_cuda_matmul_wide_q6_k(cudaStream_t stream, const void *args);

#ifdef __cplusplus
}
#endif

#endif
