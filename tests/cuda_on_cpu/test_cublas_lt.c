/* test_cublas_lt.c: products of the fake cuBLASLt against plain loops, its choice of algorithms, and
 * what it refuses. Layouts as the backend uses them: row-major y [n, rows] = x [n, cols] w [rows,
 * cols]^T is, by columns, y^T = op(w) x^T. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cublasLt.h"
#include "fake_cuda.h"

#define OK(call) assert_int_equal(call, CUBLAS_STATUS_SUCCESS)

enum { ROWS = 24, COLS = 40, MOST = 32, WORKSPACE = 8192 };

typedef struct fixture {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w_layout, x_layout, y_layout;
    cublasLtMatmulPreference_t preference;
    uint16_t *w, *x; /* device, bf16 */
    float *y;
    void *workspace;
    float host_w[ROWS][COLS], host_x[MOST][COLS];
} fixture;

/* Of numbers that bf16 holds exactly. */
static uint16_t to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint16_t)(u >> 16);
}

static void fill(fixture *f)
{
    uint16_t w[ROWS][COLS], x[MOST][COLS];
    for (int r = 0; r < MOST; r++) {
        for (int c = 0; c < COLS; c++) {
            f->host_x[r][c] = (float)((r * 31 + c * 17) % 61 - 30) / (float)(1 << (c % 20));
            x[r][c] = to_bf16(f->host_x[r][c]);
            if (r < ROWS) {
                f->host_w[r][c] = (float)((r * 13 + c * 7) % 41 - 20);
                w[r][c] = to_bf16(f->host_w[r][c]);
            }
        }
    }
    assert_int_equal(cudaMemcpy(f->w, w, sizeof w, cudaMemcpyHostToDevice), cudaSuccess);
    assert_int_equal(cudaMemcpy(f->x, x, sizeof x, cudaMemcpyHostToDevice), cudaSuccess);
}

static int set_up(void **state)
{
    static fixture f;
    const int32_t transpose = CUBLAS_OP_T;
    const uint64_t most = WORKSPACE;
    fake_cuda_reset();
    OK(cublasLtCreate(&f.handle));
    OK(cublasLtMatmulDescCreate(&f.desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    OK(cublasLtMatmulDescSetAttribute(f.desc, CUBLASLT_MATMUL_DESC_TRANSA, &transpose,
                                      sizeof transpose));
    OK(cublasLtMatrixLayoutCreate(&f.w_layout, CUDA_R_16BF, COLS, ROWS, COLS));
    OK(cublasLtMatrixLayoutCreate(&f.x_layout, CUDA_R_16BF, COLS, MOST, COLS));
    OK(cublasLtMatrixLayoutCreate(&f.y_layout, CUDA_R_32F, ROWS, MOST, ROWS));
    OK(cublasLtMatmulPreferenceCreate(&f.preference));
    OK(cublasLtMatmulPreferenceSetAttribute(f.preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                            &most, sizeof most));
    assert_int_equal(cudaMalloc((void **)&f.w, ROWS * COLS * 2), cudaSuccess);
    assert_int_equal(cudaMalloc((void **)&f.x, MOST * COLS * 2), cudaSuccess);
    assert_int_equal(cudaMalloc((void **)&f.y, MOST * ROWS * 4), cudaSuccess);
    assert_int_equal(cudaMalloc(&f.workspace, WORKSPACE), cudaSuccess);
    fill(&f);
    *state = &f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    OK(cublasLtMatmulPreferenceDestroy(f->preference));
    OK(cublasLtMatrixLayoutDestroy(f->w_layout));
    OK(cublasLtMatrixLayoutDestroy(f->x_layout));
    OK(cublasLtMatrixLayoutDestroy(f->y_layout));
    OK(cublasLtMatmulDescDestroy(f->desc));
    OK(cublasLtDestroy(f->handle));
    cudaFree(f->w);
    cudaFree(f->x);
    cudaFree(f->y);
    cudaFree(f->workspace);
    return !fake_cuda_all_freed();
}

static void set_tokens(fixture *f, uint64_t n)
{
    OK(cublasLtMatrixLayoutSetAttribute(f->x_layout, CUBLASLT_MATRIX_LAYOUT_COLS, &n, sizeof n));
    OK(cublasLtMatrixLayoutSetAttribute(f->y_layout, CUBLASLT_MATRIX_LAYOUT_COLS, &n, sizeof n));
}

static cublasLtMatmulHeuristicResult_t choose(fixture *f)
{
    cublasLtMatmulHeuristicResult_t result;
    int found;
    OK(cublasLtMatmulAlgoGetHeuristic(f->handle, f->desc, f->w_layout, f->x_layout, f->y_layout,
                                      f->y_layout, f->preference, 1, &result, &found));
    assert_int_equal(found, 1);
    OK(result.state);
    return result;
}

static cublasStatus_t multiply(fixture *f, const cublasLtMatmulAlgo_t *algo, size_t workspace)
{
    const float one = 1, zero = 0;
    return cublasLtMatmul(f->handle, f->desc, &one, f->w, f->w_layout, f->x, f->x_layout, &zero,
                          f->y, f->y_layout, f->y, f->y_layout, algo, f->workspace, workspace,
                          NULL);
}

static void test_products(void **state)
{
    fixture *f = *state;
    float y[MOST][ROWS];
    const cublasLtMatmulHeuristicResult_t chosen = choose(f);
    OK(multiply(f, &chosen.algo, chosen.workspaceSize));
    assert_int_equal(cudaMemcpy(y, f->y, sizeof y, cudaMemcpyDeviceToHost), cudaSuccess);
    for (int n = 0; n < MOST; n++) {
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int c = 0; c < COLS; c++)
                sum += (double)f->host_x[n][c] * (double)f->host_w[r][c];
            assert_float_equal(y[n][r], sum, 1e-3);
        }
    }
}

/* The same row under the heuristic's choice for few and for many tokens, and under one choice. */
static void test_the_choice_decides_the_order(void **state)
{
    fixture *f = *state;
    float many[MOST][ROWS], few[MOST][ROWS], same[MOST][ROWS];
    const size_t row = sizeof few[0];
    const cublasLtMatmulHeuristicResult_t for_many = choose(f);
    OK(multiply(f, &for_many.algo, WORKSPACE));
    assert_int_equal(cudaMemcpy(many, f->y, sizeof many, cudaMemcpyDeviceToHost), cudaSuccess);
    set_tokens(f, 8);
    const cublasLtMatmulHeuristicResult_t for_few = choose(f);
    OK(multiply(f, &for_few.algo, WORKSPACE));
    assert_int_equal(cudaMemcpy(few, f->y, 8 * row, cudaMemcpyDeviceToHost), cudaSuccess);
    OK(multiply(f, &for_many.algo, WORKSPACE));
    assert_int_equal(cudaMemcpy(same, f->y, 8 * row, cudaMemcpyDeviceToHost), cudaSuccess);
    assert_memory_not_equal(many, few, 8 * row);
    assert_memory_equal(many, same, 8 * row);
}

static void test_what_is_refused(void **state)
{
    fixture *f = *state;
    cublasLtMatmulHeuristicResult_t chosen = choose(f), result;
    cublasLtMatmulAlgo_t unknown = {{0}};
    uint16_t *w = f->w, *x = f->x;
    int found;
    assert_int_equal(multiply(f, &chosen.algo, 0), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(multiply(f, &unknown, WORKSPACE), CUBLAS_STATUS_INVALID_VALUE);
    f->w = (uint16_t *)f->host_w;
    assert_int_equal(multiply(f, &chosen.algo, WORKSPACE), CUBLAS_STATUS_INVALID_VALUE);
    f->w = w + 8; /* its end lies outside */
    assert_int_equal(multiply(f, &chosen.algo, WORKSPACE), CUBLAS_STATUS_INVALID_VALUE);
    f->w = w;
    set_tokens(f, MOST - 1);
    chosen = choose(f);
    f->x = x + 8; /* aligned for 16-byte loads only, which the choice does not know */
    assert_int_equal(multiply(f, &chosen.algo, WORKSPACE), CUBLAS_STATUS_INVALID_VALUE);
    f->x = x;
    assert_int_equal(multiply(f, &chosen.algo, WORKSPACE), CUBLAS_STATUS_SUCCESS);
    const uint64_t wrong = ROWS + 1;
    OK(cublasLtMatrixLayoutSetAttribute(f->w_layout, CUBLASLT_MATRIX_LAYOUT_COLS, &wrong,
                                        sizeof wrong));
    assert_int_equal(cublasLtMatmulAlgoGetHeuristic(f->handle, f->desc, f->w_layout, f->x_layout,
                                                    f->y_layout, f->y_layout, f->preference, 1,
                                                    &result, &found),
                     CUBLAS_STATUS_NOT_SUPPORTED);
    fake_cuda_fail("cublasLtMatmul", 1, CUBLAS_STATUS_EXECUTION_FAILED);
    assert_int_equal(multiply(f, NULL, 0), CUBLAS_STATUS_EXECUTION_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_products, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_choice_decides_the_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
