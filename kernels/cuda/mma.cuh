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
 * tests/cuda_on_cpu has its own version of FR_MMA: plain loops, k in order. */
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

#ifndef FR_CUDA_ON_CPU
/* sums: the constraint of a sum's register, "f" or "r". */
#define FR_MMA(instruction, sums, c, a, b)                                                  \
    asm volatile("mma.sync.aligned." instruction " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, " \
                 "{%0,%1,%2,%3};"                                                           \
                 : "+" sums(c[0]), "+" sums(c[1]), "+" sums(c[2]), "+" sums(c[3])           \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#endif

/* k = 16 columns of BF16 or F16. */
template <int TYPE>
static __device__ __forceinline__ void mma_16(float c[4], const uint32_t a[4], const uint32_t b[2])
{
    if (TYPE == MMA_BF16)
        FR_MMA("m16n8k16.row.col.f32.bf16.bf16.f32", "f", c, a, b);
    else
        FR_MMA("m16n8k16.row.col.f32.f16.f16.f32", "f", c, a, b);
}

/* k = 32 columns of signed bytes. */
static __device__ __forceinline__ void mma_32(int c[4], const uint32_t a[4], const uint32_t b[2])
{
    FR_MMA("m16n8k32.row.col.s32.s8.s8.s32", "r", c, a, b);
}

#endif
