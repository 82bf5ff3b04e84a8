/* matmul_wide.cu: BF16 and F16 for more than 32 tokens (matmul.h): prompts, and passes of many
 * sequences.
 *
 * A block of 4 warps owns 64 rows by 64 tokens over all columns, a warp 32 by 32. Activations are
 * split into their terms once, by a kernel before, in the order in which lanes want them; a block
 * copies the terms and weights of 32 columns at a time to shared memory, three copies ahead: 12 KiB
 * of weights, so that 33 tokens and 4096 rows, half a block a multiprocessor, wait for memory less.
 *
 * The limit is the tensor cores: for each 16 columns a warp has 24 (F16: 16) instructions of 2
 * cycles of them, with 4 KiB (3 KiB) read from shared memory, two thirds of what that can give
 * meanwhile. Blocks of the same rows are neighbours in the grid, so that weights come from memory
 * once.
 *
 * The same instructions in the same order as matmul_plain.cu's, chunk by chunk: the same bits. */
#include <cuda_pipeline.h>

#include "matmul_terms.cuh"

enum { BLOCK = 32, STAGES = 4, THREADS = WIDE_WARPS * 32, ROW_TILES = WIDE_ROWS / TILE_ROWS };
enum { PIECES = ROW_TILES * 2 * 32 / THREADS }; /* of 16 bytes of weights that a thread copies */

/* The terms of BLOCK columns, as they lie in memory. */
template <int TYPE> struct wide_acts {
    wide_terms<TYPE> halves[2];
};

template <int TYPE> struct wide_stage {
    wide_acts<TYPE> acts;
    uint4 rows[ROW_TILES][2][32]; /* [..][0]: row lane / 4 of the tile, [..][1]: row lane / 4 + 8 */
};

/* Begins to copy block `block` of columns, if there is one: a group of copies, maybe empty. at: the thread's
 * weights. */
template <int TYPE>
static __device__ __forceinline__ void copy_stage(const wide_acts<TYPE> *acts, const uint16_t *const at[PIECES],
                                                  int block, int blocks, wide_stage<TYPE> *stages)
{
    static_assert(sizeof *acts % (THREADS * 16) == 0, "threads copy equal shares");
    if (block < blocks) {
        wide_stage<TYPE> *to = &stages[block % STAGES];
        const uint4 *from = (const uint4 *)(acts + block) + threadIdx.x;
#pragma unroll
        for (int i = 0; i < (int)sizeof *acts / 16; i += THREADS)
            __pipeline_memcpy_async((uint4 *)&to->acts + threadIdx.x + i, from + i, 16);
#pragma unroll
        for (int i = 0; i < PIECES; i++)
            __pipeline_memcpy_async(&to->rows[0][0][0] + threadIdx.x + i * THREADS, at[i] + block * BLOCK, 16);
    }
    __pipeline_commit();
}

/* 32 columns of a warp's tile, whose tiles of rows and of tokens begin at row_tile and first_tile. */
template <int TYPE>
static __device__ __forceinline__ void multiply_wide(const wide_stage<TYPE> *stage, int row_tile, int first_tile,
                                                     float c[WIDE_M][WIDE_N][4])
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int s = 0; s < 2; s++) {
        uint32_t a[WIDE_M][4];
#pragma unroll
        for (int m = 0; m < WIDE_M; m++)
            weights_of(stage->rows[row_tile + m][0][lane], stage->rows[row_tile + m][1][lane], s, a[m]);
#pragma unroll
        for (int tile = 0; tile < WIDE_N; tile++)
#pragma unroll
            for (int term = 0; term < terms<TYPE>::COUNT; term++) {
                uint2 pair = stage->acts.halves[s].at[first_tile + tile][term][lane];
                const uint32_t b[2] = {pair.x, pair.y};
#pragma unroll
                for (int m = 0; m < WIDE_M; m++)
                    mma_16<TYPE>(c[m][tile], a[m], b);
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
    FR_AWAIT_PREVIOUS();
    FR_DYNAMIC_SHARED(wide_stage<TYPE>, stages);
    int first_row;
    const fr_cuda_matrix matrix = find_rows(args, blockIdx.y, WIDE_ROWS, &first_row);
    const int warp = threadIdx.x / 32, row_tile = warp % 2 * WIDE_M, first_tile = warp / 2 * WIDE_N;
    const int blocks = args.stride / BLOCK;
    const wide_acts<TYPE> *acts = (const wide_acts<TYPE> *)args.acts + (int64_t)blockIdx.x * blocks;
    const uint16_t *at[PIECES];
    for (int i = 0; i < PIECES; i++) {
        const int side = i * WIDE_WARPS + warp; /* counted through the tiles, two each */
        at[i] = lane_row(matrix, args.stride, first_row + side / 2 * TILE_ROWS, side % 2);
    }
    float c[WIDE_M][WIDE_N][4] = {}, sums[WIDE_M][WIDE_N][4] = {};
    for (int block = 0; block < STAGES - 1; block++)
        copy_stage<TYPE>(acts, at, block, blocks, stages);
    for (int block = 0; block < blocks; block++) {
        __pipeline_wait_prior(STAGES - 2); /* all copies but the latest two have arrived: this block's */
        __syncthreads(); /* for all threads; and nobody reads the block before */
        copy_stage<TYPE>(acts, at, block + STAGES - 1, blocks, stages);
        multiply_wide<TYPE>(&stages[block % STAGES], row_tile, first_tile, c);
        if ((block + 1) % (CHUNK / BLOCK) == 0 || block + 1 == blocks)
            close_chunk(c, sums);
    }
#pragma unroll
    for (int i = 0; i < WIDE_M * WIDE_N; i++)
        write_tile(args, matrix, first_row + (row_tile + i / WIDE_N) * TILE_ROWS,
                   blockIdx.x * WIDE_TOKENS + (first_tile + i % WIDE_N) * TILE_TOKENS,
                   sums[i / WIDE_N][i % WIDE_N]);
}

template <int TYPE> static void launch(cudaStream_t stream, const fr_cuda_matmul_args *args)
{
    const int bytes = STAGES * (int)sizeof(wide_stage<TYPE>);
    dim3 grid(blocks_of(args->n, WIDE_TOKENS), row_blocks(args, WIDE_ROWS));
    cudaFuncSetAttribute(matmul_wide<TYPE>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    FR_LAUNCH(matmul_wide<TYPE>, grid, THREADS, bytes, stream, *args);
}

extern "C" void fr_cuda_matmul_wide_bf16(cudaStream_t stream, const void *args)
{
    launch<MMA_BF16>(stream, (const fr_cuda_matmul_args *)args);
}

extern "C" void fr_cuda_matmul_wide_f16(cudaStream_t stream, const void *args)
{
    launch<MMA_F16>(stream, (const fr_cuda_matmul_args *)args);
}
