/* dot_vnni.h: integer dot products by VNNI, which adds four products of unsigned and signed bytes
 * to an int32 without ever saturating. Included by a backend's .c file after its lanes_*.h and
 * after it has said which intrinsics these are:
 *   DPBUSD(sum, codes, a)  sum + each lane's four unsigned codes . four signed bytes
 *   DPWSSD(sum, a, b)      sum + each lane's pair of i16 . pair of i16
 * dot_madd.h has the same operations, with the same results, for processors without. */
#ifndef FR_DOT_VNNI_H
#define FR_DOT_VNNI_H

/* vi_dot() of 8-bit codes is unsigned: the offset is still to be taken off. */
#define DOT_OFFSET_8BIT 128

/* The high nibbles of bytes, times HIGH_NIBBLE_FACTOR. */
#define HIGH_NIBBLE_FACTOR 16
LANES_INLINE vi vi_high_nibbles(vi a)
{
    return vi_and(a, vi_set1_8((int8_t)0xf0));
}

/* sum + each lane's four unsigned codes . the four activations at a. */
LANES_INLINE vi vi_dot_add(vi sum, vi codes, const int8_t *a)
{
    return DPBUSD(sum, codes, vi_repeat4(a));
}

/* sum + each lane's pair of i16 . the pair of i16 in `pair`. */
LANES_INLINE vi vi_dot16_add(vi sum, vi pairs, int32_t pair)
{
    return DPWSSD(sum, pairs, vi_set1(pair));
}

/* For each lane, the dot product of its unsigned codes in q[0 .. groups-1] with the activations a[0
 * .. 4 groups-1]. */
LANES_INLINE vi vi_dot(const vi *q, const int8_t *a, int groups, int bits)
{
    (void)bits;
    vi sum = vi_set1(0);
    for (int g = 0; g < groups; g++)
        sum = vi_dot_add(sum, q[g], a + 4 * g);
    return sum;
}

#endif
