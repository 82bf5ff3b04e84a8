/* candidates_lanes.h: the sum of exponentials of one chunk of logits: the part of candidates.h's
 * definition that has a rounding order. Internal to kernels/. It is written once, on the compiler's
 * own vectors, and compiled into each backend with that backend's instructions; no step of it can
 * be contracted or reordered, so all of them agree to the bit. */
#ifndef FR_CANDIDATES_LANES_H
#define FR_CANDIDATES_LANES_H

#include <stdint.h>
#include <string.h>

#define FR_CHUNK 1024 /* columns that share partial sums; counted from the slice's first column */

typedef float fr_lanes __attribute__((vector_size(64)));
typedef int32_t fr_lanes_i __attribute__((vector_size(64)));
typedef uint32_t fr_lanes_u __attribute__((vector_size(64)));

/* sum of exp(logits[i] - max) over n <= FR_CHUNK columns. Column i goes to lane i % 16; lanes are
 * added from 0 to 15. Differences below -87, NaN included, count as -87 (1.6e-38). Relative error
 * of one exponential about 2e-7. (exp: Cody-Waite reduction and a polynomial of degree 6,
 * coefficients 1/k!; |r| <= ln(2)/2.) */
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
        fr_lanes_i in_range = x > -87.0f;
        const fr_lanes lowest = (fr_lanes){0} - 87.0f;
        x = (fr_lanes)(((fr_lanes_i)x & in_range) | ((fr_lanes_i)lowest & ~in_range));
        /* 1.5 * 2^23: the low bits of the sum are round(x / ln 2) */
        fr_lanes shifted = x * 1.44269504f + 12582912.0f;
        fr_lanes_u exponent = (fr_lanes_u)shifted << 23;
        fr_lanes k = shifted - 12582912.0f;
        fr_lanes r = x - k * 0.693359375f;
        r = r + k * 2.12194440e-4f;
        fr_lanes y = r * 1.38888889e-3f + 8.33333333e-3f;
        y = y * r + 4.16666667e-2f;
        y = y * r + 1.66666667e-1f;
        y = y * r + 0.5f;
        y = y * r + 1.0f;
        y = y * r + 1.0f;
        y = (fr_lanes)((fr_lanes_u)y + exponent);
        sum = sum + (fr_lanes)((fr_lanes_i)y & keep);
    }
    double total = 0;
    for (int j = 0; j < 16; j++)
        total += (double)sum[j];
    return total;
}

#endif
