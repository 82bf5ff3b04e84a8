/* matmul_wide.cu: BF16 and F16 for more than 32 tokens (matmul.h): prompts, and passes of many
 * sequences.
 *
 * A block of 4 warps owns 64 rows by 64 tokens over all columns, a warp 32 by 32. Activations are
 * split into their terms once, by a kernel before, in the order in which lanes want them; a block
 * copies the terms of 32 columns at a time to shared memory, two copies ahead. Weights go straight
 * to the lanes' registers, one step ahead: only the two warps side by side read the same.
 *
 * The limit is the tensor cores: for each 16 columns a warp has 24 (F16: 16) instructions of 2
 * cycles of them, with 3 KiB (2 KiB) read from shared memory, half of what that can give meanwhile.
 * Blocks of the same rows are neighbours in the grid, so that weights come from memory once.
 *
 * The same instructions in the same order as matmul_plain.cu's, chunk by chunk: the same bits. */
#include <cuda_pipeline.h>

#include "matmul_terms.cuh"

enum { BLOCK = 32, STAGES = 3, THREADS = WIDE_WARPS * 32 };

template <int TYPE> struct wide_stage {
    wide_terms<TYPE> halves[2];
};

/* Begins to copy block `block` of columns, if there is one: a group of copies, maybe empty. */
template <int TYPE>
static __device__ __forceinline__ void copy_stage(const wide_stage<TYPE> *acts, int block,
                                                  int blocks, wide_stage<TYPE> *stages)
{
    if (block < blocks) {
        const char *from = (const char *)(acts + block);
        char *to = (char *)&stages[block % STAGES];
        for (int at = threadIdx.x * 16; at < (int)sizeof(wide_stage<TYPE>); at += THREADS * 16)
            __pipeline_memcpy_async(to + at, from + at, 16);
    }
    __pipeline_commit();
}

struct wide_weights {
    uint4 rows[WIDE_M][2];
};

static __device__ __forceinline__ wide_weights load_wide(const uint16_t *const at[WIDE_M][2],
                                                         int col)
{
    wide_weights w;
#pragma unroll
    for (int i = 0; i < WIDE_M * 2; i++)
        w.rows[i / 2][i % 2] = *(const uint4 *)(at[i / 2][i % 2] + col);
    return w;
}

/* 32 columns of a warp's tile, whose tiles of tokens begin at first_tile. */
template <int TYPE>
static __device__ __forceinline__ void multiply_wide(const wide_stage<TYPE> *stage, int first_tile,
                                                     const wide_weights &w,
                                                     float c[WIDE_M][WIDE_N][4])
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int s = 0; s < 2; s++)
#pragma unroll
        for (int tile = 0; tile < WIDE_N; tile++)
#pragma unroll
            for (int term = 0; term < terms<TYPE>::COUNT; term++) {
                uint2 pair = stage->halves[s].at[first_tile + tile][term][lane];
                const uint32_t b[2] = {pair.x, pair.y};
#pragma unroll
                for (int m = 0; m < WIDE_M; m++) {
                    uint32_t a[4];
                    weights_of(w.rows[m][0], w.rows[m][1], s, a);
                    mma_16<TYPE>(c[m][tile], a, b);
                }
            }
}

/* Ends a chunk: its sums go to the whole sums. */
static __device__ __forceinline__ void close_chunk(float c[WIDE_M][WIDE_N][4],
                                                   float sums[WIDE_M][WIDE_N][4])
{
#pragma unroll
    for (int i = 0; i < WIDE_M * WIDE_N * 4; i++) {
        float *chunk = &c[i / (WIDE_N * 4)][i / 4 % WIDE_N][i % 4];
        sums[i / (WIDE_N * 4)][i / 4 % WIDE_N][i % 4] += *chunk;
        *chunk = 0;
    }
}

template <int TYPE> FR_KERNEL(THREADS) void matmul_wide(const fr_cuda_matmul_args args)
{
    __shared__ wide_stage<TYPE> stages[STAGES];
    int first_row;
    const fr_cuda_matrix matrix = find_rows(args, blockIdx.y, WIDE_ROWS, &first_row);
    const int warp = threadIdx.x / 32, first_tile = warp / 2 * WIDE_N;
    first_row += warp % 2 * WIDE_M * TILE_ROWS;
    const int blocks = args.stride / BLOCK;
    const wide_stage<TYPE> *acts =
        (const wide_stage<TYPE> *)args.acts + (int64_t)blockIdx.x * blocks;
    const uint16_t *at[WIDE_M][2];
    for (int m = 0; m < WIDE_M; m++)
        for (int side = 0; side < 2; side++)
            at[m][side] = lane_row(matrix, args.stride, first_row + m * TILE_ROWS, side);
    float c[WIDE_M][WIDE_N][4] = {}, sums[WIDE_M][WIDE_N][4] = {};
    for (int block = 0; block < STAGES - 1; block++)
        copy_stage<TYPE>(acts, block, blocks, stages);
    wide_weights ahead = load_wide(at, 0);
    for (int block = 0; block < blocks; block++) {
        __pipeline_wait_prior(STAGES -
                              2); /* all copies but the latest have arrived: this block's */
        __syncthreads();          /* for all threads; and nobody reads the block before */
        copy_stage<TYPE>(acts, block + STAGES - 1, blocks, stages);
        wide_weights now = ahead;
        if (block + 1 < blocks)
            ahead = load_wide(at, (block + 1) * BLOCK);
        multiply_wide<TYPE>(&stages[block % STAGES], first_tile, now, c);
        if ((block + 1) % (CHUNK / BLOCK) == 0 || block + 1 == blocks)
            close_chunk(c, sums);
    }
#pragma unroll
    for (int i = 0; i < WIDE_M * WIDE_N; i++)
        write_tile(args, matrix, first_row + i / WIDE_N * TILE_ROWS,
                   blockIdx.x * WIDE_TOKENS + (first_tile + i % WIDE_N) * TILE_TOKENS,
                   sums[i / WIDE_N][i % WIDE_N]);
}

template <int TYPE> static void launch(cudaStream_t stream, const fr_cuda_matmul_args *args)
{
    dim3 grid(blocks_of(args->n, WIDE_TOKENS), row_blocks(args, WIDE_ROWS));
    FR_LAUNCH(matmul_wide<TYPE>, grid, THREADS, 0, stream, *args);
}

extern "C" void fr_cuda_matmul_wide_bf16(cudaStream_t stream, const void *args)
{
    launch<MMA_BF16>(stream, (const fr_cuda_matmul_args *)args);
}

extern "C" void fr_cuda_matmul_wide_f16(cudaStream_t stream, const void *args)
{
    launch<MMA_F16>(stream, (const fr_cuda_matmul_args *)args);
}
