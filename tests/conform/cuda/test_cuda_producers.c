/* test_cuda_producers.c: commands that a later one replaces by doing their work along (cuda_ops.c): what quantised
 * matrices need of x is made by the kernel that makes x, and gates are closed by the kernel that multiplies. Over
 * the CUDA that runs on the CPU, whose counts tell what happened. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "device_arrays.h"
#include "fake_cuda.h"
#include "ops_cuda.h"

static const fr_ops *const ops = &fr_ops_cuda;

/* A product behind a norm or SiLU of random values, all of small numbers. */
typedef struct producer {
    bool silu, apart; /* apart: what made x is no longer the last command when the product comes */
    fr_dtype dtype;
    int n, cols;
} producer;

enum {
    PRODUCT_ROWS = 20,
    PRODUCT_COLS = 4608, /* a norm's threads have more values than are under way together */
    PRODUCT_TOKENS = 9,
    GATE_TOKENS = 33,
    GATE_COLS = 2376, /* some warps of a product have a second chunk, the last one not filled */
};

static fr_weight *random_weight(fr_device *dev, fr_dtype dtype, int cols, unsigned seed)
{
    static uint8_t bytes[PRODUCT_ROWS * PRODUCT_COLS * 2];
    const fr_dtype_info *info = fr_dtype_find(dtype);
    const size_t row = (size_t)cols / (size_t)info->block_values * (size_t)info->block_bytes;
    fr_weight *w = NULL;
    for (size_t i = 0; i < PRODUCT_ROWS * row; i++) {
        const size_t in_block = i % (size_t)info->block_bytes;
        bytes[i] = (uint8_t)((unsigned)(i + seed) * 2654435761u >> 24);
        if (in_block == 1 || (dtype == FR_Q4_K && in_block == 3)) /* the upper half of a value or scale: about 1/128 */
            bytes[i] = (uint8_t)((bytes[i] & 0x80) | (dtype == FR_BF16 ? 0x3c : 0x20));
    }
    assert_int_equal(ops->weight_new(dev, &(fr_matrix){dtype, bytes, PRODUCT_ROWS, cols, row}, &w), FR_OK);
    return w;
}

static float *random_array(fr_device *dev, int count)
{
    static float values[GATE_TOKENS * GATE_COLS];
    assert_in_range(count, 1, sizeof values / sizeof *values);
    for (int i = 0; i < count; i++)
        values[i] = (float)(int)((unsigned)(i + 1) * 2654435761u >> 16 & 0xfff) / 512.0f - 4.0f;
    return new_array(dev, values, count);
}

/* How many kernels it takes, and y. */
static int run_producer(const producer *p, float y[PRODUCT_TOKENS * PRODUCT_ROWS])
{
    fr_device *dev = open_device(&(fr_device_options){0});
    const int count = p->n * p->cols;
    fr_weight *w = random_weight(dev, p->dtype, p->cols, 0);
    float *a = random_array(dev, count), *b = random_array(dev, count), *c = random_array(dev, count),
          *out = random_array(dev, p->n * PRODUCT_ROWS);
    const fr_product product = {out, w};
    assert_int_equal(ops->matmul(dev, &product, 1, a, p->n), FR_OK); /* there is scratch memory then */
    assert_int_equal(ops->sync(dev), FR_OK);
    const int before = fake_cuda_count().kernels_run;
    if (p->silu) {
        assert_int_equal(ops->silu_mul(dev, c, a, p->n, p->cols), FR_OK);
    } else {
        assert_int_equal(ops->add(dev, a, b, p->n, p->cols), FR_OK);
        assert_int_equal(ops->rms_norm(dev, c, a, b, p->n, p->cols, 1e-6f), FR_OK);
    }
    if (p->apart)
        assert_int_equal(ops->sync(dev), FR_OK);
    assert_int_equal(ops->matmul(dev, &product, 1, c, p->n), FR_OK);
    assert_int_equal(ops->download(dev, y, out, (size_t)p->n * PRODUCT_ROWS * sizeof *y), FR_OK);
    const int kernels = fake_cuda_count().kernels_run - before;
    ops->weight_free(dev, &w);
    close_device(&dev);
    return kernels;
}

/* What quantised matrices need of x is made where x is: a kernel less, and not a bit changes. */
static void test_activations_go_with_their_producer(void **state)
{
    (void)state;
    static const struct {
        fr_dtype dtype;
        int cols;
    } shapes[] = {{FR_Q8_0, 96}, {FR_Q8_0, 1280}, {FR_Q8_0, PRODUCT_COLS}, {FR_Q4_K, 256}, {FR_Q4_K, PRODUCT_COLS}};
    float y[PRODUCT_TOKENS * PRODUCT_ROWS], want[PRODUCT_TOKENS * PRODUCT_ROWS];
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int n = 1; n <= PRODUCT_TOKENS; n += 4)
            for (int silu = 0; silu < 2; silu++) {
                producer p = {silu, true, shapes[i].dtype, n, shapes[i].cols};
                assert_int_equal(run_producer(&p, want), 3);
                p.apart = false;
                assert_int_equal(run_producer(&p, y), 2);
                assert_memory_equal(y, want, (size_t)n * PRODUCT_ROWS * sizeof *y);
                assert_true(isfinite(y[0]) && y[0] != y[1]);
            }
}

/* Neither is taken for the producer of other values: x of another array, or of other rows. */
static void test_not_the_producer(void **state)
{
    (void)state;
    fr_device *dev = open_device(&(fr_device_options){0});
    fr_weight *w = random_weight(dev, FR_Q8_0, 96, 0);
    float *a = random_array(dev, 192), *b = random_array(dev, 192), *out = random_array(dev, 2 * PRODUCT_ROWS);
    const fr_product product = {out, w};
    assert_int_equal(ops->matmul(dev, &product, 1, a, 2), FR_OK);
    assert_int_equal(ops->sync(dev), FR_OK);
    const int before = fake_cuda_count().kernels_run;
    assert_int_equal(ops->rms_norm(dev, b, a, a, 2, 96, 1e-6f), FR_OK);
    assert_int_equal(ops->matmul(dev, &product, 1, a, 2), FR_OK);
    assert_int_equal(ops->rms_norm(dev, b, a, a, 2, 96, 1e-6f), FR_OK);
    assert_int_equal(ops->matmul(dev, &product, 1, b, 1), FR_OK);
    assert_int_equal(ops->silu_mul(dev, b, a, 2, 96), FR_OK);
    assert_int_equal(ops->matmul(dev, &product, 1, a, 2), FR_OK);
    assert_int_equal(ops->silu_mul(dev, b, a, 2, 96), FR_OK);
    assert_int_equal(ops->matmul(dev, &product, 1, b, 1), FR_OK);
    assert_int_equal(ops->sync(dev), FR_OK);
    assert_int_equal(fake_cuda_count().kernels_run - before, 4 * 3);
    ops->weight_free(dev, &w);
    close_device(&dev);
}

/* gate and up of n tokens, then SiLU, in turn or in one: how many kernels it takes, and what gate and up hold then. */
static int run_gate(fr_dtype dtype, int n, bool apart, float values[2][GATE_TOKENS * PRODUCT_ROWS])
{
    const size_t bytes = (size_t)n * PRODUCT_ROWS * sizeof(float);
    fr_device *dev = open_device(&(fr_device_options){0});
    fr_weight *w = random_weight(dev, dtype, GATE_COLS, 0), *v = random_weight(dev, dtype, GATE_COLS, 1000);
    float *x = random_array(dev, n * GATE_COLS), *gate = random_array(dev, n * PRODUCT_ROWS),
          *up = random_array(dev, n * PRODUCT_ROWS);
    const fr_product products[] = {{gate, w}, {up, v}};
    assert_int_equal(ops->matmul(dev, products, 2, x, n), FR_OK); /* there is scratch memory then */
    assert_int_equal(ops->sync(dev), FR_OK);
    const int before = fake_cuda_count().kernels_run;
    assert_int_equal(ops->matmul(dev, products, 2, x, n), FR_OK);
    if (apart)
        assert_int_equal(ops->sync(dev), FR_OK);
    assert_int_equal(ops->silu_mul(dev, gate, up, n, PRODUCT_ROWS), FR_OK);
    assert_int_equal(ops->download(dev, values[0], gate, bytes), FR_OK);
    assert_int_equal(ops->download(dev, values[1], up, bytes), FR_OK);
    const int kernels = fake_cuda_count().kernels_run - before;
    ops->weight_free(dev, &w);
    ops->weight_free(dev, &v);
    close_device(&dev);
    return kernels;
}

/* Where few tokens are multiplied; and a token's values are the same with many. */
static void test_gate_goes_with_its_products(void **state)
{
    (void)state;
    enum { MOST = GATE_TOKENS - 1 };
    static const fr_dtype dtypes[] = {FR_BF16, FR_F16};
    static const int tokens[] = {1, 8, 13, MOST, GATE_TOKENS};
    float first[PRODUCT_ROWS];
    static float got[2][GATE_TOKENS * PRODUCT_ROWS], want[2][GATE_TOKENS * PRODUCT_ROWS];
    for (int type = 0; type < 2; type++)
        for (int i = 0; i < 5; i++) {
            const int n = tokens[i], apart = run_gate(dtypes[type], n, true, want);
            assert_int_equal(run_gate(dtypes[type], n, false, got), n <= MOST ? apart - 1 : apart);
            for (int part = 0; part < 2; part++)
                assert_memory_equal(got[part], want[part], (size_t)n * PRODUCT_ROWS * sizeof(float));
            if (i == 0)
                memcpy(first, got[0], sizeof first);
            assert_memory_equal(got[0], first, sizeof first);
            assert_true(isfinite(got[0][0]) && got[0][0] != got[0][1]);
        }
}

/* Products of other arrays, or in the other order, stay what they are. */
static void test_not_the_products(void **state)
{
    (void)state;
    fr_device *dev = open_device(&(fr_device_options){0});
    fr_weight *w = random_weight(dev, FR_BF16, 64, 0), *v = random_weight(dev, FR_BF16, 64, 1000);
    float *x = random_array(dev, 128), *gate = random_array(dev, 2 * PRODUCT_ROWS),
          *up = random_array(dev, 2 * PRODUCT_ROWS), *other = random_array(dev, 2 * PRODUCT_ROWS);
    const fr_product products[] = {{gate, w}, {up, v}, {other, v}};
    const int before = fake_cuda_count().kernels_run;
    assert_int_equal(ops->matmul(dev, products, 2, x, 2), FR_OK);
    assert_int_equal(ops->silu_mul(dev, up, gate, 2, PRODUCT_ROWS), FR_OK);
    assert_int_equal(ops->matmul(dev, products, 2, x, 2), FR_OK);
    assert_int_equal(ops->silu_mul(dev, gate, other, 2, PRODUCT_ROWS), FR_OK);
    assert_int_equal(ops->matmul(dev, products, 2, x, 2), FR_OK);
    assert_int_equal(ops->silu_mul(dev, gate, up, 1, PRODUCT_ROWS), FR_OK);
    assert_int_equal(ops->matmul(dev, products, 3, x, 2), FR_OK);
    assert_int_equal(ops->silu_mul(dev, gate, up, 2, PRODUCT_ROWS), FR_OK);
    assert_int_equal(ops->sync(dev), FR_OK);
    assert_int_equal(fake_cuda_count().kernels_run - before, 4 * 2);
    ops->weight_free(dev, &w);
    ops->weight_free(dev, &v);
    close_device(&dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations_go_with_their_producer), cmocka_unit_test(test_not_the_producer),
        cmocka_unit_test(test_gate_goes_with_its_products), cmocka_unit_test(test_not_the_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
