/* finite.c: see finite.h. A value is not finite when all bits of its exponent are set. Quantised
 * blocks have f16 scales, everything else in them is an integer: of these only the scales are read,
 * which costs little beside repacking the block. All is looked through in stretches without a
 * branch, which compilers turn into vector code for the plain types. */
#include "finite.h"

#include <stddef.h>
#include <string.h>

#include "blocks.h"

enum { STRETCH = 512, F16_EXPONENT = 0x7c00, BF16_EXPONENT = 0x7f80 };
#define F32_EXPONENT 0x7f800000u

static uint16_t load_16(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

static uint32_t load_32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, sizeof v);
    return v;
}

/* One of n 16-bit values has all bits of `exponent` set. */
static int any_16(const uint8_t *src, int64_t n, unsigned exponent)
{
    unsigned found = 0;
    for (int64_t i = 0; i < n; i++)
        found |= (load_16(src + 2 * i) & exponent) == exponent;
    return found != 0;
}

static int any_32(const uint8_t *src, int64_t n)
{
    unsigned found = 0;
    for (int64_t i = 0; i < n; i++)
        found |= (load_32(src + 4 * i) & F32_EXPONENT) == F32_EXPONENT;
    return found != 0;
}

/* One of n blocks has a scale that is not finite. Two scales lie side by side and are looked at as
 * one number: adding one to an exponent of ones carries into the bit above it, and no further. */
static int any_scale(fr_dtype t, const uint8_t *block, int64_t n)
{
    size_t size = (size_t)fr_dtype_find(t)->block_bytes;
    int two = t == FR_Q4_1 || t == FR_Q5_1 || t == FR_Q4_K || t == FR_Q5_K;
    const uint32_t exponents = two ? 0x7c007c00u : 0x7c00u, ones = two ? 0x04000400u : 0x0400u;
    const uint8_t *at = block + (t == FR_Q6_K ? offsetof(fr_block_q6_k, d) : 0);
    uint32_t found = 0;
    if (two) {
        for (int64_t i = 0; i < n; i++, at += size)
            found |= (load_32(at) & exponents) + ones;
    } else {
        for (int64_t i = 0; i < n; i++, at += size)
            found |= (load_16(at) & exponents) + ones;
    }
    return (found & 0x80008000u) != 0;
}

static int any(fr_dtype t, const uint8_t *src, int64_t n_blocks)
{
    switch (t) {
    case FR_F32:
        return any_32(src, n_blocks);
    case FR_F16:
        return any_16(src, n_blocks, F16_EXPONENT);
    case FR_BF16:
        return any_16(src, n_blocks, BF16_EXPONENT);
    default:
        return any_scale(t, src, n_blocks);
    }
}

int64_t fr_first_not_finite(fr_dtype t, const void *src, int64_t n)
{
    const fr_dtype_info *info = fr_dtype_find(t);
    const uint8_t *data = src;
    int64_t n_blocks = n / info->block_values;
    for (int64_t at = 0; at < n_blocks; at += STRETCH) {
        int64_t len = n_blocks - at < STRETCH ? n_blocks - at : STRETCH;
        if (!any(t, data + at * info->block_bytes, len))
            continue;
        while (!any(t, data + at * info->block_bytes, 1))
            at++;
        return at * info->block_values;
    }
    return -1;
}
