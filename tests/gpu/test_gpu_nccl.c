/* test_gpu_nccl.c: NCCL itself with one rank on one GPU: it connects, sums on the device's stream in both orders,
 * gathers and broadcasts, each alone and in graphs, and closes. Exits 77 where there is no GPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "comm_device.h"

enum { MOST = 1 << 18 };

static const fr_ops *ops;

typedef struct fixture {
    fr_comm *self, *c;
    fr_device *dev;
    float *there; /* [MOST] on the device */
} fixture;

static void open_all(fixture *f, const fr_comm_device_options *o)
{
    void *mem = NULL;
    assert_int_equal(fr_comm_self_open(&f->self), FR_OK);
    assert_int_equal(ops->open(&(fr_device_options){0}, &f->dev), FR_OK);
    assert_int_equal(ops->mem_alloc(f->dev, MOST * sizeof(float), &mem), FR_OK);
    f->there = mem;
    if (fr_comm_nccl_open(f->self, ops, f->dev, o, &f->c) != FR_OK)
        fail_msg("%s", fr_cause());
}

static void close_all(fixture *f)
{
    f->c->ops->close(&f->c);
    ops->mem_free(f->dev, f->there);
    ops->close(&f->dev);
    f->self->ops->close(&f->self);
}

static float value(size_t i, int round)
{
    return (float)((i + (size_t)round * 77) % 1000) - 500;
}

static void upload(const fixture *f, size_t n, int round)
{
    static float x[MOST];
    for (size_t i = 0; i < n; i++)
        x[i] = value(i, round);
    assert_int_equal(ops->upload(f->dev, f->there, x, n * sizeof *x), FR_OK);
}

static void check(const float *got, size_t n, int round)
{
    for (size_t i = 0; i < n; i++)
        if (got[i] != value(i, round))
            fail_msg("%zu values: value %zu is %g", n, i, (double)got[i]);
}

/* Sums, broadcasts and a gather over one rank leave what was there. Eight in a row become a graph, which is recorded
 * when they are seen for the second time. */
static void check_collectives(const fixture *f, size_t n, int in_a_row, int round)
{
    static float back[MOST];
    fr_status st = FR_OK;
    upload(f, n, round);
    for (int i = 0; i < in_a_row && st == FR_OK; i++) {
        st = f->c->ops->all_reduce_sum(f->c, f->there, n);
        if (st == FR_OK)
            st = f->c->ops->broadcast(f->c, f->there, n * sizeof *back);
    }
    if (st == FR_OK)
        st = f->c->ops->gather(f->c, f->there, n * sizeof *back, back);
    if (st != FR_OK)
        fail_msg("%s", fr_cause());
    check(back, n, round);
}

static void one_rank(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 7, 4096, MOST};
    for (int invariant = 0; invariant < 2; invariant++) {
        fixture f = {0};
        open_all(&f, &(fr_comm_device_options){.batch_invariant = invariant, .max_sum = MOST,
                                               .max_gather = MOST * sizeof(float)});
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int round = 0; round < 5; round++)
                check_collectives(&f, sizes[i], round == 0 ? 1 : 8, round);
        close_all(&f);
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
