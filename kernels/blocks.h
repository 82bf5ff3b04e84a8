/* blocks.h: the block structs of the quantised types, as they lie in a GGUF file, and what their
 * fields mean. Internal to kernels/: dtype.c widens blocks with it, quantise.c makes them,
 * cpu_tiles.c repacks them.
 *
 * Every type is value = scale * (code - offset) + shift, with the code an unsigned integer. A
 * "group" is the run of values that shares a scale: 32 values, but 16 in Q6_K. */
#ifndef FR_BLOCKS_H
#define FR_BLOCKS_H

#include <stdint.h>

#include "dtype.h"

typedef struct fr_block_q4_0 {
    uint16_t d;     /* f16 */
    uint8_t qs[16]; /* value i in the low nibble of qs[i], value i + 16 in the high one */
} fr_block_q4_0;

typedef struct fr_block_q4_1 {
    uint16_t d, m;
    uint8_t qs[16];
} fr_block_q4_1;

typedef struct fr_block_q5_0 {
    uint16_t d;
    uint8_t qh[4]; /* bit i: the fifth bit of value i */
    uint8_t qs[16];
} fr_block_q5_0;

typedef struct fr_block_q5_1 {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[16];
} fr_block_q5_1;

typedef struct fr_block_q8_0 {
    uint16_t d;
    int8_t qs[32];
} fr_block_q8_0;

typedef struct fr_block_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12]; /* eight 6-bit scales and eight 6-bit mins: fr_block_k_scales() */
    uint8_t qs[128];    /* 64 values in 32 bytes: low nibbles first, then the high ones */
} fr_block_q4_k;

typedef struct fr_block_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32]; /* bit g of qh[i]: the fifth bit of value 32 g + i */
    uint8_t qs[128];
} fr_block_q5_k;

typedef struct fr_block_q6_k {
    uint8_t ql[128]; /* 128 values in 64 bytes: low nibbles of 64 values, then the high ones */
    uint8_t qh[64];  /* the upper two bits; 128 values in 32 bytes */
    int8_t scales[16];
    uint16_t d;
} fr_block_q6_k;

_Static_assert(sizeof(fr_block_q4_0) == 18, "q4_0 block");
_Static_assert(sizeof(fr_block_q4_1) == 20, "q4_1 block");
_Static_assert(sizeof(fr_block_q5_0) == 22, "q5_0 block");
_Static_assert(sizeof(fr_block_q5_1) == 24, "q5_1 block");
_Static_assert(sizeof(fr_block_q8_0) == 34, "q8_0 block");
_Static_assert(sizeof(fr_block_q4_k) == 144, "q4_k block");
_Static_assert(sizeof(fr_block_q5_k) == 176, "q5_k block");
_Static_assert(sizeof(fr_block_q6_k) == 210, "q6_k block");

#define FR_BLOCK_MAX 256 /* most values in a block */

/* The unsigned codes of one block of a quantised type, in the order of the values; Q8_0's are its
 * signed ones + 128. */
void fr_block_codes(fr_dtype t, const void *block, uint8_t codes[FR_BLOCK_MAX]);
/* The eight scales and mins of a Q4_K or Q5_K block, 0 .. 63 each. */
void fr_block_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8]);

#endif
