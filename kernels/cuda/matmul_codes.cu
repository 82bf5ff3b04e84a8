/* matmul_codes.cu: Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 (matmul.h): codes in 8 bits, one scale for 32
 * columns, and what is added to every code a shift. An integer sum of 32 columns is one instruction of
 * the tensor cores; it is scaled and added to the chunk's sum in f32, as in the CPU backends
 * (fast_matmul.h), whose bits come out up to 256 columns.
 *
 * The limit is memory: 8.5 bits a weight, 9 with shifts. In the 290 cycles in which 16 rows of a chunk
 * come in (matmul_plain.cu), 8 tokens take some 250 instructions of a quarter cycle and 8 of the
 * tensor cores. */
#include "matmul_acts.cuh"

/* A tile of rows in a chunk, as a lane needs it. */
struct coded_tile {
    chunk_codes<8> codes;
    uint4 scales[2], shifts[2]; /* f16, 8 blocks, of rows lane / 4 and lane / 4 + 8 */
};

static __device__ __forceinline__ void load_coded(const fr_cuda_matrix &matrix, int tile, int chunk,
                                                  int chunks, coded_tile *to)
{
    if (chunk >= chunks)
        return;
    const uint8_t *record =
        find_record(matrix, tile, chunk, chunks, FR_CUDA_CODES_BYTES(matrix.has_shifts));
    load_codes<8>(record, &to->codes);
    const uint8_t *scales = record + 8 * PAIR_BYTES + threadIdx.x % 32 / 4 * 16;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        to->scales[half] = load_once(scales + half * 128);
        if (matrix.has_shifts)
            to->shifts[half] = load_once(scales + 256 + half * 128);
    }
}

static __device__ __forceinline__ float block_f16(uint4 halves, int block)
{
    uint32_t pair = block < 4 ? (block < 2 ? halves.x : halves.y) : block < 6 ? halves.z : halves.w;
    return block % 2 ? high_value(MMA_F16, pair) : low_value(MMA_F16, pair);
}

/* c: the sums of the chunk for a tile of tokens. acts_scales: [block][token][scale, scaled sum]. */
static __device__ __forceinline__ void multiply_coded(const fr_cuda_matrix &matrix,
                                                      const coded_tile &w, const chunk_acts &acts,
                                                      const float4 *acts_scales, float c[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        c[i] = 0;
#pragma unroll
    for (int block = 0; block < 8; block++) {
        uint32_t a[4], b[2];
        int dots[4] = {};
        block_codes(w.codes, block, a);
        block_acts(acts, block, b);
        mma_32(dots, a, b);
        const float4 of_tokens = acts_scales[block * TILE_TOKENS / 2 + threadIdx.x % 4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float scale = block_f16(w.scales[i / 2], block);
            float shift =
                matrix.has_shifts ? block_f16(w.shifts[i / 2], block) : scale * matrix.offset;
            c[i] = fmaf((float)dots[i], scale * (i % 2 ? of_tokens.z : of_tokens.x), c[i]);
            c[i] = fmaf(shift, i % 2 ? of_tokens.w : of_tokens.y, c[i]);
        }
    }
}

/* The same for tile `tile` of tokens, with its activations. */
template <int M>
static __device__ __forceinline__ void multiply_tokens(const fr_cuda_matmul_args &args,
                                                       const fr_cuda_matrix &matrix, int tile,
                                                       int chunk, const coded_tile w[M],
                                                       float c[M][4])
{
    const int tiles = (args.n + TILE_TOKENS - 1) / TILE_TOKENS;
    if (tile >= tiles)
        return;
    const chunk_acts acts = load_acts(args, tile, chunk);
    const float4 *scales =
        (const float4 *)((const uint8_t *)args.acts + FR_CUDA_ACTS_CODES(tiles, args.stride)) +
        ((int64_t)tile * (args.stride / 32) + chunk * 8) * (TILE_TOKENS / 2);
#pragma unroll
    for (int m = 0; m < M; m++)
        multiply_coded(matrix, w[m], acts, scales, c[m]);
}

/* As matmul_plain.cu's matmul_narrow; the whole next chunk is under way meanwhile. */
template <int M, int N>
FR_KERNEL(WARPS * 32)
void codes_narrow(const fr_cuda_matmul_args args)
{
    __shared__ partial_tile<M> partials[2][WARPS];
    int first_row;
    const fr_cuda_matrix matrix = find_rows(args, blockIdx.x, M * TILE_ROWS, &first_row);
    const int warp = threadIdx.x / 32, chunks = args.stride / CHUNK;
    coded_tile ahead[M] = {};
#pragma unroll
    for (int m = 0; m < M; m++)
        load_coded(matrix, first_row / TILE_ROWS + m, warp, chunks, &ahead[m]);
    float sums[N][elements<M>::MINE] = {};
    int buffer = 0;
    for (int first = 0; first < chunks; first += WARPS) {
        coded_tile now[M];
#pragma unroll
        for (int m = 0; m < M; m++) {
            now[m] = ahead[m];
            load_coded(matrix, first_row / TILE_ROWS + m, first + warp + WARPS, chunks, &ahead[m]);
        }
#pragma unroll
        for (int tile = 0; tile < N; tile++, buffer ^= 1) {
            float c[M][4] = {};
            if (first + warp < chunks)
                multiply_tokens<M>(args, matrix, tile, first + warp, now, c);
#pragma unroll
            for (int m = 0; m < M; m++)
                put_partial<M>(&partials[buffer][warp], m, c[m]);
            __syncthreads();
            add_partials<M>(partials[buffer], min(WARPS, chunks - first), sums[tile]);
        }
    }
#pragma unroll
    for (int tile = 0; tile < N; tile++)
        write_sums<M>(args, matrix, first_row, tile * TILE_TOKENS, sums[tile]);
}

template <int M> static void launch_narrow(cudaStream_t stream, const fr_cuda_matmul_args *args)
{
    auto kernel = args->n <= TILE_TOKENS       ? codes_narrow<M, 1>
                  : args->n <= 2 * TILE_TOKENS ? codes_narrow<M, 2>
                                               : codes_narrow<M, 4>;
    FR_LAUNCH(kernel, row_blocks(args, M * TILE_ROWS), WARPS * 32, 0, stream, *args);
}

extern "C" void fr_cuda_matmul_codes(cudaStream_t stream, const void *p)
{
    const fr_cuda_matmul_args *args = (const fr_cuda_matmul_args *)p;
    if (row_blocks(args, 2 * TILE_ROWS) < FEW_BLOCKS)
        launch_narrow<1>(stream, args);
    else
        launch_narrow<2>(stream, args);
}

/* 64 rows by 64 tokens a block, 32 by 32 a warp; activations come through the first cache. */
FR_KERNEL(WIDE_WARPS * 32)
void codes_wide(const fr_cuda_matmul_args args)
{
    int first_row;
    const fr_cuda_matrix matrix = find_rows(args, blockIdx.y, WIDE_ROWS, &first_row);
    const int warp = threadIdx.x / 32, chunks = args.stride / CHUNK;
    const int first_tile = (int)blockIdx.x * WIDE_TILES + warp / 2 * WIDE_N;
    first_row += warp % 2 * WIDE_M * TILE_ROWS;
    float sums[WIDE_M][WIDE_N][4] = {};
    for (int chunk = 0; chunk < chunks; chunk++) {
        coded_tile now[WIDE_M] = {};
#pragma unroll
        for (int m = 0; m < WIDE_M; m++)
            load_coded(matrix, first_row / TILE_ROWS + m, chunk, chunks, &now[m]);
#pragma unroll
        for (int tile = 0; tile < WIDE_N; tile++) {
            float c[WIDE_M][4] = {};
            multiply_tokens<WIDE_M>(args, matrix, first_tile + tile, chunk, now, c);
#pragma unroll
            for (int i = 0; i < WIDE_M * 4; i++)
                sums[i / 4][tile][i % 4] += c[i / 4][i % 4];
        }
    }
#pragma unroll
    for (int i = 0; i < WIDE_M * WIDE_N; i++)
        write_tile(args, matrix, first_row + i / WIDE_N * TILE_ROWS,
                   (first_tile + i % WIDE_N) * TILE_TOKENS, sums[i / WIDE_N][i % WIDE_N]);
}

extern "C" void fr_cuda_matmul_wide_codes(cudaStream_t stream, const void *p)
{
    const fr_cuda_matmul_args *args = (const fr_cuda_matmul_args *)p;
    dim3 grid(blocks_of(args->n, WIDE_TOKENS), row_blocks(args, WIDE_ROWS));
    FR_LAUNCH(codes_wide, grid, WIDE_WARPS * 32, 0, stream, *args);
}
