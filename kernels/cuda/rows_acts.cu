/* rows_acts.cu: see rows_acts.h. A warp quantises what it, or with a norm its block, has just written. */
#include "rows_acts.h"

#include "matmul_quantise.cuh"
#include "rows.cuh"

/* A block a token; as many warps as there are, since each has a part of its own to quantise. Blocks past the last token
 * fill up its tile. */
enum { NORM_ACTS_THREADS = BLOCK_WARPS_MAX * WARP };

template <int COLS> static __device__ __forceinline__ void norm_and_quantise(const fr_cuda_norm_acts_args &a)
{
    const int token = blockIdx.x;
    const bool many = norm_threads(a.norm.dim) == NORM_THREADS;
    if (token < a.acts.n && many)
        norm_row<NORM_THREADS, NORM_ACTS_THREADS>(a.norm, token);
    else if (token < a.acts.n)
        norm_row<WARP, NORM_ACTS_THREADS>(a.norm, token);
    __syncthreads();
    for (int part = threadIdx.x / WARP; part < a.acts.stride / COLS; part += BLOCK_WARPS_MAX)
        quantise_part<COLS>(a.acts, gridDim.x / TILE_TOKENS, token, part);
}

FR_KERNEL(NORM_ACTS_THREADS) void norm_quantise(fr_cuda_norm_acts_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    norm_and_quantise<BLOCK>(a);
}

FR_KERNEL(NORM_ACTS_THREADS) void norm_quantise_super(fr_cuda_norm_acts_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    norm_and_quantise<SUPER>(a);
}

/* A lane makes the columns of a part that it also quantises. */
template <int COLS> static __device__ __forceinline__ void silu_and_quantise(const fr_cuda_silu_acts_args &a)
{
    enum { MINE = COLS / WARP };
    const int part = blockIdx.y * WARPS + (int)threadIdx.x / WARP, token = blockIdx.x;
    if (part >= a.acts.stride / COLS)
        return;
    const int first = part * COLS + (int)(threadIdx.x % WARP) * MINE;
    for (int col = first; token < a.acts.n && col < first + MINE && col < a.acts.cols; col++)
        silu_mul_value(a.silu, (int64_t)token * a.acts.cols + col);
    quantise_part<COLS>(a.acts, gridDim.x / TILE_TOKENS, token, part);
}

FR_KERNEL(WARPS * 32) void silu_quantise(fr_cuda_silu_acts_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    silu_and_quantise<BLOCK>(a);
}

FR_KERNEL(WARPS * 32) void silu_quantise_super(fr_cuda_silu_acts_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    silu_and_quantise<SUPER>(a);
}

/* ---- launchers */

static unsigned whole_tiles(int64_t n)
{
    return (unsigned)((n + TILE_TOKENS - 1) / TILE_TOKENS * TILE_TOKENS);
}

extern "C" void fr_cuda_norm_quantise(cudaStream_t stream, const void *args)
{
    const fr_cuda_norm_acts_args *a = (const fr_cuda_norm_acts_args *)args;
    FR_LAUNCH(norm_quantise, whole_tiles(a->acts.n), NORM_ACTS_THREADS, 0, stream, *a);
}

extern "C" void fr_cuda_norm_quantise_super(cudaStream_t stream, const void *args)
{
    const fr_cuda_norm_acts_args *a = (const fr_cuda_norm_acts_args *)args;
    FR_LAUNCH(norm_quantise_super, whole_tiles(a->acts.n), NORM_ACTS_THREADS, 0, stream, *a);
}

extern "C" void fr_cuda_silu_quantise(cudaStream_t stream, const void *args)
{
    const fr_cuda_silu_acts_args *a = (const fr_cuda_silu_acts_args *)args;
    FR_LAUNCH(silu_quantise, quantise_grid(a->acts, BLOCK), WARPS * 32, 0, stream, *a);
}

extern "C" void fr_cuda_silu_quantise_super(cudaStream_t stream, const void *args)
{
    const fr_cuda_silu_acts_args *a = (const fr_cuda_silu_acts_args *)args;
    FR_LAUNCH(silu_quantise_super, quantise_grid(a->acts, SUPER), WARPS * 32, 0, stream, *a);
}
