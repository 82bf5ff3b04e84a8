/* matmul_quantise.cuh: how x becomes 8 bits (matmul.h), by a warp: one token and scale at a time. The same integers
 * as the CPU backends make (fast_matmul.h). Tokens from args.n on are zeros. `tiles` groups of 8 tokens there are in
 * all. */
#ifndef FR_CUDA_MATMUL_QUANTISE_CUH
#define FR_CUDA_MATMUL_QUANTISE_CUH

#include "matmul_acts.cuh"

enum { BLOCK = 32 }; /* columns that share a scale where no super-blocks are */

static __device__ __forceinline__ float warp_max(float x)
{
    for (int step = 16; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

/* The bounds only matter where 127 / largest overflows. */
static __device__ __forceinline__ int quantised(float x, float inverse)
{
    return (int)rintf(fminf(fmaxf(x * inverse, -127.0f), 127.0f));
}

/* Where the bytes of a token's columns col .. col + 3 lie; col a multiple of 4. */
static __device__ __forceinline__ int64_t codes_at(int token, int col, int stride)
{
    int lane = token % TILE_TOKENS * 4 + col % 16 / 4;
    int64_t pair = (int64_t)(token / TILE_TOKENS) * (stride / 64) + col / 64;
    return pair * PAIR_BYTES + lane * LANE_BYTES + col % 64 / 32 * 8 + col % 32 / 16 * 4;
}

static __device__ __forceinline__ uint32_t pack_bytes(int a, int b, int c, int d)
{
    return (a & 255) | (b & 255) << 8 | (c & 255) << 16 | (uint32_t)d << 24;
}

/* A sum as low + 128 * high, both in a signed byte: value k of this token, of `digits` [low, high]
 * of a tile and super-block. */
static __device__ __forceinline__ void put_digits(int8_t *digits, int token, int k, int sum)
{
    int low = ((sum + 64) & 127) - 64, at = (token % TILE_TOKENS * 4 + k / 4) * 4 + k % 4;
    digits[at] = (int8_t)low;
    digits[128 + at] = (int8_t)((sum - low) / 128);
}

/* Columns block * 32 on. A lane has one. */
static __device__ __forceinline__ void quantise_block(const fr_cuda_prepare_args &args, int tiles, int token, int block)
{
    const int blocks = args.stride / BLOCK, lane = threadIdx.x % 32;
    const int col = block * BLOCK + lane;
    float x = token < args.n && col < args.cols ? args.x[(int64_t)token * args.cols + col] : 0;
    float largest = warp_max(fabsf(x));
    int q = quantised(x, largest > 0 ? 127.0f / largest : 0), sum = q;
    for (int step = 16; step > 0; step /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
    int8_t *codes = (int8_t *)args.out;
    codes[codes_at(token, col / 4 * 4, args.stride) + col % 4] = (int8_t)q;
    if (lane > 0)
        return;
    float2 *scales = (float2 *)(codes + FR_CUDA_ACTS_CODES(tiles, args.stride));
    float scale = largest / 127.0f;
    scales[((int64_t)(token / TILE_TOKENS) * blocks + block) * TILE_TOKENS + token % TILE_TOKENS] =
        make_float2(scale, scale * (float)sum);
}

/* Columns super * 256 on. A lane has 8. */
static __device__ __forceinline__ void quantise_super_block(const fr_cuda_prepare_args &args, int tiles, int token,
                                                            int super)
{
    const int supers = args.cols / SUPER, lane = threadIdx.x % 32;
    const int col = super * SUPER + lane * 8;
    float x[8] = {}, high = 0;
    if (token < args.n) {
        const float4 *at = (const float4 *)(args.x + (int64_t)token * args.cols + col);
        const float4 first = at[0], last = at[1];
        const float both[8] = {first.x, first.y, first.z, first.w, last.x, last.y, last.z, last.w};
        for (int i = 0; i < 8; i++)
            x[i] = both[i];
    }
    for (int i = 0; i < 8; i++)
        high = fmaxf(high, fabsf(x[i]));
    float largest = warp_max(high), inverse = largest > 0 ? 127.0f / largest : 0;
    int q[8], sum = 0;
    for (int i = 0; i < 8; i++) {
        q[i] = quantised(x[i], inverse);
        sum += q[i];
    }
    uint8_t *codes = (uint8_t *)args.out;
    for (int i = 0; i < 8; i += 4)
        *(uint32_t *)(codes + codes_at(token, col + i, args.stride)) =
            pack_bytes(q[i], q[i + 1], q[i + 2], q[i + 3]);

    const int64_t at = (int64_t)(token / TILE_TOKENS) * supers + super;
    int8_t *digits = (int8_t *)codes + FR_CUDA_ACTS_CODES(tiles, args.cols);
    float *scales = (float *)(digits + FR_CUDA_ACTS_DIGITS(tiles, args.cols));
    sum += __shfl_xor_sync(0xffffffffu, sum, 1); /* of 16 columns */
    int sum32 = sum + __shfl_xor_sync(0xffffffffu, sum, 2);
    if (lane % 2 == 0)
        put_digits(digits + at * 512, token, lane / 2, sum);
    if (lane % 4 < 2) /* 8 sums, and 8 zeros that fill up the operand */
        put_digits(digits + at * 512 + 256, token, lane / 4 + lane % 4 * 8,
                   lane % 4 == 0 ? sum32 : 0);
    if (lane == 0)
        scales[at * TILE_TOKENS + token % TILE_TOKENS] = largest / 127.0f;
}

/* COLS: 32 or 256, what shares a scale. */
template <int COLS>
static __device__ __forceinline__ void quantise_part(const fr_cuda_prepare_args &args, int tiles, int token, int part)
{
    if (COLS == SUPER)
        quantise_super_block(args, tiles, token, part);
    else
        quantise_block(args, tiles, token, part);
}

/* A warp a part, WARPS of them a block; x counts tokens up to whole tiles: a grid's second dimension ends at 65,535. */
static inline dim3 quantise_grid(const fr_cuda_prepare_args &args, int cols)
{
    return dim3(blocks_of(args.n, TILE_TOKENS) * TILE_TOKENS, blocks_of(args.stride / cols, WARPS));
}

#endif
