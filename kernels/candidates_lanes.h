/* candidates_lanes.h: the sum of exponentials of one chunk of logits: the part of candidates.h's
 * definition that has a rounding order. Internal to kernels/. It is written once, on the compiler's
 * own vectors, and compiled into each backend with that backend's instructions; no step of it can
 * be contracted or reordered, so all of them agree to the bit. */
#ifndef FR_CANDIDATES_LANES_H
#define FR_CANDIDATES_LANES_H

#include <stdint.h>
#include <string.h>

#include "candidates_inline.h"

typedef float fr_lanes __attribute__((vector_size(64)));
typedef int32_t fr_lanes_i __attribute__((vector_size(64)));
typedef uint32_t fr_lanes_u __attribute__((vector_size(64)));

/* sum of exp(logits[i] - max) over n <= FR_CHUNK columns. Column i goes to lane i % 16; lanes are
 * added from 0 to 15. Differences below -87, NaN included, count as -87 (1.6e-38). */
static inline double fr_chunk_sum_exp(const float *logits, int n, float max)
{
    fr_lanes sum = {0};
    for (int i = 0; i < n; i += 16) {
        fr_lanes x;
        fr_lanes_i keep = {0};
        if (n - i >= 16) {
            memcpy(&x, logits + i, sizeof x);
            keep = ~keep;
        } else {
            x = (fr_lanes){0} + max;
            for (int j = 0; j < n - i; j++) {
                x[j] = logits[i + j];
                keep[j] = -1;
            }
        }
        x = x - max;
        fr_lanes_i in_range = x > FR_EXP_LOWEST;
        const fr_lanes lowest = (fr_lanes){0} + FR_EXP_LOWEST;
        x = (fr_lanes)(((fr_lanes_i)x & in_range) | ((fr_lanes_i)lowest & ~in_range));
        fr_lanes shifted, y;
        FR_EXP_STEPS(fr_lanes, x, shifted, y);
        y = (fr_lanes)((fr_lanes_u)y + ((fr_lanes_u)shifted << 23));
        sum = sum + (fr_lanes)((fr_lanes_i)y & keep);
    }
    double total = 0;
    for (int j = 0; j < 16; j++)
        total += (double)sum[j];
    return total;
}

#endif
