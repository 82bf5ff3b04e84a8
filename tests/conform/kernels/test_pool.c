/* test_pool.c: the thread pool: every item once, at every size; sleeping and waking; no CPU while
 * idle. */
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"
#include "cpu_pool.h"
#include "suite.h"

static void count(void *ctx, int64_t begin, int64_t end)
{
    atomic_int *counts = ctx;
    for (int64_t i = begin; i < end; i++)
        atomic_fetch_add(&counts[i], 1);
}

static void test_every_item_once(void **state)
{
    (void)state;
    enum { ITEMS = 1000 };
    for (int threads = 1; threads <= 4; threads++) {
        fr_pool *p = NULL;
        assert_int_equal(fr_pool_new(threads, &p), FR_OK);
        assert_int_equal(fr_pool_threads(p), threads);
        atomic_int *counts = suite_alloc(ITEMS * sizeof *counts);
        int want = 0;
        for (int round = 0; round < 300; round++) {
            if (round % 100 == 50)
                fr_sleep_ms(5); /* long enough for the helpers to fall asleep */
            fr_pool_run(p, ITEMS, 1 + round % 7, count, counts);
            want++;
            fr_pool_run(p, round % 3, 1, count, counts);
        }
        for (int i = 2; i < ITEMS; i++)
            assert_int_equal(atomic_load(&counts[i]), want);
        assert_int_equal(atomic_load(&counts[0]), want + 200);
        assert_int_equal(atomic_load(&counts[1]), want + 100);
        free(counts);
        fr_pool_free(&p);
        assert_null(p);
    }
}

static void test_idle_uses_no_cpu(void **state)
{
    (void)state;
    fr_pool *p = NULL;
    assert_int_equal(fr_pool_new(3, &p), FR_OK);
    atomic_int counts[10] = {0};
    fr_pool_run(p, 10, 1, count, counts);
    fr_sleep_ms(20);
    clock_t before = clock();
    fr_sleep_ms(200);
    double used = (double)(clock() - before) / CLOCKS_PER_SEC;
    fr_pool_free(&p);
    assert_true(used < 0.05);
}

static void test_refuses_nonsense(void **state)
{
    (void)state;
    fr_pool *p = NULL;
    assert_int_equal(fr_pool_new(-1, &p), FR_EINVAL);
    assert_null(p);
    fr_pool_free(&p);
}

int suite_run_pool(void)
{
    const struct CMUnitTest pool_tests[] = {
        cmocka_unit_test(test_every_item_once),
        cmocka_unit_test(test_idle_uses_no_cpu),
        cmocka_unit_test(test_refuses_nonsense),
    };
    return cmocka_run_group_tests(pool_tests, NULL, NULL);
}
