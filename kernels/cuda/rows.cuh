/* rows.cuh: RMSNorm of a row and SiLU of a value, for the kernels that do just this (rows.cu) and for those that do
 * more (rows_acts.cu): the same bits from either. */
#ifndef FR_CUDA_ROWS_CUH
#define FR_CUDA_ROWS_CUH

#include "launch.cuh"
#include "rows.h"
#include "silu.cuh"

enum { WARP = 32, NORM_THREADS = 256, BLOCK_WARPS_MAX = 32 };
/* Values of a thread that are under way together: the store of one would hold up the load of the next. */
enum { NORM_BATCH = 16 };

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
    return dim > NORM_THREADS ? NORM_THREADS : WARP;
}

/* batch[k] = from[k * STEP], 0 from `count` on. Loads without a condition, which would be put off to where the value is
 * used: they go out together. */
template <int STEP, int BATCH>
static __device__ __forceinline__ void load_batch(const float *from, int count, float batch[BATCH])
{
#pragma unroll
    for (int k = 0; k < BATCH; k++)
        batch[k] = from[k * STEP < count ? k * STEP : 0];
#pragma unroll
    for (int k = 1; k < BATCH; k++)
        batch[k] = k * STEP < count ? batch[k] : 0.0f;
}

/* A thread's part of the sum of squares of a row [dim] of x, to which `added` goes first unless it is NULL: of every
 * STEP-th value. */
template <int STEP> static __device__ __forceinline__ float add_squares(float *row, const float *added, int dim)
{
    float sum = 0, values[NORM_BATCH], others[NORM_BATCH];
    for (int first = threadIdx.x; first < dim; first += NORM_BATCH * STEP) {
        const int count = dim - first;
        float *x = row + first;
        load_batch<STEP, NORM_BATCH>(x, count, values);
        if (added) {
            load_batch<STEP, NORM_BATCH>(added + first, count, others);
#pragma unroll
            for (int k = 0; k < NORM_BATCH; k++) {
                values[k] += others[k];
                if (k * STEP < count)
                    x[k * STEP] = values[k];
            }
        }
#pragma unroll
        for (int k = 0; k < NORM_BATCH; k++)
            sum = fmaf(values[k], values[k], sum);
    }
    return sum;
}

/* y [dim] = x * scale * weight, by STEP threads. */
template <int STEP, int BATCH>
static __device__ __forceinline__ void scale_row(float *y, const float *x, const float *weight, float scale, int dim)
{
    float values[BATCH], weights[BATCH];
    for (int first = threadIdx.x; first < dim; first += BATCH * STEP) {
        const int count = dim - first;
        load_batch<STEP, BATCH>(x + first, count, values);
        load_batch<STEP, BATCH>(weight + first, count, weights);
#pragma unroll
        for (int k = 0; k < BATCH; k++)
            if (k * STEP < count)
                y[first + k * STEP] = values[k] * scale * weights[k];
    }
}

/* By a block of THREADS, of which the first STEP = norm_threads() sum up and all scale: as many values at a time as
 * STEP would, or one each. */
template <int STEP, int THREADS>
static __device__ __forceinline__ void norm_row(const fr_cuda_norm_args &a, int64_t row)
{
    enum { BATCH = NORM_BATCH * STEP > THREADS ? NORM_BATCH * STEP / THREADS : 1 };
    const int64_t at = row * a.dim;
    float sum = 0;
    if (threadIdx.x < STEP)
        sum = add_squares<STEP>(a.x + at, a.added ? a.added + at : nullptr, a.dim);
    const float scale = 1.0f / sqrtf(block_sum(sum) / (float)a.dim + (float)a.eps);
    scale_row<THREADS, BATCH>(a.y + at, a.x + at, a.weight, scale, a.dim);
}

static __device__ void silu_mul_value(const fr_cuda_silu_args &a, int64_t i)
{
    a.gate[i] = silu_mul_of(a.gate[i], a.up[i]);
}

#endif
