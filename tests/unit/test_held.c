/* test_held.c: sequences held for the coordinator, by held.h's own door. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "held.h"
#include "serve_group.h"

/* With as many as can be held, a fork's source is kept though it was not used for longest, be it the only idle one or
 * not. */
static void test_fork_of_the_oldest(void **state)
{
    (void)state;
    enum { N = 4 };
    const int32_t ids[N] = {11, 12, 13, 14};
    struct fr_request *busy = (struct fr_request *)(uintptr_t)ids; /* only compared with NULL */
    group g;
    group_open(&g, 64, 0, 0);
    for (int alone = 0; alone < 2; alone++) {
        fr_holdings h = {.session = g.session};
        fr_held *e = NULL, *first = NULL;
        for (uint64_t job = 1; job <= FR_HELD_MOST; job++) {
            ok(fr_held_get(&h, job, 0, &e));
            ok(fr_ids_put(&e->ids, ids, N));
            first = first ? first : e;
            e->request = alone && e != first ? busy : NULL;
        }
        ok(fr_held_fork(&h, first, 1, N - 1));
        assert_ptr_equal(fr_held_find(&h, 1, 0), first);
        assert_int_equal(first->ids.len, N);
        const fr_held *fork = fr_held_find(&h, 1, 1);
        assert_non_null(fork);
        assert_int_equal(fork->ids.len, N - 1);
        assert_memory_equal(fork->ids.data, ids, (N - 1) * sizeof *ids);
        fr_holdings_close(&h);
    }
    group_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fork_of_the_oldest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
