/* test_gpu_nccl.c: NCCL itself with one rank on one GPU: it connects, sums on the device's stream in both orders, and
 * closes. Exits 77 where there is no GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "comm_device.h"

enum { MOST = 1 << 18 };

static const fr_ops *ops;

/* The sum over one rank is what it was. */
static void check_sum(fr_comm *c, fr_device *dev, float *there, size_t n)
{
    static float x[MOST], back[MOST];
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(i % 1000) - 500;
    assert_int_equal(ops->upload(dev, there, x, n * sizeof *x), FR_OK);
    if (c->ops->all_reduce_sum(c, there, n) != FR_OK || ops->sync(dev) != FR_OK)
        fail_msg("%s", fr_cause());
    assert_int_equal(ops->download(dev, back, there, n * sizeof *x), FR_OK);
    assert_memory_equal(back, x, n * sizeof *x);
}

static void one_rank(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 7, 4096, MOST};
    for (int invariant = 0; invariant < 2; invariant++) {
        fr_comm *self = NULL, *c = NULL;
        fr_device *dev = NULL;
        void *x = NULL;
        assert_int_equal(fr_comm_self_open(&self), FR_OK);
        assert_int_equal(ops->open(&(fr_device_options){0}, &dev), FR_OK);
        assert_int_equal(ops->mem_alloc(dev, MOST * sizeof(float), &x), FR_OK);
        const fr_comm_device_options o = {.batch_invariant = invariant};
        if (fr_comm_nccl_open(self, ops, dev, &o, &c) != FR_OK)
            fail_msg("%s", fr_cause());
        for (int again = 0; again < 3; again++)
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
                check_sum(c, dev, x, sizes[i]);
        c->ops->close(&c);
        ops->mem_free(dev, x);
        ops->close(&dev);
        self->ops->close(&self);
    }
}

int main(void)
{
    if (fr_ops_choose("cuda", &ops) != FR_OK) {
        printf("skipped: %s\n", fr_cause());
        return 77;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_rank)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
