/* quantise.c: see quantise.h. (Source: ggml, quantize_row_q4_0_ref.) Written in loops that a
 * compiler turns into vectors: a draft's whole model goes through here when it is loaded. */
#include "quantise.h"

#include <string.h>

#include "blocks.h"

enum { BLOCK = 32 };
#define F16_MAX 65504.0f

/* The first of the values with the largest magnitude. Magnitudes are compared as integers, which
 * order as the floats do (and put NaN above all): that maximum needs no leave to reorder floats. */
static float extreme(const float x[BLOCK])
{
    int32_t magnitude[BLOCK], most = 0;
    memcpy(magnitude, x, sizeof magnitude);
    for (int i = 0; i < BLOCK; i++) {
        magnitude[i] &= INT32_MAX;
        most = magnitude[i] > most ? magnitude[i] : most;
    }
    int at = 0;
    while (magnitude[at] != most)
        at++;
    return x[at];
}

/* The extreme value is -8 scales: the code range, one wider below than above, is used in full. */
static void quantise_block(const float x[BLOCK], fr_block_q4_0 *out)
{
    float d = extreme(x) / -8, inverse = d != 0 ? 1 / d : 0;
    uint8_t codes[BLOCK];
    for (int i = 0; i < BLOCK; i++) {
        float code = x[i] * inverse + 8.5f; /* the cast cuts off: so this rounds */
        code = code > 0 ? code : 0;         /* NaN too: no cast of it is defined */
        code = code < 15 ? code : 15;
        codes[i] = (uint8_t)(int)code;
    }
    d = d > F16_MAX ? F16_MAX : d;
    d = d < -F16_MAX ? -F16_MAX : d;
    out->d = fr_f32_to_f16(d);
    for (int i = 0; i < BLOCK / 2; i++)
        out->qs[i] = (uint8_t)(codes[i] | codes[i + BLOCK / 2] << 4);
}

void fr_quantise_q4_0(const float *src, void *dst, int64_t n)
{
    uint8_t *at = dst; /* not aligned, perhaps */
    for (int64_t i = 0; i < n; i += BLOCK, at += sizeof(fr_block_q4_0)) {
        fr_block_q4_0 block;
        quantise_block(src + i, &block);
        memcpy(at, &block, sizeof block);
    }
}
