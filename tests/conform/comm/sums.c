/* sums.c: sums of every shape of exchange, to the bit: they are taken in rank order. */
#include "suite.h"

#include <stdlib.h>
#include <string.h>

#include "rng.h"

/* Element i of rank r's vector: signs and magnitudes so mixed that the order of additions shows. */
static float element(int r, size_t i)
{
    const uint32_t counter[4] = {(uint32_t)i, (uint32_t)r, 0, 0}, key[2] = {7, 11};
    uint32_t bits[4];
    fr_philox(counter, key, bits);
    const float scale = (float)(1u << (bits[1] % 20));
    return ((float)(bits[0] >> 8) / (1 << 23) - 1.0f) * scale;
}

static float sum_of(int n_ranks, size_t i)
{
    float sum = element(0, i);
    for (int r = 1; r < n_ranks; r++)
        sum += element(r, i);
    return sum;
}

static int order_shows(int n_ranks)
{
    for (size_t i = 0; i < 1000; i++) {
        float backwards = element(n_ranks - 1, i);
        for (int r = n_ranks - 2; r >= 0; r--)
            backwards += element(r, i);
        if (backwards != sum_of(n_ranks, i))
            return 1;
    }
    return 0;
}

void check_sums(fr_comm *c)
{
    static const size_t sizes[] = {1,    2,    3,    5,    7,    16,    100,   896,   1000,
                                   1536, 4095, 4096, 4097, 4099, 12288, 65536, 99999, MOST};
    CHECK(c->size < 3 || order_shows(c->size), "the data do not tell orders apart");
    float *x = must_alloc(MOST * sizeof *x), *want = must_alloc(MOST * sizeof *want);
    for (size_t i = 0; i < MOST; i++)
        want[i] = sum_of(c->size, i);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (size_t i = 0; i < sizes[s]; i++)
            x[i] = element(c->rank, i);
        OK(sum(c, x, sizes[s]));
        for (size_t i = 0; i < sizes[s]; i++)
            CHECK(memcmp(&x[i], &want[i], sizeof *x) == 0, "n %zu element %zu: %a, want %a",
                  sizes[s], i, (double)x[i], (double)want[i]);
    }
    OK(sum(c, x, 0));
    free(x);
    free(want);
}

void check_large(fr_comm *c, size_t most)
{
    const size_t n = most / sizeof(float) + 1000;
    float *x = must_alloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((c->rank + 1) * (int)(i % 1021));
    OK(c->ops->all_reduce_sum(c, x, n));
    for (size_t i = 0; i < n; i++) {
        const float want = (float)(c->size * (c->size + 1) / 2 * (int)(i % 1021));
        CHECK(x[i] == want, "element %zu: %a, want %a", i, (double)x[i], (double)want);
    }
    uint8_t *data = (uint8_t *)x;
    if (c->rank == 0)
        fill(data, most, 5);
    OK(c->ops->broadcast(c, data, most));
    check_filled(data, most, 5);
    free(x);
}
