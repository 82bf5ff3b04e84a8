/* mma.cuh: the tensor-core instructions that matmul uses: c [16 rows, 8 tokens] plus the product of
 * a [16, k] and b [k, 8]. By PTX rather than through wmma, because PTX says which lane holds what
 * (wmma does not): weights are packed so that a lane's 16-byte load is its share of the operand, and
 * results are scaled in registers.
 *
 * With row = lane / 4 and t = lane % 4, words of two 16-bit or four 8-bit values:
 *   a[0], a[1]  rows `row` and `row + 8`, word t of the first half of k
 *   a[2], a[3]  the same of the second half
 *   b[0], b[1]  token `row`, word t of the first and of the second half of k
 *   c[0], c[1]  row `row`, tokens 2t and 2t + 1; c[2], c[3]: row + 8
 * Which columns are called k = 0 .. 15 is the caller's choice, if it is the same in a and b.
 *
 * Without tensor cores (the CPU build of the tests) the same is done by shuffles, k in order. */
#ifndef FR_CUDA_MMA_CUH
#define FR_CUDA_MMA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>
#include <string.h>

enum { MMA_BF16, MMA_F16 };

static __device__ __forceinline__ float low_value(int type, uint32_t pair)
{
    if (type == MMA_BF16)
        return __uint_as_float(pair << 16);
    uint16_t bits = (uint16_t)pair;
    __half h;
    memcpy(&h, &bits, 2);
    return __half2float(h);
}

static __device__ __forceinline__ float high_value(int type, uint32_t pair)
{
    return type == MMA_BF16 ? __uint_as_float(pair & 0xffff0000u) : low_value(type, pair >> 16);
}

/* Two values rounded to nearest even, `low` in the low half. */
static __device__ __forceinline__ uint32_t round_pair(int type, float low, float high)
{
    uint32_t pair;
#ifdef __CUDA_ARCH__
    if (type == MMA_BF16)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
#else
    uint16_t halves[2];
    for (int i = 0; i < 2; i++) {
        __nv_bfloat16 b = __float2bfloat16_rn(i ? high : low);
        __half h = __float2half_rn(i ? high : low);
        memcpy(&halves[i], type == MMA_BF16 ? (const void *)&b : (const void *)&h, 2);
    }
    pair = halves[0] | (uint32_t)halves[1] << 16;
#endif
    return pair;
}

#ifdef __CUDA_ARCH__
#define MMA(instruction, sums, c, a, b)                                                     \
    asm volatile("mma.sync.aligned." instruction " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, " \
                 "{%0,%1,%2,%3};"                                                           \
                 : "+" sums(c[0]), "+" sums(c[1]), "+" sums(c[2]), "+" sums(c[3])           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#else
static __device__ __forceinline__ uint64_t from_lane(uint32_t low, uint32_t high, int lane)
{
    return __shfl_sync(0xffffffffu, (unsigned long long)high << 32 | low, lane);
}

/* step: sum + the products of one word of a with one of b. */
template <typename Sum, typename Step>
static __device__ void mma_by_shuffles(Sum c[4], const uint32_t a[4], const uint32_t b[2],
                                       Step step)
{
    const int lane = threadIdx.x % 32, row = lane / 4 * 4, token = lane % 4 * 8;
    for (int side = 0; side < 2; side++)
        for (int word = 0; word < 4; word++) {
            const uint64_t rows = from_lane(a[2 * side], a[2 * side + 1], row + word);
            const uint32_t b0 = __shfl_sync(0xffffffffu, b[side], token + word),
                           b1 = __shfl_sync(0xffffffffu, b[side], token + 4 + word);
            c[0] = step((uint32_t)rows, b0, c[0]);
            c[1] = step((uint32_t)rows, b1, c[1]);
            c[2] = step((uint32_t)(rows >> 32), b0, c[2]);
            c[3] = step((uint32_t)(rows >> 32), b1, c[3]);
        }
}

template <int TYPE> static __device__ float multiply_pairs(uint32_t a, uint32_t b, float sum)
{
    sum = fmaf(low_value(TYPE, a), low_value(TYPE, b), sum);
    return fmaf(high_value(TYPE, a), high_value(TYPE, b), sum);
}

static __device__ __forceinline__ int multiply_bytes(uint32_t a, uint32_t b, int sum)
{
    return __dp4a((int)a, (int)b, sum);
}
#endif

/* k = 16 columns of BF16 or F16. */
template <int TYPE>
static __device__ __forceinline__ void mma_16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef __CUDA_ARCH__
    if (TYPE == MMA_BF16)
        MMA("m16n8k16.row.col.f32.bf16.bf16.f32", "f", c, a, b);
    else
        MMA("m16n8k16.row.col.f32.f16.f16.f32", "f", c, a, b);
#else
    mma_by_shuffles(c, a, b, multiply_pairs<TYPE>);
#endif
}

/* k = 32 columns of signed bytes. */
static __device__ __forceinline__ void mma_32(int c[4], const uint32_t a[4], const uint32_t b[2])
{
#ifdef __CUDA_ARCH__
    MMA("m16n8k32.row.col.s32.s8.s8.s32", "r", c, a, b);
#else
    mma_by_shuffles(c, a, b, multiply_bytes);
#endif
}

#endif
