/* lanes_avx2.h: lanes_avx512.h's operations for AVX2, FMA and F16C: 8 lanes. Included by the
 * backends of that width. */
#ifndef FR_LANES_AVX2_H
#define FR_LANES_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LANES 8
#define LANES_INLINE static inline __attribute__((always_inline))
#if !defined(FR_UNROLL) /* debug builds: a sanitizer in every unrolled line takes minutes to compile */
#define LANES_UNROLL
#elif defined(__clang__)
#define LANES_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LANES_UNROLL _Pragma("GCC unroll 8")
#endif
#define DOT_TOKENS 4 /* sixteen registers: eight of weights, four sums */

typedef __m256 vf;
typedef __m256i vi;
typedef uint32_t vi_unsigned __attribute__((vector_size(32)));

LANES_INLINE vf vf_set1(float x)
{
    return _mm256_set1_ps(x);
}

LANES_INLINE vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

/* All ones in the first n lanes. */
LANES_INLINE __m256i first_lanes(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n > 8 ? 8 : (int)n),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LANES_INLINE vf vf_load_n(const float *p, int64_t n, float fill)
{
    __m256i keep = first_lanes(n);
    return _mm256_blendv_ps(_mm256_set1_ps(fill), _mm256_maskload_ps(p, keep),
                            _mm256_castsi256_ps(keep));
}

LANES_INLINE void vf_store(float *p, vf x)
{
    _mm256_storeu_ps(p, x);
}

LANES_INLINE void vf_store_n(float *p, int64_t n, vf x)
{
    _mm256_maskstore_ps(p, first_lanes(n), x);
}

LANES_INLINE vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}

LANES_INLINE vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}

LANES_INLINE vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}

LANES_INLINE vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}

LANES_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/* The second operand where either is NaN, in both. */
LANES_INLINE vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}

LANES_INLINE vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}

LANES_INLINE vf vf_abs(vf a)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}

/* Bit i: a[i] > b[i]; false for NaN. */
LANES_INLINE uint32_t vf_gt(vf a, vf b)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ));
}

/* Sums and maxima in a fixed tree order. */
LANES_INLINE float vf_sum(vf a)
{
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

LANES_INLINE float vf_highest(vf a)
{
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

/* Lane i: the sum of v[i]'s lanes. */
LANES_INLINE vf vf_sum_each(const vf v[8])
{
    __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
    return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20),
                         _mm256_permute2f128_ps(low, high, 0x31));
}

LANES_INLINE vf vf_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

LANES_INLINE vf vf_load_f16_n(const void *p, int64_t n)
{
    uint16_t part[8] = {0};
    memcpy(part, p, (size_t)(n < 8 ? n : 8) * sizeof part[0]);
    return vf_load_f16(part);
}

LANES_INLINE void vf_store_f16_n(uint16_t *p, int64_t n, vf x)
{
    uint16_t part[8];
    _mm_storeu_si128((__m128i *)part, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    memcpy(p, part, (size_t)(n < 8 ? n : 8) * sizeof part[0]);
}

LANES_INLINE vf vf_load_bf16(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}

LANES_INLINE vf vf_load_u8(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p)));
}

LANES_INLINE vf vf_load_i8(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p)));
}

/* Rounds to nearest even and narrows to i8. */
LANES_INLINE void vf_store_i8(int8_t *p, vf x)
{
    __m256i wide = _mm256_cvtps_epi32(x);
    __m128i half = _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(half, half));
}

LANES_INLINE vf vf_from_i32(vi a)
{
    return _mm256_cvtepi32_ps(a);
}

LANES_INLINE vi vf_bits(vf a)
{
    return _mm256_castps_si256(a);
}

LANES_INLINE vf vf_from_bits(vi a)
{
    return _mm256_castsi256_ps(a);
}

LANES_INLINE vi vi_set1(int32_t x)
{
    return _mm256_set1_epi32(x);
}

LANES_INLINE vi vi_set1_8(int8_t x)
{
    return _mm256_set1_epi8(x);
}

/* start, start + 1, ... */
LANES_INLINE vi vi_count_from(int32_t start)
{
    return _mm256_add_epi32(_mm256_set1_epi32(start), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

LANES_INLINE vi vi_load(const void *p)
{
    return _mm256_loadu_si256(p);
}

LANES_INLINE vi vi_add(vi a, vi b)
{
    return _mm256_add_epi32(a, b);
}

LANES_INLINE vi vi_sub(vi a, vi b)
{
    return _mm256_sub_epi32(a, b);
}

LANES_INLINE vi vi_and(vi a, vi b)
{
    return _mm256_and_si256(a, b);
}

LANES_INLINE vi vi_or(vi a, vi b)
{
    return _mm256_or_si256(a, b);
}

LANES_INLINE vi vi_xor(vi a, vi b)
{
    return _mm256_xor_si256(a, b);
}

/* Shifts of 32-bit lanes; on the compiler's own vectors, so that a constant count needs no
 * intrinsic's immediate. */
LANES_INLINE vi vi_shl(vi a, int n)
{
    return (vi)((vi_unsigned)a << n);
}

LANES_INLINE vi vi_shr(vi a, int n)
{
    return (vi)((vi_unsigned)a >> n);
}

/* 32 x 32 -> 64 unsigned products with one factor, halves apart. */
LANES_INLINE void vi_mul_wide(vi a, uint32_t factor, vi *low, vi *high)
{
    __m256i f = _mm256_set1_epi32((int)factor);
    __m256i even = _mm256_mul_epu32(a, f), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), f);
    *low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}

/* a | (b & mask) */
LANES_INLINE vi vi_or_and(vi a, vi b, vi mask)
{
    return _mm256_or_si256(a, _mm256_and_si256(b, mask));
}

/* [LANES][2] bytes -> pairs of i16, one pair a lane. */
LANES_INLINE vi vi_load_u8_pairs(const void *p)
{
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(p));
}

LANES_INLINE vi vi_load_i8_pairs(const void *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(p));
}

/* The first and the second of each pair of i16, as i32. */
LANES_INLINE vi vi_low_half(vi pairs)
{
    return _mm256_srai_epi32(_mm256_slli_epi32(pairs, 16), 16);
}

LANES_INLINE vi vi_high_half(vi pairs)
{
    return _mm256_srai_epi32(pairs, 16);
}

/* The four bytes at p, in every lane. */
LANES_INLINE vi vi_repeat4(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}

LANES_INLINE vi vi_abs_i8(vi a)
{
    return _mm256_abs_epi8(a);
}

/* The bytes of a, negated where b's are negative; anything where b's are zero. */
LANES_INLINE vi vi_signed_as_i8(vi a, vi b)
{
    return _mm256_sign_epi8(a, b);
}

LANES_INLINE vi vi_add_i16(vi a, vi b)
{
    return _mm256_add_epi16(a, b);
}

/* Products of unsigned and signed bytes, added by pairs of neighbours and held to 16 bits. */
LANES_INLINE vi vi_madd_u8_i8(vi a, vi b)
{
    return _mm256_maddubs_epi16(a, b);
}

/* Products of i16, added by pairs of neighbours: i32. */
LANES_INLINE vi vi_madd_i16(vi a, vi b)
{
    return _mm256_madd_epi16(a, b);
}

#endif
