/* dot_madd.h: dot_vnni.h's operations for processors without VNNI, in two steps: bytes are
 * multiplied and added by pairs to 16 bits, those by pairs to 32. The first step saturates, so each
 * use says why its sums fit; the results are the same integers. Activations are -127 .. 127.
 * Included by a backend's .c file after its lanes_*.h. */
#ifndef FR_DOT_MADD_H
#define FR_DOT_MADD_H

#define DOT_OFFSET_8BIT 0 /* vi_dot() of 8-bit codes takes the offset of 128 off itself */

/* The high nibbles of bytes, times HIGH_NIBBLE_FACTOR: as they are, since sums of two products of
 * more than 7 bits would not fit 16 bits. */
#define HIGH_NIBBLE_FACTOR 1
LANES_INLINE vi vi_high_nibbles(vi a)
{
    return vi_and(vi_shr(a, 4), vi_set1_8(15));
}

/* Pairs of i16, added: i32. */
LANES_INLINE vi add_pairs_i16(vi pairs)
{
    return vi_madd_i16(pairs, vi_set1(0x10001));
}

/* sum + each lane's four unsigned codes . the four activations at a. Codes are below 128:
 * 2 * 127 * 127 < 2^15. */
LANES_INLINE vi vi_dot_add(vi sum, vi codes, const int8_t *a)
{
    return vi_add(sum, add_pairs_i16(vi_madd_u8_i8(codes, vi_repeat4(a))));
}

/* sum + each lane's pair of i16 . the pair of i16 in `pair`. */
LANES_INLINE vi vi_dot16_add(vi sum, vi pairs, int32_t pair)
{
    return vi_add(sum, vi_madd_i16(pairs, vi_set1(pair)));
}

/* For each lane, the dot product of its unsigned codes in q[0 .. groups-1] with the activations a[0
 * .. 4 groups-1]. Codes of 4 bits can be added up over 8 groups before they are widened
 * (8 * 2 * 15 * 127 < 2^15), of 5 bits over 4; 8-bit codes are made signed, |w| * (a with w's
 * sign): 2 * 128 * 127 < 2^15. */
LANES_INLINE vi vi_dot(const vi *q, const int8_t *a, int groups, int bits)
{
    int together = bits == 4 ? 8 : bits == 5 ? 4 : 1;
    vi sum = vi_set1(0), narrow = vi_set1(0);
    for (int g = 0; g < groups; g++) {
        vi x = vi_repeat4(a + 4 * g), w = q[g];
        if (bits == 8) {
            w = vi_xor(w, vi_set1_8(-128));
            x = vi_signed_as_i8(x, w);
            w = vi_abs_i8(w);
        }
        vi pairs = vi_madd_u8_i8(w, x);
        narrow = g % together == 0 ? pairs : vi_add_i16(narrow, pairs);
        if (g % together == together - 1 || g == groups - 1)
            sum = vi_add(sum, add_pairs_i16(narrow));
    }
    return sum;
}

#endif
