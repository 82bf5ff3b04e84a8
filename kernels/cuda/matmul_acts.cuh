/* matmul_acts.cuh: activations in 8 bits and weights of 8 or 4 bits (matmul.h) as operands of the
 * tensor cores. With t = lane % 4, a lane's bytes of a block of 32 columns are 4t .. 4t + 3 and
 * 16 + 4t .. 16 + 4t + 3; two blocks, 16 bytes, lie together. */
#ifndef FR_CUDA_MATMUL_ACTS_CUH
#define FR_CUDA_MATMUL_ACTS_CUH

#include <cuda_pipeline.h>

#include "matmul_tile.cuh"

enum { SUPER = 256, SUPER_BLOCKS = 8, PAIRS = 4, LANE_BYTES = 16, PAIR_BYTES = 32 * LANE_BYTES };
static_assert((int)SUPER == (int)CHUNK, "a super-block is a chunk");

static __device__ __forceinline__ int token_tiles(const fr_cuda_matmul_args &args)
{
    return (args.n + TILE_TOKENS - 1) / TILE_TOKENS;
}

/* One tile of tokens' codes of a chunk: [b] of each of its 8 blocks. Lanes of tokens past n have
 * zeros, and read nothing. */
struct chunk_acts {
    uint4 pairs[PAIRS];
};

static __device__ __forceinline__ chunk_acts load_acts(const fr_cuda_matmul_args &args, int tile,
                                                       int chunk)
{
    const int lane = threadIdx.x % 32;
    const uint8_t *at = (const uint8_t *)args.acts +
                        ((int64_t)tile * (args.stride / CHUNK) + chunk) * (PAIRS * PAIR_BYTES) +
                        lane * LANE_BYTES;
    chunk_acts acts;
#pragma unroll
    for (int p = 0; p < PAIRS; p++)
        acts.pairs[p] = tile * TILE_TOKENS + lane / 4 < args.n
                            ? *(const uint4 *)(at + p * PAIR_BYTES)
                            : make_uint4(0, 0, 0, 0);
    return acts;
}

static __device__ __forceinline__ void block_acts(const chunk_acts &acts, int block, uint32_t b[2])
{
    const uint4 pair = acts.pairs[block / 2];
    b[0] = block % 2 ? pair.z : pair.x;
    b[1] = block % 2 ? pair.w : pair.y;
}

/* The record of a tile of rows and a chunk, if there is such a chunk; else it is not to be read. A
 * tile past the end is the last one, whose results nobody writes. */
struct record {
    const uint8_t *at;
    bool wanted;
};

static __device__ __forceinline__ record find_record(const fr_cuda_matrix &matrix, int tile,
                                                     int chunk, int chunks, int bytes)
{
    int64_t first = min(tile, (matrix.rows - 1) / TILE_ROWS) * (int64_t)chunks;
    return {(const uint8_t *)matrix.data + (first + min(chunk, chunks - 1)) * bytes,
            chunk < chunks};
}

/* Two records of a warp, in its shared memory or on their way there: of two tiles of rows in one chunk, or of
 * one tile in two of its chunks. They go past the first cache, which holds the activations, and can be awaited
 * by number, as loads into registers cannot (matmul_plain.cu). One that has been multiplied makes room for the
 * next but one. */
enum { RECORDS = 2 };

template <int BYTES> struct record_ring {
    uint4 at[RECORDS][BYTES / LANE_BYTES];
};

/* Begins to copy a record, if it is wanted: a group of copies, maybe empty. bytes: at most BYTES. */
template <int BYTES>
static __device__ __forceinline__ void copy_record(const record &from, int bytes, uint4 *to)
{
    if (from.wanted) {
#pragma unroll
        for (int i = 0; i < BYTES / LANE_BYTES; i += 32) {
            const int piece = i + (int)threadIdx.x % 32;
            if (piece < bytes / LANE_BYTES)
                __pipeline_memcpy_async(to + piece, from.at + piece * LANE_BYTES, LANE_BYTES);
        }
    }
    __pipeline_commit();
}

/* The first records of a warp: of M tiles of rows in chunk `chunk` and, where M is 1, in the warp's next one. */
template <int M, int BYTES>
static __device__ __forceinline__ void copy_first(const fr_cuda_matrix &matrix, int row_tile, int chunk, int chunks,
                                                  int bytes, record_ring<BYTES> *ring)
{
#pragma unroll
    for (int i = 0; i < RECORDS; i++)
        copy_record<BYTES>(find_record(matrix, row_tile + i % M, chunk + i / M * WARPS, chunks, bytes), bytes,
                           ring->at[i]);
}

/* Before record m of M of a chunk is multiplied with its first tile of tokens. Where that is the last one too,
 * what came before m has been replaced already. */
template <int M> static __device__ __forceinline__ void await_record(bool last)
{
    if (last)
        __pipeline_wait_prior(RECORDS - 1);
    else
        __pipeline_wait_prior(RECORDS - M);
    __syncwarp(); /* for all lanes; and nobody reads it before */
}

/* After its last tile of tokens. */
template <int BYTES>
static __device__ __forceinline__ void replace_record(const record &next, int bytes, uint4 *place)
{
    __syncwarp(); /* nobody reads it any more */
    copy_record<BYTES>(next, bytes, place);
}

/* Operand a of a block, of 8-bit codes ([block][lane]) or 4-bit ones ([pair of blocks][lane], the first block
 * in the low nibbles). */
template <int BITS>
static __device__ __forceinline__ void block_codes(const uint4 *codes, int block, uint32_t a[4])
{
    const uint4 w = codes[(BITS == 8 ? block : block / 2) * 32 + threadIdx.x % 32];
    const int shift = BITS == 4 && block % 2 ? 4 : 0;
    const uint32_t mask = BITS == 4 ? 0x0f0f0f0fu : 0xffffffffu;
    a[0] = w.x >> shift & mask;
    a[1] = w.y >> shift & mask;
    a[2] = w.z >> shift & mask;
    a[3] = w.w >> shift & mask;
}

/* Of a narrow kernel's forms for one tile of tokens, two, and up to four, the one for args, with room for `bytes` of
 * dynamic shared memory. */
template <typename K>
static K choose_narrow(const fr_cuda_matmul_args *args, int bytes, K one, K two, K four)
{
    const K kernel = args->n <= TILE_TOKENS ? one : args->n <= 2 * TILE_TOKENS ? two : four;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    return kernel;
}

#endif
