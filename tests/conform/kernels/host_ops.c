/* host_ops.c: see host_ops.h. A call's buffers are device memory that lives for the call. */
#include "host_ops.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { BUFFERS_MAX = 16 };

static const fr_ops *real_ops;

/* Device copies of host arrays, which all go at the end of a call. */
typedef struct buffers {
    fr_device *dev;
    void *mem[BUFFERS_MAX];
    int n;
} buffers;

static void release(buffers *b)
{
    for (int i = 0; i < b->n; i++)
        real_ops->mem_free(b->dev, b->mem[i]);
    b->n = 0;
}

/* A device buffer with the contents of host [bytes]. */
static fr_status place(buffers *b, const void *host, size_t bytes, void **out)
{
    FR_TRY(real_ops->mem_alloc(b->dev, bytes, out));
    b->mem[b->n++] = *out;
    return real_ops->upload(b->dev, *out, host, bytes);
}

static fr_status place_f32(buffers *b, const float *host, int64_t n, float **out)
{
    void *mem = NULL;
    FR_TRY(place(b, host, (size_t)n * sizeof *host, &mem));
    *out = mem;
    return FR_OK;
}

static fr_status fetch_f32(buffers *b, float *host, const float *mem, int64_t n)
{
    return real_ops->download(b->dev, host, mem, (size_t)n * sizeof *host);
}

/* `fn` returns through here, so that the buffers go whatever happened. */
static fr_status finish(buffers *b, fr_status st)
{
    release(b);
    return st;
}

/* ---- memory */

/* Host memory, where the device has as much. */
static fr_status host_mem_alloc(fr_device *dev, size_t bytes, void **out)
{
    void *there = NULL;
    FR_TRY(real_ops->mem_alloc(dev, bytes, &there));
    real_ops->mem_free(dev, there);
    size_t size = (bytes + 63) / 64 * 64;
    *out = aligned_alloc(64, size ? size : 64);
    if (!*out)
        return fr_no_memory();
    memset(*out, 0, size);
    return FR_OK;
}

static void host_mem_free(fr_device *dev, void *mem)
{
    (void)dev;
    free(mem);
}

/* There and back again through the device's own memory. */
static fr_status host_copy(fr_device *dev, void *dst, const void *src, size_t bytes)
{
    buffers b = {.dev = dev};
    void *mem = NULL;
    fr_status st = place(&b, src, bytes, &mem);
    if (st == FR_OK)
        st = real_ops->download(dev, dst, mem, bytes);
    return finish(&b, st);
}

/* ---- products and rows */

/* Rows and columns of the weights, which are opaque: noted when they were made. */
typedef struct known_weight {
    const fr_weight *weight;
    int64_t rows, cols;
} known_weight;
static known_weight known[64];

static fr_status host_weight_new(fr_device *dev, const fr_matrix *src, fr_weight **out)
{
    int i = 0;
    while (i < (int)(sizeof known / sizeof *known) && known[i].weight)
        i++;
    if (i == (int)(sizeof known / sizeof *known))
        return fr_fail(FR_ELIMIT, "the suite holds more than %d weights at a time", i);
    FR_TRY(real_ops->weight_new(dev, src, out));
    known[i] = (known_weight){*out, src->rows, src->cols};
    return FR_OK;
}

static const known_weight *find_weight(const fr_weight *w)
{
    int i = 0;
    while (known[i].weight != w)
        i++;
    return &known[i];
}

static void host_weight_free(fr_device *dev, fr_weight **w)
{
    if (*w)
        known[find_weight(*w) - known].weight = NULL;
    real_ops->weight_free(dev, w);
}

static fr_status multiply(buffers *b, const fr_product *products, int n_products, const float *x, int n)
{
    fr_product there[BUFFERS_MAX];
    float *x_there = NULL;
    FR_TRY(place_f32(b, x, n * find_weight(products[0].w)->cols, &x_there));
    for (int i = 0; i < n_products; i++) {
        there[i].w = products[i].w;
        FR_TRY(place_f32(b, products[i].y, n * find_weight(products[i].w)->rows, &there[i].y));
    }
    FR_TRY(real_ops->matmul(b->dev, there, n_products, x_there, n));
    for (int i = 0; i < n_products; i++)
        FR_TRY(fetch_f32(b, products[i].y, there[i].y, n * find_weight(products[i].w)->rows));
    return FR_OK;
}

static fr_status host_matmul(fr_device *dev, const fr_product *products, int n_products, const float *x, int n)
{
    buffers b = {.dev = dev};
    return finish(&b, multiply(&b, products, n_products, x, n));
}

static fr_status host_embed(fr_device *dev, float *x, const fr_matrix *table, const int32_t *tokens, int n)
{
    buffers b = {.dev = dev};
    float *there = NULL;
    fr_status st = place_f32(&b, x, n * table->cols, &there);
    if (st == FR_OK)
        st = real_ops->embed(dev, there, table, tokens, n);
    if (st == FR_OK)
        st = fetch_f32(&b, x, there, n * table->cols);
    return finish(&b, st);
}

static fr_status host_rms_norm(fr_device *dev, float *y, const float *x, const float *weight, int n, int dim,
                               float eps)
{
    buffers b = {.dev = dev};
    float *x_there = NULL, *w_there = NULL, *y_there = NULL;
    fr_status st = place_f32(&b, x, (int64_t)n * dim, &x_there);
    if (st == FR_OK)
        st = place_f32(&b, weight, dim, &w_there);
    if (st == FR_OK && y != x)
        st = place_f32(&b, y, (int64_t)n * dim, &y_there);
    if (st == FR_OK)
        st = real_ops->rms_norm(dev, y == x ? x_there : y_there, x_there, w_there, n, dim, eps);
    if (st == FR_OK)
        st = fetch_f32(&b, y, y == x ? x_there : y_there, (int64_t)n * dim);
    return finish(&b, st);
}

/* x [n, dim] op= y [n_y]. */
static fr_status combine(fr_device *dev, float *x, const float *y, int n, int dim, int64_t n_y,
                         fr_status (*op)(fr_device *dev, float *x, const float *y, int n, int dim))
{
    buffers b = {.dev = dev};
    float *x_there = NULL, *y_there = NULL;
    fr_status st = place_f32(&b, x, (int64_t)n * dim, &x_there);
    if (st == FR_OK)
        st = place_f32(&b, y, n_y, &y_there);
    if (st == FR_OK)
        st = op(dev, x_there, y_there, n, dim);
    if (st == FR_OK)
        st = fetch_f32(&b, x, x_there, (int64_t)n * dim);
    return finish(&b, st);
}

static fr_status host_add(fr_device *dev, float *x, const float *y, int n, int dim)
{
    return combine(dev, x, y, n, dim, (int64_t)n * dim, real_ops->add);
}

static fr_status host_add_bias(fr_device *dev, float *x, const float *bias, int n, int dim)
{
    return combine(dev, x, bias, n, dim, dim, real_ops->add_bias);
}

static fr_status host_silu_mul(fr_device *dev, float *gate, const float *up, int n, int dim)
{
    return combine(dev, gate, up, n, dim, (int64_t)n * dim, real_ops->silu_mul);
}

static fr_status host_rope(fr_device *dev, float *x, const fr_rope *rope, const int32_t *pos, int n, int heads,
                           int head_dim)
{
    buffers b = {.dev = dev};
    float *there = NULL;
    int64_t values = (int64_t)n * heads * head_dim;
    fr_status st = place_f32(&b, x, values, &there);
    if (st == FR_OK)
        st = real_ops->rope(dev, there, rope, pos, n, heads, head_dim);
    if (st == FR_OK)
        st = fetch_f32(&b, x, there, values);
    return finish(&b, st);
}

/* ---- the cache: as many of its pages as a call names */

static fr_status place_cache(buffers *b, const fr_kv *kv, int64_t pages, fr_kv *out)
{
    void *k = NULL, *v = NULL;
    size_t bytes = (size_t)(pages * FR_PAGE * kv->kv_heads * kv->head_dim) * sizeof *kv->k;
    FR_TRY(place(b, kv->k, bytes, &k));
    FR_TRY(place(b, kv->v, bytes, &v));
    *out = *kv;
    out->k = k;
    out->v = v;
    return FR_OK;
}

static fr_status fetch_cache(buffers *b, const fr_kv *kv, int64_t pages, const fr_kv *there)
{
    size_t bytes = (size_t)(pages * FR_PAGE * kv->kv_heads * kv->head_dim) * sizeof *kv->k;
    FR_TRY(real_ops->download(b->dev, kv->k, there->k, bytes));
    return real_ops->download(b->dev, kv->v, there->v, bytes);
}

static fr_status host_kv_write(fr_device *dev, const fr_kv *kv, const float *k, const float *v,
                               const int32_t *slots, int n)
{
    buffers b = {.dev = dev};
    fr_kv there = {0};
    float *k_there = NULL, *v_there = NULL;
    int64_t pages = 0, values = (int64_t)n * kv->kv_heads * kv->head_dim;
    for (int i = 0; i < n; i++)
        pages = slots[i] / FR_PAGE >= pages ? slots[i] / FR_PAGE + 1 : pages;
    fr_status st = place_cache(&b, kv, pages, &there);
    if (st == FR_OK)
        st = place_f32(&b, k, values, &k_there);
    if (st == FR_OK)
        st = place_f32(&b, v, values, &v_there);
    if (st == FR_OK)
        st = real_ops->kv_write(dev, &there, k_there, v_there, slots, n);
    if (st == FR_OK)
        st = fetch_cache(&b, kv, pages, &there);
    return finish(&b, st);
}

/* NULL stays NULL. */
static fr_status place_optional(buffers *b, const float *host, int64_t n, const float **out)
{
    float *there = NULL;
    if (host)
        FR_TRY(place_f32(b, host, n, &there));
    *out = there;
    return FR_OK;
}

static fr_status prepare_heads(buffers *b, const fr_head_inputs *in)
{
    fr_head_inputs there = *in;
    fr_kv kv = {0};
    int64_t pages = 0, dim = in->kv->head_dim, q = in->heads * dim, k = in->kv->kv_heads * dim;
    for (int i = 0; i < in->n; i++)
        pages = in->slots[i] / FR_PAGE >= pages ? in->slots[i] / FR_PAGE + 1 : pages;
    FR_TRY(place_cache(b, in->kv, pages, &kv));
    there.kv = &kv;
    FR_TRY(place_f32(b, in->q, in->n * q, &there.q));
    FR_TRY(place_f32(b, in->k, in->n * k, &there.k));
    FR_TRY(place_f32(b, in->v, in->n * k, &there.v));
    FR_TRY(place_optional(b, in->q_bias, q, &there.q_bias));
    FR_TRY(place_optional(b, in->k_bias, k, &there.k_bias));
    FR_TRY(place_optional(b, in->v_bias, k, &there.v_bias));
    FR_TRY(place_optional(b, in->q_norm, dim, &there.q_norm));
    FR_TRY(place_optional(b, in->k_norm, dim, &there.k_norm));
    FR_TRY(real_ops->head_inputs(b->dev, &there));
    FR_TRY(fetch_f32(b, in->q, there.q, in->n * q));
    return fetch_cache(b, in->kv, pages, &kv);
}

static fr_status host_head_inputs(fr_device *dev, const fr_head_inputs *in)
{
    buffers b = {.dev = dev};
    return finish(&b, prepare_heads(&b, in));
}

static fr_status host_kv_copy(fr_device *dev, const fr_kv *kv, int32_t from, int32_t to, int positions)
{
    buffers b = {.dev = dev};
    fr_kv there = {0};
    int64_t pages = (from > to ? from : to) + 1;
    fr_status st = place_cache(&b, kv, pages, &there);
    if (st == FR_OK)
        st = real_ops->kv_copy(dev, &there, from, to, positions);
    if (st == FR_OK)
        st = fetch_cache(&b, kv, pages, &there);
    return finish(&b, st);
}

static int64_t highest_page(const int32_t *pages, int positions, int64_t highest)
{
    for (int i = 0; i < (positions + FR_PAGE - 1) / FR_PAGE; i++)
        highest = pages[i] > highest ? pages[i] : highest;
    return highest;
}

static fr_status host_attention(fr_device *dev, float *out, const float *q, const fr_kv *kv,
                                const fr_attn_view *views, const int32_t *kv_of_head, int n, int heads,
                                float scale)
{
    buffers b = {.dev = dev};
    fr_kv there = {0};
    float *q_there = NULL, *out_there = NULL;
    int64_t highest = -1, values = (int64_t)n * heads * kv->head_dim;
    for (int i = 0; i < n; i++) {
        highest = highest_page(views[i].trunk_pages, views[i].n_trunk, highest);
        highest = highest_page(views[i].branch_pages, views[i].n_branch, highest);
    }
    fr_status st = place_cache(&b, kv, highest + 1, &there);
    if (st == FR_OK)
        st = place_f32(&b, q, values, &q_there);
    if (st == FR_OK)
        st = place_f32(&b, out, values, &out_there);
    if (st == FR_OK)
        st = real_ops->attention(dev, out_there, q_there, &there, views, kv_of_head, n, heads, scale);
    if (st == FR_OK)
        st = fetch_f32(&b, out, out_there, values);
    return finish(&b, st);
}

static fr_status host_candidates(fr_device *dev, const float *logits, int n, int vocab, int32_t first_token,
                                 const int32_t *tokens, const fr_row_query *queries, void *answers,
                                 size_t answer_bytes)
{
    buffers b = {.dev = dev};
    float *there = NULL;
    void *answers_there = NULL;
    const size_t bytes = (size_t)n * answer_bytes;
    fr_status st = place_f32(&b, logits, (int64_t)n * vocab, &there);
    if (st == FR_OK)
        st = place(&b, answers, bytes, &answers_there);
    if (st == FR_OK)
        st = real_ops->candidates(dev, there, n, vocab, first_token, tokens, queries, answers_there, answer_bytes);
    if (st == FR_OK)
        st = real_ops->download(dev, answers, answers_there, bytes);
    return finish(&b, st);
}

const fr_ops *suite_host_ops(const fr_ops *real)
{
    static fr_ops dressed;
    if (real->host_memory)
        return real;
    real_ops = real;
    dressed = *real;
    dressed.mem_alloc = host_mem_alloc;
    dressed.mem_free = host_mem_free;
    dressed.upload = dressed.download = host_copy;
    dressed.weight_new = host_weight_new;
    dressed.weight_free = host_weight_free;
    dressed.matmul = host_matmul;
    dressed.embed = host_embed;
    dressed.rms_norm = host_rms_norm;
    dressed.add = host_add;
    dressed.add_bias = host_add_bias;
    dressed.silu_mul = host_silu_mul;
    dressed.rope = host_rope;
    dressed.kv_write = host_kv_write;
    dressed.head_inputs = real->head_inputs ? host_head_inputs : NULL;
    dressed.kv_copy = host_kv_copy;
    dressed.attention = host_attention;
    dressed.candidates = host_candidates;
    return &dressed;
}
