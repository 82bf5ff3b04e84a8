/* cublas_lt.c: see cublas_lt.h. cuBLASLt stores by columns: its D [rows x n] is y [n, rows], its A
 * and B are W and x as they lie, W transposed. Padding columns are zeros in both. */
#include "cublas_lt.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cublas_lt_late.h"

#define WORKSPACE ((size_t)32 << 20) /* what NVIDIA advises for Hopper */
#define CHOICES 64                   /* shapes remembered */

_Static_assert(sizeof(cublasLtMatmulAlgo_t) == sizeof(uint64_t[8]), "fr_cublas_args.algorithm");

typedef struct choice {
    fr_cublas_shape shape; /* all 0: unused */
    bool found;
    cublasLtMatmulAlgo_t algorithm;
} choice;

struct fr_cublas {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t product; /* f32 sums, W transposed: the same for all shapes */
    cublasLtMatmulPreference_t preference;
    void *workspace; /* device memory */
    cublasStatus_t launched; /* the first error of a launch */
    choice choices[CHOICES];
    int oldest;
};

static fr_status check(cublasStatus_t st, const char *what)
{
    return st == CUBLAS_STATUS_SUCCESS
               ? FR_OK
               : fr_fail(FR_EUNSUPPORTED, "cuBLASLt: %s failed with status %d", what, (int)st);
}

static fr_status open_parts(fr_cublas *lt)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const size_t bytes = WORKSPACE;
    FR_TRY(fr_cublas_lt_open());
    FR_TRY(check(cublasLtCreate(&lt->handle), "cublasLtCreate"));
    FR_TRY(check(cublasLtMatmulDescCreate(&lt->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "cublasLtMatmulDescCreate"));
    FR_TRY(check(cublasLtMatmulDescSetAttribute(lt->product, CUBLASLT_MATMUL_DESC_TRANSA,
                                                &transposed, sizeof transposed),
                 "cublasLtMatmulDescSetAttribute"));
    FR_TRY(
        check(cublasLtMatmulPreferenceCreate(&lt->preference), "cublasLtMatmulPreferenceCreate"));
    FR_TRY(check(cublasLtMatmulPreferenceSetAttribute(lt->preference,
                                                      CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                      &bytes, sizeof bytes),
                 "cublasLtMatmulPreferenceSetAttribute"));
    cudaError_t error = cudaMalloc(&lt->workspace, WORKSPACE);
    return error == cudaSuccess ? FR_OK
                                : fr_fail(FR_ENOMEM, "workspace of cuBLASLt, %zu MiB: %s",
                                          WORKSPACE >> 20, cudaGetErrorString(error));
}

fr_status fr_cublas_open(fr_cublas **out)
{
    fr_cublas *lt = calloc(1, sizeof *lt);
    if (!lt)
        return fr_no_memory();
    fr_status st = open_parts(lt);
    if (st != FR_OK) {
        fr_cublas_close(&lt);
        return st;
    }
    *out = lt;
    return FR_OK;
}

void fr_cublas_close(fr_cublas **plt)
{
    fr_cublas *lt = *plt;
    if (!lt)
        return;
    if (lt->workspace)
        (void)cudaFree(lt->workspace);
    if (lt->preference)
        (void)cublasLtMatmulPreferenceDestroy(lt->preference);
    if (lt->product)
        (void)cublasLtMatmulDescDestroy(lt->product);
    if (lt->handle)
        (void)cublasLtDestroy(lt->handle);
    free(lt);
    *plt = NULL;
}

typedef struct layouts {
    cublasLtMatrixLayout_t w, x, y;
} layouts;

static void free_layouts(layouts *l)
{
    const cublasLtMatrixLayout_t all[] = {l->w, l->x, l->y};
    for (int i = 0; i < 3; i++)
        if (all[i])
            (void)cublasLtMatrixLayoutDestroy(all[i]);
}

static bool make_layouts(const fr_cublas_shape *s, layouts *out)
{
    const cudaDataType type = s->bf16 ? CUDA_R_16BF : CUDA_R_16F;
    const uint64_t rows = (uint64_t)s->rows, stride = (uint64_t)s->stride, n = (uint64_t)s->n;
    *out = (layouts){0};
    if (cublasLtMatrixLayoutCreate(&out->w, type, stride, rows, s->stride) ==
            CUBLAS_STATUS_SUCCESS &&
        cublasLtMatrixLayoutCreate(&out->x, type, stride, n, s->stride) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatrixLayoutCreate(&out->y, CUDA_R_32F, rows, n, s->rows) == CUBLAS_STATUS_SUCCESS)
        return true;
    free_layouts(out);
    return false;
}

static void ask(fr_cublas *lt, choice *c)
{
    cublasLtMatmulHeuristicResult_t best;
    layouts l;
    int found = 0;
    if (!make_layouts(&c->shape, &l))
        return;
    cublasStatus_t st = cublasLtMatmulAlgoGetHeuristic(lt->handle, lt->product, l.w, l.x, l.y, l.y,
                                                       lt->preference, 1, &best, &found);
    free_layouts(&l);
    c->found = st == CUBLAS_STATUS_SUCCESS && found > 0 && best.state == CUBLAS_STATUS_SUCCESS;
    if (c->found)
        c->algorithm = best.algo;
}

bool fr_cublas_choose(fr_cublas *lt, const fr_cublas_shape *shape, uint64_t algorithm[8])
{
    choice *c = NULL;
    for (int i = 0; i < CHOICES && !c; i++)
        if (memcmp(&lt->choices[i].shape, shape, sizeof *shape) == 0)
            c = &lt->choices[i];
    if (!c) {
        c = &lt->choices[lt->oldest];
        lt->oldest = (lt->oldest + 1) % CHOICES;
        *c = (choice){.shape = *shape};
        ask(lt, c);
    }
    memcpy(algorithm, &c->algorithm, sizeof c->algorithm);
    return c->found;
}

void fr_cublas_matmul(cudaStream_t stream, const void *p)
{
    const fr_cublas_args *args = p;
    const float one = 1, zero = 0;
    cublasLtMatmulAlgo_t algorithm;
    layouts l;
    cublasStatus_t st = CUBLAS_STATUS_ALLOC_FAILED;
    if (make_layouts(&args->shape, &l)) {
        memcpy(&algorithm, args->algorithm, sizeof algorithm);
        st = cublasLtMatmul(args->lt->handle, args->lt->product, &one, args->w, l.w, args->x, l.x,
                            &zero, args->y, l.y, args->y, l.y, &algorithm, args->lt->workspace,
                            WORKSPACE, stream);
        free_layouts(&l);
    }
    if (args->lt->launched == CUBLAS_STATUS_SUCCESS)
        args->lt->launched = st;
}

fr_status fr_cublas_status(fr_cublas *lt)
{
    cublasStatus_t st = lt->launched;
    lt->launched = CUBLAS_STATUS_SUCCESS;
    return st == CUBLAS_STATUS_SUCCESS
               ? FR_OK
               : fr_fail(FR_EIO, "cuBLASLt: a product failed with status %d", (int)st);
}
