/* model.c: binds a file's tensors to a device, this rank's slices only.
 *
 * Column-parallel: rows lo..hi of a matrix. Row-parallel: columns lo..hi of every row, which fall on block borders
 * because fr_config_split() hands out whole units. The rough head is gathered row by row. Where a draft's weights are
 * wanted in fewer bytes, a matrix is quantised on its way to the device, one at a time. */
#include "model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "finite.h"
#include "quantise.h"

static fr_status not_finite(const fr_model *m, const fr_tensor *t, int64_t row, int64_t col)
{
    char show[FR_SHOW_BYTES];
    return fr_fail(FR_EFORMAT, "%s: tensor %s: row %lld, column %lld is not a finite number",
                   fr_model_file_name(m->file), fr_str_show(t->source, show), (long long)row, (long long)col);
}

/* Uploads values lo..hi of a vector tensor, widened to f32. *out stays NULL when t is NULL. */
static fr_status load_vector(fr_model *m, const fr_tensor *t, int lo, int hi, float **out)
{
    if (!t)
        return FR_OK;
    const fr_dtype_info *info = fr_dtype_find(t->dtype);
    if (!info || info->block_values != 1)
        return fr_fail(FR_EUNSUPPORTED, "%s: vector %.*s is of type %s", fr_model_file_name(m->file),
                       (int)t->name.len, t->name.data, info ? info->name : "unknown");
    int n = hi - lo;
    const char *data = (const char *)t->data + (size_t)lo * (size_t)info->block_bytes;
    int64_t bad = fr_first_not_finite(t->dtype, data, n);
    if (bad >= 0)
        return not_finite(m, t, 0, lo + bad);
    float *host = malloc((size_t)n * sizeof *host);
    if (!host)
        return fr_no_memory();
    fr_dtype_to_f32(t->dtype, data, host, n);
    void *mem = NULL;
    fr_status st = m->ops->mem_alloc(m->dev, (size_t)n * sizeof *host, &mem);
    if (st == FR_OK) {
        *out = mem; /* now fr_model_free() releases it, whatever comes */
        st = m->ops->upload(m->dev, mem, host, (size_t)n * sizeof *host);
    }
    free(host);
    return st;
}

/* src in Q4_0; its data are the caller's to free. */
static fr_status to_q4_0(const fr_matrix *src, fr_matrix *out)
{
    size_t row_bytes = fr_dtype_row_bytes(FR_Q4_0, src->cols);
    uint8_t *blocks = malloc((size_t)src->rows * row_bytes);
    float *row = malloc((size_t)src->cols * sizeof *row);
    if (!blocks || !row) {
        free(blocks);
        free(row);
        return fr_no_memory();
    }
    for (size_t r = 0; r < (size_t)src->rows; r++) {
        fr_dtype_to_f32(src->dtype, (const uint8_t *)src->data + r * src->row_bytes, row, src->cols);
        fr_quantise_q4_0(row, blocks + r * row_bytes, src->cols);
    }
    free(row);
    *out = (fr_matrix){.dtype = FR_Q4_0, .data = blocks, .rows = src->rows, .cols = src->cols, .row_bytes = row_bytes};
    return FR_OK;
}

/* What Q4_0 would not make smaller stays as it is, and so does a slice that ends within a block. */
fr_dtype fr_model_held_type(fr_dtype t, int64_t cols, fr_draft_weights weights)
{
    const int shrinks = weights == FR_DRAFT_WEIGHTS_Q4_0 && cols % fr_dtype_find(FR_Q4_0)->block_values == 0 &&
                        fr_dtype_row_bytes(FR_Q4_0, cols) < fr_dtype_row_bytes(t, cols);
    return shrinks ? FR_Q4_0 : t;
}

/* Gives src to the device, held as wanted. *bytes_out: of the matrix that the device was given. */
static fr_status bind_matrix(fr_model *m, const fr_matrix *src, fr_draft_weights weights, fr_weight **out,
                             int64_t *bytes_out)
{
    fr_matrix quantised = {0};
    if (fr_model_held_type(src->dtype, src->cols, weights) != src->dtype) {
        FR_TRY(to_q4_0(src, &quantised));
        src = &quantised;
    }
    *bytes_out = src->rows * (int64_t)fr_dtype_row_bytes(src->dtype, src->cols);
    fr_status st = m->ops->weight_new(m->dev, src, out);
    free((void *)quantised.data);
    return st;
}

/* This rank's part of t, which begins at (row, col). */
static fr_status check_finite(const fr_model *m, const fr_tensor *t, const fr_matrix *part, int64_t row, int64_t col)
{
    int whole = part->row_bytes == fr_dtype_row_bytes(part->dtype, part->cols); /* rows without a gap: one run */
    int64_t n_runs = whole ? 1 : part->rows, run = whole ? part->rows * part->cols : part->cols;
    for (int64_t r = 0; r < n_runs; r++) {
        const char *at = (const char *)part->data + (size_t)r * part->row_bytes;
        int64_t bad = fr_first_not_finite(part->dtype, at, run);
        if (bad >= 0)
            return not_finite(m, t, row + r + bad / part->cols, col + bad % part->cols);
    }
    return FR_OK;
}

/* This matrix, a part of one perhaps, is read next. */
static void ask_for(const fr_model *m, const fr_matrix *part)
{
    if (m->n_ranks > 1) /* else all of the file is read ahead */
        fr_model_file_read_pieces(m->file, part->data, fr_dtype_row_bytes(part->dtype, part->cols), part->row_bytes,
                                  (size_t)part->rows);
}

static fr_status load_matrix(fr_model *m, const fr_tensor *t, fr_range rows, fr_range cols, fr_draft_weights weights,
                             fr_weight **out)
{
    int64_t bytes = 0;
    const fr_dtype_info *info = fr_dtype_find(t->dtype);
    size_t row_bytes = fr_dtype_row_bytes(t->dtype, t->dims[0]);
    fr_matrix src = {
        .dtype = t->dtype,
        .data = (const char *)t->data + (size_t)rows.lo * row_bytes +
                (size_t)(cols.lo / info->block_values) * (size_t)info->block_bytes,
        .rows = rows.hi - rows.lo,
        .cols = cols.hi - cols.lo,
        .row_bytes = row_bytes,
    };
    ask_for(m, &src);
    FR_TRY(check_finite(m, t, &src, rows.lo, cols.lo));
    FR_TRY(bind_matrix(m, &src, weights, out, &bytes));
    m->weight_bytes += bytes;
    /* The backend has its own copy now. The mapping's pages of a column slice may be needed by nobody else either. */
    fr_model_file_drop(m->file, t->data, t->bytes);
    return FR_OK;
}

/* fr_config_tensor(), which see; the tensor counts as known. */
static fr_status find_tensor(fr_model *m, int layer, const char *name, int64_t rows, int64_t cols, int optional,
                             const fr_tensor **out)
{
    FR_TRY(fr_config_tensor(m->file, layer, name, rows, cols, optional, out));
    if (*out)
        m->known[*out - fr_model_file_tensor_at(m->file, 0)] = 1;
    return FR_OK;
}

/* A tensor that nobody asked for would be left out of the arithmetic: a bias that the family does not have. */
static fr_status check_all_known(const fr_model *m)
{
    char show[FR_SHOW_BYTES];
    for (size_t i = 0; i < fr_model_file_n_tensors(m->file); i++)
        if (!m->known[i])
            return fr_fail(FR_EUNSUPPORTED, "%s: tensor %s is not one that this architecture has",
                           fr_model_file_name(m->file),
                           fr_str_show(fr_model_file_tensor_at(m->file, i)->name, show));
    return FR_OK;
}

/* A weight [rows, cols] of a layer, of which this rank takes the given parts. */
static fr_status layer_matrix(fr_model *m, int layer, const char *name, int rows, int cols, fr_range take_rows,
                              fr_range take_cols, fr_weight **out)
{
    const fr_tensor *t = NULL;
    FR_TRY(find_tensor(m, layer, name, rows, cols, 0, &t));
    return load_matrix(m, t, take_rows, take_cols, m->weights, out);
}

static fr_status layer_vector(fr_model *m, int layer, const char *name, int n, fr_range take, int optional,
                              float **out)
{
    const fr_tensor *t = NULL;
    FR_TRY(find_tensor(m, layer, name, n, 0, optional, &t));
    return load_vector(m, t, take.lo, take.hi, out);
}

static fr_range times(fr_range r, int n)
{
    return (fr_range){r.lo * n, r.hi * n};
}

static fr_status load_layer(fr_model *m, int l)
{
    const fr_config *c = &m->config;
    fr_layer *y = &m->layers[l];
    int hd = c->head_dim, n_q = c->n_heads * hd, n_kv = c->n_kv_heads * hd;
    fr_range dim = {0, c->dim}, head = {0, hd};
    fr_range q = times(m->slice.heads, hd), kv = times(m->slice.kv_heads, hd), ff = m->slice.ff;
    FR_TRY(layer_vector(m, l, "attn_norm.weight", c->dim, dim, 0, &y->attn_norm));
    FR_TRY(layer_vector(m, l, "ffn_norm.weight", c->dim, dim, 0, &y->ffn_norm));
    FR_TRY(layer_matrix(m, l, "attn_q.weight", n_q, c->dim, q, dim, &y->q));
    FR_TRY(layer_matrix(m, l, "attn_k.weight", n_kv, c->dim, kv, dim, &y->k));
    FR_TRY(layer_matrix(m, l, "attn_v.weight", n_kv, c->dim, kv, dim, &y->v));
    FR_TRY(layer_vector(m, l, "attn_q.bias", n_q, q, 1, &y->q_bias));
    FR_TRY(layer_vector(m, l, "attn_k.bias", n_kv, kv, 1, &y->k_bias));
    FR_TRY(layer_vector(m, l, "attn_v.bias", n_kv, kv, 1, &y->v_bias));
    FR_TRY(layer_vector(m, l, "attn_q_norm.weight", hd, head, 1, &y->q_norm));
    FR_TRY(layer_vector(m, l, "attn_k_norm.weight", hd, head, 1, &y->k_norm));
    FR_TRY(layer_matrix(m, l, "attn_output.weight", c->dim, n_q, dim, q, &y->out));
    FR_TRY(layer_matrix(m, l, "ffn_gate.weight", c->n_ff, c->dim, ff, dim, &y->gate));
    FR_TRY(layer_matrix(m, l, "ffn_up.weight", c->n_ff, c->dim, ff, dim, &y->up));
    return layer_matrix(m, l, "ffn_down.weight", c->dim, c->n_ff, dim, ff, &y->down);
}

/* Rotation frequencies: base^(-2i/n_rot), divided by the file's factors (Llama 3's long-context scaling) if any. */
static fr_status load_rope(fr_model *m)
{
    const fr_config *c = &m->config;
    const fr_tensor *factors = NULL;
    FR_TRY(find_tensor(m, -1, "rope_freqs.weight", c->n_rot / 2, 0, 1, &factors));
    if (factors && factors->dtype != FR_F32)
        return fr_fail(FR_EUNSUPPORTED, "%s: tensor rope_freqs.weight is not F32", fr_model_file_name(m->file));
    m->inv_freq = malloc((size_t)(c->n_rot / 2) * sizeof *m->inv_freq);
    if (!m->inv_freq)
        return fr_no_memory();
    for (int i = 0; i < c->n_rot / 2; i++) {
        double f = pow(c->rope_base, -2.0 * i / c->n_rot) / c->rope_scale;
        float factor = factors ? ((const float *)factors->data)[i] : 1;
        if (!(factor > 0 && isfinite(factor)))
            return fr_fail(FR_EFORMAT, "%s: tensor rope_freqs.weight: value %d is %g, want a positive number",
                           fr_model_file_name(m->file), i, (double)factor);
        f /= factor;
        m->inv_freq[i] = (float)f;
    }
    return FR_OK;
}

static fr_status load_rough_head(fr_model *m, const fr_ids *tokens, int rank, int n_ranks)
{
    const fr_matrix *t = &m->head_table;
    fr_head *h = &m->rough_head;
    fr_range take = fr_config_vocab_share((int)tokens->len, rank, n_ranks),
             last = fr_config_vocab_share((int)tokens->len, n_ranks - 1, n_ranks);
    if (tokens->data[tokens->len - 1] >= m->config.n_vocab)
        return fr_fail(FR_EFORMAT, "%s: its tokenizer has more tokens than its head of %d", fr_model_file_name(m->file),
                       m->config.n_vocab);
    if (last.lo >= last.hi) /* the first to get nothing; so all ranks refuse alike */
        return fr_fail(FR_EINVAL, "%s: a draft vocabulary of %zu tokens is too small for the ranks",
                       fr_model_file_name(m->file), tokens->len);
    m->rough_vocab = (int)tokens->len;
    m->in_rough_head = calloc((size_t)m->config.n_vocab, 1);
    if (!m->in_rough_head)
        return fr_no_memory();
    for (size_t i = 0; i < tokens->len; i++)
        m->in_rough_head[tokens->data[i]] = 1;
    h->n = take.hi - take.lo;
    h->tokens = malloc((size_t)h->n * sizeof *h->tokens);
    uint8_t *rows = malloc((size_t)h->n * t->row_bytes);
    if (!h->tokens || !rows) {
        free(rows);
        return fr_no_memory();
    }
    memcpy(h->tokens, tokens->data + take.lo, (size_t)h->n * sizeof *h->tokens);
    ask_for(m, t);
    for (int i = 0; i < h->n; i++)
        memcpy(rows + (size_t)i * t->row_bytes, (const uint8_t *)t->data + (size_t)h->tokens[i] * t->row_bytes,
               t->row_bytes);
    fr_matrix src = *t;
    src.data = rows;
    src.rows = h->n;
    int64_t bytes = 0; /* no part of weight_bytes */
    fr_status st = bind_matrix(m, &src, m->weights, &h->weight, &bytes);
    free(rows);
    return st;
}

/* All rows of a matrix with one for each token. */
static fr_matrix table_of(const fr_config *c, const fr_tensor *t)
{
    return (fr_matrix){.dtype = t->dtype, .data = t->data, .rows = c->n_vocab, .cols = c->dim,
                       .row_bytes = fr_dtype_row_bytes(t->dtype, c->dim)};
}

/* Every rank reads rows of the whole table, so each looks through a part of it. A head that is the same is looked
 * through as such. */
static fr_status check_embedding(fr_model *m, const fr_tensor *t)
{
    fr_range rows = m->slice.vocab;
    fr_matrix part = m->embedding;
    part.data = (const char *)part.data + (size_t)rows.lo * part.row_bytes;
    part.rows = rows.hi - rows.lo;
    ask_for(m, &part);
    FR_TRY(check_finite(m, t, &part, rows.lo, 0));
    fr_model_file_drop(m->file, part.data, (size_t)part.rows * part.row_bytes);
    return FR_OK;
}

static fr_status load_heads(fr_model *m, const fr_model_load_options *o)
{
    const fr_config *c = &m->config;
    const fr_tensor *embed = NULL, *head = NULL;
    FR_TRY(find_tensor(m, -1, "token_embd.weight", c->n_vocab, c->dim, 0, &embed));
    m->embedding = table_of(c, embed);
    FR_TRY(layer_vector(m, -1, "output_norm.weight", c->dim, (fr_range){0, c->dim}, 0, &m->out_norm));
    FR_TRY(find_tensor(m, -1, "output.weight", c->n_vocab, c->dim, 1, &head));
    if (head)
        FR_TRY(check_embedding(m, embed));
    else
        head = embed;
    m->head_table = table_of(c, head);
    if (o->rough_tokens->len > 0)
        FR_TRY(load_rough_head(m, o->rough_tokens, o->rank, o->n_ranks));
    m->head.n = m->slice.vocab.hi - m->slice.vocab.lo;
    m->head.first_token = m->slice.vocab.lo;
    return load_matrix(m, head, m->slice.vocab, (fr_range){0, c->dim}, FR_DRAFT_WEIGHTS_FILE, &m->head.weight);
}

static fr_status map_heads(fr_model *m)
{
    int n = m->slice.heads.hi - m->slice.heads.lo, group = m->config.n_heads / m->config.n_kv_heads;
    m->kv_of_head = malloc((size_t)n * sizeof *m->kv_of_head);
    if (!m->kv_of_head)
        return fr_no_memory();
    for (int h = 0; h < n; h++)
        m->kv_of_head[h] = (m->slice.heads.lo + h) / group - m->slice.kv_heads.lo;
    return FR_OK;
}

fr_status fr_model_load(fr_model_file *file, const fr_ops *ops, fr_device *dev,
                        const fr_model_load_options *options, fr_model **out)
{
    fr_status st;
    fr_model *m = calloc(1, sizeof *m);
    if (!m)
        return fr_no_memory();
    m->ops = ops;
    m->dev = dev;
    m->file = file;
    m->weights = options->weights;
    m->n_ranks = options->n_ranks;
    if (m->n_ranks > 1)
        fr_model_file_read_parts(file);
    FR_TRY_GOTO(st, fr_config_read(file, &m->config), fail);
    FR_TRY_GOTO(st,
                fr_config_split(&m->config, fr_model_file_name(file), options->rank, options->n_ranks, &m->slice),
                fail);
    m->layers = calloc((size_t)m->config.n_layers, sizeof *m->layers);
    m->known = calloc(fr_model_file_n_tensors(file), 1);
    if (!m->layers || !m->known) {
        st = fr_no_memory();
        goto fail;
    }
    FR_TRY_GOTO(st, map_heads(m), fail);
    FR_TRY_GOTO(st, load_rope(m), fail);
    /* The largest matrix first: while a matrix is repacked it is in memory twice. */
    FR_TRY_GOTO(st, load_heads(m, options), fail);
    for (int l = 0; l < m->config.n_layers; l++)
        FR_TRY_GOTO(st, load_layer(m, l), fail);
    FR_TRY_GOTO(st, check_all_known(m), fail);
    free(m->known);
    m->known = NULL;
    *out = m;
    return FR_OK;
fail:
    fr_model_free(&m);
    return st;
}

static void free_layer(fr_model *m, fr_layer *y)
{
    float *vectors[] = {y->attn_norm, y->ffn_norm, y->q_bias, y->k_bias, y->v_bias, y->q_norm, y->k_norm};
    fr_weight **weights[] = {&y->q, &y->k, &y->v, &y->out, &y->gate, &y->up, &y->down};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        m->ops->mem_free(m->dev, vectors[i]);
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        m->ops->weight_free(m->dev, weights[i]);
}

void fr_model_free(fr_model **p)
{
    fr_model *m = *p;
    if (!m)
        return;
    for (int l = 0; m->layers && l < m->config.n_layers; l++)
        free_layer(m, &m->layers[l]);
    m->ops->mem_free(m->dev, m->out_norm);
    m->ops->weight_free(m->dev, &m->head.weight);
    m->ops->weight_free(m->dev, &m->rough_head.weight);
    free(m->rough_head.tokens);
    free(m->in_rough_head);
    free(m->layers);
    free(m->known);
    free(m->kv_of_head);
    free(m->inv_freq);
    free(m);
    *p = NULL;
}
