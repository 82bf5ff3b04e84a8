/* cpu_ref.c: the plain backend, the oracle that every other one is measured against.
 * Straightforward loops in one fixed order, accumulated in f64, nothing tuned; a weight is kept as
 * it lay in the file and widened a row at a time. Threads take whole output rows, token rows or
 * heads. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cpu_device.h"

struct fr_weight {
    fr_dtype dtype;
    int64_t rows, cols;
    size_t row_bytes;
    uint8_t *data; /* [rows] rows of row_bytes */
};

static void ref_weight_free(fr_device *dev, fr_weight **pw)
{
    (void)dev;
    fr_weight *w = *pw;
    if (!w)
        return;
    free(w->data);
    free(w);
    *pw = NULL;
}

static fr_status ref_weight_new(fr_device *dev, const fr_matrix *src, fr_weight **out)
{
    FR_TRY(fr_cpu_check_matrix(src));
    fr_weight *w = calloc(1, sizeof *w);
    if (!w)
        return fr_no_memory();
    w->dtype = src->dtype;
    w->rows = src->rows;
    w->cols = src->cols;
    w->row_bytes = fr_dtype_row_bytes(src->dtype, src->cols);
    w->data = malloc((size_t)w->rows * w->row_bytes);
    if (!w->data) {
        ref_weight_free(dev, &w);
        return fr_no_memory();
    }
    for (int64_t r = 0; r < w->rows; r++)
        memcpy(w->data + (size_t)r * w->row_bytes,
               (const uint8_t *)src->data + (size_t)r * src->row_bytes, w->row_bytes);
    *out = w;
    return FR_OK;
}

typedef struct matmul_job {
    float *y;
    const float *x;
    const fr_weight *w;
    int n;
} matmul_job;

#define PART 256 /* columns widened at a time: a multiple of every block */

/* Output rows begin .. end-1, one weight row at a time for all tokens. y holds f32, so the sums of
 * a row's parts are kept in f64 beside it: sums[TOKENS] for so many tokens at once. */
static void matmul_rows(void *ctx, int64_t begin, int64_t end)
{
    enum { TOKENS = 64 };
    const matmul_job *job = ctx;
    const fr_weight *w = job->w;
    float part[PART];
    for (int64_t r = begin; r < end; r++) {
        for (int first = 0; first < job->n; first += TOKENS) {
            int tokens = job->n - first < TOKENS ? job->n - first : TOKENS;
            double sums[TOKENS] = {0};
            const uint8_t *src = w->data + (size_t)r * w->row_bytes;
            for (int64_t c = 0; c < w->cols; c += PART) {
                int64_t values = w->cols - c < PART ? w->cols - c : PART;
                fr_dtype_to_f32(w->dtype, src + fr_dtype_row_bytes(w->dtype, c), part, values);
                for (int t = 0; t < tokens; t++) {
                    const float *x = job->x + (int64_t)(first + t) * w->cols + c;
                    for (int64_t i = 0; i < values; i++)
                        sums[t] += (double)part[i] * (double)x[i];
                }
            }
            for (int t = 0; t < tokens; t++)
                job->y[(int64_t)(first + t) * w->rows + r] = (float)sums[t];
        }
    }
}

static fr_status ref_matmul(fr_device *dev, const fr_product *products, int n_products,
                            const float *x, int n)
{
    for (int i = 0; i < n_products; i++) {
        matmul_job job = {products[i].y, x, products[i].w, n};
        fr_pool_run(dev->pool, job.w->rows, 16, matmul_rows, &job);
    }
    return FR_OK;
}

static fr_status ref_rms_norm(fr_device *dev, float *y, const float *x, const float *weight, int n,
                              int dim, float eps)
{
    (void)dev;
    for (int64_t r = 0; r < n; r++) {
        double sum = 0;
        for (int64_t i = r * dim; i < (r + 1) * dim; i++)
            sum += (double)x[i] * (double)x[i];
        float scale = (float)(1.0 / sqrt(sum / dim + (double)eps));
        for (int i = 0; i < dim; i++)
            y[r * dim + i] = x[r * dim + i] * scale * weight[i];
    }
    return FR_OK;
}

static fr_status ref_add(fr_device *dev, float *x, const float *y, int n, int dim)
{
    (void)dev;
    for (int64_t i = 0; i < (int64_t)n * dim; i++)
        x[i] += y[i];
    return FR_OK;
}

static fr_status ref_add_bias(fr_device *dev, float *x, const float *bias, int n, int dim)
{
    (void)dev;
    for (int64_t r = 0; r < n; r++)
        for (int i = 0; i < dim; i++)
            x[r * dim + i] += bias[i];
    return FR_OK;
}

static fr_status ref_silu_mul(fr_device *dev, float *gate, const float *up, int n, int dim)
{
    (void)dev;
    for (int64_t i = 0; i < (int64_t)n * dim; i++)
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    return FR_OK;
}

static void rotate(float *a, float *b, float c, float s)
{
    float x = *a, y = *b;
    *a = x * c - y * s;
    *b = x * s + y * c;
}

static fr_status ref_rope(fr_device *dev, float *x, const fr_rope *rope, const int32_t *pos, int n,
                          int heads, int head_dim)
{
    (void)dev;
    int half = rope->n_rot / 2;
    for (int64_t r = 0; r < n; r++)
        for (int i = 0; i < half; i++) {
            float angle = (float)pos[r] * rope->inv_freq[i];
            float c = cosf(angle) * rope->scale, s = sinf(angle) * rope->scale;
            for (int h = 0; h < heads; h++) {
                float *head = x + (r * heads + h) * head_dim;
                if (rope->style == FR_ROPE_NEOX)
                    rotate(head + i, head + i + half, c, s);
                else
                    rotate(head + 2 * i, head + 2 * i + 1, c, s);
            }
        }
    return FR_OK;
}

static fr_status ref_kv_write(fr_device *dev, const fr_kv *kv, const float *k, const float *v,
                              const int32_t *slots, int n)
{
    (void)dev;
    int64_t width = (int64_t)kv->kv_heads * kv->head_dim;
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < width; i++) {
            kv->k[slots[r] * width + i] = fr_f32_to_f16(k[r * width + i]);
            kv->v[slots[r] * width + i] = fr_f32_to_f16(v[r * width + i]);
        }
    return FR_OK;
}

typedef struct attention_job {
    float *out;
    const float *q;
    const fr_kv *kv;
    const fr_attn_view *views;
    const int32_t *kv_of_head;
    int heads;
    float scale;
} attention_job;

static float score(const attention_job *job, const float *q, const fr_attn_view *view, int kv_head,
                   int p)
{
    const fr_kv *kv = job->kv;
    const uint16_t *k = kv->k + (fr_view_slot(view, p) * kv->kv_heads + kv_head) * kv->head_dim;
    double sum = 0;
    for (int i = 0; i < kv->head_dim; i++)
        sum += (double)q[i] * (double)fr_f16_to_f32(k[i]);
    return (float)sum * job->scale;
}

/* One (row, head): the textbook softmax in two passes. The score is computed twice, which spares
 * memory for it. */
static void attend(const attention_job *job, int64_t row, int head)
{
    const fr_kv *kv = job->kv;
    const fr_attn_view *view = &job->views[row];
    int kv_head = job->kv_of_head[head], positions = view->n_trunk + view->n_branch;
    const float *q = job->q + (row * job->heads + head) * kv->head_dim;
    float *out = job->out + (row * job->heads + head) * kv->head_dim;
    float max = -INFINITY;
    for (int p = 0; p < positions; p++)
        max = fmaxf(max, score(job, q, view, kv_head, p));
    double total = 0, sums[FR_HEAD_MAX] = {0};
    for (int p = 0; p < positions; p++) {
        double weight = exp((double)score(job, q, view, kv_head, p) - (double)max);
        const uint16_t *v = kv->v + (fr_view_slot(view, p) * kv->kv_heads + kv_head) * kv->head_dim;
        total += weight;
        for (int i = 0; i < kv->head_dim; i++)
            sums[i] += weight * (double)fr_f16_to_f32(v[i]);
    }
    for (int i = 0; i < kv->head_dim; i++)
        out[i] = (float)(sums[i] / total);
}

static void attend_all(void *ctx, int64_t begin, int64_t end)
{
    const attention_job *job = ctx;
    for (int64_t i = begin; i < end; i++)
        attend(job, i / job->heads, (int)(i % job->heads));
}

static fr_status ref_attention(fr_device *dev, float *out, const float *q, const fr_kv *kv,
                               const fr_attn_view *views, const int32_t *kv_of_head, int n,
                               int heads, float scale)
{
    FR_TRY(fr_cpu_check_head(kv->head_dim));
    attention_job job = {out, q, kv, views, kv_of_head, heads, scale};
    fr_pool_run(dev->pool, (int64_t)n * heads, 1, attend_all, &job);
    return FR_OK;
}

typedef struct candidates_job {
    const float *logits;
    int vocab;
    int32_t first_token;
    const int32_t *tokens;
    const fr_row_query *queries;
    void *answers;
    size_t answer_bytes;
} candidates_job;

static void answer_rows(void *ctx, int64_t begin, int64_t end)
{
    const candidates_job *job = ctx;
    for (int64_t r = begin; r < end; r++)
        fr_row_query_answer(job->logits + r * job->vocab, job->vocab, job->first_token, job->tokens,
                            &job->queries[r], fr_answer_at(job->answers, job->answer_bytes, r));
}

static fr_status ref_candidates(fr_device *dev, const float *logits, int n, int vocab,
                                int32_t first_token, const int32_t *tokens,
                                const fr_row_query *queries, void *answers, size_t answer_bytes)
{
    candidates_job job = {logits, vocab, first_token, tokens, queries, answers, answer_bytes};
    fr_pool_run(dev->pool, n, 1, answer_rows, &job);
    return FR_OK;
}

const fr_ops fr_ops_cpu_ref = {
    .name = "cpu_ref",
    .host_memory = true,
    .open = fr_cpu_open,
    .close = fr_cpu_close,
    .mem_alloc = fr_cpu_mem_alloc,
    .mem_free = fr_cpu_mem_free,
    .upload = fr_cpu_copy,
    .download = fr_cpu_copy,
    .weight_new = ref_weight_new,
    .weight_free = ref_weight_free,
    .matmul = ref_matmul,
    .embed = fr_cpu_embed,
    .rms_norm = ref_rms_norm,
    .add = ref_add,
    .add_bias = ref_add_bias,
    .silu_mul = ref_silu_mul,
    .rope = ref_rope,
    .kv_write = ref_kv_write,
    .kv_copy = fr_cpu_kv_copy,
    .attention = ref_attention,
    .candidates = ref_candidates,
    .sync = fr_cpu_sync,
};
