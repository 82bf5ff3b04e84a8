/* test_kv_cache.c: forks share pages, appends into shared pages copy, nothing leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kv_cache.h"
#include "rng.h"

static void fill(int32_t *t, int n, int from)
{
    for (int i = 0; i < n; i++)
        t[i] = from + i;
}

static void append_and_truncate(void **state)
{
    (void)state;
    fr_kv_cache *c = NULL;
    assert_int_equal(fr_kv_cache_new(4, 48, &c), FR_OK);
    int s = -1, n_pages = 0;
    int32_t t[64];
    fill(t, 64, 0);
    assert_int_equal(fr_kv_seq_new(c, &s), FR_OK);
    assert_int_equal(fr_kv_seq_append(c, s, t, 17), FR_OK);
    fr_kv_seq_pages(c, s, &n_pages);
    assert_int_equal(n_pages, 2);
    assert_int_equal(fr_kv_pages_free(c), 2);
    assert_int_equal(fr_kv_seq_append(c, s, t, 32), FR_ELIMIT); /* the context */
    assert_int_equal(fr_kv_seq_len(c, s), 17);
    assert_int_equal(fr_kv_seq_truncate(c, s, 16), FR_OK);
    assert_int_equal(fr_kv_pages_free(c), 3);
    assert_int_equal(fr_kv_seq_truncate(c, s, 17), FR_EINVAL);
    fr_kv_seq_free(c, s);
    assert_int_equal(fr_kv_pages_free(c), 4);
    assert_int_equal(fr_kv_seq_append(c, s, t, 1), FR_EINVAL);
    fr_kv_cache_free(&c);
    assert_null(c);
}

static void a_fork_copies_only_the_unfinished_page(void **state)
{
    (void)state;
    fr_kv_cache *c = NULL;
    assert_int_equal(fr_kv_cache_new(8, 128, &c), FR_OK);
    int a = -1, b = -1, n = 0;
    int32_t t[64];
    fill(t, 64, 0);
    fr_kv_seq_new(c, &a);
    assert_int_equal(fr_kv_seq_append(c, a, t, 20), FR_OK);
    assert_int_equal(fr_kv_seq_fork(c, a, 18, &b), FR_OK);
    assert_int_equal(fr_kv_pages_free(c), 6);
    assert_int_equal(fr_kv_seq_append(c, b, t + 40, 1), FR_OK);
    const fr_page_copy *copies = fr_kv_copies(c, &n);
    assert_int_equal(n, 1);
    assert_int_equal(copies[0].n, 2);
    const int32_t *pa = fr_kv_seq_pages(c, a, &n), *pb = fr_kv_seq_pages(c, b, &n);
    assert_int_equal(pa[0], pb[0]);
    assert_int_equal(copies[0].from, pa[1]);
    assert_int_equal(copies[0].to, pb[1]);
    /* a's page is its own again: no second copy */
    assert_int_equal(fr_kv_seq_append(c, a, t, 1), FR_OK);
    fr_kv_copies(c, &n);
    assert_int_equal(n, 1);
    fr_kv_seq_free(c, a);
    fr_kv_seq_free(c, b);
    assert_int_equal(fr_kv_pages_free(c), 8);
    fr_kv_cache_free(&c);
}

static void a_full_cache_changes_nothing(void **state)
{
    (void)state;
    fr_kv_cache *c = NULL;
    assert_int_equal(fr_kv_cache_new(2, 128, &c), FR_OK);
    int a = -1, b = -1, n = 0;
    int32_t t[64], loose[2];
    fill(t, 64, 0);
    fr_kv_seq_new(c, &a);
    assert_int_equal(fr_kv_seq_append(c, a, t, 20), FR_OK);
    assert_int_equal(fr_kv_seq_fork(c, a, 20, &b), FR_OK);
    assert_int_equal(fr_kv_seq_append(c, b, t, 1), FR_ELIMIT);
    assert_int_equal(fr_kv_seq_len(c, b), 20);
    fr_kv_copies(c, &n);
    assert_int_equal(n, 0);
    assert_int_equal(fr_kv_pages_get(c, 1, loose), FR_ELIMIT);
    fr_kv_cache_free(&c);
}

static void the_longest_prefix_matches(void **state)
{
    (void)state;
    fr_kv_cache *c = NULL;
    assert_int_equal(fr_kv_cache_new(8, 128, &c), FR_OK);
    int a = -1, b = -1, shared = -1;
    int32_t t[32];
    fill(t, 32, 0);
    fr_kv_seq_new(c, &a);
    fr_kv_seq_new(c, &b);
    fr_kv_seq_append(c, a, t, 5);
    fr_kv_seq_append(c, b, t, 9);
    assert_int_equal(fr_kv_match(c, t, 32, &shared), b);
    assert_int_equal(shared, 9);
    assert_int_equal(fr_kv_match(c, t, 3, &shared), a);
    assert_int_equal(fr_kv_match(c, t + 1, 3, &shared), -1);
    assert_int_equal(shared, 0);
    fr_kv_cache_free(&c);
}

/* Random operations against a plain model: contents held by position through pages and copies. */
enum { PAGES = 24, SEQS = 6, STEPS = 4000 };

static void random_operations_keep_contents(void **state)
{
    (void)state;
    fr_kv_cache *c = NULL;
    assert_int_equal(fr_kv_cache_new(PAGES, 100, &c), FR_OK);
    int32_t memory[PAGES * FR_PAGE] = {0};
    int ids[SEQS];
    for (int i = 0; i < SEQS; i++)
        ids[i] = -1;
    for (uint32_t step = 0; step < STEPS; step++) {
        const uint32_t counter[4] = {step}, key[2] = {7, 7};
        uint32_t r[4];
        fr_philox(counter, key, r);
        int k = (int)(r[0] % SEQS), id = ids[k], n = 0;
        if (id < 0 && r[1] % 2 && ids[(k + 1) % SEQS] >= 0) {
            int parent = ids[(k + 1) % SEQS];
            assert_int_equal(fr_kv_seq_fork(c, parent, (int)(r[2] % (uint32_t)(fr_kv_seq_len(c, parent) + 1)), &ids[k]),
                             FR_OK);
        } else if (id < 0) {
            assert_int_equal(fr_kv_seq_new(c, &ids[k]), FR_OK);
        } else if (r[1] % 8 == 0) {
            fr_kv_seq_free(c, id);
            ids[k] = -1;
        } else if (r[1] % 8 < 3) {
            fr_kv_seq_truncate(c, id, (int)(r[2] % (uint32_t)(fr_kv_seq_len(c, id) + 1)));
        } else {
            int32_t t[20];
            int from = fr_kv_seq_len(c, id), more = (int)(r[2] % 20);
            fill(t, more, (int)(step * 32));
            if (fr_kv_seq_append(c, id, t, more) == FR_OK) {
                const fr_page_copy *copies = fr_kv_copies(c, &n);
                for (int i = 0; i < n; i++)
                    for (int o = 0; o < copies[i].n; o++)
                        memory[copies[i].to * FR_PAGE + o] = memory[copies[i].from * FR_PAGE + o];
                fr_kv_copies_clear(c);
                const int32_t *pages = fr_kv_seq_pages(c, id, &n);
                for (int i = 0; i < more; i++)
                    memory[pages[(from + i) / FR_PAGE] * FR_PAGE + (from + i) % FR_PAGE] = t[i];
            }
        }
        for (int s = 0; s < SEQS; s++) {
            const int32_t *pages = fr_kv_seq_pages(c, ids[s], &n), *tokens = fr_kv_seq_tokens(c, ids[s]);
            for (int i = 0; i < fr_kv_seq_len(c, ids[s]); i++)
                assert_int_equal(memory[pages[i / FR_PAGE] * FR_PAGE + i % FR_PAGE], tokens[i]);
        }
    }
    for (int i = 0; i < SEQS; i++)
        fr_kv_seq_free(c, ids[i]);
    assert_int_equal(fr_kv_pages_free(c), PAGES);
    fr_kv_cache_free(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(append_and_truncate),
        cmocka_unit_test(a_fork_copies_only_the_unfinished_page),
        cmocka_unit_test(a_full_cache_changes_nothing),
        cmocka_unit_test(the_longest_prefix_matches),
        cmocka_unit_test(random_operations_keep_contents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
