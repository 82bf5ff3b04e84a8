/* finite.c: see finite.h. A value is not finite when all bits of its exponent are set. Quantised
 * blocks have f16 scales, everything else in them is an integer: of these only the scales are read,
 * which costs next to nothing beside repacking the block. Plain types are looked through in stretches
 * without a branch, which compilers turn into vector code. */
#include "finite.h"

#include <stddef.h>
#include <string.h>

#include "blocks.h"

enum { STRETCH = 512, F16_EXPONENT = 0x7c00, BF16_EXPONENT = 0x7f80 };
#define F32_EXPONENT 0x7f800000u

/* One of n 16-bit values has all bits of `exponent` set. */
static int any_16(const uint8_t *src, int64_t n, unsigned exponent)
{
    unsigned found = 0;
    for (int64_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, src + 2 * i, sizeof v);
        found |= (v & exponent) == exponent;
    }
    return found != 0;
}

static int any_32(const uint8_t *src, int64_t n)
{
    unsigned found = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, src + 4 * i, sizeof v);
        found |= (v & F32_EXPONENT) == F32_EXPONENT;
    }
    return found != 0;
}

static int any_plain(fr_dtype t, const uint8_t *src, int64_t n)
{
    if (t == FR_F32)
        return any_32(src, n);
    return any_16(src, n, t == FR_F16 ? F16_EXPONENT : BF16_EXPONENT);
}

static int64_t first_plain(fr_dtype t, const uint8_t *src, int64_t n, int value_bytes)
{
    for (int64_t at = 0; at < n; at += STRETCH) {
        int64_t len = n - at < STRETCH ? n - at : STRETCH;
        if (!any_plain(t, src + at * value_bytes, len))
            continue;
        while (!any_plain(t, src + at * value_bytes, 1))
            at++;
        return at;
    }
    return -1;
}

/* A block's scales are f16, one or two in a row: their number, and where they begin. */
static int scales_of(fr_dtype t, int *offset_out)
{
    *offset_out = t == FR_Q6_K ? (int)offsetof(fr_block_q6_k, d) : 0;
    return t == FR_Q4_1 || t == FR_Q5_1 || t == FR_Q4_K || t == FR_Q5_K ? 2 : 1;
}

int64_t fr_first_not_finite(fr_dtype t, const void *src, int64_t n)
{
    const fr_dtype_info *info = fr_dtype_find(t);
    const uint8_t *block = src;
    if (info->block_values == 1)
        return first_plain(t, src, n, info->block_bytes);
    int offset = 0, n_scales = scales_of(t, &offset);
    for (int64_t at = 0; at < n; at += info->block_values, block += info->block_bytes) {
        if (any_16(block + offset, n_scales, F16_EXPONENT))
            return at;
    }
    return -1;
}
