/* cublas_lt.cpp: see cublasLt.h. */
#include "cublasLt.h"

#include <stdio.h>
#include <string.h>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "races.h"
#include "runtime.h"

static const uint64_t algo_magic = 0x6c6f7265; /* marks what the heuristic filled in */
static const size_t wanted_workspace = 4096;   /* asked for where the preference allows it */

struct cublasLtContext {
    int device;
};

struct cublasLtMatmulDescOpaque_t {
    int32_t pointer_mode, transpose_a, transpose_b, epilogue;
};

struct cublasLtMatrixLayoutOpaque_t {
    cudaDataType type;
    int32_t order;
    uint64_t rows, cols;
    int64_t ld;
};

struct cublasLtMatmulPreferenceOpaque_t {
    uint64_t max_workspace;
};

#define LT_CALL(name)                                  \
    do {                                               \
        int code_;                                     \
        if (fake_told_to_fail(name, &code_))           \
            return static_cast<cublasStatus_t>(code_); \
    } while (0)

static cublasStatus_t misuse(cublasStatus_t status, const char *call, const char *what)
{
    fprintf(stderr, "cuda_on_cpu: %s: %s\n", call, what);
    return status;
}

static void count(int *counter, int by)
{
    table_guard guard(fake_table_lock);
    *counter += by;
}

const char *cublasLtGetStatusName(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
        return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
        return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "CUBLAS_STATUS_?";
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return cublasLtGetStatusName(status);
}

size_t cublasLtGetVersion(void)
{
    return CUBLAS_VER_MAJOR * 10000;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    LT_CALL("cublasLtCreate");
    *handle = new cublasLtContext{fake_current_device()};
    count(&fake_counts.lt_handles, 1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    LT_CALL("cublasLtDestroy");
    if (!handle)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    delete handle;
    count(&fake_counts.lt_handles, -1);
    return CUBLAS_STATUS_SUCCESS;
}

/* Descriptors */

template <typename T> static cublasStatus_t destroy(T *descriptor)
{
    if (!descriptor)
        return CUBLAS_STATUS_INVALID_VALUE;
    delete descriptor;
    count(&fake_counts.lt_descriptors, -1);
    return CUBLAS_STATUS_SUCCESS;
}

template <typename T> static cublasStatus_t set(T *field, const void *value, size_t bytes)
{
    if (bytes != sizeof *field)
        return misuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLt...SetAttribute", "wrong size");
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    LT_CALL("cublasLtMatmulDescCreate");
    if ((compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_PEDANTIC) ||
        scale != CUDA_R_32F)
        return misuse(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulDescCreate", "not f32");
    *desc = new cublasLtMatmulDescOpaque_t{CUBLASLT_POINTER_MODE_HOST, CUBLAS_OP_N, CUBLAS_OP_N,
                                           CUBLASLT_EPILOGUE_DEFAULT};
    count(&fake_counts.lt_descriptors, 1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    LT_CALL("cublasLtMatmulDescDestroy");
    return destroy(desc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t name,
                                              const void *value, size_t bytes)
{
    LT_CALL("cublasLtMatmulDescSetAttribute");
    switch (name) {
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        return set(&desc->pointer_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return set(&desc->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return set(&desc->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return set(&desc->epilogue, value, bytes);
    }
    return misuse(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulDescSetAttribute", "not known here");
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    LT_CALL("cublasLtMatrixLayoutCreate");
    *layout = new cublasLtMatrixLayoutOpaque_t{type, CUBLASLT_ORDER_COL, rows, cols, ld};
    count(&fake_counts.lt_descriptors, 1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    LT_CALL("cublasLtMatrixLayoutDestroy");
    return destroy(layout);
}

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t name,
                                                const void *value, size_t bytes)
{
    LT_CALL("cublasLtMatrixLayoutSetAttribute");
    switch (name) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
        return set(&layout->type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return set(&layout->order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
        return set(&layout->rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
        return set(&layout->cols, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
        return set(&layout->ld, value, bytes);
    }
    return misuse(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatrixLayoutSetAttribute",
                  "not known here");
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    LT_CALL("cublasLtMatmulPreferenceCreate");
    *preference = new cublasLtMatmulPreferenceOpaque_t();
    count(&fake_counts.lt_descriptors, 1);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    LT_CALL("cublasLtMatmulPreferenceDestroy");
    return destroy(preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void *value, size_t bytes)
{
    LT_CALL("cublasLtMatmulPreferenceSetAttribute");
    uint32_t unused;
    if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES)
        return set(&preference->max_workspace, value, bytes);
    return set(&unused, value, bytes);
}

/* Products */

/* One operand: where it lies and how its element (row, col), after transposition, is found. */
struct operand {
    const void *data;
    cublasLtMatrixLayoutOpaque_t layout;
    bool transposed;
};

static uint64_t op_rows(const operand &o)
{
    return o.transposed ? o.layout.cols : o.layout.rows;
}

static uint64_t op_cols(const operand &o)
{
    return o.transposed ? o.layout.rows : o.layout.cols;
}

static uint64_t offset(const operand &o, uint64_t row, uint64_t col)
{
    if (o.transposed)
        std::swap(row, col);
    const uint64_t ld = uint64_t(o.layout.ld);
    return o.layout.order == CUBLASLT_ORDER_ROW ? row * ld + col : col * ld + row;
}

static size_t value_bytes(cudaDataType type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

static float load(const operand &o, uint64_t row, uint64_t col)
{
    const uint64_t at = offset(o, row, col);
    if (o.layout.type == CUDA_R_32F)
        return static_cast<const float *>(o.data)[at];
    if (o.layout.type == CUDA_R_16F)
        return __half2float(static_cast<const __half *>(o.data)[at]);
    return __bfloat162float(static_cast<const __nv_bfloat16 *>(o.data)[at]);
}

static void store(const operand &o, uint64_t row, uint64_t col, float value)
{
    void *data = const_cast<void *>(o.data);
    const uint64_t at = offset(o, row, col);
    if (o.layout.type == CUDA_R_32F)
        static_cast<float *>(data)[at] = value;
    else if (o.layout.type == CUDA_R_16F)
        static_cast<__half *>(data)[at] = __float2half_rn(value);
    else
        static_cast<__nv_bfloat16 *>(data)[at] = __float2bfloat16_rn(value);
}

/* Why this operand cannot be used; NULL: it can. */
static const char *check_operand(const operand &o)
{
    const uint64_t inner = o.layout.order == CUBLASLT_ORDER_ROW ? o.layout.cols : o.layout.rows;
    const uint64_t outer = o.layout.order == CUBLASLT_ORDER_ROW ? o.layout.rows : o.layout.cols;
    if (inner == 0 || outer == 0 || o.layout.ld < int64_t(inner))
        return "a leading dimension or a size is too small";
    if (!o.data)
        return nullptr; /* the heuristic knows no addresses */
    const size_t size = value_bytes(o.layout.type);
    if (fake_owner(o.data, ((outer - 1) * uint64_t(o.layout.ld) + inner) * size) < 0)
        return "a matrix does not lie in device memory";
    if (reinterpret_cast<uintptr_t>(o.data) % 256 != 0)
        return "a matrix is not 256-byte aligned, which the heuristic counts on where its preference does not say less";
    if (uint64_t(o.layout.ld) * size % 16 != 0)
        return "matrices whose rows are not 16-byte aligned have no fast algorithm: pad them";
    return nullptr;
}

static const char *check_product(const cublasLtMatmulDescOpaque_t *desc, const operand &a,
                                 const operand &b, const operand &c, const operand &d)
{
    if (desc->pointer_mode != CUBLASLT_POINTER_MODE_HOST ||
        desc->epilogue != CUBLASLT_EPILOGUE_DEFAULT)
        return "only host pointers and no epilogue are known here";
    if (op_rows(a) != op_rows(d) || op_cols(b) != op_cols(d) || op_cols(a) != op_rows(b) ||
        op_rows(c) != op_rows(d) || op_cols(c) != op_cols(d))
        return "shapes do not fit";
    if (a.layout.type != b.layout.type || c.layout.type != d.layout.type)
        return "types do not fit";
    for (const operand *o : {&a, &b, &c, &d})
        if (const char *why = check_operand(*o))
            return why;
    return nullptr;
}

static uint64_t choose_parts(const operand &d)
{
    return op_cols(d) > 16 ? 2 : 1;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *n_results)
{
    LT_CALL("cublasLtMatmulAlgoGetHeuristic");
    *n_results = 0;
    if (!handle || !desc || wanted < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    const operand od = {nullptr, *d, false};
    const char *why =
        check_product(desc, {nullptr, *a, desc->transpose_a == CUBLAS_OP_T},
                      {nullptr, *b, desc->transpose_b == CUBLAS_OP_T}, {nullptr, *c, false}, od);
    if (why)
        return misuse(CUBLAS_STATUS_NOT_SUPPORTED, "cublasLtMatmulAlgoGetHeuristic", why);
    const size_t workspace = preference->max_workspace >= wanted_workspace ? wanted_workspace : 0;
    results[0] = cublasLtMatmulHeuristicResult_t();
    results[0].algo.data[0] = algo_magic;
    results[0].algo.data[1] = choose_parts(od);
    results[0].algo.data[2] = results[0].workspaceSize = workspace;
    results[0].state = CUBLAS_STATUS_SUCCESS;
    results[0].wavesCount = 1;
    *n_results = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* One element: parts of k, each summed up, then added. */
static float dot(const operand &a, const operand &b, uint64_t row, uint64_t col, uint64_t parts)
{
    const uint64_t n = op_cols(a), step = (n + parts - 1) / parts;
    float sum = 0;
    for (uint64_t from = 0; from < n; from += step) {
        float part = 0;
        for (uint64_t k = from; k < n && k < from + step; k++)
            part += load(a, row, k) * load(b, k, col);
        sum += part;
    }
    return sum;
}

static void touch(const operand &o, bool writes)
{
    const size_t size = value_bytes(o.layout.type);
    for (uint64_t row = 0; row < op_rows(o); row++)
        for (uint64_t col = 0; col < op_cols(o); col++)
            fake_race_watch->library_touch(static_cast<const char *>(o.data) + offset(o, row, col) * size,
                                           size, writes);
}

static void watch_races(cudaStream_t stream, const operand &a, const operand &b, const operand *c, const operand &d)
{
    if (!fake_race_watch)
        return;
    fake_race_watch->library_kernel("cublasLtMatmul", stream);
    touch(a, false);
    touch(b, false);
    if (c)
        touch(*c, false);
    touch(d, true);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    LT_CALL("cublasLtMatmul");
    if (!handle || !desc || !a || !b || !c || !d)
        return misuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmul", "NULL");
    const operand oa = {a, *a_layout, desc->transpose_a == CUBLAS_OP_T};
    const operand ob = {b, *b_layout, desc->transpose_b == CUBLAS_OP_T};
    const operand oc = {c, *c_layout, false}, od = {d, *d_layout, false};
    const char *why = check_product(desc, oa, ob, oc, od);
    if (!why && algo && algo->data[0] != algo_magic)
        why = "the algorithm is not one of the heuristic's";
    const size_t needed = algo ? algo->data[2] : 0;
    if (!why && (workspace_bytes < needed || (needed && fake_owner(workspace, needed) < 0)))
        why = "the workspace is too small or no device memory";
    if (!why && reinterpret_cast<uintptr_t>(workspace) % 256 != 0)
        why = "the workspace is not 256-byte aligned";
    if (why)
        return misuse(CUBLAS_STATUS_INVALID_VALUE, "cublasLtMatmul", why);
    const uint64_t parts = algo ? algo->data[1] : choose_parts(od);
    const float scale = *static_cast<const float *>(alpha),
                keep = *static_cast<const float *>(beta);
    const cudaError_t error = fake_push(stream, "cublasLtMatmul", [=](work_run *run) {
        std::lock_guard<std::mutex> kernel(fake_kernel_lock);
        watch_races(run->stream, oa, ob, keep != 0 ? &oc : nullptr, od);
        if (needed)
            memset(workspace, 0xff, needed);
        for (uint64_t row = 0; row < op_rows(od); row++) {
            for (uint64_t col = 0; col < op_cols(od); col++) {
                const float old = keep != 0 ? keep * load(oc, row, col) : 0;
                store(od, row, col, scale * dot(oa, ob, row, col, parts) + old);
            }
        }
        return true;
    });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
