/* matmul_plan.h: which launches a matmul takes. Products that share x also share what is made of
 * it; those of one kind share launches, so that small matrices fill the GPU together. Internal to
 * kernels/cuda/. */
#ifndef FR_CUDA_MATMUL_PLAN_H
#define FR_CUDA_MATMUL_PLAN_H

#include "command.h"
#include "matmul.h"
#include "weight.h"

#define FR_CUDA_PRODUCTS_MAX 8 /* of one request */
/* Preparations and launches of one request, at most. */
#define FR_CUDA_MATMUL_COMMANDS (7 + 2 * FR_CUDA_PRODUCTS_MAX)

struct fr_cublas;

typedef struct fr_cuda_matmul_request {
    const fr_product *products; /* their columns are the same */
    int n_products;
    const float *x; /* [n, cols], as y device memory */
    int n;
    void *scratch;            /* device memory of fr_cuda_matmul_scratch_bytes() */
    struct fr_cublas *cublas; /* for BF16 and F16 of many tokens; NULL: results as invariant as
                                 ops.h promises (cublas_lt.h) */
} fr_cuda_matmul_request;

/* Whatever the request's scratch is. */
size_t fr_cuda_matmul_scratch_bytes(const fr_cuda_matmul_request *r);
/* The most that any request of up to n tokens takes whose weights are among these, with cuBLASLt or without.
 * FR_EINVAL for a matrix that no weight can be made of. */
fr_status fr_cuda_matmul_most_scratch(const fr_matrix *matrices, int n_matrices, int n, bool cublas, size_t *bytes_out);
/* Does this launch take fr_cuda_matmul_args whose `ahead` it heeds? */
bool fr_cuda_matmul_looks_ahead(fr_cuda_launch launch);
/* What the kernels of these products read first, for the one before them to ask for. Nothing for many tokens: those wait
 * for arithmetic. */
void fr_cuda_matmul_ahead(const fr_product *products, int n_products, int n, fr_cuda_ahead *out);
/* The number of commands in out, to be run in order. */
int fr_cuda_matmul_plan(const fr_cuda_matmul_request *r,
                        fr_cuda_command out[FR_CUDA_MATMUL_COMMANDS]);

#endif
