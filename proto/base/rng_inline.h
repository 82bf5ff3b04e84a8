/* rng_inline.h: the arithmetic of rng.h, written once for the CPU (rng.c) and for kernels of a GPU: each step is a
 * correctly rounded operation (+, -, *, / of float and double, no library call), so every machine gets the same bits,
 * as long as no compiler fuses a multiplication with an addition (-ffp-contract=off, -fmad=false). */
#ifndef FR_RNG_INLINE_H
#define FR_RNG_INLINE_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define FR_ANYWHERE __host__ __device__
#else
#define FR_ANYWHERE
#endif

static inline FR_ANYWHERE void fr_philox_inline(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* log(x) of a normal positive x, to 0.53 ulp. x = 2^e * m, m within sqrt(2) of 1; log(m) = 2 artanh(s), where
 * s = (m - 1) / (m + 1) is q + t: q has the bits of a float, so the remainder that t is made of comes out exact, and
 * the rest of the series is at most a hundredth of the result. */
static inline FR_ANYWHERE double fr_log_inline(double x)
{
    const uint64_t low = 0x3FE6A09E667F3BCDu; /* sqrt(1/2) */
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint64_t above = bits - low;
    int e = (int)((int64_t)above >> 52);
    bits -= above & 0xFFF0000000000000u;
    double m;
    memcpy(&m, &bits, sizeof m);

    double f = m - 1, d = 2 + f;
    double q = (double)((float)f / (float)d);
    double d_high = (double)(float)d, d_low = f - (d_high - 2);
    double t = (f - q * d_high - q * d_low) / d;
    double s = q + t, w = s * s;
    double series = 2.0 / 21;
    series = series * w + 2.0 / 19;
    series = series * w + 2.0 / 17;
    series = series * w + 2.0 / 15;
    series = series * w + 2.0 / 13;
    series = series * w + 2.0 / 11;
    series = series * w + 2.0 / 9;
    series = series * w + 2.0 / 7;
    series = series * w + 2.0 / 5;
    series = series * w + 2.0 / 3;
    double rest = 2 * t + s * w * series;

    /* ln(2) in two parts; e times the first is exact */
    double base = e * 0x1.62e42fefa3800p-1, sum = base + 2 * q;
    double lost = base - sum + 2 * q;
    return sum + (lost + (e * 0x1.ef35793c76730p-45 + rest));
}

/* fr_gumbel() of a token whose random number is `bits`. */
static inline FR_ANYWHERE float fr_gumbel_of_bits(uint32_t bits)
{
    double u = ((double)bits + 0.5) * (1.0 / 4294967296.0); /* in (0, 1), both ends out of reach */
    return (float)-fr_log_inline(-fr_log_inline(u));
}

static inline FR_ANYWHERE float fr_gumbel_inline(uint64_t seed, uint32_t sample, uint32_t position, uint32_t token)
{
    const uint32_t counter[4] = {token, position, sample, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t bits[4];
    fr_philox_inline(counter, key, bits);
    return fr_gumbel_of_bits(bits[0]);
}

#endif
