/* rows.cuh: RMSNorm of a row and SiLU of a value, for the kernels that do just this (rows.cu) and for those that do
 * more (rows_acts.cu): the same bits from either. */
#ifndef FR_CUDA_ROWS_CUH
#define FR_CUDA_ROWS_CUH

#include "launch.cuh"
#include "rows.h"
#include "silu.cuh"

enum { WARP = 32, NORM_THREADS = 256, BLOCK_WARPS_MAX = 32 };

/* The sum over the lanes of a warp, in every lane; a tree of fixed shape. */
static __device__ float warp_sum(float x)
{
    for (int offset = WARP / 2; offset > 0; offset /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

/* The sum over the block, in every thread. Warps of zeros change nothing. */
static __device__ float block_sum(float x)
{
    __shared__ float warps[BLOCK_WARPS_MAX];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    x = warp_sum(x);
    if (lane == 0)
        warps[warp] = x;
    __syncthreads();
    x = lane < (int)blockDim.x / WARP ? warps[lane] : 0.0f;
    return warp_sum(x);
}

/* How many threads share a row's sum; a matter of dim alone, as the sum's order is. */
static __host__ __device__ inline int norm_threads(int dim)
{
    return dim >= 4 * NORM_THREADS ? NORM_THREADS : WARP;
}

/* By a block of at least norm_threads() threads; those beyond only scale. */
static __device__ void norm_row(const fr_cuda_norm_args &a, int64_t row)
{
    const int64_t at = row * a.dim;
    float *x = a.x + at;
    float sum = 0;
    const int threads = norm_threads(a.dim);
    for (int i = threadIdx.x; (int)threadIdx.x < threads && i < a.dim; i += threads) {
        float value = x[i];
        if (a.added) {
            value += a.added[at + i];
            x[i] = value;
        }
        sum = fmaf(value, value, sum);
    }
    float scale = 1.0f / sqrtf(block_sum(sum) / (float)a.dim + (float)a.eps);
    for (int i = threadIdx.x; i < a.dim; i += blockDim.x)
        a.y[at + i] = x[i] * scale * a.weight[i];
}

static __device__ void silu_mul_value(const fr_cuda_silu_args &a, int64_t i)
{
    a.gate[i] = silu_mul_of(a.gate[i], a.up[i]);
}

#endif
