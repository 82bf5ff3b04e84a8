/* cublas_lt_late.c: what cuBLASLt's functions are in a program that is not linked with it: each hands its arguments on
 * to the library's own once that is open. Their declarations are cublasLt.h's: a signature that differs does not
 * compile. */
#include "cublas_lt_late.h"

#include <cublasLt.h>
#include <pthread.h>
#include <stdio.h>

#include "late.h"

#define LIBRARY_NAME(major) "libcublasLt.so." #major
#define LIBRARY(major) LIBRARY_NAME(major)

/* X(name, parameters, arguments) */
#define FUNCTIONS(X)                                                                               \
    X(cublasLtCreate, (cublasLtHandle_t * handle), (handle))                                       \
    X(cublasLtDestroy, (cublasLtHandle_t handle), (handle))                                        \
    X(cublasLtMatmulDescCreate,                                                                    \
      (cublasLtMatmulDesc_t * desc, cublasComputeType_t compute, cudaDataType_t scale),            \
      (desc, compute, scale))                                                                      \
    X(cublasLtMatmulDescDestroy, (cublasLtMatmulDesc_t desc), (desc))                              \
    X(cublasLtMatmulDescSetAttribute,                                                              \
      (cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t name, const void *value,          \
       size_t bytes),                                                                              \
      (desc, name, value, bytes))                                                                  \
    X(cublasLtMatrixLayoutCreate,                                                                  \
      (cublasLtMatrixLayout_t * layout, cudaDataType type, uint64_t rows, uint64_t cols,           \
       int64_t stride),                                                                            \
      (layout, type, rows, cols, stride))                                                          \
    X(cublasLtMatrixLayoutDestroy, (cublasLtMatrixLayout_t layout), (layout))                      \
    X(cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t * preference), (preference))     \
    X(cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t preference), (preference))      \
    X(cublasLtMatmulPreferenceSetAttribute,                                                        \
      (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t name,           \
       const void *value, size_t bytes),                                                           \
      (preference, name, value, bytes))                                                            \
    X(cublasLtMatmulAlgoGetHeuristic,                                                              \
      (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,               \
       cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,               \
       cublasLtMatmulPreference_t preference, int wanted,                                          \
       cublasLtMatmulHeuristicResult_t results[], int *n_results),                                 \
      (handle, desc, a, b, c, d, preference, wanted, results, n_results))                          \
    X(cublasLtMatmul,                                                                              \
      (cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,       \
       cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,            \
       const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,                  \
       cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,    \
       size_t bytes, cudaStream_t stream),                                                         \
      (handle, desc, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algorithm,   \
       workspace, bytes, stream))

#define X(name, parameters, arguments) __typeof__(name) *name;
static struct {
    FUNCTIONS(X)
} lt;
#undef X

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char problem[256]; /* why it could not be opened; "" when it is open */

static void open_library(void)
{
#define X(name, parameters, arguments) {#name, &lt.name},
    const fr_late_symbol symbols[] = {FUNCTIONS(X)};
#undef X
    if (fr_late_open(LIBRARY(CUBLAS_VER_MAJOR), symbols, sizeof symbols / sizeof *symbols) != FR_OK)
        snprintf(problem, sizeof problem, "cuBLASLt: %s", fr_cause());
}

fr_status fr_cublas_lt_open(void)
{
    pthread_once(&once, open_library);
    return problem[0] ? fr_fail(FR_EUNSUPPORTED, "%s", problem) : FR_OK;
}

#define X(name, parameters, arguments)                                                             \
    cublasStatus_t name parameters                                                                 \
    {                                                                                              \
        return lt.name arguments;                                                                  \
    }
FUNCTIONS(X)
#undef X
