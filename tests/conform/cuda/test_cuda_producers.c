/* test_cuda_producers.c: commands that a later one replaces by doing their work along (cuda_ops.c): what quantised matrices
 * need of x is made by the kernel that makes x. Over the CUDA that runs on the CPU, whose counts tell what happened. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_cuda.h"
#include "ops_cuda.h"

static const fr_ops *const ops = &fr_ops_cuda;

static fr_device *open_device(void)
{
    fr_device *dev = NULL;
    fake_cuda_reset();
    assert_int_equal(ops->open(&(fr_device_options){0}, &dev), FR_OK);
    return dev;
}

static void close_device(fr_device **dev)
{
    ops->close(dev);
    assert_true(fake_cuda_all_freed());
}

/* A product behind a norm or SiLU of random values, all of small numbers. */
typedef struct producer {
    bool silu, apart; /* apart: what made x is no longer the last command when the product comes */
    fr_dtype dtype;
    int n, cols;
} producer;

enum { PRODUCT_ROWS = 20, PRODUCT_COLS = 1280, PRODUCT_TOKENS = 9 };

static fr_weight *random_weight(fr_device *dev, const producer *p)
{
    static uint8_t bytes[PRODUCT_ROWS * PRODUCT_COLS * 2];
    const fr_dtype_info *info = fr_dtype_find(p->dtype);
    const size_t row = (size_t)p->cols / (size_t)info->block_values * (size_t)info->block_bytes;
    fr_weight *w = NULL;
    for (size_t i = 0; i < PRODUCT_ROWS * row; i++) {
        const size_t in_block = i % (size_t)info->block_bytes;
        bytes[i] = (uint8_t)(i * 2654435761u >> 24);
        if (in_block == 1 || (p->dtype == FR_Q4_K && in_block == 3))
            bytes[i] = 0x20; /* the upper half of a scale: about 1/128 */
    }
    assert_int_equal(ops->weight_new(dev, &(fr_matrix){p->dtype, bytes, PRODUCT_ROWS, p->cols, row}, &w), FR_OK);
    return w;
}

static float *random_array(fr_device *dev, int count)
{
    float values[PRODUCT_TOKENS * PRODUCT_COLS];
    void *mem = NULL;
    for (int i = 0; i < count; i++)
        values[i] = (float)(int)((unsigned)(i + 1) * 2654435761u >> 16 & 0xfff) / 512.0f - 4.0f;
    assert_int_equal(ops->mem_alloc(dev, (size_t)count * sizeof *values, &mem), FR_OK);
    assert_int_equal(ops->upload(dev, mem, values, (size_t)count * sizeof *values), FR_OK);
    return mem;
}

/* How many kernels it takes, and y. */
static int run_producer(const producer *p, float y[PRODUCT_TOKENS * PRODUCT_ROWS])
{
    fr_device *dev = open_device();
    const int count = p->n * p->cols;
    fr_weight *w = random_weight(dev, p);
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
    float *arrays[] = {a, b, c, out};
    for (int i = 0; i < 4; i++)
        ops->mem_free(dev, arrays[i]);
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
    } shapes[] = {{FR_Q8_0, 96}, {FR_Q8_0, 1280}, {FR_Q4_K, 256}, {FR_Q4_K, 1280}};
    float y[PRODUCT_TOKENS * PRODUCT_ROWS], want[PRODUCT_TOKENS * PRODUCT_ROWS];
    for (int i = 0; i < 4; i++)
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
    const producer p = {.dtype = FR_Q8_0, .n = 2, .cols = 96};
    fr_device *dev = open_device();
    fr_weight *w = random_weight(dev, &p);
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
    float *arrays[] = {a, b, out};
    for (int i = 0; i < 3; i++)
        ops->mem_free(dev, arrays[i]);
    ops->weight_free(dev, &w);
    close_device(&dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations_go_with_their_producer), cmocka_unit_test(test_not_the_producer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
