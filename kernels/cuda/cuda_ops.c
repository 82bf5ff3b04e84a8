/* cuda_ops.c: the compute table of a GPU: what the host does of each operation: check, stage what kernels
 * read, push the launch (queue.h). What a pass calls does not wait, but for room. */
#include <stdlib.h>
#include <string.h>

#include "attention_plan.h"
#include "candidates_cuda.h"
#include "check.h"
#include "cuda_error.h"
#include "device.h"
#include "matmul.h"
#include "matmul_plan.h"
#include "ops_cuda.h"
#include "rows_acts.h"

#define HEAD_MAX 256 /* largest head_dim */

static fr_status push(fr_device *dev, fr_cuda_launch launch, const void *args, size_t bytes)
{
    return fr_cuda_queue_push(dev->queue, launch, args, bytes);
}
#define PUSH(dev, launch, args) push(dev, launch, &(args), sizeof(args))

static fr_status stage_i32(fr_device *dev, const int32_t *values, int64_t n, const int32_t **out)
{
    void *there = NULL;
    FR_TRY(fr_cuda_queue_stage(dev->queue, values, (size_t)n * sizeof *values, &there));
    *out = there;
    return FR_OK;
}

/* ---- rows */

static fr_status check_tokens(const fr_matrix *table, const int32_t *tokens, int n)
{
    for (int i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= table->rows)
            return fr_fail(FR_EINVAL, "token %d of an embedding of %lld rows", tokens[i], (long long)table->rows);
    return FR_OK;
}

static int embed_type(fr_dtype t)
{
    return t == FR_F16 ? FR_CUDA_EMBED_F16 : t == FR_BF16 ? FR_CUDA_EMBED_BF16 : FR_CUDA_EMBED_F32;
}

/* Of a row of the table as it travels: plain ones as they are, others widened. */
static size_t embedded_bytes(const fr_matrix *table)
{
    const fr_dtype_info *info = fr_dtype_find(table->dtype);
    return (size_t)table->cols * (info->block_values == 1 ? (size_t)info->block_bytes : sizeof(float));
}

/* The table stays where it is: the rows of the tokens at hand travel. */
static fr_status cuda_embed(fr_device *dev, float *x, const fr_matrix *table, const int32_t *tokens, int n)
{
    FR_TRY(check_tokens(table, tokens, n));
    const int plain = fr_dtype_find(table->dtype)->block_values == 1;
    const size_t row = embedded_bytes(table);
    void *host = NULL, *there = NULL;
    FR_TRY(fr_cuda_queue_reserve(dev->queue, (size_t)n * row, &host, &there));
    for (int i = 0; i < n; i++) {
        const uint8_t *src = (const uint8_t *)table->data + (size_t)tokens[i] * table->row_bytes;
        uint8_t *dst = (uint8_t *)host + (size_t)i * row;
        if (plain)
            memcpy(dst, src, row);
        else
            fr_dtype_to_f32(table->dtype, src, (float *)(void *)dst, table->cols);
    }
    const fr_cuda_embed_args args = {.x = x, .rows = there, .count = n * table->cols,
                                     .dtype = plain ? embed_type(table->dtype) : FR_CUDA_EMBED_F32};
    return PUSH(dev, fr_cuda_embed, args);
}

/* What was added to x [n, dim] just before, whose command then is no more: the norm adds it, too. NULL: nothing. */
static const float *take_sum(fr_cuda_queue *q, const float *x, int n, int dim)
{
    const fr_cuda_add_args *add = fr_cuda_queue_last(q, fr_cuda_add);
    if (!add || add->x != x || add->n != n || add->dim != dim || add->repeat)
        return NULL;
    const float *y = add->y;
    fr_cuda_queue_drop_last(q);
    return y;
}

static fr_status cuda_rms_norm(fr_device *dev, float *y, const float *x, const float *weight, int n, int dim,
                               float eps)
{
    /* x is written only where a sum goes into it: what that sum's caller asked for. */
    const fr_cuda_norm_args args = {.y = y, .x = (float *)(uintptr_t)x, .added = take_sum(dev->queue, x, n, dim),
                                    .weight = weight, .n = n, .dim = dim, .eps = eps};
    return PUSH(dev, fr_cuda_norm, args);
}

static fr_status cuda_add(fr_device *dev, float *x, const float *y, int n, int dim)
{
    const fr_cuda_add_args args = {.x = x, .y = y, .n = n, .dim = dim};
    return PUSH(dev, fr_cuda_add, args);
}

static fr_status cuda_add_bias(fr_device *dev, float *x, const float *bias, int n, int dim)
{
    const fr_cuda_add_args args = {.x = x, .y = bias, .n = n, .dim = dim, .repeat = 1};
    return PUSH(dev, fr_cuda_add, args);
}

/* The products gate and up [n, dim], if they were one command just before: that one then takes SiLU along. */
static bool take_products(fr_cuda_queue *q, fr_cuda_launch products, const float *gate, const float *up, int n, int dim,
                          fr_cuda_matmul_args *out)
{
    const fr_cuda_matmul_args *args = fr_cuda_queue_last(q, products);
    if (!args || args->n != n || args->n_matrices != 2 || args->matrices[0].y != gate || args->matrices[1].y != up ||
        args->matrices[0].rows != dim || args->matrices[1].rows != dim)
        return false;
    *out = *args;
    fr_cuda_queue_drop_last(q);
    return true;
}

static fr_status cuda_silu_mul(fr_device *dev, float *gate, const float *up, int n, int dim)
{
    fr_cuda_matmul_args products;
    if (take_products(dev->queue, fr_cuda_matmul_bf16, gate, up, n, dim, &products))
        return PUSH(dev, fr_cuda_matmul_gated_bf16, products);
    if (take_products(dev->queue, fr_cuda_matmul_f16, gate, up, n, dim, &products))
        return PUSH(dev, fr_cuda_matmul_gated_f16, products);
    const fr_cuda_silu_args args = {.gate = gate, .up = up, .count = (int64_t)n * dim};
    return PUSH(dev, fr_cuda_silu_mul, args);
}

static fr_status check_rope(const fr_rope *rope)
{
    if (rope->n_rot <= 0 || rope->n_rot > HEAD_MAX || rope->n_rot % 2 != 0)
        return fr_fail(FR_EUNSUPPORTED, "rope over %d values: want an even number up to %d", rope->n_rot, HEAD_MAX);
    return FR_OK;
}

static fr_status cuda_rope(fr_device *dev, float *x, const fr_rope *rope, const int32_t *pos, int n, int heads,
                           int head_dim)
{
    const size_t staged[] = {(size_t)n * sizeof *pos, (size_t)rope->n_rot / 2 * sizeof(float)};
    FR_TRY(check_rope(rope));
    FR_TRY(fr_cuda_queue_room(dev->queue, staged, 2));
    fr_cuda_rope_args args = {.x = x, .n = n, .heads = heads, .head_dim = head_dim, .half = rope->n_rot / 2,
                              .neox = rope->style == FR_ROPE_NEOX, .scale = rope->scale};
    void *there = NULL;
    FR_TRY(stage_i32(dev, pos, n, &args.pos));
    FR_TRY(fr_cuda_queue_stage(dev->queue, rope->inv_freq, (size_t)args.half * sizeof(float), &there));
    args.inv_freq = there;
    return PUSH(dev, fr_cuda_rope, args);
}

/* ---- the cache */

static fr_status cuda_kv_write(fr_device *dev, const fr_kv *kv, const float *k, const float *v,
                               const int32_t *slots, int n)
{
    fr_cuda_kv_write_args args = {.cache_k = kv->k, .cache_v = kv->v, .k = k, .v = v, .n = n,
                                  .width = kv->kv_heads * kv->head_dim};
    FR_TRY(stage_i32(dev, slots, n, &args.slots));
    return PUSH(dev, fr_cuda_kv_write, args);
}

static fr_status check_heads(int head_dim)
{
    if (head_dim % 8 != 0 || head_dim > HEAD_MAX)
        return fr_fail(FR_EUNSUPPORTED, "head size %d: want a multiple of 8, at most %d", head_dim, HEAD_MAX);
    return FR_OK;
}

static fr_status cuda_head_inputs(fr_device *dev, const fr_head_inputs *in)
{
    const fr_kv *kv = in->kv;
    void *inv_freq = NULL;
    FR_TRY(check_heads(kv->head_dim));
    FR_TRY(check_rope(in->rope));
    const size_t row_words = (size_t)in->n * sizeof(int32_t);
    const size_t staged[] = {row_words, row_words, (size_t)in->rope->n_rot / 2 * sizeof(float)};
    FR_TRY(fr_cuda_queue_room(dev->queue, staged, 3));
    fr_cuda_heads_args args = {.q = in->q, .k = in->k, .v = in->v, .q_bias = in->q_bias, .k_bias = in->k_bias,
                               .v_bias = in->v_bias, .q_norm = in->q_norm, .k_norm = in->k_norm,
                               .cache_k = kv->k, .cache_v = kv->v, .n = in->n, .heads = in->heads,
                               .kv_heads = kv->kv_heads, .head_dim = kv->head_dim, .half = in->rope->n_rot / 2,
                               .neox = in->rope->style == FR_ROPE_NEOX, .eps = in->eps, .scale = in->rope->scale};
    FR_TRY(stage_i32(dev, in->pos, in->n, &args.pos));
    FR_TRY(stage_i32(dev, in->slots, in->n, &args.slots));
    FR_TRY(fr_cuda_queue_stage(dev->queue, in->rope->inv_freq, (size_t)args.half * sizeof(float), &inv_freq));
    args.inv_freq = inv_freq;
    return PUSH(dev, fr_cuda_heads, args);
}

static fr_status cuda_kv_copy(fr_device *dev, const fr_kv *kv, int32_t from, int32_t to, int positions)
{
    const int32_t order[3] = {from, to, positions};
    fr_cuda_kv_copy_args args = {.cache_k = kv->k, .cache_v = kv->v, .width = kv->kv_heads * kv->head_dim};
    args.page = (int64_t)FR_PAGE * args.width;
    FR_TRY(stage_i32(dev, order, 3, &args.order));
    return PUSH(dev, fr_cuda_kv_copy, args);
}

/* All layers of a pass have one plan, whose words are sent once. */
static fr_status cuda_attention(fr_device *dev, float *out, const float *q, const fr_kv *kv,
                                const fr_attn_view *views, const int32_t *kv_of_head, int n, int heads, float scale)
{
    fr_cuda_attention_plan *plan = &dev->attention;
    void *scratch = NULL;
    const int32_t *words = NULL;
    FR_TRY(check_heads(kv->head_dim));
    FR_TRY(fr_cuda_attention_plan_make(plan, views, n, kv_of_head, heads, kv->head_dim));
    FR_TRY(fr_cuda_scratch(dev, fr_cuda_attention_scratch_bytes(plan, heads, kv->head_dim), &scratch));
    FR_TRY(stage_i32(dev, plan->words, plan->n_words, &words));
    fr_cuda_attention_args args = {.out = out, .q = q, .k = kv->k, .v = kv->v, .scratch = scratch, .n = n,
                                   .heads = heads, .kv_heads = kv->kv_heads, .head_dim = kv->head_dim,
                                   .scale = scale};
    fr_cuda_attention_plan_bind(plan, words, &args);
    return PUSH(dev, fr_cuda_attention, args);
}

/* ---- answers */

static fr_status cuda_candidates(fr_device *dev, const float *logits, int n, int vocab, int32_t first_token,
                                 const int32_t *tokens, const fr_row_query *queries, void *answers,
                                 size_t answer_bytes)
{
    fr_cuda_candidates_args args = {.logits = logits, .answers = answers, .n = n, .answer_bytes = (int64_t)answer_bytes,
                                    .vocab = vocab, .first_token = first_token};
    void *there = NULL;
    FR_TRY(fr_cuda_scratch(dev, fr_cuda_candidates_scratch_bytes(n, vocab), &args.scratch));
    const size_t staged[] = {(size_t)n * sizeof *queries, tokens ? (size_t)vocab * sizeof *tokens : 0};
    FR_TRY(fr_cuda_queue_room(dev->queue, staged, 2));
    if (tokens)
        FR_TRY(stage_i32(dev, tokens, vocab, &args.tokens));
    FR_TRY(fr_cuda_queue_stage(dev->queue, queries, (size_t)n * sizeof *queries, &there));
    args.queries = there;
    return PUSH(dev, fr_cuda_candidates, args);
}

/* ---- products */

#define PIECE_BYTES (4 << 20) /* of a weight packed on the host at a time */

/* The first row of a piece after `row` that is about PIECE_BYTES long. */
static int64_t piece_end(const fr_weight *w, int64_t row)
{
    int64_t end = row;
    do
        end = end + FR_CUDA_TILE_ROWS < w->rows ? end + FR_CUDA_TILE_ROWS : w->rows;
    while (end < w->rows && fr_cuda_weight_offset(w, end) - fr_cuda_weight_offset(w, row) < PIECE_BYTES);
    return end;
}

static size_t piece_bytes(const fr_weight *w, int64_t row)
{
    return fr_cuda_weight_offset(w, piece_end(w, row)) - fr_cuda_weight_offset(w, row);
}

/* Packs and uploads piece by piece; the first is the longest. */
static fr_status fill_weight(fr_device *dev, const fr_weight *w, const fr_matrix *src)
{
    void *piece = malloc(piece_bytes(w, 0));
    if (!piece)
        return fr_no_memory();
    fr_status st = FR_OK;
    for (int64_t row = 0; row < w->rows && st == FR_OK; row = piece_end(w, row)) {
        fr_cuda_weight_pack(w, src, row, piece_end(w, row), piece);
        st = fr_cuda_upload(dev, (uint8_t *)w->data + fr_cuda_weight_offset(w, row), piece, piece_bytes(w, row));
    }
    free(piece);
    return st;
}

static void cuda_weight_free(fr_device *dev, fr_weight **w)
{
    if (*w)
        fr_cuda_mem_free(dev, (*w)->data);
    free(*w);
    *w = NULL;
}

static fr_status cuda_weight_new(fr_device *dev, const fr_matrix *src, fr_weight **out)
{
    fr_weight described;
    FR_TRY(fr_cuda_weight_describe(src, &described));
    fr_weight *w = malloc(sizeof *w);
    if (!w)
        return fr_no_memory();
    *w = described;
    fr_status st = fr_cuda_mem_alloc(dev, w->bytes, &w->data);
    if (st == FR_OK)
        st = fill_weight(dev, w, src);
    if (st != FR_OK)
        cuda_weight_free(dev, &w);
    *out = w;
    return st;
}

static size_t cuda_weight_bytes(const fr_matrix *src)
{
    fr_weight w = {0};
    return fr_cuda_weight_describe(src, &w) == FR_OK ? w.bytes : 0;
}

/* A preparation of x in 8 bits along with the norm that has just made x. */
static fr_status push_with_norm(fr_device *dev, const fr_cuda_norm_args *norm, const fr_cuda_prepare_args *acts,
                                int super)
{
    const fr_cuda_norm_acts_args args = {*norm, *acts};
    fr_cuda_queue_drop_last(dev->queue);
    return PUSH(dev, super ? fr_cuda_norm_quantise_super : fr_cuda_norm_quantise, args);
}

static fr_status push_with_silu(fr_device *dev, const fr_cuda_silu_args *silu, const fr_cuda_prepare_args *acts,
                                int super)
{
    const fr_cuda_silu_acts_args args = {*silu, *acts};
    fr_cuda_queue_drop_last(dev->queue);
    return PUSH(dev, super ? fr_cuda_silu_quantise_super : fr_cuda_silu_quantise, args);
}

/* A command of a product; one that quantises x goes with the command that made x, if that came just before. */
static fr_status push_of_product(fr_device *dev, const fr_cuda_command *c)
{
    const int super = c->launch == fr_cuda_matmul_quantise_super;
    if (super || c->launch == fr_cuda_matmul_quantise) {
        const fr_cuda_norm_args *norm = fr_cuda_queue_last(dev->queue, fr_cuda_norm);
        const fr_cuda_silu_args *silu = fr_cuda_queue_last(dev->queue, fr_cuda_silu_mul);
        fr_cuda_prepare_args acts;
        memcpy(&acts, c->args, sizeof acts);
        if (norm && norm->y == acts.x && norm->n == acts.n && norm->dim == acts.cols)
            return push_with_norm(dev, norm, &acts, super);
        if (silu && silu->gate == acts.x && silu->count == acts.n * acts.cols)
            return push_with_silu(dev, silu, &acts, super);
    }
    return push(dev, c->launch, c->args, c->bytes);
}

static fr_status multiply(fr_device *dev, const fr_product *products, int n_products, const float *x, int n)
{
    fr_cuda_command commands[FR_CUDA_MATMUL_COMMANDS];
    fr_cuda_matmul_request r = {.products = products, .n_products = n_products, .x = x, .n = n,
                                .cublas = dev->cublas};
    FR_TRY(fr_cuda_scratch(dev, fr_cuda_matmul_scratch_bytes(&r), &r.scratch));
    int count = fr_cuda_matmul_plan(&r, commands);
    for (int i = 0; i < count; i++)
        FR_TRY(push_of_product(dev, &commands[i]));
    return FR_OK;
}

static fr_status cuda_matmul(fr_device *dev, const fr_product *products, int n_products, const float *x, int n)
{
    for (int i = 0; i < n_products; i += FR_CUDA_PRODUCTS_MAX) {
        int some = n_products - i < FR_CUDA_PRODUCTS_MAX ? n_products - i : FR_CUDA_PRODUCTS_MAX;
        FR_TRY(multiply(dev, products + i, some, x, n));
    }
    return FR_OK;
}

/* ---- passes to come */

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* What a pass stages, all at once, but for page copies: a pass that had to flush for room could not be one graph. And
 * where only the leader of a group embeds, its device would flush where the others do not. */
static fr_status reserve_staging(fr_device *dev, const fr_pass_bounds *b)
{
    const size_t numbers = (size_t)b->rows * sizeof(int32_t);
    const size_t staged[] = {(size_t)b->rows * embedded_bytes(b->table), numbers, numbers,
                             (size_t)b->head_dim * sizeof(float),
                             fr_cuda_attention_most_words(b->rows, b->context, b->heads) * sizeof(int32_t),
                             (size_t)b->head_rows * sizeof(fr_row_query), (size_t)b->vocab * sizeof(int32_t)};
    return fr_cuda_queue_room(dev->queue, staged, sizeof staged / sizeof *staged);
}

static fr_status cuda_reserve(fr_device *dev, const fr_pass_bounds *b)
{
    size_t bytes = 0;
    void *scratch = NULL;
    const int rows = b->rows > b->head_rows ? b->rows : b->head_rows;
    FR_TRY(check_heads(b->head_dim));
    FR_TRY(fr_cuda_matmul_most_scratch(b->matrices, b->n_matrices, rows, dev->cublas != NULL, &bytes));
    bytes = larger(bytes, fr_cuda_attention_most_scratch(b->rows, b->context, b->heads, b->head_dim));
    bytes = larger(bytes, fr_cuda_candidates_scratch_bytes(b->head_rows, b->vocab));
    FR_TRY(fr_cuda_scratch(dev, bytes, &scratch));
    return reserve_staging(dev, b);
}

const fr_ops fr_ops_cuda = {
    .name = "cuda",
    .open = fr_cuda_open,
    .close = fr_cuda_close,
    .mem_alloc = fr_cuda_mem_alloc,
    .mem_free = fr_cuda_mem_free,
    .upload = fr_cuda_upload,
    .download = fr_cuda_download,
    .weight_new = cuda_weight_new,
    .weight_free = cuda_weight_free,
    .matmul = cuda_matmul,
    .embed = cuda_embed,
    .rms_norm = cuda_rms_norm,
    .add = cuda_add,
    .add_bias = cuda_add_bias,
    .silu_mul = cuda_silu_mul,
    .rope = cuda_rope,
    .kv_write = cuda_kv_write,
    .head_inputs = cuda_head_inputs,
    .kv_copy = cuda_kv_copy,
    .attention = cuda_attention,
    .candidates = cuda_candidates,
    .sync = fr_cuda_sync,
    .enqueue = fr_cuda_enqueue,
    .set_peers = fr_cuda_set_peers,
    .device_id = fr_cuda_device_id,
    .mem_info = fr_cuda_mem_info,
    .weight_bytes = cuda_weight_bytes,
    .mem_bytes = fr_cuda_mem_bytes,
    .reserve = cuda_reserve,
    .device_ms = fr_cuda_device_ms,
    .read_gb_s = fr_cuda_read_gb_s,
};
