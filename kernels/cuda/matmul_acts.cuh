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

/* Codes of a tile of 16 rows in a chunk, 8 bits ([block]) or 4 ([pair of blocks], the first block
 * in the low nibbles). They have one place in the registers: as soon as a block has been multiplied
 * for the last time, its place is loaded from the warp's next record, so that about a whole record
 * a tile is always under way. */
template <int BITS> struct chunk_codes {
    uint4 words[BITS];
};

template <int BITS>
static __device__ __forceinline__ void load_word(const record &from, int i,
                                                 chunk_codes<BITS> *codes)
{
    const int lane = threadIdx.x % 32;
    load_if(from.wanted, from.at + i * PAIR_BYTES + lane * LANE_BYTES, &codes->words[i]);
}

template <int BITS>
static __device__ __forceinline__ void load_codes(const record &from, chunk_codes<BITS> *codes)
{
#pragma unroll
    for (int i = 0; i < BITS; i++)
        load_word(from, i, codes);
}

/* Operand a of a block, and what comes next into its place. */
template <int BITS>
static __device__ __forceinline__ void take_block(chunk_codes<BITS> *codes, int block,
                                                  const record &next, uint32_t a[4])
{
    const int i = BITS == 8 ? block : block / 2;
    const uint4 w = codes->words[i];
    const int shift = BITS == 4 && block % 2 ? 4 : 0;
    const uint32_t mask = BITS == 4 ? 0x0f0f0f0fu : 0xffffffffu;
    a[0] = w.x >> shift & mask;
    a[1] = w.y >> shift & mask;
    a[2] = w.z >> shift & mask;
    a[3] = w.w >> shift & mask;
    if (BITS == 8 || block % 2)
        load_word(next, i, codes);
}

#endif
