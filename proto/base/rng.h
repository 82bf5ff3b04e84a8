/* rng.h: Philox 4x32-10, the counter-based generator behind every random choice. No state: the same counter and key
 * give the same bits on every machine. (Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011.) */
#ifndef FR_RNG_H
#define FR_RNG_H

#include <stdint.h>

void fr_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Standard Gumbel noise for one token at one chain position: a pure function of its arguments. */
float fr_gumbel(uint64_t seed, uint32_t sample, uint32_t position, uint32_t token);
/* No value of fr_gumbel() is above this. */
#define FR_GUMBEL_MAX 23.0f

#endif
