/* test_rng.c: the generator's published numbers, and a Gumbel noise that is the same on every machine. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "rng.h"
#include "rng_inline.h"

/* The known answers that Random123 publishes for philox4x32, 10 rounds. */
static void test_philox(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t out[4];
        fr_philox(known[i].counter, known[i].key, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

/* Against the library's logarithm, whose last bit may differ from machine to machine. */
static void test_log(void **state)
{
    (void)state;
    for (uint64_t i = 1; i < 2000000; i += 7) {
        double fraction = (double)i / 2000000, x[3] = {fraction, 1 + fraction * 1e-6, fraction * 30};
        for (int j = 0; j < 3; j++) {
            double want = log(x[j]);
            assert_true(fabs(fr_log_inline(x[j]) - want) <= fabs(want) * 0x1p-52);
        }
    }
    assert_true(fr_log_inline(1) == 0);
}

/* Every 997th noise there is: near the library's, and their bits add up to what they always did, so that no compiler
 * and no edit changes what was sampled before. */
static void test_gumbel(void **state)
{
    (void)state;
    uint64_t sum = 0;
    for (uint64_t i = 0; i <= UINT32_MAX; i += 997) {
        float noise = fr_gumbel_of_bits((uint32_t)i);
        double want = -log(-log(((double)i + 0.5) * 0x1p-32));
        assert_true(fabs(noise - want) <= fabs(want) * 0x1p-24 + 1e-15);
        uint32_t bits;
        memcpy(&bits, &noise, sizeof bits);
        sum = sum * 31 + bits;
    }
    assert_int_equal(sum, 0x6a24e0f4bbfd4279);
    assert_true(fr_gumbel_of_bits(0) < -3 && fr_gumbel_of_bits(UINT32_MAX) > 22);
    assert_true(fr_gumbel_of_bits(UINT32_MAX) <= FR_GUMBEL_MAX);
    const uint32_t counter[4] = {7, 11, 3, 0}, key[2] = {5, 1};
    uint32_t out[4];
    fr_philox(counter, key, out);
    assert_true(fr_gumbel(0x100000005, 3, 11, 7) == fr_gumbel_of_bits(out[0]));
}

int main(void)
{
    const struct CMUnitTest rng_tests[] = {
        cmocka_unit_test(test_philox),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_gumbel),
    };
    return cmocka_run_group_tests(rng_tests, NULL, NULL);
}
