/* hash.h: FNV-1a, 64 bits: digests that detect a mix-up, not an attacker. (Source: draft-eastlake-fnv.) */
#ifndef FR_HASH_H
#define FR_HASH_H

#include <stddef.h>
#include <stdint.h>

#define FR_HASH_INIT 0xcbf29ce484222325u

/* Continues hash `h` (FR_HASH_INIT to begin) over n bytes. */
static inline uint64_t fr_hash(uint64_t h, const void *data, size_t n)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

#endif
