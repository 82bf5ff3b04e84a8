/* test_ngram.c: drafts from earlier occurrences, against a search through the whole text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "fault_alloc.h"
#include "ngram.h"

static void the_longest_then_latest_match_counts(void **state)
{
    (void)state;
    static const int32_t text[] = {1, 2, 3, 4, 90, 9, 2, 3, 4, 91, 5, 3, 4, 92, 1, 2, 3, 4};
    size_t n = sizeof text / sizeof *text;
    fr_ngram g = {0};
    int32_t out[4];
    int match = 0;
    assert_int_equal(fr_ngram_sync(&g, text, n), FR_OK);
    assert_int_equal(fr_ngram_draft(&g, 2, 2, out, &match), 2);
    assert_int_equal(match, 4); /* 1 2 3 4, not the later 2 3 4 */
    assert_int_equal(out[0], 90);
    assert_int_equal(out[1], 9);
    assert_int_equal(fr_ngram_sync(&g, text + 1, n - 1), FR_OK);
    assert_int_equal(fr_ngram_draft(&g, 2, 1, out, &match), 1);
    assert_int_equal(match, 3);
    assert_int_equal(out[0], 91); /* of two matches of three tokens the latest */
    assert_int_equal(fr_ngram_draft(&g, 4, 1, out, &match), 0);
    fr_ngram_free(&g);
}

static void pairs_are_the_last_resort(void **state)
{
    (void)state;
    static const int32_t text[] = {7, 3, 4, 8, 5, 3, 4};
    fr_ngram g = {0};
    int32_t out[3];
    int match = 0;
    assert_int_equal(fr_ngram_sync(&g, text, 7), FR_OK);
    assert_int_equal(fr_ngram_draft(&g, 2, 3, out, &match), 3);
    assert_int_equal(match, 2);
    assert_int_equal(out[0], 8);
    assert_int_equal(fr_ngram_draft(&g, 3, 3, out, &match), 0);
    assert_int_equal(fr_ngram_draft(&g, 2, 0, out, &match), 0);
    fr_ngram_free(&g);
}

static void a_short_text_drafts_nothing(void **state)
{
    (void)state;
    static const int32_t text[] = {1, 1, 1};
    fr_ngram g = {0};
    int32_t out[1];
    int match = 0;
    assert_int_equal(fr_ngram_draft(&g, 2, 1, out, &match), 0);
    for (size_t n = 0; n < 3; n++) {
        assert_int_equal(fr_ngram_sync(&g, text, n), FR_OK);
        assert_int_equal(fr_ngram_draft(&g, 2, 1, out, &match), 0);
    }
    fr_ngram_free(&g);
}

static void a_cycle_goes_on(void **state)
{
    (void)state;
    static const int32_t text[] = {4, 5, 6, 4, 5, 6, 4, 5, 6};
    fr_ngram g = {0};
    int32_t out[8];
    int match = 0;
    assert_int_equal(fr_ngram_sync(&g, text, 9), FR_OK);
    assert_int_equal(fr_ngram_draft(&g, 2, 8, out, &match), 8);
    for (int i = 0; i < 8; i++)
        assert_int_equal(out[i], 4 + i % 3);
    fr_ngram_free(&g);
}

static int search(const int32_t *ids, int n, int *at_out)
{
    int best = 0;
    for (int at = n - 1; at >= 2; at--) {
        int k = 0;
        while (k < 16 && k < at && ids[at - 1 - k] == ids[n - 1 - k])
            k++;
        if (k >= 2 && k > best) {
            best = k;
            *at_out = at;
        }
    }
    return best;
}

/* The text grows and is cut again, as a chain is. */
static void it_agrees_with_a_search(void **state)
{
    (void)state;
    static int32_t ids[1200];
    fr_ngram g = {0};
    uint32_t r = 1;
    int n = 0;
    for (int round = 0; round < 3000; round++) {
        r = r * 1664525 + 1013904223;
        int cut = (int)(r >> 24) % 12 == 0 ? (int)(r >> 16) % 6 : 0;
        n = n > cut ? n - cut : n;
        for (int i = 0; i < 3 && n < 1200; i++) {
            r = r * 1664525 + 1013904223;
            ids[n++] = (int32_t)(r >> 20) % 23;
        }
        if (n == 1200)
            n = 900;
        assert_int_equal(fr_ngram_sync(&g, ids, (size_t)n), FR_OK);
        int32_t out[1];
        int match = 0, at = 0, want = search(ids, n, &at);
        int got = fr_ngram_draft(&g, 2, 1, out, &match);
        assert_int_equal(got, want > 0);
        assert_true(match <= want);
        if (want > 2) /* rare enough for the candidates that are looked at */
            assert_int_equal(match, want);
        if (want > 2)
            assert_int_equal(out[0], ids[at]);
    }
    fr_ngram_free(&g);
}

static void failed_allocations(void **state)
{
    (void)state;
    static int32_t ids[700];
    for (int i = 0; i < 700; i++)
        ids[i] = i % 50;
    bool failed = true;
    for (long n = 0; failed; n++) {
        fr_ngram g = {0};
        int32_t out[2];
        int match = 0;
        fr_fault_alloc_arm(n);
        fr_status st = fr_ngram_sync(&g, ids, 100);
        if (st == FR_OK)
            st = fr_ngram_sync(&g, ids, 700);
        failed = fr_fault_alloc_disarm();
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        assert_int_equal(fr_ngram_sync(&g, ids, 700), FR_OK); /* it can begin anew */
        assert_int_equal(fr_ngram_draft(&g, 3, 2, out, &match), 2);
        assert_int_equal(out[0], 0);
        fr_ngram_free(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_then_latest_match_counts),
        cmocka_unit_test(pairs_are_the_last_resort),
        cmocka_unit_test(a_short_text_drafts_nothing),
        cmocka_unit_test(a_cycle_goes_on),
        cmocka_unit_test(it_agrees_with_a_search),
        cmocka_unit_test(failed_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
