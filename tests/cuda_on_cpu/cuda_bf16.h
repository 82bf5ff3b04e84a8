/* cuda_bf16.h: bfloat16: conversions (to nearest, ties to even) and access to the bits. */
#ifndef FAKE_CUDA_BF16_H
#define FAKE_CUDA_BF16_H

#include "cuda_runtime.h"

struct __nv_bfloat16 {
    unsigned short bits;
};

static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b)
{
    return b.bits;
}

static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    return {bits};
}

static inline float __bfloat162float(__nv_bfloat16 b)
{
    return __uint_as_float(unsigned(b.bits) << 16);
}

static inline __nv_bfloat16 __float2bfloat16_rn(float f)
{
    const unsigned u = __float_as_uint(f);
    if ((u & 0x7fffffff) > 0x7f800000)
        return {0x7fff};
    return {static_cast<unsigned short>((u + 0x7fff + (u >> 16 & 1)) >> 16)};
}

#endif
