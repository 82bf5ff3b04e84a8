/* quantise.h: the way back from f32 to a type of few bytes, for matrices whose owner asks for that
 * (worker/engine/draft_weights.h). Only Q4_0: the fewest bytes of the types in dtype.h. */
#ifndef FR_QUANTISE_H
#define FR_QUANTISE_H

#include <stdint.h>

/* src [n], a multiple of 32, to Q4_0 blocks at dst: the bits that ggml's quantiser gives. A value
 * comes back within half its block's scale, within all of it where it lies against the largest one;
 * values that are whole multiples, -8 to 7, of a scale that half floats have come back as they
 * were. A scale beyond half floats becomes their largest; a block with a NaN becomes NaN. */
void fr_quantise_q4_0(const float *src, void *dst, int64_t n);

#endif
