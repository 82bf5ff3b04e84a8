/* cuda_fp16.h: half precision: conversions (to nearest, ties to even), of pairs too, and access to the bits. */
#ifndef FAKE_CUDA_FP16_H
#define FAKE_CUDA_FP16_H

#include "cuda_runtime.h"

struct __half {
    unsigned short bits;
};
struct alignas(4) __half2 {
    __half x, y;
};

static inline unsigned short __half_as_ushort(__half h)
{
    return h.bits;
}

static inline __half __ushort_as_half(unsigned short bits)
{
    return {bits};
}

static inline float __half2float(__half h)
{
    /* Exponent and mantissa in place, too small by the difference of the biases; exact, and it makes
     * normal numbers of subnormal ones. */
    float f = __uint_as_float(unsigned(h.bits & 0x7fff) << 13) * 0x1p112f;
    unsigned u = __float_as_uint(f);
    if ((h.bits & 0x7c00) == 0x7c00)
        u |= 0x7f800000;
    return __uint_as_float(u | unsigned(h.bits & 0x8000) << 16);
}

static inline __half __float2half_rn(float f)
{
    unsigned u = __float_as_uint(f), sign = u >> 16 & 0x8000, bits;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return {0x7fff};
    if (u >= 0x47800000) /* 65536 */
        bits = 0x7c00;
    else if (u < 0x38800000) /* subnormal: adding 0.5 rounds at its last bit */
        bits = __float_as_uint(__uint_as_float(u) + 0.5f) - __float_as_uint(0.5f);
    else
        bits = (u - (112u << 23) + 0xfff + (u >> 13 & 1)) >> 13;
    return {static_cast<unsigned short>(sign | bits)};
}

static inline __half2 __floats2half2_rn(float x, float y)
{
    return {__float2half_rn(x), __float2half_rn(y)};
}

static inline float __low2float(__half2 h)
{
    return __half2float(h.x);
}

static inline float __high2float(__half2 h)
{
    return __half2float(h.y);
}

#endif
