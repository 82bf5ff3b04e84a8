/* forward.c: the transformer, as its diagram has it: x += attention(norm(x)); x += mlp(norm(x)); head(norm(x)).
 *
 * Easy to get wrong: keys are written before any row attends, so rows of one pass see each other through their views;
 * page copies come before all writes; sums, gathers of answers and the broadcast of a prompt's rows are where ranks
 * meet, so every rank must reach them in the same order, whatever it holds. */
#include "forward.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "sampler.h"

/* Passes of so many rows are prompts, or large batches. Of fewer, every rank reads its rows itself: a broadcast would
 * take longer. */
enum { SHARED_ROWS = 64 };

static int n_local(fr_range r)
{
    return r.hi - r.lo;
}

size_t fr_forward_pages_bytes(const fr_config *c, const fr_slice *s, int n_pages)
{
    return (size_t)n_pages * FR_PAGE * (size_t)n_local(s->kv_heads) * (size_t)c->head_dim * sizeof(uint16_t);
}

static fr_status alloc_pages(fr_forward *f, int n_pages)
{
    const fr_model *m = f->model;
    size_t bytes = fr_forward_pages_bytes(&m->config, &m->slice, n_pages);
    f->kv = calloc((size_t)m->config.n_layers, sizeof *f->kv);
    if (!f->kv)
        return fr_no_memory();
    for (int l = 0; l < m->config.n_layers; l++) {
        void *k = NULL, *v = NULL;
        f->kv[l].kv_heads = n_local(m->slice.kv_heads);
        f->kv[l].head_dim = m->config.head_dim;
        FR_TRY(m->ops->mem_alloc(m->dev, bytes, &k));
        f->kv[l].k = k;
        FR_TRY(m->ops->mem_alloc(m->dev, bytes, &v));
        f->kv[l].v = v;
    }
    return FR_OK;
}

/* In the order of fr_forward_floats(). */
static void list_arrays(fr_forward *f, float **out[FR_FORWARD_ARRAYS])
{
    float **const all[FR_FORWARD_ARRAYS] = {&f->x, &f->h, &f->q, &f->attn, &f->k, &f->v, &f->gate, &f->up,
                                            &f->head_x, &f->logits, &f->recent_logits, &f->answers};
    memcpy(out, all, sizeof all);
}

void fr_forward_floats(const fr_config *c, const fr_slice *s, int head_rows, int max_rows,
                       size_t out[FR_FORWARD_ARRAYS])
{
    const size_t n = (size_t)max_rows, dim = (size_t)c->dim, hd = (size_t)c->head_dim,
                 q = (size_t)n_local(s->heads) * hd, kv = (size_t)n_local(s->kv_heads) * hd,
                 ff = (size_t)n_local(s->ff);
    const size_t all[FR_FORWARD_ARRAYS] = {n * dim, n * dim, n * q, n * q, n * kv, n * kv, n * ff, n * ff,
                                           FR_HEAD_ROWS * dim, FR_HEAD_ROWS * (size_t)head_rows,
                                           FR_HEAD_ROWS * FR_RECENT,
                                           FR_FORWARD_ANSWERS / sizeof(float)};
    memcpy(out, all, sizeof all);
}

static fr_status alloc_scratch(fr_forward *f)
{
    const fr_model *m = f->model;
    const int n = f->max_rows;
    float **arrays[FR_FORWARD_ARRAYS];
    size_t floats[FR_FORWARD_ARRAYS];
    list_arrays(f, arrays);
    fr_forward_floats(&m->config, &m->slice, m->head.n > m->rough_head.n ? m->head.n : m->rough_head.n, n, floats);
    for (int i = 0; i < FR_FORWARD_ARRAYS; i++) {
        void *mem = NULL;
        FR_TRY(m->ops->mem_alloc(m->dev, floats[i] * sizeof(float), &mem));
        *arrays[i] = mem;
    }
    FR_TRY(fr_recent_head_open(&f->recent, m));
    f->tokens = calloc((size_t)n, sizeof *f->tokens);
    f->pos = calloc((size_t)n, sizeof *f->pos);
    f->slots = calloc((size_t)n, sizeof *f->slots);
    f->views = calloc((size_t)n, sizeof *f->views);
    f->queries = calloc(FR_HEAD_ROWS, sizeof *f->queries);
    f->slices = calloc(2 * (size_t)f->comm->size, sizeof *f->slices);
    if (!f->tokens || !f->pos || !f->slots || !f->views || !f->queries || !f->slices)
        return fr_no_memory();
    return FR_OK;
}

fr_status fr_forward_open(fr_forward *f, fr_model *model, fr_comm *comm, int max_rows, int n_pages)
{
    fr_status st;
    *f = (fr_forward){.model = model, .comm = comm, .max_rows = max_rows};
    FR_TRY_GOTO(st, alloc_pages(f, n_pages), fail);
    FR_TRY_GOTO(st, alloc_scratch(f), fail);
    return FR_OK;
fail:
    fr_forward_close(f);
    return st;
}

void fr_forward_close(fr_forward *f)
{
    if (!f->model)
        return;
    const fr_ops *ops = f->model->ops;
    fr_device *dev = f->model->dev;
    for (int l = 0; f->kv && l < f->model->config.n_layers; l++) {
        ops->mem_free(dev, f->kv[l].k);
        ops->mem_free(dev, f->kv[l].v);
    }
    float **arrays[FR_FORWARD_ARRAYS];
    list_arrays(f, arrays);
    for (int i = 0; i < FR_FORWARD_ARRAYS; i++)
        ops->mem_free(dev, *arrays[i]);
    free(f->kv);
    free(f->tokens);
    free(f->pos);
    free(f->slots);
    free(f->views);
    free(f->queries);
    fr_recent_head_close(&f->recent);
    free(f->slices);
    fr_buf_free(&f->gathered);
    *f = (fr_forward){0};
}

static fr_status bias(fr_forward *f, float *x, const float *b, int n, int dim)
{
    return b ? f->model->ops->add_bias(f->model->dev, x, b, n, dim) : FR_OK;
}

/* RMSNorm of every head by itself (QK-norm). */
static fr_status head_norm(fr_forward *f, float *x, const float *w, int n_heads)
{
    const fr_model *m = f->model;
    return w ? m->ops->rms_norm(m->dev, x, x, w, n_heads, m->config.head_dim, m->config.eps) : FR_OK;
}

static fr_status sum_into_x(fr_forward *f, int n)
{
    const fr_model *m = f->model;
    if (m->ops->host_memory) /* else the sum is among the device's calls */
        FR_TRY(m->ops->sync(m->dev));
    FR_TRY(f->comm->ops->all_reduce_sum(f->comm, f->h, (size_t)n * (size_t)m->config.dim));
    return m->ops->add(m->dev, f->x, f->h, n, m->config.dim);
}

/* Biases, heads' own norms, rotation, and the new keys and values into the cache. */
static fr_status head_inputs(fr_forward *f, int l, int n)
{
    const fr_model *m = f->model;
    const fr_ops *ops = m->ops;
    fr_device *dev = m->dev;
    const fr_layer *y = &m->layers[l];
    const fr_config *c = &m->config;
    int hd = c->head_dim, heads = n_local(m->slice.heads), kv_heads = n_local(m->slice.kv_heads);
    const fr_rope rope = {.style = c->rope_style, .n_rot = c->n_rot, .inv_freq = m->inv_freq,
                          .scale = c->rope_magnitude};
    if (ops->head_inputs) {
        const fr_head_inputs in = {.q = f->q, .k = f->k, .v = f->v, .q_bias = y->q_bias, .k_bias = y->k_bias,
                                   .v_bias = y->v_bias, .q_norm = y->q_norm, .k_norm = y->k_norm, .eps = c->eps,
                                   .rope = &rope, .kv = &f->kv[l], .pos = f->pos, .slots = f->slots, .n = n,
                                   .heads = heads};
        return ops->head_inputs(dev, &in);
    }
    FR_TRY(bias(f, f->q, y->q_bias, n, heads * hd));
    FR_TRY(bias(f, f->k, y->k_bias, n, kv_heads * hd));
    FR_TRY(bias(f, f->v, y->v_bias, n, kv_heads * hd));
    FR_TRY(head_norm(f, f->q, y->q_norm, n * heads));
    FR_TRY(head_norm(f, f->k, y->k_norm, n * kv_heads));
    FR_TRY(ops->rope(dev, f->q, &rope, f->pos, n, heads, hd));
    FR_TRY(ops->rope(dev, f->k, &rope, f->pos, n, kv_heads, hd));
    return ops->kv_write(dev, &f->kv[l], f->k, f->v, f->slots, n);
}

/* x += out(attention(rope(qkv(norm(x))))) */
static fr_status attention(fr_forward *f, int l, int n)
{
    const fr_model *m = f->model;
    const fr_ops *ops = m->ops;
    fr_device *dev = m->dev;
    const fr_layer *y = &m->layers[l];
    const fr_config *c = &m->config;
    FR_TRY(ops->rms_norm(dev, f->h, f->x, y->attn_norm, n, c->dim, c->eps));
    FR_TRY(ops->matmul(dev, (fr_product[]){{f->q, y->q}, {f->k, y->k}, {f->v, y->v}}, 3, f->h, n));
    FR_TRY(head_inputs(f, l, n));
    FR_TRY(ops->attention(dev, f->attn, f->q, &f->kv[l], f->views, m->kv_of_head, n, n_local(m->slice.heads),
                          1 / sqrtf((float)c->head_dim)));
    FR_TRY(ops->matmul(dev, &(fr_product){f->h, y->out}, 1, f->attn, n));
    return sum_into_x(f, n);
}

/* x += down(silu(gate(norm(x))) * up(norm(x))) */
static fr_status mlp(fr_forward *f, int l, int n)
{
    const fr_model *m = f->model;
    const fr_layer *y = &m->layers[l];
    FR_TRY(m->ops->rms_norm(m->dev, f->h, f->x, y->ffn_norm, n, m->config.dim, m->config.eps));
    FR_TRY(m->ops->matmul(m->dev, (fr_product[]){{f->gate, y->gate}, {f->up, y->up}}, 2, f->h, n));
    FR_TRY(m->ops->silu_mul(m->dev, f->gate, f->up, n, n_local(m->slice.ff)));
    FR_TRY(m->ops->matmul(m->dev, &(fr_product){f->h, y->down}, 1, f->gate, n));
    return sum_into_x(f, n);
}

/* Brings every rank's n_parts * n answers to the leader and merges there what they say of the i-th query into
 * out[places[i]]. */
static fr_status gather_answers(fr_forward *f, const int *places, int n, int n_parts, fr_row_answer *out)
{
    const fr_model *m = f->model;
    const size_t each = fr_answer_bytes(f->queries, n), bytes = (size_t)(n_parts * n) * each;
    const int n_slices = n_parts * f->comm->size;
    if (f->comm->rank == 0)
        FR_TRY(fr_buf_reserve(&f->gathered, bytes * (size_t)f->comm->size));
    if (m->ops->host_memory)
        FR_TRY(m->ops->sync(m->dev));
    if (f->comm->size == 1)
        FR_TRY(m->ops->download(m->dev, f->gathered.data, f->answers, bytes));
    else
        FR_TRY(f->comm->ops->gather(f->comm, f->answers, bytes, f->gathered.data));
    for (int i = 0; i < n && f->comm->rank == 0; i++) {
        for (int s = 0; s < n_slices; s++)
            memcpy(&f->slices[s], fr_answer_at(f->gathered.data, each, (int64_t)s * n + i), each);
        fr_answer_merge(f->slices, n_slices, &f->queries[i], &out[places[i]]);
    }
    return FR_OK;
}

/* Into part 0 or 1 of the answers to n queries. */
static fr_status candidates(fr_forward *f, const fr_head *head, const float *logits, int n, int part)
{
    const fr_model *m = f->model;
    const size_t each = fr_answer_bytes(f->queries, n);
    return m->ops->candidates(m->dev, logits, n, head->n, head->first_token, head->tokens, f->queries,
                              fr_answer_at(f->answers, each, (int64_t)part * n), each);
}

/* Rows [n] of head_x through the rough head and the recent tokens' rows, as if the two were one. The parts of the
 * answers: other ranks may have recent tokens where this one has none. */
static fr_status ask_rough_head(fr_forward *f, int n, int *n_parts_out)
{
    const fr_model *m = f->model;
    const fr_head *rough = &m->rough_head, *recent = &f->recent.head;
    FR_TRY(m->ops->matmul(m->dev, (fr_product[]){{f->logits, rough->weight}, {f->recent_logits, recent->weight}},
                          recent->n > 0 ? 2 : 1, f->head_x, n));
    FR_TRY(candidates(f, rough, f->logits, n, 0));
    *n_parts_out = f->comm->size > 1 || recent->n > 0 ? 2 : 1;
    return *n_parts_out > 1 ? candidates(f, recent, f->recent_logits, n, 1) : FR_OK;
}

static fr_status ask_whole_head(fr_forward *f, int n)
{
    const fr_model *m = f->model;
    FR_TRY(m->ops->matmul(m->dev, &(fr_product){f->logits, m->head.weight}, 1, f->head_x, n));
    return candidates(f, &m->head, f->logits, n, 0);
}

/* The rows of the plan's queries at places [n] through the final norm into head_x; neighbours together. */
static fr_status norm_asked_rows(fr_forward *f, const fr_plan *plan, const int *places, int n)
{
    const fr_model *m = f->model;
    const size_t dim = (size_t)m->config.dim;
    for (int i = 0, end; i < n; i = end) {
        const int row = plan->queries[places[i]].row;
        for (end = i + 1; end < n && plan->queries[places[end]].row == row + end - i;)
            end++;
        FR_TRY(m->ops->rms_norm(m->dev, f->head_x + (size_t)i * dim, f->x + (size_t)row * dim, m->out_norm, end - i,
                                m->config.dim, m->config.eps));
    }
    return FR_OK;
}

/* The rows of the plan's queries at places [n], through the final norm and one of the vocabulary heads. */
static fr_status ask_head(fr_forward *f, const fr_plan *plan, int rough, const int *places, int n, fr_row_answer *out)
{
    int n_parts = 1;
    for (int i = 0; i < n; i++)
        f->queries[i] = plan->queries[places[i]].query;
    FR_TRY(norm_asked_rows(f, plan, places, n));
    FR_TRY(rough ? ask_rough_head(f, n, &n_parts) : ask_whole_head(f, n));
    return gather_answers(f, places, n, n_parts, out);
}

/* All queries of one head, FR_HEAD_ROWS at a time. */
static fr_status answer_queries(fr_forward *f, const fr_plan *plan, int rough, fr_row_answer *out)
{
    int places[FR_HEAD_ROWS], n = 0;
    for (int i = 0; i < plan->n_queries; i++) {
        if (plan->queries[i].rough == rough)
            places[n++] = i;
        if (n == FR_HEAD_ROWS || (n > 0 && i == plan->n_queries - 1)) {
            FR_TRY(ask_head(f, plan, rough, places, n, out));
            n = 0;
        }
    }
    return FR_OK;
}

static void read_rows(fr_forward *f, const fr_plan *plan)
{
    for (int i = 0; i < plan->n_rows; i++) {
        const fr_plan_row *r = &plan->rows[i];
        f->tokens[i] = r->token;
        f->pos[i] = r->pos;
        f->slots[i] = r->slot;
        f->views[i] = (fr_attn_view){.trunk_pages = plan->pages + r->trunk_at, .n_trunk = r->n_trunk,
                                     .branch_pages = plan->pages + r->branch_at, .n_branch = r->n_branch};
    }
}

/* Where devices meet on their streams (fr_comm.on_stream), a long prompt's rows are read, and brought to a GPU, once
 * for the group. */
static fr_status embed(fr_forward *f, int n)
{
    const fr_model *m = f->model;
    const bool shared = f->comm->on_stream && n >= SHARED_ROWS;
    if (!shared || f->comm->rank == 0)
        FR_TRY(m->ops->embed(m->dev, f->x, &m->embedding, f->tokens, n));
    return shared ? f->comm->ops->broadcast(f->comm, f->x, (size_t)n * (size_t)m->config.dim * sizeof *f->x) : FR_OK;
}

fr_status fr_forward_run(fr_forward *f, const fr_plan *plan, fr_row_answer *answers_out)
{
    const fr_model *m = f->model;
    if (plan->n_rows > f->max_rows)
        return fr_fail(FR_ELIMIT, "a pass of %d rows is over the limit of %d", plan->n_rows, f->max_rows);
    for (int l = 0; l < m->config.n_layers; l++)
        for (int i = 0; i < plan->n_copies; i++)
            FR_TRY(m->ops->kv_copy(m->dev, &f->kv[l], plan->copies[i].from, plan->copies[i].to, plan->copies[i].n));
    if (plan->n_rows == 0)
        return FR_OK;
    read_rows(f, plan);
    fr_recent_head_note(&f->recent, f->tokens, plan->n_rows);
    FR_TRY(embed(f, plan->n_rows));
    for (int l = 0; l < m->config.n_layers; l++) {
        FR_TRY(attention(f, l, plan->n_rows));
        FR_TRY(mlp(f, l, plan->n_rows));
        if (f->progress)
            f->progress(f->progress_ctx);
    }
    FR_TRY(answer_queries(f, plan, 0, answers_out));
    FR_TRY(answer_queries(f, plan, 1, answers_out));
    return m->ops->sync(m->dev); /* a pass that nobody asked about is done, too, when it returns */
}
