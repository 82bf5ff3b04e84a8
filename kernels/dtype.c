/* dtype.c: the one plain definition of every tensor type (dtype.h, blocks.h). Nothing here is
 * tuned: the fast backends repack a matrix once and never come back. Blocks in a mapping have
 * 2-byte alignment at best, so they are copied out before they are read. */
#include "dtype.h"

#include <stdbool.h>
#include <string.h>

#include "blocks.h"

#define X(name, number, values, bytes, text) [number] = {text, values, bytes},
static const fr_dtype_info infos[] = {FR_DTYPE_MAP(X)};
#undef X

const fr_dtype_info *fr_dtype_find(uint32_t number)
{
    if (number >= sizeof infos / sizeof infos[0] || !infos[number].name)
        return NULL;
    return &infos[number];
}

size_t fr_dtype_row_bytes(fr_dtype t, int64_t cols)
{
    return (size_t)(cols / infos[t].block_values) * (size_t)infos[t].block_bytes;
}

float fr_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
    uint32_t bits;
    float out;
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24, exact in f32 */
        out = (float)mantissa * 0x1p-24f;
        return sign ? -out : out;
    }
    if (exponent == 31)
        bits = sign | 0x7f800000u | mantissa << 13;
    else
        bits = sign | (exponent + 112) << 23 | mantissa << 13;
    memcpy(&out, &bits, sizeof out);
    return out;
}

uint16_t fr_f32_to_f16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) { /* NaN keeps its upper payload bits, and never becomes infinity */
        uint16_t payload = (uint16_t)(bits >> 13 & 1023);
        return (uint16_t)(sign | 0x7c00 | (payload ? payload : 512));
    }
    if (bits >= 0x477ff000u) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (bits < 0x38800000u) { /* below 2^-14: units of 2^-24; the addition rounds to nearest even */
        float magnitude;
        memcpy(&magnitude, &bits, sizeof magnitude);
        magnitude += 0.5f; /* the last place of 0.5f is 2^-24 */
        memcpy(&bits, &magnitude, sizeof bits);
        return (uint16_t)(sign | (uint16_t)(bits - 0x3f000000u));
    }
    uint32_t odd = bits >> 13 & 1;
    bits += 0xfffu + odd;
    return (uint16_t)(sign | (uint16_t)((bits >> 13) - (112u << 10)));
}

void fr_block_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8])
{
    for (int j = 0; j < 4; j++) {
        scales[j] = packed[j] & 63;
        mins[j] = packed[j + 4] & 63;
        scales[j + 4] = (uint8_t)((packed[j + 8] & 15) | packed[j] >> 6 << 4);
        mins[j + 4] = (uint8_t)(packed[j + 8] >> 4 | packed[j + 4] >> 6 << 4);
    }
}

/* 32 values of 16 bytes, with the fifth bits of `high` (0 for 4-bit types). */
static void codes_32(const uint8_t qs[16], const uint8_t *qh, uint8_t codes[32])
{
    uint32_t high = 0;
    if (qh)
        high =
            (uint32_t)qh[0] | (uint32_t)qh[1] << 8 | (uint32_t)qh[2] << 16 | (uint32_t)qh[3] << 24;
    for (int i = 0; i < 16; i++) {
        codes[i] = (uint8_t)((qs[i] & 15) | (high >> i & 1) << 4);
        codes[i + 16] = (uint8_t)(qs[i] >> 4 | (high >> (i + 16) & 1) << 4);
    }
}

/* Q4_K and Q5_K: groups 2j and 2j + 1 share 32 bytes. */
static void codes_k(const uint8_t qs[128], const uint8_t *qh, uint8_t codes[256])
{
    for (int g = 0; g < 8; g++) {
        const uint8_t *q = qs + g / 2 * 32;
        int low = g % 2 * 4;
        if (qh)
            for (int i = 0; i < 32; i++)
                codes[g * 32 + i] = (uint8_t)((q[i] >> low & 15) | (qh[i] >> g & 1) << 4);
        else
            for (int i = 0; i < 32; i++)
                codes[g * 32 + i] = (uint8_t)(q[i] >> low & 15);
    }
}

static void codes_q6_k(const fr_block_q6_k *b, uint8_t codes[256])
{
    for (int run = 0; run < 8; run++) { /* of 32 values: two bits of qh go with one nibble of ql */
        const uint8_t *ql = b->ql + run / 4 * 64 + run % 2 * 32, *qh = b->qh + run / 4 * 32;
        int low = run / 2 % 2 * 4, high = run % 4 * 2;
        for (int i = 0; i < 32; i++)
            codes[run * 32 + i] = (uint8_t)((ql[i] >> low & 15) | (qh[i] >> high & 3) << 4);
    }
}

void fr_block_codes(fr_dtype t, const void *block, uint8_t codes[FR_BLOCK_MAX])
{
    const uint8_t *raw = block;
    switch (t) {
    case FR_Q4_0:
        codes_32(raw + offsetof(fr_block_q4_0, qs), NULL, codes);
        break;
    case FR_Q4_1:
        codes_32(raw + offsetof(fr_block_q4_1, qs), NULL, codes);
        break;
    case FR_Q5_0:
        codes_32(raw + offsetof(fr_block_q5_0, qs), raw + offsetof(fr_block_q5_0, qh), codes);
        break;
    case FR_Q5_1:
        codes_32(raw + offsetof(fr_block_q5_1, qs), raw + offsetof(fr_block_q5_1, qh), codes);
        break;
    case FR_Q8_0:
        for (int i = 0; i < 32; i++)
            codes[i] = raw[offsetof(fr_block_q8_0, qs) + i] ^ 0x80; /* two's complement + 128 */
        break;
    case FR_Q4_K:
        codes_k(raw + offsetof(fr_block_q4_k, qs), NULL, codes);
        break;
    case FR_Q5_K:
        codes_k(raw + offsetof(fr_block_q5_k, qs), raw + offsetof(fr_block_q5_k, qh), codes);
        break;
    case FR_Q6_K: {
        fr_block_q6_k b;
        memcpy(&b, raw, sizeof b);
        codes_q6_k(&b, codes);
        break;
    }
    case FR_F32:
    case FR_F16:
    case FR_BF16:
        break; /* not quantised */
    }
}

/* 32-value types: f16 scale, then the f16 shift where there is one. */
static void widen_32(fr_dtype t, const uint8_t *block, float *dst)
{
    uint16_t d, m = 0;
    memcpy(&d, block, 2);
    bool has_min = t == FR_Q4_1 || t == FR_Q5_1;
    if (has_min)
        memcpy(&m, block + 2, 2);
    int offset = t == FR_Q4_0 ? 8 : t == FR_Q5_0 ? 16 : t == FR_Q8_0 ? 128 : 0;
    float scale = fr_f16_to_f32(d), shift = fr_f16_to_f32(m);
    uint8_t codes[FR_BLOCK_MAX];
    fr_block_codes(t, block, codes);
    for (int i = 0; i < 32; i++) {
        float value = scale * (float)((int)codes[i] - offset);
        dst[i] = has_min ? value + shift : value;
    }
}

static void widen_k(fr_dtype t, const uint8_t *block, float *dst)
{
    fr_block_q4_k head; /* Q5_K begins with the same fields */
    memcpy(&head, block, offsetof(fr_block_q4_k, qs));
    uint8_t codes[FR_BLOCK_MAX], scales[8], mins[8];
    fr_block_codes(t, block, codes);
    fr_block_k_scales(head.scales, scales, mins);
    for (int g = 0; g < 8; g++) {
        float scale = fr_f16_to_f32(head.d) * scales[g], min = fr_f16_to_f32(head.dmin) * mins[g];
        for (int i = g * 32; i < g * 32 + 32; i++)
            dst[i] = scale * codes[i] - min;
    }
}

static void widen_q6_k(const uint8_t *block, float *dst)
{
    fr_block_q6_k b;
    memcpy(&b, block, sizeof b);
    uint8_t codes[FR_BLOCK_MAX];
    codes_q6_k(&b, codes);
    for (int i = 0; i < 256; i++)
        dst[i] = fr_f16_to_f32(b.d) * b.scales[i / 16] * (float)((int)codes[i] - 32);
}

static void widen_plain(fr_dtype t, const uint8_t *src, float *dst, int64_t n)
{
    for (int64_t i = 0; t == FR_F16 && i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, 2);
        dst[i] = fr_f16_to_f32(h);
    }
    for (int64_t i = 0; t == FR_BF16 && i < n; i++) {
        uint16_t h;
        memcpy(&h, src + 2 * i, 2);
        uint32_t bits = (uint32_t)h << 16;
        memcpy(&dst[i], &bits, 4);
    }
}

void fr_dtype_to_f32(fr_dtype t, const void *src, float *dst, int64_t n)
{
    if (t == FR_F32) {
        memcpy(dst, src, (size_t)n * sizeof *dst);
        return;
    }
    const fr_dtype_info *info = &infos[t];
    if (info->block_values == 1) {
        widen_plain(t, src, dst, n);
        return;
    }
    const uint8_t *block = src;
    for (int64_t at = 0; at < n; at += info->block_values, block += info->block_bytes) {
        if (t == FR_Q6_K)
            widen_q6_k(block, dst + at);
        else if (info->block_values == 256)
            widen_k(t, block, dst + at);
        else
            widen_32(t, block, dst + at);
    }
}
