/* test_rows.c: the operations on rows of activations: norm, add, bias, silu, rope. Each against the
 * reference, and each row alone against the same row in a batch, with 1 and 3 threads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

enum { ROWS = 33, DIM_MAX = 2051 };
static const int dims[] = {1, 8, 17, 64, 100, 576, DIM_MAX};

typedef struct rows_data {
    float x[ROWS * DIM_MAX], y[ROWS * DIM_MAX], weight[DIM_MAX];
    int32_t pos[ROWS];
} rows_data;

/* One operation on the first n rows of d->x (and d->y), in place in d->x. */
typedef void (*rows_fn)(const fr_ops *ops, fr_device *dev, rows_data *d, int first, int n, int dim);

static void do_norm(const fr_ops *ops, fr_device *dev, rows_data *d, int first, int n, int dim)
{
    float *x = d->x + first * dim;
    assert_int_equal(ops->rms_norm(dev, x, x, d->weight, n, dim, 1e-6f), FR_OK);
}

static void do_add(const fr_ops *ops, fr_device *dev, rows_data *d, int first, int n, int dim)
{
    assert_int_equal(ops->add(dev, d->x + first * dim, d->y + first * dim, n, dim), FR_OK);
}

static void do_bias(const fr_ops *ops, fr_device *dev, rows_data *d, int first, int n, int dim)
{
    assert_int_equal(ops->add_bias(dev, d->x + first * dim, d->weight, n, dim), FR_OK);
}

static void do_silu(const fr_ops *ops, fr_device *dev, rows_data *d, int first, int n, int dim)
{
    assert_int_equal(ops->silu_mul(dev, d->x + first * dim, d->y + first * dim, n, dim), FR_OK);
}

/* dim is read as heads of 16 of which 12 rotate (or one head of 8 that rotates whole). */
static void rotate(const fr_ops *ops, fr_device *dev, rows_data *d, int first, int n, int dim,
                   fr_rope_style style)
{
    int head_dim = dim % 16 == 0 ? 16 : 8;
    if (dim % head_dim != 0)
        return;
    float inv_freq[8];
    for (int i = 0; i < 8; i++)
        inv_freq[i] = powf(10000.0f, -(float)i / 8);
    fr_rope rope = {style, head_dim == 16 ? 12 : 8, inv_freq, style == FR_ROPE_NORM ? 1.0f : 1.2f};
    assert_int_equal(
        ops->rope(dev, d->x + first * dim, &rope, d->pos + first, n, dim / head_dim, head_dim),
        FR_OK);
}

static void do_rope_norm(const fr_ops *ops, fr_device *dev, rows_data *d, int first, int n, int dim)
{
    rotate(ops, dev, d, first, n, dim, FR_ROPE_NORM);
}

static void do_rope_neox(const fr_ops *ops, fr_device *dev, rows_data *d, int first, int n, int dim)
{
    rotate(ops, dev, d, first, n, dim, FR_ROPE_NEOX);
}

static void fill(rows_data *d)
{
    suite_random r = {8};
    suite_fill(&r, d->x, ROWS * DIM_MAX);
    suite_fill(&r, d->y, ROWS * DIM_MAX);
    suite_fill(&r, d->weight, DIM_MAX);
    d->x[3] = 90.0f; /* beyond what e^x holds, both ways */
    d->x[4] = -90.0f;
    d->x[5] = -1e4f;
    for (int i = 0; i < ROWS; i++)
        d->pos[i] = (int32_t)(suite_next(&r) % 30000);
    d->pos[7] = d->pos[6] + 512; /* the same slot of a backend's table */
    d->pos[8] = d->pos[6];
}

static void check(rows_fn fn, float tolerance, const char *what)
{
    rows_data *want = suite_alloc(sizeof *want), *got = suite_alloc(sizeof *got),
              *one = suite_alloc(sizeof *one);
    fr_device *ref = suite_open(&fr_ops_cpu_ref, 1), *dev = suite_open(suite_ops, 3),
              *alone = suite_open(suite_ops, 1);
    for (size_t k = 0; k < sizeof dims / sizeof dims[0]; k++) {
        int dim = dims[k];
        fill(want);
        fill(got);
        fill(one);
        fn(&fr_ops_cpu_ref, ref, want, 0, ROWS, dim);
        fn(suite_ops, dev, got, 0, ROWS, dim);
        suite_assert_close(got->x, want->x, ROWS * dim, tolerance, what);
        for (int r = 0; r < ROWS; r += 1 + r % 3)
            fn(suite_ops, alone, one, r, 1 + r % 3 <= ROWS - r ? 1 + r % 3 : ROWS - r, dim);
        suite_assert_same(got->x, one->x, ROWS * dim, what);
        suite_assert_same(got->x + ROWS * dim, one->x + ROWS * dim, ROWS * (DIM_MAX - dim),
                          "what lies behind");
    }
    suite_ops->close(&alone);
    suite_ops->close(&dev);
    fr_ops_cpu_ref.close(&ref);
    free(one);
    free(got);
    free(want);
}

static void test_rms_norm(void **state)
{
    (void)state;
    check(do_norm, 2e-4f, "rms_norm"); /* values up to some 100: one row holds 1e4 */
}

static void test_add(void **state)
{
    (void)state;
    check(do_add, 0, "add");
}

static void test_add_bias(void **state)
{
    (void)state;
    check(do_bias, 0, "add_bias");
}

static void test_silu_mul(void **state)
{
    (void)state;
    check(do_silu, 3e-5f, "silu_mul"); /* values up to 90 */
}

static void test_rope(void **state)
{
    (void)state;
    check(do_rope_norm, 2e-3f, "rope of pairs"); /* values up to 1e4 */
    check(do_rope_neox, 2e-3f, "rope of halves");
}

static void test_memory(void **state)
{
    (void)state;
    fr_device *dev = suite_open(suite_ops, 1);
    void *mem = NULL;
    assert_int_equal(suite_ops->mem_alloc(dev, 1000, &mem), FR_OK);
    assert_int_equal((uintptr_t)mem % 64, 0);
    char back[1000], zero[1000] = {0}, text[] = "forerun";
    assert_int_equal(suite_ops->download(dev, back, mem, sizeof back), FR_OK);
    assert_memory_equal(back, zero, sizeof back);
    assert_int_equal(suite_ops->upload(dev, mem, text, sizeof text), FR_OK);
    assert_int_equal(suite_ops->sync(dev), FR_OK);
    assert_int_equal(suite_ops->download(dev, back, mem, sizeof text), FR_OK);
    assert_string_equal(back, text);
    suite_ops->mem_free(dev, mem);
    suite_ops->mem_free(dev, NULL);
    suite_ops->close(&dev);
    suite_ops->close(&dev); /* NULL is fine */
}

int suite_run_rows(void)
{
    const struct CMUnitTest rows_tests[] = {
        cmocka_unit_test(test_rms_norm), cmocka_unit_test(test_add),
        cmocka_unit_test(test_add_bias), cmocka_unit_test(test_silu_mul),
        cmocka_unit_test(test_rope),     cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(rows_tests, NULL, NULL);
}
