/* matmul_acts.cuh: activations in 8 bits and weights of 8 or 4 bits (matmul.h) as operands of the
 * tensor cores. With t = lane % 4, a lane's bytes of a block of 32 columns are 4t .. 4t + 3 and
 * 16 + 4t .. 16 + 4t + 3; two blocks, 16 bytes, lie together. */
#ifndef FR_CUDA_MATMUL_ACTS_CUH
#define FR_CUDA_MATMUL_ACTS_CUH

#include "matmul_tile.cuh"

enum { SUPER = 256, SUPER_BLOCKS = 8, PAIRS = 4, LANE_BYTES = 16, PAIR_BYTES = 32 * LANE_BYTES };
static_assert((int)SUPER == (int)CHUNK, "a super-block is a chunk");

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

/* Codes of a tile of 16 rows in a chunk, 8 bits ([block]) or 4 ([pair of blocks], the first block in
 * the low nibbles). */
template <int BITS> struct chunk_codes {
    uint4 words[BITS];
};

template <int BITS>
static __device__ __forceinline__ void load_codes(const uint8_t *record, chunk_codes<BITS> *codes)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < BITS; i++)
        codes->words[i] = load_once(record + i * PAIR_BYTES + lane * LANE_BYTES);
}

template <int BITS>
static __device__ __forceinline__ void block_codes(const chunk_codes<BITS> &codes, int block,
                                                   uint32_t a[4])
{
    const uint4 w = codes.words[BITS == 8 ? block : block / 2];
    const int shift = BITS == 4 && block % 2 ? 4 : 0;
    const uint32_t mask = BITS == 4 ? 0x0f0f0f0fu : 0xffffffffu;
    a[0] = w.x >> shift & mask;
    a[1] = w.y >> shift & mask;
    a[2] = w.z >> shift & mask;
    a[3] = w.w >> shift & mask;
}

/* The record of a tile of rows and a chunk; a tile past the end is the last one, whose results nobody
 * writes. */
static __device__ __forceinline__ const uint8_t *find_record(const fr_cuda_matrix &matrix, int tile,
                                                             int chunk, int chunks, int bytes)
{
    int last = (matrix.rows - 1) / TILE_ROWS;
    return (const uint8_t *)matrix.data + ((int64_t)min(tile, last) * chunks + chunk) * bytes;
}

#endif
