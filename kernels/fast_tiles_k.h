/* fast_tiles_k.h: one tile of a Q4_K, Q5_K or Q6_K matrix times up to DOT_TOKENS tokens; a template
 * for one instruction set, included by fast_matmul.h.
 *
 * Activations have one scale for 256 columns, so that a super-block's sum is scaled once: within it,
 * each block of 32 (Q6_K: 16) columns adds dot product * integer scale, and what the offsets
 * (Q4_K, Q5_K: mins; Q6_K: 32 a code) take off is a dot product of integers too: scales by sums of
 * activations. Vectors of codes are the outer loop and tokens the inner one: each vector is unpacked
 * once and the tokens' sums do not wait for each other.
 *
 * The limit on a core that takes one 512-bit multiply a cycle (Zen 4): 64 dot products and 16 to 28
 * other multiplies a super-block and token. */
#ifndef FR_FAST_TILES_K_H
#define FR_FAST_TILES_K_H

#include "cpu_tiles.h"

enum { SUPER = FR_TILE_SUPER, VECTOR = LANES * 4 };

/* Where the codes of a block of 32 columns are: nibbles in 8 vectors, the low or the high ones, and
 * of Q5_K and Q6_K the bits above them in 8 more, at bit `at` of each byte. */
typedef struct code_block {
    const uint8_t *nibbles, *high;
    int upper, at;
} code_block;

LANES_INLINE code_block find_block(fr_dtype t, const uint8_t *words, int b)
{
    if (t == FR_Q6_K) {
        const uint8_t *half = words + b / 4 * 16 * VECTOR,
                      *high = words + (32 + b / 4 * 8) * VECTOR;
        return (code_block){half + b % 2 * 8 * VECTOR, high, b % 4 / 2, b % 4 * 2};
    }
    const uint8_t *nibbles = words + (t == FR_Q5_K ? 8 + b / 2 * 8 : b / 2 * 8) * VECTOR;
    return (code_block){nibbles, words, b % 2, b};
}

LANES_INLINE size_t super_words(fr_dtype t)
{
    return (size_t)(t == FR_Q4_K ? 32 : t == FR_Q5_K ? 40 : 48) * VECTOR;
}

LANES_INLINE size_t super_scales(fr_dtype t)
{
    return (size_t)(t == FR_Q6_K ? 18 : 20) * LANES;
}

/* The share of step i of 64 in `bytes` that are asked for, line by line in their order. */
LANES_INLINE void prefetch_share(const uint8_t *p, size_t bytes, int i)
{
    size_t lines = (bytes + 63) / 64, line = (size_t)i * lines / 64;
    if (line < ((size_t)i + 1) * lines / 64)
        __asm__ volatile("prefetcht1 %0" : : "m"(p[line * 64]));
}

/* While group i of a super-block is worked on, memory is read for one AHEAD bytes on. One line at a
 * time (volatile: or the compiler gathers them), since a burst would fill the core's queue of misses;
 * in order, since that is what the hardware's prefetchers follow. */
LANES_INLINE void prefetch_ahead(fr_dtype t, const uint8_t *words, const uint8_t *scales, int i)
{
    prefetch_share(words + AHEAD, super_words(t), i);
    prefetch_share(scales + AHEAD / 8, super_scales(t), i);
}

/* Group g (4 columns) of the block. The upper nibbles of Q4_K come out times HIGH_NIBBLE_FACTOR. */
LANES_INLINE vi codes_k(fr_dtype t, const code_block *block, int g)
{
    vi pair = vi_load(block->nibbles + g * VECTOR);
    if (t == FR_Q4_K)
        return block->upper ? vi_high_nibbles(pair) : vi_and(pair, vi_set1_8(15));
    vi nibble = vi_and(block->upper ? vi_shr(pair, 4) : pair, vi_set1_8(15));
    vi high = vi_load(block->high + g * VECTOR);
    high = block->at < 4 ? vi_shl(high, 4 - block->at) : vi_shr(high, block->at - 4);
    return vi_or_and(nibble, high, vi_set1_8(t == FR_Q5_K ? 0x10 : 0x30));
}

/* Adds to every token's part: scale * (codes of the block's groups first .. end-1) . (activations). */
LANES_INLINE void add_run(fr_dtype t, const uint8_t *words, const uint8_t *scales, int b, int first,
                          int end, vf scale, const fr_act_k *acts, int tokens, vf *parts)
{
    const code_block block = find_block(t, words, b);
    vi dots[DOT_TOKENS];
    for (int m = 0; m < tokens; m++)
        dots[m] = vi_set1(0);
    LANES_UNROLL
    for (int g = first; g < end; g++) {
        prefetch_ahead(t, words, scales, 8 * b + g);
        vi q = codes_k(t, &block, g);
        for (int m = 0; m < tokens; m++)
            dots[m] = vi_dot_add(dots[m], q, acts[m].q + 32 * b + 4 * g);
    }
    for (int m = 0; m < tokens; m++)
        parts[m] = vf_fma(vf_from_i32(dots[m]), scale, parts[m]);
}

/* Adds a super-block to the sums: d * its parts, and what the offsets take off, which is shift
 * (negative) * (small integers . sums of activations). */
LANES_INLINE void close_super(const uint8_t *pairs, int n_pairs, vi (*load)(const void *), vf d,
                              vf shift, const fr_act_k *acts, int tokens, const vf *parts, vf *sums)
{
    for (int m = 0; m < tokens; m++) {
        const int32_t *of_acts = n_pairs == 4 ? acts[m].sums32 : acts[m].sums16;
        vi offset = vi_set1(0);
        for (int p = 0; p < n_pairs; p++)
            offset = vi_dot16_add(offset, load(pairs + p * 2 * LANES), of_acts[p]);
        vf scale = vf_set1(acts[m].scale);
        sums[m] = vf_fma(parts[m], vf_mul(d, scale), sums[m]);
        sums[m] = vf_fma(vf_from_i32(offset), vf_mul(shift, scale), sums[m]);
    }
}

LANES_INLINE void super_q4_q5(fr_dtype t, const uint8_t *words, const uint8_t *scales,
                              const fr_act_k *acts, int tokens, vf *sums)
{
    vf parts[DOT_TOKENS];
    for (int m = 0; m < tokens; m++)
        parts[m] = vf_set1(0);
    const uint8_t *block_scales = scales + 4 * LANES;
    LANES_UNROLL
    for (int b = 0; b < 8; b++) {
        vf scale = vf_load_u8(block_scales + b * LANES);
        if (t == FR_Q4_K && b % 2 == 1)
            scale = vf_mul(scale, vf_set1(1.0f / HIGH_NIBBLE_FACTOR));
        add_run(t, words, scales, b, 0, 8, scale, acts, tokens, parts);
    }
    vf d = vf_load_f16(scales), shift = vf_sub(vf_set1(0), vf_load_f16(scales + 2 * LANES));
    close_super(block_scales + 8 * LANES, 4, vi_load_u8_pairs, d, shift, acts, tokens, parts, sums);
}

LANES_INLINE void super_q6(const uint8_t *words, const uint8_t *scales, const fr_act_k *acts,
                           int tokens, vf *sums)
{
    vf parts[DOT_TOKENS];
    for (int m = 0; m < tokens; m++)
        parts[m] = vf_set1(0);
    const uint8_t *run_scales = scales + 2 * LANES;
    LANES_UNROLL
    for (int b = 0; b < 8; b++) {
        vi pair = vi_load_i8_pairs(run_scales + b * 2 * LANES);
        vf first = vf_from_i32(vi_low_half(pair)), last = vf_from_i32(vi_high_half(pair));
        add_run(FR_Q6_K, words, scales, b, 0, 4, first, acts, tokens, parts);
        add_run(FR_Q6_K, words, scales, b, 4, 8, last, acts, tokens, parts);
    }
    vf d = vf_load_f16(scales);
    close_super(run_scales, 8, vi_load_i8_pairs, d, vf_mul(d, vf_set1(-32)), acts, tokens, parts,
                sums);
}

LANES_INLINE void tile_k(const tile_task *task, fr_dtype t, int tokens)
{
    const fr_weight *w = task->w;
    const uint8_t *words = w->quants + (size_t)task->tile * w->tile_quants;
    const uint8_t *scales = w->scales + (size_t)task->tile * w->tile_scales;
    vf sums[DOT_TOKENS];
    for (int m = 0; m < tokens; m++)
        sums[m] = vf_set1(0);
    const fr_act_k *acts = task->acts_k;
    for (int64_t s = 0; s < w->cols / SUPER; s++, acts += DOT_TOKENS) {
        if (t == FR_Q6_K)
            super_q6(words, scales, acts, tokens, sums);
        else
            super_q4_q5(t, words, scales, acts, tokens, sums);
        words += super_words(t);
        scales += super_scales(t);
    }
    store_sums(task, tokens, sums);
}

#endif
