/* test_cuda_matmul.c: the launches that matmul_plan.h gives out, on the CUDA of tests/cuda_on_cpu,
 * against the plain definition in double precision, against the CPU backends' bits, and against
 * themselves with another number of tokens. */
#include <cublasLt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cublas_lt.h"
#include "fake_cuda.h"
#include "matmul.h"
#include "matmul_plan.h"
#include "suite.h"

enum { TOKENS = 70 };
static const int row_counts[] = {1, 7, 8, 16, 17, 40};
static const int batches[] = {1, 2, 3, 5, 8, 9, 16, 17, 32, 33, 64, TOKENS};
enum {
    N_ROW_COUNTS = sizeof row_counts / sizeof *row_counts,
    N_BATCHES = sizeof batches / sizeof *batches
};

/* ---- running a plan */

static void *device_new(size_t bytes)
{
    void *mem = NULL;
    assert_int_equal(cudaMalloc(&mem, bytes > 0 ? bytes : 1), cudaSuccess);
    return mem;
}

static void *device_copy(const void *host, size_t bytes)
{
    void *copy = device_new(bytes);
    assert_int_equal(cudaMemcpy(copy, host, bytes, cudaMemcpyHostToDevice), cudaSuccess);
    return copy;
}

static void *fetch(const void *device, size_t bytes)
{
    void *host = suite_alloc(bytes);
    assert_int_equal(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
    return host;
}

/* Uploaded by pieces of so many tiles of 16 rows. */
static fr_weight upload(const fr_matrix *m, int piece_tiles)
{
    fr_weight w;
    assert_int_equal(fr_cuda_weight_describe(m, &w), FR_OK);
    w.data = device_new(w.bytes);
    for (int64_t first = 0; first < m->rows; first += piece_tiles * FR_CUDA_TILE_ROWS) {
        int64_t end = first + piece_tiles * FR_CUDA_TILE_ROWS;
        end = end < m->rows ? end : m->rows;
        size_t at = fr_cuda_weight_offset(&w, first), bytes = fr_cuda_weight_offset(&w, end) - at;
        void *piece = suite_alloc(bytes);
        memset(piece, 0xA5, bytes);
        fr_cuda_weight_pack(&w, m, first, end, piece);
        assert_int_equal(cudaMemcpy((char *)w.data + at, piece, bytes, cudaMemcpyHostToDevice),
                         cudaSuccess);
        free(piece);
    }
    return w;
}

/* y of every product, one after the other. */
static float *run_products(const fr_weight *weights, int n_products, const float *x, int n,
                           fr_cublas *cublas)
{
    size_t rows = 0;
    for (int i = 0; i < n_products; i++)
        rows += (size_t)weights[i].rows;
    const size_t y_bytes = rows * (size_t)n * sizeof(float);
    float *device_y = device_new(y_bytes), *next = device_y,
          *device_x = device_copy(x, (size_t)n * (size_t)weights[0].cols * sizeof *x);
    fr_product products[FR_CUDA_PRODUCTS_MAX];
    for (int i = 0; i < n_products; i++, next += (size_t)n * (size_t)weights[i - 1].rows)
        products[i] = (fr_product){next, &weights[i]};
    fr_cuda_matmul_request r = {
        .products = products, .n_products = n_products, .x = device_x, .n = n, .cublas = cublas};
    r.scratch = device_new(fr_cuda_matmul_scratch_bytes(&r));
    fr_cuda_command commands[FR_CUDA_MATMUL_COMMANDS];
    int n_commands = fr_cuda_matmul_plan(&r, commands);
    assert_in_range(n_commands, 1, FR_CUDA_MATMUL_COMMANDS);
    for (int i = 0; i < n_commands; i++)
        commands[i].launch(NULL, commands[i].args);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    float *y = fetch(device_y, y_bytes);
    cudaFree(r.scratch);
    cudaFree(device_x);
    cudaFree(device_y);
    return y;
}

static float *run_weight(const fr_weight *w, const float *x, int n)
{
    return run_products(w, 1, x, n, NULL);
}

static float *multiply(const fr_matrix *m, const float *x, int n)
{
    fr_weight w = upload(m, 1);
    float *y = run_weight(&w, x, n);
    cudaFree(w.data);
    return y;
}

/* ---- what it must be */

static double norm(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* Every element against the sum in doubles: off by at most part * |row of W| * |row of x|. */
static void check(const fr_matrix *m, const float *x, int n, const float *y, double part)
{
    float *row = suite_alloc((size_t)m->cols * sizeof *row);
    for (int64_t r = 0; r < m->rows; r++) {
        fr_dtype_to_f32(m->dtype, (const uint8_t *)m->data + (size_t)r * m->row_bytes, row,
                        m->cols);
        const double length = norm(row, m->cols);
        for (int t = 0; t < n; t++) {
            const float *xt = x + t * m->cols;
            double want = 0, got = (double)y[t * m->rows + r];
            for (int64_t c = 0; c < m->cols; c++)
                want += (double)row[c] * (double)xt[c];
            if (!(fabs(got - want) <= part * length * norm(xt, m->cols)))
                fail_msg("%s of %lld x %lld, %d tokens: y[%d][%lld] is %.9g, not %.9g (%.3g parts)",
                         fr_dtype_find(m->dtype)->name, (long long)m->rows, (long long)m->cols, n,
                         t, (long long)r, got, want, fabs(got - want) / length / norm(xt, m->cols));
        }
    }
    free(row);
}

/* Few columns, some that are no whole vectors, and more than a round of eight warps' chunks. */
static int cols_of(fr_dtype t, int which)
{
    const int plain[] = {1, 37, 130, 1100, 2400}, blocks[] = {1, 3, 5, 35, 75},
              supers[] = {1, 2, 3, 5, 10};
    const int block = fr_dtype_find(t)->block_values;
    return block == 1 ? plain[which] : block * (block == 32 ? blocks : supers)[which];
}
enum { N_COLS = 5 };

/* Multiples of 1/64 with 127/64 in every 32: eight bits hold them exactly. */
static void fill_exact(suite_random *r, float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (i % 32 == 5 ? 127.0f : (float)((int)(suite_next(r) % 255) - 127)) / 64;
}

static void check_type(fr_dtype t, bool exact)
{
    suite_random r = {20 + (uint64_t)t};
    for (int which = 0; which < N_COLS; which++)
        for (int k = 0; k < N_ROW_COUNTS; k++) {
            fr_matrix m = suite_matrix(&r, t, row_counts[k], cols_of(t, which));
            const int n = batches[(which * N_ROW_COUNTS + k * 5) % N_BATCHES];
            float *x = suite_alloc((size_t)(n * m.cols) * sizeof *x);
            if (exact)
                fill_exact(&r, x, n * m.cols);
            else
                suite_fill(&r, x, n * m.cols);
            const bool rounds = fr_dtype_find(t)->block_values > 1 && !exact;
            float *y = multiply(&m, x, n);
            check(&m, x, n, y, rounds ? 0.05 / sqrt((double)m.cols) : 1e-6);
            free(y);
            free(x);
            suite_matrix_free(&m);
        }
}

static void test_against_definition(void **state)
{
    (void)state;
    for (int i = 0; i < suite_n_types; i++)
        check_type(suite_types[i], false);
}

static void test_exact_activations(void **state)
{
    (void)state;
    for (int i = 0; i < suite_n_types; i++)
        check_type(suite_types[i], true);
}

/* Products of the largest codes, all of one sign. */
static void test_extreme_codes(void **state)
{
    (void)state;
    suite_random r = {9};
    for (int i = 0; i < suite_n_types; i++) {
        const fr_dtype t = suite_types[i];
        if (fr_dtype_find(t)->block_values == 1)
            continue;
        const uint8_t codes[] = {t == FR_Q8_0 ? 0x7f : 0xff, 0x80};
        for (int k = 0; k < 4; k++) {
            fr_matrix m = suite_matrix(&r, t, 24, cols_of(t, 3));
            suite_set_codes(&r, &m, codes[k / 2]);
            float *x = suite_alloc((size_t)(2 * m.cols) * sizeof *x);
            for (int64_t c = 0; c < 2 * m.cols; c++)
                x[c] = (k % 2 ? 127.0f : -127.0f) / 64;
            float *y = multiply(&m, x, 2);
            check(&m, x, 2, y, 2e-6);
            free(y);
            free(x);
            suite_matrix_free(&m);
        }
    }
}

/* A row of y alone, at any place among others, and in kernels for few and for many tokens. */
static void test_invariance(void **state)
{
    (void)state;
    suite_random r = {3};
    for (int i = 0; i < suite_n_types; i++) {
        const fr_dtype t = suite_types[i];
        fr_matrix m = suite_matrix(&r, t, 40, cols_of(t, 4));
        float *x = suite_alloc((size_t)(TOKENS * m.cols) * sizeof *x);
        suite_fill(&r, x, TOKENS * m.cols);
        fr_weight w = upload(&m, 2);
        float *whole = run_weight(&w, x, TOKENS);
        for (int b = 0; b < N_BATCHES - 1; b++) {
            const int first = (int)(suite_next(&r) % (uint32_t)(TOKENS - batches[b]));
            float *part = run_weight(&w, x + first * m.cols, batches[b]);
            suite_assert_same(part, whole + first * m.rows, batches[b] * m.rows,
                              fr_dtype_find(t)->name);
            free(part);
        }
        cudaFree(w.data);
        free(whole);
        free(x);
        suite_matrix_free(&m);
    }
}

/* The CPU backends' bits, where the operations are the same: K types, and others up to 256 columns;
 * not Q8_0, of which some of those take an offset off after. */
static void test_bits_of_cpu(void **state)
{
    (void)state;
    const fr_ops *ops = NULL;
    if (fr_ops_choose("cpu_avx2", &ops) != FR_OK)
        skip();
    enum { ROWS = 40 };
    suite_random r = {10};
    for (int i = 0; i < suite_n_types; i++) {
        const fr_dtype t = suite_types[i];
        const int block = fr_dtype_find(t)->block_values;
        if (block == 1 || t == FR_Q8_0)
            continue;
        fr_matrix m = suite_matrix(&r, t, ROWS, block == 32 ? 256 : 10 * 256);
        float *x = suite_alloc((size_t)(TOKENS * m.cols) * sizeof *x),
              *want = suite_alloc(TOKENS * ROWS * sizeof *want);
        suite_fill(&r, x, TOKENS * m.cols);
        fr_device *dev = suite_open(ops, 1);
        fr_weight *w = NULL;
        assert_int_equal(ops->weight_new(dev, &m, &w), FR_OK);
        assert_int_equal(ops->matmul(dev, &(fr_product){want, w}, 1, x, TOKENS), FR_OK);
        for (int n = 5; n <= TOKENS; n += TOKENS - 5) {
            float *got = multiply(&m, x, n);
            suite_assert_same(got, want, n * ROWS, fr_dtype_find(t)->name);
            free(got);
        }
        ops->weight_free(dev, &w);
        ops->close(&dev);
        free(want);
        free(x);
        suite_matrix_free(&m);
    }
}

/* Matrices of every kind over the same activations, more of one kind than a launch takes. */
static void test_products_share(void **state)
{
    (void)state;
    static const fr_dtype mixed[] = {FR_Q4_K, FR_Q6_K, FR_Q8_0, FR_F16,
                                     FR_BF16, FR_F32,  FR_Q5_0, FR_Q4_1},
                          alike[] = {FR_BF16, FR_BF16, FR_BF16, FR_BF16,
                                     FR_BF16, FR_F16,  FR_BF16, FR_F16};
    static const int rows[] = {40, 7, 16, 33, 100, 1, 70, 17};
    enum { COLS = 512 };
    suite_random r = {8};
    for (int run = 0; run < 4; run++) {
        const fr_dtype *types = run % 2 ? alike : mixed;
        const int n = run / 2 ? 40 : 9;
        float *x = suite_alloc((size_t)(n * COLS) * sizeof *x), *want[FR_CUDA_PRODUCTS_MAX];
        suite_fill(&r, x, n * COLS);
        fr_weight weights[FR_CUDA_PRODUCTS_MAX];
        for (int i = 0; i < FR_CUDA_PRODUCTS_MAX; i++) {
            fr_matrix m = suite_matrix(&r, types[i], rows[i], COLS);
            weights[i] = upload(&m, 1);
            want[i] = run_weight(&weights[i], x, n);
            suite_matrix_free(&m);
        }
        float *got = run_products(weights, FR_CUDA_PRODUCTS_MAX, x, n, NULL), *at = got;
        for (int i = 0; i < FR_CUDA_PRODUCTS_MAX; at += n * rows[i++]) {
            suite_assert_same(at, want[i], n * rows[i], fr_dtype_find(types[i])->name);
            cudaFree(weights[i].data);
            free(want[i]);
        }
        free(got);
        free(x);
    }
}

/* F16 holds numbers up to 65504 only, and down to 2^-24. */
static void test_activations_beyond_f16(void **state)
{
    (void)state;
    enum { ROWS = 20, COLS = 300 };
    static const float sizes[] = {1e30f, 1e6f, 1, 1e-6f, 1e-25f, 0};
    suite_random r = {12};
    for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++) {
        fr_matrix m = suite_matrix(&r, FR_F16, ROWS, COLS);
        float *x = suite_alloc((size_t)(34 * COLS) * sizeof *x);
        suite_fill(&r, x, 34 * COLS);
        for (int k = 0; k < 34 * COLS; k++)
            x[k] *= sizes[i];
        for (int n = 3; n <= 34; n += 31) {
            float *y = multiply(&m, x, n);
            check(&m, x, n, y, 1e-6);
            free(y);
        }
        free(x);
        suite_matrix_free(&m);
    }
}

/* Through cuBLASLt where it may be used and there are many tokens: not as exact, and x may be
 * beyond F16. */
static void test_cublas(void **state)
{
    (void)state;
    enum { ROWS = 20, COLS = 130, N = FR_CUBLAS_TOKENS };
    static const fr_dtype types[] = {FR_BF16, FR_F16, FR_F32 /* never */};
    suite_random r = {13};
    fr_cublas *lt = NULL;
    assert_int_equal(fr_cublas_open(&lt), FR_OK);
    for (int i = 0; i < 3; i++) {
        fr_matrix m = suite_matrix(&r, types[i], ROWS, COLS);
        float *x = suite_alloc((N + 1) * COLS * sizeof *x);
        suite_fill(&r, x, (N + 1) * COLS);
        for (int k = 0; k < (N + 1) * COLS; k++)
            x[k] *= 1e6f;
        fr_weight w = upload(&m, 1);
        for (int n = N - 1; n <= N + 1; n++) {
            float *y = run_products(&w, 1, x, n, lt), *own = run_products(&w, 1, x, n, NULL);
            check(&m, x, n, y, 0x1p-9);
            const bool same = memcmp(y, own, (size_t)(n * ROWS) * sizeof *y) == 0;
            assert_int_equal(same, n < N || types[i] == FR_F32);
            free(own);
            free(y);
        }
        cudaFree(w.data);
        free(x);
        suite_matrix_free(&m);
    }
    fr_cublas_close(&lt);
    assert_null(lt);
    fr_cublas_close(&lt); /* NULL is fine */
}

/* More tokens than a grid has places in its second dimension. */
enum { MANY_TOKENS = 65536 + 2 };

/* A token of one column: its scale tells its value. */
static void test_quantising_many_tokens(void **state)
{
    (void)state;
    enum { STRIDE = 64, TILE = 8, TILES = (MANY_TOKENS + TILE - 1) / TILE };
    const size_t codes_bytes = FR_CUDA_ACTS_CODES(TILES, STRIDE);
    const size_t bytes = codes_bytes + TILES * TILE * (STRIDE / 32) * 2 * sizeof(float);
    float *x = suite_alloc(MANY_TOKENS * sizeof *x);
    for (int i = 0; i < MANY_TOKENS; i++)
        x[i] = 127.0f * (float)(i % 100);
    float *x_there = device_copy(x, MANY_TOKENS * sizeof *x);
    uint8_t *acts_there = device_new(bytes);
    const fr_cuda_prepare_args args = {.x = x_there, .out = acts_there, .n = MANY_TOKENS, .cols = 1, .stride = STRIDE};
    fr_cuda_matmul_quantise(NULL, &args);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    uint8_t *acts = fetch(acts_there, bytes);
    const float *scales = (const float *)(void *)(acts + codes_bytes); /* [TILES, STRIDE / 32, TILE, 2] */
    for (int i = 0; i < MANY_TOKENS; i++)
        assert_true(scales[(i / TILE * (STRIDE / 32) * TILE + i % TILE) * 2] == (float)(i % 100));
    free(acts);
    cudaFree(acts_there);
    cudaFree(x_there);
    free(x);
}

/* What is made for cuBLASLt. */
static void test_preparations_of_many_tokens(void **state)
{
    (void)state;
    enum { N = MANY_TOKENS, STRIDE = 32 };
    float *x = suite_alloc(N * sizeof *x), *scales = suite_alloc(2 * N * sizeof *scales);
    for (int i = 0; i < N; i++) {
        x[i] = (float)(i % 100);
        scales[2 * i] = 1;
        scales[2 * i + 1] = 2;
    }
    float *x_there = device_copy(x, N * sizeof *x), *scales_there = device_copy(scales, 2 * N * sizeof *scales);
    uint16_t *rounded_there = device_new(N * STRIDE * sizeof *rounded_there);
    fr_cuda_prepare_args args = {.x = x_there, .out = rounded_there, .scales = scales_there, .n = N, .cols = 1,
                                 .stride = STRIDE};
    fr_cuda_matmul_round_f16(NULL, &args);
    args.out = x_there;
    fr_cuda_matmul_unscale(NULL, &args);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    uint16_t *rounded = fetch(rounded_there, N * STRIDE * sizeof *rounded);
    float *unscaled = fetch(x_there, N * sizeof *unscaled);
    for (int i = 0; i < N; i++) {
        assert_true(fr_f16_to_f32(rounded[i * STRIDE]) == x[i] && rounded[i * STRIDE + 1] == 0);
        assert_true(unscaled[i] == 2 * x[i]);
    }
    free(unscaled);
    free(rounded);
    cudaFree(rounded_there);
    cudaFree(scales_there);
    cudaFree(x_there);
    free(scales);
    free(x);
}

/* A shape that cuBLASLt does not have is the own kernels', then and later. */
static void test_cublas_without_algorithm(void **state)
{
    (void)state;
    enum { ROWS = 20, COLS = 64, N = FR_CUBLAS_TOKENS };
    suite_random r = {14};
    fr_cublas *lt = NULL;
    assert_int_equal(fr_cublas_open(&lt), FR_OK);
    fr_matrix m = suite_matrix(&r, FR_BF16, ROWS, COLS);
    float *x = suite_alloc(N * COLS * sizeof *x), *own = NULL;
    suite_fill(&r, x, N * COLS);
    fr_weight w = upload(&m, 1);
    own = run_products(&w, 1, x, N, NULL);
    fake_cuda_fail("cublasLtMatmulAlgoGetHeuristic", 1, CUBLAS_STATUS_NOT_SUPPORTED);
    for (int run = 0; run < 2; run++) {
        float *y = run_products(&w, 1, x, N, lt);
        suite_assert_same(y, own, N * ROWS, "BF16");
        free(y);
    }
    fake_cuda_fail(NULL, 0, 0);
    fr_cublas_close(&lt);
    cudaFree(w.data);
    free(own);
    free(x);
    suite_matrix_free(&m);
}

static void test_cublas_fails_to_open(void **state)
{
    (void)state;
    static const char *const calls[] = {
        "cublasLtCreate", "cublasLtMatmulDescCreate", "cublasLtMatmulDescSetAttribute",
        "cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceSetAttribute"};
    fr_cublas *lt = NULL;
    for (int i = 0; i < (int)(sizeof calls / sizeof *calls); i++) {
        fake_cuda_fail(calls[i], 1, CUBLAS_STATUS_ALLOC_FAILED);
        assert_int_equal(fr_cublas_open(&lt), FR_EUNSUPPORTED);
        assert_non_null(strstr(fr_cause(), calls[i]));
        assert_null(lt);
    }
    fake_cuda_fail("cudaMalloc", 1, cudaErrorMemoryAllocation);
    assert_int_equal(fr_cublas_open(&lt), FR_ENOMEM);
    assert_null(lt);
    (void)cudaGetLastError();
    fake_cuda_fail(NULL, 0, 0);
}

static void test_bad_matrix(void **state)
{
    (void)state;
    fr_weight w;
    fr_matrix m = {.dtype = FR_Q4_K, .data = "", .rows = 2, .cols = 300, .row_bytes = 144};
    assert_int_equal(fr_cuda_weight_describe(&m, &w), FR_EINVAL);
    m.cols = 0;
    assert_int_equal(fr_cuda_weight_describe(&m, &w), FR_EINVAL);
    m = (fr_matrix){.dtype = (fr_dtype)5, .data = "", .rows = 2, .cols = 256, .row_bytes = 144};
    assert_int_equal(fr_cuda_weight_describe(&m, &w), FR_EUNSUPPORTED);
    m = (fr_matrix){
        .dtype = FR_F16, .data = "", .rows = INT64_C(1) << 40, .cols = 1, .row_bytes = 2};
    assert_int_equal(fr_cuda_weight_describe(&m, &w), FR_EUNSUPPORTED);
}

static int all_freed(void **state)
{
    (void)state;
    return fake_cuda_all_freed() ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_definition),
        cmocka_unit_test(test_exact_activations),
        cmocka_unit_test(test_extreme_codes),
        cmocka_unit_test(test_invariance),
        cmocka_unit_test(test_bits_of_cpu),
        cmocka_unit_test(test_products_share),
        cmocka_unit_test(test_activations_beyond_f16),
        cmocka_unit_test(test_cublas),
        cmocka_unit_test(test_quantising_many_tokens),
        cmocka_unit_test(test_preparations_of_many_tokens),
        cmocka_unit_test(test_cublas_without_algorithm),
        cmocka_unit_test(test_cublas_fails_to_open),
        cmocka_unit_test(test_bad_matrix),
    };
    return cmocka_run_group_tests(tests, NULL, all_freed);
}
