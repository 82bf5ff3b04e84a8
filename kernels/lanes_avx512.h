/* lanes_avx512.h: the vector operations that the fast_*.h templates are written in, for AVX-512
 * F/BW/VL: 16 lanes. lanes_avx2.h has the same names for 8. Included by the backends of that width.
 * What they dot-multiply with is in dot_*.h.
 *
 * vf: LANES floats. vi: LANES groups of four bytes, or LANES int32. Tails: the _n forms touch only
 * the first n lanes. */
#ifndef FR_LANES_AVX512_H
#define FR_LANES_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define LANES_INLINE static inline __attribute__((always_inline))
#if !defined(FR_UNROLL) /* debug builds: a sanitizer in every unrolled line takes minutes to compile */
#define LANES_UNROLL
#elif defined(__clang__)
#define LANES_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LANES_UNROLL _Pragma("GCC unroll 8")
#endif
#define DOT_TOKENS 8 /* tokens whose sums stay in registers beside an unpacked block */

typedef __m512 vf;
typedef __m512i vi;
typedef uint32_t vi_unsigned __attribute__((vector_size(64)));

LANES_INLINE vf vf_set1(float x)
{
    return _mm512_set1_ps(x);
}

LANES_INLINE vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

LANES_INLINE __mmask16 first_lanes(int64_t n)
{
    return n >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << n) - 1);
}

LANES_INLINE vf vf_load_n(const float *p, int64_t n, float fill)
{
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), first_lanes(n), p);
}

LANES_INLINE void vf_store(float *p, vf x)
{
    _mm512_storeu_ps(p, x);
}

LANES_INLINE void vf_store_n(float *p, int64_t n, vf x)
{
    _mm512_mask_storeu_ps(p, first_lanes(n), x);
}

LANES_INLINE vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}

LANES_INLINE vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}

LANES_INLINE vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}

LANES_INLINE vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}

LANES_INLINE vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* The second operand where either is NaN, in both. */
LANES_INLINE vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}

LANES_INLINE vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}

LANES_INLINE vf vf_abs(vf a)
{
    return _mm512_abs_ps(a);
}

/* Bit i: a[i] > b[i]; false for NaN. */
LANES_INLINE uint32_t vf_gt(vf a, vf b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}

/* Sums and maxima in a fixed tree order. */
LANES_INLINE float vf_sum(vf a)
{
    return _mm512_reduce_add_ps(a);
}

LANES_INLINE float vf_highest(vf a)
{
    return _mm512_reduce_max_ps(a);
}

/* Two vectors' pairs of neighbours added: a step of vf_sum_each(). */
LANES_INLINE vf add_pairs(vf a, vf b)
{
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

LANES_INLINE vf add_quads(vf a, vf b)
{
    __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(c, d)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
}

LANES_INLINE vf add_quarters(vf a, vf b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

/* Lane i: the sum of v[i]'s lanes. */
LANES_INLINE vf vf_sum_each(const vf v[16])
{
    vf quads[4];
    for (int i = 0; i < 4; i++)
        quads[i] =
            add_quads(add_pairs(v[4 * i], v[4 * i + 1]), add_pairs(v[4 * i + 2], v[4 * i + 3]));
    return add_quarters(add_quarters(quads[0], quads[1]), add_quarters(quads[2], quads[3]));
}

LANES_INLINE vf vf_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

LANES_INLINE vf vf_load_f16_n(const void *p, int64_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}

LANES_INLINE void vf_store_f16_n(uint16_t *p, int64_t n, vf x)
{
    _mm256_mask_storeu_epi16(p, first_lanes(n), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

LANES_INLINE vf vf_load_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}

LANES_INLINE vf vf_load_u8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p)));
}

LANES_INLINE vf vf_load_i8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}

/* Rounds to nearest even and narrows to i8. */
LANES_INLINE void vf_store_i8(int8_t *p, vf x)
{
    _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}

LANES_INLINE vf vf_from_i32(vi a)
{
    return _mm512_cvtepi32_ps(a);
}

LANES_INLINE vi vf_bits(vf a)
{
    return _mm512_castps_si512(a);
}

LANES_INLINE vf vf_from_bits(vi a)
{
    return _mm512_castsi512_ps(a);
}

LANES_INLINE vi vi_set1(int32_t x)
{
    return _mm512_set1_epi32(x);
}

LANES_INLINE vi vi_set1_8(int8_t x)
{
    return _mm512_set1_epi8(x);
}

/* start, start + 1, ... */
LANES_INLINE vi vi_count_from(int32_t start)
{
    return _mm512_add_epi32(_mm512_set1_epi32(start), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8,
                                                                        9, 10, 11, 12, 13, 14, 15));
}

LANES_INLINE vi vi_load(const void *p)
{
    return _mm512_loadu_si512(p);
}

LANES_INLINE vi vi_add(vi a, vi b)
{
    return _mm512_add_epi32(a, b);
}

LANES_INLINE vi vi_sub(vi a, vi b)
{
    return _mm512_sub_epi32(a, b);
}

LANES_INLINE vi vi_and(vi a, vi b)
{
    return _mm512_and_si512(a, b);
}

LANES_INLINE vi vi_or(vi a, vi b)
{
    return _mm512_or_si512(a, b);
}

LANES_INLINE vi vi_xor(vi a, vi b)
{
    return _mm512_xor_si512(a, b);
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
    __m512i f = _mm512_set1_epi32((int)factor);
    __m512i even = _mm512_mul_epu32(a, f), odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), f);
    *low = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
    *high = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
}

/* a | (b & mask) */
LANES_INLINE vi vi_or_and(vi a, vi b, vi mask)
{
    return _mm512_ternarylogic_epi32(a, b, mask, 0xf8);
}

/* [LANES][2] bytes -> pairs of i16, one pair a lane. */
LANES_INLINE vi vi_load_u8_pairs(const void *p)
{
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(p));
}

LANES_INLINE vi vi_load_i8_pairs(const void *p)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256(p));
}

/* The first and the second of each pair of i16, as i32. */
LANES_INLINE vi vi_low_half(vi pairs)
{
    return _mm512_srai_epi32(_mm512_slli_epi32(pairs, 16), 16);
}

LANES_INLINE vi vi_high_half(vi pairs)
{
    return _mm512_srai_epi32(pairs, 16);
}

/* The four bytes at p, in every lane. */
LANES_INLINE vi vi_repeat4(const int8_t *p)
{
    int32_t four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}

LANES_INLINE vi vi_abs_i8(vi a)
{
    return _mm512_abs_epi8(a);
}

/* The bytes of a, negated where b's are negative; anything where b's are zero. */
LANES_INLINE vi vi_signed_as_i8(vi a, vi b)
{
    return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(b), _mm512_setzero_si512(), a);
}

LANES_INLINE vi vi_add_i16(vi a, vi b)
{
    return _mm512_add_epi16(a, b);
}

/* Products of unsigned and signed bytes, added by pairs of neighbours and held to 16 bits. */
LANES_INLINE vi vi_madd_u8_i8(vi a, vi b)
{
    return _mm512_maddubs_epi16(a, b);
}

/* Products of i16, added by pairs of neighbours: i32. */
LANES_INLINE vi vi_madd_i16(vi a, vi b)
{
    return _mm512_madd_epi16(a, b);
}

#endif
