/* matmul_codes.cu: Q8_0, Q4_0, Q4_1, Q5_0 and Q5_1 (matmul.h): codes in 8 bits, one scale for 32
 * columns, and what is added to every code a shift. An integer sum of 32 columns is one instruction
 * of the tensor cores; it is scaled and added to the chunk's sum in f32, as in the CPU backends
 * (fast_matmul.h), whose bits come out up to 256 columns.
 *
 * The limit is memory: 8.5 bits a weight, 9 with shifts. In the 290 cycles in which 16 rows of a
 * chunk come in (matmul_plain.cu), 8 tokens take some 250 instructions of a quarter cycle and 8 of
 * the tensor cores. */
#include "matmul_acts.cuh"

enum { MOST_BYTES = FR_CUDA_CODES_BYTES(1) };

static __device__ __forceinline__ int record_bytes(const fr_cuda_matrix &matrix)
{
    return FR_CUDA_CODES_BYTES(matrix.has_shifts);
}

static __device__ __forceinline__ record coded_record(const fr_cuda_matrix &matrix, int tile,
                                                      int chunk, int chunks)
{
    return find_record(matrix, tile, chunk, chunks, record_bytes(matrix));
}

static __device__ __forceinline__ float block_f16(uint4 halves, int block)
{
    uint32_t pair = block < 4 ? (block < 2 ? halves.x : halves.y) : block < 6 ? halves.z : halves.w;
    return block % 2 ? high_value(MMA_F16, pair) : low_value(MMA_F16, pair);
}

/* Of the blocks of a chunk, the scales and scaled sums of a lane's two tokens. */
struct chunk_scales {
    float4 blocks[8];
};

static __device__ __forceinline__ chunk_scales load_scales(const fr_cuda_matmul_args &args, int tile, int chunk)
{
    const int tiles = token_tiles(args);
    const float4 *at =
        (const float4 *)((const uint8_t *)args.acts + FR_CUDA_ACTS_CODES(tiles, args.stride)) +
        ((int64_t)tile * (args.stride / 32) + chunk * 8) * (TILE_TOKENS / 2) + threadIdx.x % 4;
    chunk_scales scales;
#pragma unroll
    for (int block = 0; block < 8; block++)
        scales.blocks[block] = at[block * TILE_TOKENS / 2];
    return scales;
}

/* c: the sums of the chunk, whose record is w, for a tile of tokens. */
static __device__ __forceinline__ void multiply_coded(const fr_cuda_matrix &matrix, const uint4 *w,
                                                      const chunk_acts &acts,
                                                      const chunk_scales &acts_scales, float c[4])
{
    uint4 scales[2], shifts[2]; /* f16, 8 blocks, of rows lane / 4 and lane / 4 + 8 */
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const uint4 *of_row = w + 8 * 32 + threadIdx.x % 32 / 4 + 8 * side;
        scales[side] = of_row[0];
        shifts[side] = matrix.has_shifts ? of_row[TILE_ROWS] : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
        c[i] = 0;
#pragma unroll
    for (int block = 0; block < 8; block++) {
        uint32_t a[4], b[2];
        int dots[4] = {};
        block_codes<8>(w, block, a);
        block_acts(acts, block, b);
        mma_32(dots, a, b);
        const float4 of_tokens = acts_scales.blocks[block];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float scale = block_f16(scales[i / 2], block);
            float shift =
                matrix.has_shifts ? block_f16(shifts[i / 2], block) : scale * matrix.offset;
            c[i] = fmaf((float)dots[i], scale * (i % 2 ? of_tokens.z : of_tokens.x), c[i]);
            c[i] = fmaf(shift, i % 2 ? of_tokens.w : of_tokens.y, c[i]);
        }
    }
}

/* A chunk of M tiles of rows, the first of which is row_tile, for tile `tile` of tokens; records: the tiles'. The first
 * tile of tokens awaits them, the last one begins to load those of chunk `next` in their place. */
template <int M>
static __device__ __forceinline__ void
multiply_tokens(const fr_cuda_matmul_args &args, const fr_cuda_matrix &matrix, int row_tile, int tile, bool first,
                bool last, int chunk, int next, uint4 (*records)[MOST_BYTES / LANE_BYTES], float c[M][4])
{
    const int chunks = args.stride / CHUNK;
    const chunk_acts acts = load_acts(args, tile, chunk);
    const chunk_scales scales = load_scales(args, tile, chunk);
#pragma unroll
    for (int m = 0; m < M; m++) {
        if (first)
            await_record<M>(last);
        multiply_coded(matrix, records[m], acts, scales, c[m]);
        if (last)
            replace_record<MOST_BYTES>(coded_record(matrix, row_tile + m, next, chunks),
                                       record_bytes(matrix), records[m]);
    }
}

/* As matmul_plain.cu's matmul_narrow. */
template <int M, int N> FR_KERNEL(WARPS * 32, 2) void codes_narrow(const fr_cuda_matmul_args args)
{
    __shared__ partial_tile<M> partials[2][WARPS];
    FR_DYNAMIC_SHARED(record_ring<MOST_BYTES>, rings);
    int first_row;
    const fr_cuda_matrix matrix = find_rows(args, blockIdx.x, M * TILE_ROWS, &first_row);
    const int warp = threadIdx.x / 32, chunks = args.stride / CHUNK,
              row_tile = first_row / TILE_ROWS;
    const int tiles = token_tiles(args);
    record_ring<MOST_BYTES> *ring = &rings[warp];
    copy_first<M>(matrix, row_tile, warp, chunks, record_bytes(matrix), ring);
    FR_AWAIT_PREVIOUS();
    float sums[N][elements<M>::MINE] = {};
    int buffer = 0;
    for (int first = 0; first < chunks; first += WARPS) {
        const int chunk = first + warp;
#pragma unroll
        for (int tile = 0; tile < N; tile++, buffer ^= 1) {
            float c[M][4] = {};
            if (chunk < chunks && tile < tiles)
                multiply_tokens<M>(args, matrix, row_tile, tile, tile == 0, tile + 1 == tiles, chunk,
                                   chunk + RECORDS / M * WARPS, &ring->at[chunk / WARPS * M % RECORDS], c);
#pragma unroll
            for (int m = 0; m < M; m++)
                put_partial<M>(&partials[buffer][warp], m, c[m]);
            __syncthreads();
            add_partials<M>(partials[buffer], min(WARPS, chunks - first), sums[tile]);
        }
    }
    fetch_ahead(args);
    FR_START_NEXT();
#pragma unroll
    for (int tile = 0; tile < N; tile++)
        write_sums<M>(args, matrix, first_row, tile * TILE_TOKENS, sums[tile]);
}

template <int M> static void launch_narrow(cudaStream_t stream, const fr_cuda_matmul_args *args)
{
    const int bytes = WARPS * (int)sizeof(record_ring<MOST_BYTES>);
    auto codes_narrow_kernel =
        choose_narrow(args, bytes, codes_narrow<M, 1>, codes_narrow<M, 2>, codes_narrow<M, 4>);
    FR_LAUNCH(codes_narrow_kernel, row_blocks(args, M * TILE_ROWS), WARPS * 32, bytes, stream, *args);
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
    FR_AWAIT_PREVIOUS();
    static_assert((int)WIDE_M == (int)RECORDS, "a warp has one chunk");
    __shared__ record_ring<MOST_BYTES> rings[WIDE_WARPS];
    int first_row;
    const fr_cuda_matrix matrix = find_rows(args, blockIdx.y, WIDE_ROWS, &first_row);
    const int warp = threadIdx.x / 32, chunks = args.stride / CHUNK;
    const int first_tile = (int)blockIdx.x * WIDE_TILES + warp / 2 * WIDE_N;
    const int tiles = token_tiles(args);
    first_row += warp % 2 * WIDE_M * TILE_ROWS;
    if (first_tile >= tiles)
        return;
    const int row_tile = first_row / TILE_ROWS, last = min(first_tile + WIDE_N, tiles) - 1;
    record_ring<MOST_BYTES> *ring = &rings[warp];
    copy_first<WIDE_M>(matrix, row_tile, 0, chunks, record_bytes(matrix), ring);
    float sums[WIDE_M][WIDE_N][4] = {};
    for (int chunk = 0; chunk < chunks; chunk++)
#pragma unroll
        for (int tile = 0; tile < WIDE_N; tile++) {
            float c[WIDE_M][4] = {};
            if (first_tile + tile <= last)
                multiply_tokens<WIDE_M>(args, matrix, row_tile, first_tile + tile, tile == 0,
                                        first_tile + tile == last, chunk, chunk + 1, ring->at, c);
#pragma unroll
            for (int i = 0; i < WIDE_M * 4; i++)
                sums[i / 4][tile][i % 4] += c[i / 4][i % 4];
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
