/* cpu_tiles.h: the layout of weights and activations in the fast CPU backends. Internal to
 * kernels/.
 *
 * A tile is `lanes` output rows (16 with AVX-512, 8 with AVX2): one row a vector lane. Tiles lie
 * one after the other, so a thread streams through memory. Columns go by blocks of 32, quantised
 * types keep their own precision in memory:
 *   32-value types
 *     quants  a block is 8 groups of 4 columns; a group is a vector, byte 4 * row + column % 4.
 *             Planes, in this order: nibbles: 4 vectors, vector v = group 2v in the low nibbles,
 *             group 2v + 1 in the high ones; then Q5: 1 vector, bit g = fifth bit of group g.
 *             Q8_0 instead: 8 vectors, codes + 128.
 *     scales  f16 scale [lanes] a block, then f16 shift [lanes] in Q4_1 and Q5_1.
 *   Q4_K, Q5_K, Q6_K
 *     quants  the codes of a super-block of 256 as the file has them, by words of 4 bytes: word w of
 *             all rows is a vector. Q4_K: qs; Q5_K: qh, qs; Q6_K: ql, qh (blocks.h).
 *     scales  Q4_K, Q5_K: f16 d [lanes], f16 dmin [lanes], 8 x scale u8 [lanes], 4 x (two mins) u8
 *             [lanes][2]; Q6_K: f16 d [lanes], 8 x (two scales) i8 [lanes][2].
 *   F32, F16, BF16: quants are the values themselves, [cols][lanes]; no scales.
 * Rows past the end are zero. So a matrix takes 1.00 (Q4_0, Q6_K) to 1.03 (Q4_K) times its bytes in
 * the file. */
#ifndef FR_CPU_TILES_H
#define FR_CPU_TILES_H

#include "cpu_device.h"

#define FR_TILE_BLOCK 32
#define FR_TILE_SUPER 256
#define FR_TILE_TOKENS 32 /* tokens quantised at a time: what matmul's scratch holds */

/* 32 activations: value i is about scale * q[i]. */
typedef struct fr_act {
    float scale;
    float sum;       /* scale * (half[0] + half[1]): what a weight's shift is multiplied with */
    int32_t half[2]; /* sums of q[0..15] and q[16..31] */
    int8_t q[FR_TILE_BLOCK];
} fr_act;

/* 256 activations, for K types. In matmul's scratch they lie by groups of DOT_TOKENS tokens
 * (lanes_*.h): [groups][super-blocks][DOT_TOKENS]. */
typedef struct fr_act_k {
    int8_t q[FR_TILE_SUPER];
    int32_t sums16[8]; /* sums of 16 values each, two i16 an element */
    int32_t sums32[4]; /* the same of 32 values */
    float scale;       /* value i is about scale * q[i] */
    int32_t unused[3];
} fr_act_k;
_Static_assert(sizeof(fr_act_k) == 320, "whole cache lines");

struct fr_weight {
    fr_dtype dtype;
    int lanes;
    int64_t rows, cols;
    int64_t tiles;
    size_t tile_quants, tile_scales; /* bytes a tile */
    uint8_t *quants;                 /* [tiles * tile_quants]; owns the memory of both */
    uint8_t *scales;                 /* [tiles * tile_scales] */
};

/* Repacks with the device's threads, and makes the device's scratch large enough for matmul. */
fr_status fr_tiles_new(fr_device *dev, const fr_matrix *src, int lanes, fr_weight **out);
void fr_tiles_free(fr_device *dev, fr_weight **w);
/* Is it a type of super-blocks: Q4_K, Q5_K, Q6_K? */
bool fr_tiles_super(fr_dtype t);
/* Where in matmul's scratch the fr_act of FR_TILE_TOKENS tokens begin: behind their fr_act_k. */
size_t fr_tiles_acts_k_bytes(int64_t cols);
/* Bytes of quants a block of 32 columns takes in one lane; of an F32, F16 or BF16 matrix too. */
int fr_tiles_lane_bytes(fr_dtype t);

#endif
