/* matmul_terms.cuh: activations as sums of terms of the weights' type (matmul.h), and which columns
 * go with which k of an instruction.
 *
 * A lane reads its share of BF16 and F16 weights straight from the rows, 16 bytes at a time: with
 * t = lane % 4, values 8t .. 8t + 7 of a block of 32 columns, of rows lane / 4 and lane / 4 + 8. So
 * instruction s (0, 1) of a block has the columns 8t + 4s .. 8t + 4s + 3 as the lane's two words.
 */
#ifndef FR_CUDA_MATMUL_TERMS_CUH
#define FR_CUDA_MATMUL_TERMS_CUH

#include "matmul_tile.cuh"

template <int TYPE> struct terms {
    enum { COUNT = TYPE == MMA_BF16 ? FR_CUDA_BF16_TERMS : FR_CUDA_F16_TERMS };
};

/* Four activations -> the operand b of every term: each term is what the ones before left over,
 * rounded; what is left over is exact. */
template <int TYPE>
static __device__ __forceinline__ void split_terms(float4 x, uint32_t b[terms<TYPE>::COUNT][2])
{
#pragma unroll
    for (int i = 0; i < terms<TYPE>::COUNT; i++) {
        b[i][0] = round_pair(TYPE, x.x, x.y);
        b[i][1] = round_pair(TYPE, x.z, x.w);
        x = make_float4(x.x - low_value(TYPE, b[i][0]), x.y - high_value(TYPE, b[i][0]),
                        x.z - low_value(TYPE, b[i][1]), x.w - high_value(TYPE, b[i][1]));
    }
}

/* Four values if wanted, else zeros; without a branch, so that loads go out together. */
static __device__ __forceinline__ float4 load_vector_if(bool wanted, const float *at)
{
    float4 v = make_float4(0, 0, 0, 0);
#ifdef __CUDA_ARCH__
    asm volatile("{ .reg .pred p; setp.ne.s32 p, %5, 0; @p ld.global.v4.f32 {%0,%1,%2,%3}, [%4]; }"
        : "+f"(v.x), "+f"(v.y), "+f"(v.z), "+f"(v.w)
        : "l"(at), "r"((int)wanted));
#else
    if (wanted)
        v = *(const float4 *)at;
#endif
    return v;
}

/* Columns col .. col + 3 of row `token`, zeros outside of the matrix. */
static __device__ __forceinline__ float4 load_values(const float *x, int token, int col, int n,
                                                     int cols)
{
    const float *at = x + (int64_t)token * cols + col;
    float v[4];
    for (int i = 0; i < 4; i++)
        v[i] = token < n && col + i < cols ? at[i] : 0;
    return make_float4(v[0], v[1], v[2], v[3]);
}

/* The same where rows are whole vectors. */
static __device__ __forceinline__ float4 load_vector(const float *x, int token, int col, int n,
                                                     int cols)
{
    return load_vector_if(token < n && col < cols, x + (int64_t)token * cols + col);
}

static __device__ __forceinline__ float4 load_x(const float *x, int token, int col, int n, int cols)
{
    return cols % 4 == 0 ? load_vector(x, token, col, n, cols)
                         : load_values(x, token, col, n, cols);
}

static __device__ __forceinline__ float4 scale_x(float4 x, float scale)
{
    return make_float4(x.x * scale, x.y * scale, x.z * scale, x.w * scale);
}

/* Operand a of instruction s of a block: from what the lane has of rows lane / 4 and lane / 4 + 8.
 */
static __device__ __forceinline__ void weights_of(uint4 upper, uint4 lower, int s, uint32_t a[4])
{
    a[0] = s ? upper.z : upper.x;
    a[1] = s ? lower.z : lower.x;
    a[2] = s ? upper.w : upper.y;
    a[3] = s ? lower.w : lower.y;
}

/* Where a lane reads: its share of block 0 in row lane / 4 + 8 * side of the tile at first_row.
 * Rows past the end read the last one; nobody writes what comes of it. */
static __device__ __forceinline__ const uint16_t *lane_row(const fr_cuda_matrix &matrix, int stride,
                                                           int first_row, int side)
{
    const int lane = threadIdx.x % 32;
    int row = min(first_row + lane / 4 + 8 * side, matrix.rows - 1);
    return (const uint16_t *)matrix.data + (int64_t)row * stride + lane % 4 * 8;
}

/* Terms of 16 columns by 64 tokens: what instruction b of a lane takes, 8 bytes. */
template <int TYPE> struct wide_terms {
    uint2 at[WIDE_TILES][terms<TYPE>::COUNT][32];
};

#endif
