/* rng.c: see rng.h. */
#include "rng.h"

#include "rng_inline.h"

void fr_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    fr_philox_inline(counter, key, out);
}

float fr_gumbel(uint64_t seed, uint32_t sample, uint32_t position, uint32_t token)
{
    return fr_gumbel_inline(seed, sample, position, token);
}
