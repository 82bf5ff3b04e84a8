/* test_quantise.c: quantising to Q4_0, told by what widening gives back (test_dtype.c vouches for
 * that). */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quantise.h"
#include "suite.h"

enum { BLOCK = 32, BLOCK_BYTES = 18 };

static void there_and_back(const float *x, float *y, int n)
{
    uint8_t *blocks = suite_alloc((size_t)n / BLOCK * BLOCK_BYTES);
    fr_quantise_q4_0(x, blocks, n);
    fr_dtype_to_f32(FR_Q4_0, blocks, y, n);
    free(blocks);
}

static float largest_of(const float x[BLOCK])
{
    float most = x[0];
    for (int i = 1; i < BLOCK; i++)
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    return most;
}

/* Half a scale, and the scale's own rounding to f16 eight times. Against the largest value the
 * codes end at 7: there up to a whole scale is missing. */
static void assert_block_close(const float x[BLOCK], const float y[BLOCK], int block)
{
    float d = largest_of(x) / -8, rounding = 8 * fabsf(d) * 0x1p-11f;
    for (int i = 0; i < BLOCK; i++) {
        float allowed = (x[i] / d > 7.5f ? fabsf(d) : fabsf(d) / 2) + 1.01f * rounding;
        if (!(fabsf(x[i] - y[i]) <= allowed))
            fail_msg("block %d value %d: %g became %g, with a scale of %g", block, i, (double)x[i],
                     (double)y[i], (double)d);
    }
}

static void test_error_bound(void **state)
{
    (void)state;
    enum { BLOCKS = 2000 };
    static float x[BLOCKS * BLOCK], y[BLOCKS * BLOCK];
    suite_random r = {7};
    suite_fill(&r, x, BLOCKS * BLOCK);
    for (int b = 0; b < BLOCKS; b++) {
        const float scale = ldexpf(1, b % 16 - 8);
        for (int i = 0; i < BLOCK; i++)
            x[b * BLOCK + i] *= scale;
    }
    there_and_back(x, y, BLOCKS * BLOCK);
    for (int b = 0; b < BLOCKS; b++) {
        const float *from = x + b * BLOCK, *to = y + b * BLOCK;
        assert_block_close(from, to, b);
        for (int i = 0; i < BLOCK; i++) /* the largest has the scale's rounding alone */
            if (from[i] == largest_of(from))
                assert_true(fabsf(from[i] - to[i]) <= fabsf(from[i]) * 0x1.02p-11f);
    }
}

/* Every code of every scale: a block that Q4_0 has is found again, the signs of the scale too. */
static void test_exact_values(void **state)
{
    (void)state;
    suite_random r = {8};
    for (int h = 0x0400; h < 0x7800; h += 7) { /* normal halves whose eightfold is one too */
        const float d = fr_f16_to_f32((uint16_t)(h | (suite_next(&r) & 0x8000)));
        float x[BLOCK], y[BLOCK];
        for (int i = 0; i < BLOCK; i++)
            x[i] = d * (float)(i < 16 ? i - 8 : (int)(suite_next(&r) % 16) - 8);
        there_and_back(x, y, BLOCK);
        for (int i = 0; i < BLOCK; i++)
            if (x[i] != y[i])
                fail_msg("%g became %g, with a scale of %g", (double)x[i], (double)y[i], (double)d);
    }
}

static void test_layout(void **state)
{
    (void)state;
    float x[BLOCK];
    uint8_t block[BLOCK_BYTES];
    for (int i = 0; i < BLOCK; i++)
        x[i] = (float)(i % 16 - 8) * 0.5f;
    fr_quantise_q4_0(x, block, BLOCK);
    assert_int_equal(block[0] | block[1] << 8, 0x3800); /* 0.5 */
    for (int i = 0; i < 16; i++)
        assert_int_equal(block[2 + i], i | i << 4);
}

/* Of two that are as large the first is -8 scales; the other way round it falls short of itself. */
static void test_first_of_equals(void **state)
{
    (void)state;
    float x[BLOCK] = {0}, y[BLOCK];
    x[5] = 8;
    x[20] = -8;
    there_and_back(x, y, BLOCK);
    assert_true(y[5] == 8 && y[20] == -7);
    x[3] = -8;
    there_and_back(x, y, BLOCK);
    assert_true(y[3] == -8 && y[5] == 7 && y[20] == -8);
}

static void test_extremes(void **state)
{
    (void)state;
    float x[BLOCK] = {0}, y[BLOCK];
    there_and_back(x, y, BLOCK);
    for (int i = 0; i < BLOCK; i++)
        assert_true(y[i] == 0);
    const float tiny[] = {FLT_TRUE_MIN, -FLT_MIN, 1e-30f}; /* scales that half floats do not have */
    for (int k = 0; k < 3; k++) {
        x[9] = tiny[k];
        there_and_back(x, y, BLOCK);
        for (int i = 0; i < BLOCK; i++)
            assert_true(y[i] == 0);
    }
    const float huge[] = {FLT_MAX, -FLT_MAX, INFINITY, -INFINITY};
    for (int k = 0; k < 4; k++) {
        x[9] = huge[k];
        there_and_back(x, y, BLOCK);
        for (int i = 0; i < BLOCK; i++)
            assert_true(y[i] == (i == 9 ? copysignf(8 * 65504.0f, huge[k]) : 0));
    }
    x[9] = 1;
    x[10] = NAN;
    there_and_back(x, y, BLOCK);
    for (int i = 0; i < BLOCK; i++)
        assert_true(isnan(y[i]));
}

int suite_run_quantise(void)
{
    const struct CMUnitTest quantise_tests[] = {
        cmocka_unit_test(test_error_bound), cmocka_unit_test(test_exact_values),
        cmocka_unit_test(test_layout),      cmocka_unit_test(test_first_of_equals),
        cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(quantise_tests, NULL, NULL);
}
