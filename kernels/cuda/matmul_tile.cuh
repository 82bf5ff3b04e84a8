/* matmul_tile.cuh: what the matmul kernels share (matmul.h): where a block works, and how the partial results of a
 * block's warps are added up in order. */
#ifndef FR_CUDA_MATMUL_TILE_CUH
#define FR_CUDA_MATMUL_TILE_CUH

#include "launch.cuh"
#include "matmul.h"
#include "mma.cuh"

enum {
    WARPS = 8, /* of a block of a narrow kernel; each takes every eighth chunk */
    TILE_ROWS = FR_CUDA_TILE_ROWS,
    TILE_TOKENS = FR_CUDA_TILE_TOKENS,
    CHUNK = FR_CUDA_CHUNK,
    FEW_BLOCKS = 132, /* blocks that leave multiprocessors of an H200 without one */
    WIDE_WARPS = 4,
    WIDE_M =
        2, /* tiles of 16 rows and of 8 tokens of a warp of a wide kernel; 2 x 2 warps a block */
    WIDE_N = 4,
    WIDE_ROWS = 2 * WIDE_M * TILE_ROWS,
    WIDE_TOKENS = FR_CUDA_WIDE_TOKENS,
    WIDE_TILES = WIDE_TOKENS / TILE_TOKENS
};
static_assert(WIDE_TILES == 2 * WIDE_N, "two warps side by side");

static inline int blocks_of(int n, int size)
{
    return (n + size - 1) / size;
}

/* Blocks of `rows` rows that a launch needs. */
static inline int row_blocks(const fr_cuda_matmul_args *args, int rows)
{
    int blocks = 0;
    for (int i = 0; i < args->n_matrices; i++)
        blocks += blocks_of(args->matrices[i].rows, rows);
    return blocks;
}

/* The matrix that block `block` of `rows` rows works on, and its first row there. */
static __device__ __forceinline__ fr_cuda_matrix find_rows(const fr_cuda_matmul_args &args,
                                                           int block, int rows, int *first_row)
{
    fr_cuda_matrix matrix = args.matrices[0];
#pragma unroll
    for (int i = 0; i + 1 < FR_CUDA_GROUP; i++) {
        int blocks = (args.matrices[i].rows + rows - 1) / rows;
        if (i + 1 < args.n_matrices && block >= blocks) {
            block -= blocks;
            matrix = args.matrices[i + 1];
        } else {
            break;
        }
    }
    *first_row = block * rows;
    return matrix;
}

#ifndef FR_TRY_AHEAD_BLOCKS
#define FR_TRY_AHEAD_BLOCKS 264
#endif
enum { AHEAD_BLOCKS = FR_TRY_AHEAD_BLOCKS };

/* Asks the memory for `bytes` to be brought into the second cache; nobody waits for it. Before Hopper: nothing. */
static __device__ __forceinline__ void fetch_to_l2(const uint8_t *from, int bytes)
{
#ifndef __CUDA_ARCH__
    (void)(*(const volatile uint8_t *)from + *(const volatile uint8_t *)(from + bytes - 1));
#elif __CUDA_ARCH__ >= 900
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" : : "l"(from), "r"(bytes) : "memory");
#endif
}

/* A block that is done lets the memory go on with the next product's weights: it would idle until those are asked for. The
 * grid's last blocks do this, when nobody else is left to be held up. */
static __device__ __forceinline__ void fetch_ahead(const fr_cuda_matmul_args &args)
{
    const int askers = min((int)gridDim.x, (int)AHEAD_BLOCKS), mine = (int)(blockIdx.x - (gridDim.x - askers));
    if (args.ahead.width == 0 || mine < 0)
        return;
    for (int line = (int)threadIdx.x * askers + mine, m = 0; m < FR_CUDA_GROUP; m++) {
        for (; line < args.ahead.lines[m]; line += (int)blockDim.x * askers)
            fetch_to_l2((const uint8_t *)args.ahead.data[m] + (int64_t)line * args.ahead.line_bytes, args.ahead.width);
        line -= args.ahead.lines[m];
    }
}

/* Partial results of M tiles of 16 rows by 8 tokens lie [token][row]; the 4 rows more keep the
 * lanes of a warp in different banks. */
template <int M> struct partial_tile {
    float at[TILE_TOKENS][M * TILE_ROWS + 4];
};

template <int M>
static __device__ __forceinline__ void put_partial(partial_tile<M> *to, int m, const float c[4])
{
    const int lane = threadIdx.x % 32, row = m * TILE_ROWS + lane / 4, token = lane % 4 * 2;
    to->at[token][row] = c[0];
    to->at[token + 1][row] = c[1];
    to->at[token][row + 8] = c[2];
    to->at[token + 1][row + 8] = c[3];
}

/* Element i of the M * 128 of a tile of 8 tokens: those of one thread are WARPS * 32 apart. */
template <int M> static __device__ __forceinline__ int element_row(int i)
{
    return i % (M * TILE_ROWS);
}

template <int M> static __device__ __forceinline__ int element_token(int i)
{
    return i / (M * TILE_ROWS);
}

/* Elements a thread adds up. */
template <int M> struct elements {
    enum { ALL = M * TILE_ROWS * TILE_TOKENS, MINE = (ALL + WARPS * 32 - 1) / (WARPS * 32) };
};

/* Adds the partial results of `live` warps, in their order, to this thread's sums. */
template <int M>
static __device__ __forceinline__ void add_partials(const partial_tile<M> *of_warps, int live,
                                                    float *sums)
{
#pragma unroll
    for (int e = 0; e < elements<M>::MINE; e++) {
        int i = (int)threadIdx.x + e * WARPS * 32;
        if (i < elements<M>::ALL)
            for (int w = 0; w < live; w++)
                sums[e] += of_warps[w].at[element_token<M>(i)][element_row<M>(i)];
    }
}

/* Writes this thread's sums of the tile of tokens that begins at first_token, times
 * scales[token][1] when there are scales. */
template <int M>
static __device__ __forceinline__ void write_sums(const fr_cuda_matmul_args &args,
                                                  const fr_cuda_matrix &matrix, int first_row,
                                                  int first_token, const float *sums)
{
#pragma unroll
    for (int e = 0; e < elements<M>::MINE; e++) {
        int i = (int)threadIdx.x + e * WARPS * 32;
        int row = first_row + element_row<M>(i), token = first_token + element_token<M>(i);
        if (i < elements<M>::ALL && row < matrix.rows && token < args.n)
            matrix.y[(int64_t)token * matrix.rows + row] =
                args.scales ? sums[e] * args.scales[2 * token + 1] : sums[e];
    }
}

/* Writes what a warp of a wide kernel has in registers. */
static __device__ __forceinline__ void write_tile(const fr_cuda_matmul_args &args,
                                                  const fr_cuda_matrix &matrix, int first_row,
                                                  int first_token, const float c[4])
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int row = first_row + lane / 4 + i / 2 * 8, token = first_token + lane % 4 * 2 + i % 2;
        if (row < matrix.rows && token < args.n)
            matrix.y[(int64_t)token * matrix.rows + row] =
                args.scales ? c[i] * args.scales[2 * token + 1] : c[i];
    }
}

#endif
