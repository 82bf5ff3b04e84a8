/* test_matmul.c: matmul and embed of every type. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

enum { TOKENS = 33 };
static const int batches[] = {1, 2, 3, 5, 8, 9, 16, TOKENS};
static const int row_counts[] = {1, 7, 8, 16, 17, 40};

static int cols_of(fr_dtype t, int which)
{
    int block = fr_dtype_find(t)->block_values;
    const int plain[] = {1, 37, 130}, blocks[] = {1, 3, 5};
    return block == 1 ? plain[which] : block * blocks[which];
}

static float norm(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return (float)sqrt(sum);
}

static float *multiply(const fr_ops *ops, int threads, const fr_matrix *m, const float *x, int n)
{
    fr_device *dev = suite_open(ops, threads);
    fr_weight *w = NULL;
    assert_int_equal(ops->weight_new(dev, m, &w), FR_OK);
    float *y = suite_alloc((size_t)(n * m->rows) * sizeof *y);
    assert_int_equal(ops->matmul(dev, &(fr_product){y, w}, 1, x, n), FR_OK);
    ops->weight_free(dev, &w);
    assert_null(w);
    ops->close(&dev);
    assert_null(dev);
    return y;
}

/* Largest row norm of the matrix: errors are measured in parts of |row| |x|. */
static float largest_row(const fr_matrix *m)
{
    float largest = 0, *row = suite_alloc((size_t)m->cols * sizeof *row);
    for (int64_t r = 0; r < m->rows; r++) {
        fr_dtype_to_f32(m->dtype, (const uint8_t *)m->data + (size_t)r * m->row_bytes, row,
                        m->cols);
        largest = fmaxf(largest, norm(row, m->cols));
    }
    free(row);
    return largest;
}

/* Multiples of 1/64 with 127/64 in every 32: eight bits hold them exactly. */
static void fill_exact(suite_random *r, float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (i % 32 == 5 ? 127.0f : (float)((int)(suite_next(r) % 255) - 127)) / 64;
}

static void check_against_reference(bool exact)
{
    suite_random r = {2};
    for (int i = 0; i < suite_n_types; i++)
        for (int which = 0; which < 3; which++)
            for (size_t k = 0; k < sizeof row_counts / sizeof row_counts[0]; k++) {
                fr_dtype t = suite_types[i];
                fr_matrix m = suite_matrix(&r, t, row_counts[k], cols_of(t, which));
                int n = batches[k];
                float *x = suite_alloc((size_t)(n * m.cols) * sizeof *x), longest = 0;
                if (exact)
                    fill_exact(&r, x, n * m.cols);
                else
                    suite_fill(&r, x, n * m.cols);
                for (int row = 0; row < n; row++)
                    longest = fmaxf(longest, norm(x + row * m.cols, m.cols));
                /* Activations may be rounded to 8 bits. */
                bool rounds = fr_dtype_find(t)->block_values > 1 && !exact;
                float part = rounds ? 0.05f / sqrtf((float)m.cols) : 2e-6f;
                float *want = multiply(&fr_ops_cpu_ref, 1, &m, x, n),
                      *got = multiply(suite_ops, 1, &m, x, n);
                suite_assert_close(got, want, n * m.rows, part * largest_row(&m) * longest,
                                   fr_dtype_find(t)->name);
                free(got);
                free(want);
                free(x);
                suite_matrix_free(&m);
            }
}

static void test_against_reference(void **state)
{
    (void)state;
    check_against_reference(false);
}

/* Where nothing has to be rounded, only the order of additions may differ: this catches any wrong
 * code or scale. */
static void test_exact_activations(void **state)
{
    (void)state;
    check_against_reference(true);
}

/* Products of the largest integers, all of one sign: the same as the reference's, and none is lost
 * where sums are held to 16 bits. */
static void test_extreme_codes(void **state)
{
    (void)state;
    enum { ROWS = 24, N = 5 };
    suite_random r = {9};
    for (int i = 0; i < suite_n_types; i++) {
        fr_dtype t = suite_types[i];
        if (fr_dtype_find(t)->block_values == 1)
            continue;
        const uint8_t codes[] = {t == FR_Q8_0 ? 0x7f : 0xff, 0x80}; /* Q8_0's are signed */
        for (int k = 0; k < 4; k++) {
            fr_matrix m = suite_matrix(&r, t, ROWS, cols_of(t, 1));
            suite_set_codes(&r, &m, codes[k / 2]);
            float *x = suite_alloc((size_t)(N * m.cols) * sizeof *x);
            for (int64_t c = 0; c < N * m.cols; c++)
                x[c] = (k % 2 ? 127.0f : -127.0f) / 64;
            float *want = multiply(&fr_ops_cpu_ref, 1, &m, x, N),
                  *got = multiply(suite_ops, 1, &m, x, N);
            suite_assert_close(got, want, N * ROWS, 2e-6f * largest_row(&m) * norm(x, m.cols),
                               fr_dtype_find(t)->name);
            free(got);
            free(want);
            free(x);
            suite_matrix_free(&m);
        }
    }
}

/* However a fast backend multiplies integers, it gets the same ones; what is done to them then is
 * the same in all of them, to the bit. But not for Q8_0, where some take an offset off after. */
static void test_same_integers(void **state)
{
    (void)state;
    const fr_ops *other = NULL;
    if (suite_ops == &fr_ops_cpu_ref || fr_ops_choose("cpu_avx2", &other) != FR_OK)
        skip();
    enum { ROWS = 24 };
    suite_random r = {10};
    for (int i = 0; i < suite_n_types; i++) {
        fr_dtype t = suite_types[i];
        if (fr_dtype_find(t)->block_values == 1 || t == FR_Q8_0)
            continue;
        fr_matrix m = suite_matrix(&r, t, ROWS, cols_of(t, 2));
        float *x = suite_alloc((size_t)(TOKENS * m.cols) * sizeof *x);
        suite_fill(&r, x, TOKENS * m.cols);
        float *want = multiply(other, 1, &m, x, TOKENS),
              *got = multiply(suite_ops, 1, &m, x, TOKENS);
        suite_assert_same(got, want, TOKENS * ROWS, fr_dtype_find(t)->name);
        free(got);
        free(want);
        free(x);
        suite_matrix_free(&m);
    }
}

static void test_row_alone_or_in_batch(void **state)
{
    (void)state;
    suite_random r = {3};
    for (int i = 0; i < suite_n_types; i++) {
        fr_dtype t = suite_types[i];
        fr_matrix m = suite_matrix(&r, t, 40, cols_of(t, 2));
        float *x = suite_alloc((size_t)(TOKENS * m.cols) * sizeof *x);
        suite_fill(&r, x, TOKENS * m.cols);
        float *whole = multiply(suite_ops, 1, &m, x, TOKENS);
        for (size_t b = 0; b < sizeof batches / sizeof batches[0]; b++)
            for (int first = 0; first + batches[b] <= TOKENS; first += 1 + batches[b] / 3) {
                float *part = multiply(suite_ops, 1, &m, x + first * m.cols, batches[b]);
                suite_assert_same(part, whole + first * m.rows, batches[b] * m.rows,
                                  fr_dtype_find(t)->name);
                free(part);
            }
        free(whole);
        free(x);
        suite_matrix_free(&m);
    }
}

/* As many rows as real matrices have, in three of them that share x: a GPU's blocks then take two tiles of rows at a
 * time (FEW_BLOCKS in kernels/cuda), of which the last one of each matrix is not filled. */
enum { MANY_ROWS = 4300, LAST_ROWS = 60, PARTS = 3 };
static const int64_t part_begins[PARTS + 1] = {0, 2055, MANY_ROWS - LAST_ROWS, MANY_ROWS};

static fr_matrix rows_of(const fr_matrix *m, int64_t begin, int64_t end)
{
    fr_matrix rows = *m;
    rows.data = (const uint8_t *)m->data + (size_t)begin * m->row_bytes;
    rows.rows = end - begin;
    return rows;
}

/* y [n, MANY_ROWS] */
static float *multiply_parts(const fr_matrix *m, const float *x, int n)
{
    fr_device *dev = suite_open(suite_ops, 1);
    fr_weight *weights[PARTS] = {0};
    fr_product products[PARTS];
    float *y = suite_alloc((size_t)n * MANY_ROWS * sizeof *y);
    for (int i = 0; i < PARTS; i++) {
        const fr_matrix rows = rows_of(m, part_begins[i], part_begins[i + 1]);
        assert_int_equal(suite_ops->weight_new(dev, &rows, &weights[i]), FR_OK);
        products[i] = (fr_product){suite_alloc((size_t)(n * rows.rows) * sizeof *y), weights[i]};
    }
    assert_int_equal(suite_ops->matmul(dev, products, PARTS, x, n), FR_OK);
    for (int i = 0; i < PARTS; i++) {
        const int64_t rows = part_begins[i + 1] - part_begins[i];
        for (int k = 0; k < n; k++)
            memcpy(y + k * MANY_ROWS + part_begins[i], products[i].y + k * rows, (size_t)rows * sizeof *y);
        suite_ops->weight_free(dev, &weights[i]);
        free(products[i].y);
    }
    suite_ops->close(&dev);
    return y;
}

/* tokens[n_tokens], ascending: the products of so many, with another kernel for each, of tokens that all have: as the
 * reference has them, and as the last rows are when they are multiplied by themselves, with another kernel again. */
static void check_many_rows(suite_random *r, fr_dtype t, int64_t cols, const int *tokens, int n_tokens)
{
    fr_matrix m = suite_matrix(r, t, MANY_ROWS, cols);
    const fr_matrix last = rows_of(&m, MANY_ROWS - LAST_ROWS, MANY_ROWS);
    float *x = suite_alloc((size_t)(TOKENS * cols) * sizeof *x), *before = NULL;
    fill_exact(r, x, TOKENS * cols);
    float *want = multiply(&fr_ops_cpu_ref, 1, &m, x, tokens[n_tokens - 1]),
          *many = multiply(suite_ops, 1, &last, x, TOKENS);
    const float tolerance = 2e-6f * largest_row(&m) * 1.5f * norm(x, cols); /* all x are about as long */
    for (int i = 0; i < n_tokens; i++) {
        float *got = multiply_parts(&m, x, tokens[i]), *few = multiply(suite_ops, 1, &last, x, tokens[i]);
        suite_assert_close(got, want, (int64_t)tokens[i] * MANY_ROWS, tolerance, fr_dtype_find(t)->name);
        suite_assert_same(few, many, (int64_t)tokens[i] * LAST_ROWS, "last rows by themselves");
        for (int k = 0; k < tokens[i]; k++)
            suite_assert_same(got + (k + 1) * MANY_ROWS - LAST_ROWS, many + k * LAST_ROWS, LAST_ROWS, "last rows");
        if (before)
            suite_assert_same(got, before, (int64_t)tokens[i - 1] * MANY_ROWS, "product of fewer tokens");
        free(few);
        free(before);
        before = got;
    }
    free(before);
    free(many);
    free(want);
    free(x);
    suite_matrix_free(&m);
}

static void test_many_rows(void **state)
{
    (void)state;
    static const fr_dtype types[] = {FR_BF16, FR_F16, FR_Q8_0, FR_Q4_K, FR_Q5_K, FR_Q6_K};
    suite_random r = {11};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        check_many_rows(&r, types[i], 256, (const int[]){8, 9, 20}, 3);
}

/* And so many columns that a GPU's warps have a second chunk of them each. */
static void test_many_rows_and_columns(void **state)
{
    (void)state;
    static const fr_dtype types[] = {FR_BF16, FR_Q4_1, FR_Q4_K};
    suite_random r = {12};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        check_many_rows(&r, types[i], 2304, (const int[]){1}, 1);
}

/* Where results may depend on the batch, x may be rounded to the weights' type: 2^-9 of a value in BF16, 2^-12 in
 * F16. */
static void test_batch_dependent(void **state)
{
    (void)state;
    enum { ROWS = 40, COLS = 130, N = 70 };
    static const fr_dtype types[] = {FR_BF16, FR_F16};
    suite_random r = {13};
    for (int i = 0; i < 2; i++) {
        fr_device *dev = NULL;
        if (suite_ops->open(&(fr_device_options){.threads = 1, .batch_dependent = true}, &dev) != FR_OK)
            skip(); /* without the vendor's library */
        fr_matrix m = suite_matrix(&r, types[i], ROWS, COLS);
        float *x = suite_alloc(N * COLS * sizeof *x), *got = suite_alloc(N * ROWS * sizeof *got), longest = 0;
        fr_weight *w = NULL;
        suite_fill(&r, x, N * COLS);
        for (int row = 0; row < N; row++)
            longest = fmaxf(longest, norm(x + row * COLS, COLS));
        float *want = multiply(&fr_ops_cpu_ref, 1, &m, x, N);
        assert_int_equal(suite_ops->weight_new(dev, &m, &w), FR_OK);
        assert_int_equal(suite_ops->matmul(dev, &(fr_product){got, w}, 1, x, N), FR_OK);
        assert_int_equal(suite_ops->sync(dev), FR_OK);
        suite_assert_close(got, want, N * ROWS, (types[i] == FR_BF16 ? 0x1p-9f : 0x1p-12f) * largest_row(&m) * longest,
                           fr_dtype_find(types[i])->name);
        suite_ops->weight_free(dev, &w);
        suite_ops->close(&dev);
        free(got);
        free(want);
        free(x);
        suite_matrix_free(&m);
    }
}

static void test_threads(void **state)
{
    (void)state;
    suite_random r = {4};
    for (int i = 0; i < suite_n_types; i++) {
        fr_dtype t = suite_types[i];
        fr_matrix m = suite_matrix(&r, t, 1003, cols_of(t, 1));
        float *x = suite_alloc((size_t)(9 * m.cols) * sizeof *x);
        suite_fill(&r, x, 9 * m.cols);
        float *one = multiply(suite_ops, 1, &m, x, 9);
        for (int threads = 2; threads <= 3; threads++) {
            float *many = multiply(suite_ops, threads, &m, x, 9);
            suite_assert_same(many, one, 9 * m.rows, fr_dtype_find(t)->name);
            free(many);
        }
        free(one);
        free(x);
        suite_matrix_free(&m);
    }
}

/* Matrices of any types over the same activations give what each gives alone. */
static void test_products_share_activations(void **state)
{
    (void)state;
    enum { COLS = 512, N = 9 };
    static const fr_dtype types[] = {FR_Q4_K, FR_Q6_K, FR_Q8_0, FR_F16, FR_Q5_0};
    enum { PRODUCTS = sizeof types / sizeof types[0] };
    suite_random r = {8};
    fr_device *dev = suite_open(suite_ops, 2);
    float *x = suite_alloc(N * COLS * sizeof *x);
    suite_fill(&r, x, N * COLS);
    fr_product products[PRODUCTS];
    fr_weight *weights[PRODUCTS] = {0};
    float *want[PRODUCTS];
    const int rows[PRODUCTS] = {40, 7, 16, 33, 100};
    for (int i = 0; i < PRODUCTS; i++) {
        fr_matrix m = suite_matrix(&r, types[i], rows[i], COLS);
        assert_int_equal(suite_ops->weight_new(dev, &m, &weights[i]), FR_OK);
        want[i] = multiply(suite_ops, 1, &m, x, N);
        products[i] = (fr_product){suite_alloc((size_t)(N * rows[i]) * sizeof(float)), weights[i]};
        suite_matrix_free(&m);
    }
    assert_int_equal(suite_ops->matmul(dev, products, PRODUCTS, x, N), FR_OK);
    for (int i = 0; i < PRODUCTS; i++) {
        suite_assert_same(products[i].y, want[i], N * rows[i], fr_dtype_find(types[i])->name);
        suite_ops->weight_free(dev, &weights[i]);
        free(products[i].y);
        free(want[i]);
    }
    free(x);
    suite_ops->close(&dev);
}

/* A slice of columns of a wider matrix is a moved pointer with the old stride; the source is not
 * read after weight_new. */
static void test_slice_and_lifetime(void **state)
{
    (void)state;
    suite_random r = {5};
    for (int i = 0; i < suite_n_types; i++) {
        const fr_dtype_info *info = fr_dtype_find(suite_types[i]);
        int cols = info->block_values * 4;
        fr_matrix m = suite_matrix(&r, suite_types[i], 20, cols), slice = m;
        slice.data = (const uint8_t *)m.data + info->block_bytes;
        slice.cols = cols - 2 * info->block_values;
        float *x = suite_alloc((size_t)cols * sizeof *x);
        suite_fill(&r, x + info->block_values, slice.cols);
        float *want = multiply(suite_ops, 1, &m, x, 1);
        fr_device *dev = suite_open(suite_ops, 1);
        fr_weight *w = NULL;
        assert_int_equal(suite_ops->weight_new(dev, &slice, &w), FR_OK);
        suite_matrix_free(&m);
        float got[20];
        assert_int_equal(suite_ops->matmul(dev, &(fr_product){got, w}, 1, x + info->block_values, 1),
                         FR_OK);
        suite_assert_close(got, want, 20, 1e-5f, info->name);
        suite_ops->weight_free(dev, &w);
        suite_ops->weight_free(dev, &w); /* NULL is fine */
        suite_ops->close(&dev);
        free(want);
        free(x);
    }
}

static void test_bad_matrix(void **state)
{
    (void)state;
    suite_random r = {6};
    fr_device *dev = suite_open(suite_ops, 1);
    fr_matrix m = suite_matrix(&r, FR_Q4_K, 2, 512), bad = m;
    fr_weight *w = NULL;
    bad.cols = 300;
    assert_int_equal(suite_ops->weight_new(dev, &bad, &w), FR_EINVAL);
    assert_null(w);
    float x[512];
    assert_int_equal(suite_ops->embed(dev, x, &m, (const int32_t[]){2}, 1), FR_EINVAL);
    assert_int_equal(suite_ops->embed(dev, x, &m, (const int32_t[]){-1}, 1), FR_EINVAL);
    suite_matrix_free(&m);
    suite_ops->close(&dev);
}

static void test_embed(void **state)
{
    (void)state;
    suite_random r = {7};
    const int32_t tokens[] = {4, 0, 4, 2};
    for (int i = 0; i < suite_n_types; i++) {
        fr_dtype t = suite_types[i];
        fr_matrix m = suite_matrix(&r, t, 5, cols_of(t, 2));
        float *x = suite_alloc((size_t)(4 * m.cols) * sizeof *x),
              *want = suite_alloc((size_t)m.cols * sizeof *want);
        fr_device *dev = suite_open(suite_ops, 1);
        assert_int_equal(suite_ops->embed(dev, x, &m, tokens, 4), FR_OK);
        for (int k = 0; k < 4; k++) {
            fr_dtype_to_f32(t, (const uint8_t *)m.data + (size_t)tokens[k] * m.row_bytes, want,
                            m.cols);
            suite_assert_same(x + k * m.cols, want, m.cols, fr_dtype_find(t)->name);
        }
        suite_ops->close(&dev);
        free(want);
        free(x);
        suite_matrix_free(&m);
    }
}

int suite_run_matmul(void)
{
    const struct CMUnitTest matmul_tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_exact_activations),
        cmocka_unit_test(test_extreme_codes),
        cmocka_unit_test(test_same_integers),
        cmocka_unit_test(test_row_alone_or_in_batch),
        cmocka_unit_test(test_many_rows),
        cmocka_unit_test(test_many_rows_and_columns),
        cmocka_unit_test(test_batch_dependent),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_products_share_activations),
        cmocka_unit_test(test_slice_and_lifetime),
        cmocka_unit_test(test_bad_matrix),
        cmocka_unit_test(test_embed),
    };
    return cmocka_run_group_tests(matmul_tests, NULL, NULL);
}
