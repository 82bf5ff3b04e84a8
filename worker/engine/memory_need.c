/* memory_need.c: see memory_need.h. */
#include "memory_need.h"

#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "comm_device.h"
#include "forward.h"
#include "grow.h"
#include "model.h"
#include "recent_head.h"

#define RANKS_MAX 1024

/* A rank's part of the model, as model.c loads it. */
typedef struct part {
    const fr_memory_load *load;
    fr_slice slice;
    int head_rows;       /* of its larger vocabulary head */
    fr_matrix table;     /* of the embedding, which stays with the host */
    fr_matrix *matrices; /* [n] on the device, without their data */
    int n, cap;
    int64_t bytes;       /* of these and of the vectors */
} part;

static int n_local(fr_range r)
{
    return r.hi - r.lo;
}

static int larger(int a, int b)
{
    return a > b ? a : b;
}

/* Of a layer, or with -1 of the model. NULL: there is none. */
static const fr_tensor *find(const part *p, int layer, const char *name)
{
    char full[64];
    if (layer >= 0)
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    return fr_model_file_tensor(p->load->file, full);
}

static fr_status add_matrix(part *p, fr_dtype type, int64_t rows, int64_t cols)
{
    const fr_ops *ops = p->load->ops;
    const fr_matrix m = {.dtype = type, .rows = rows, .cols = cols, .row_bytes = fr_dtype_row_bytes(type, cols)};
    FR_TRY(fr_grow((void **)&p->matrices, &p->cap, p->n + 1, sizeof *p->matrices));
    p->matrices[p->n++] = m;
    p->bytes += (int64_t)ops->mem_bytes(ops->weight_bytes(&m));
    return FR_OK;
}

static fr_status add_layer_matrix(part *p, int layer, const char *name, int64_t rows, int64_t cols)
{
    const fr_tensor *t = find(p, layer, name);
    if (!t)
        return fr_fail(FR_ENOTFOUND, "%s: tensor blk.%d.%s is missing", fr_model_file_name(p->load->file), layer, name);
    return add_matrix(p, fr_model_held_type(t->dtype, cols, p->load->weights), rows, cols);
}

static void add_vector(part *p, int layer, const char *name, int64_t n)
{
    if (find(p, layer, name))
        p->bytes += (int64_t)p->load->ops->mem_bytes((size_t)n * sizeof(float));
}

static fr_status add_layer(part *p, int l)
{
    const fr_config *c = p->load->config;
    const fr_slice *s = &p->slice;
    const int64_t hd = c->head_dim, q = n_local(s->heads) * hd, kv = n_local(s->kv_heads) * hd, ff = n_local(s->ff);
    add_vector(p, l, "attn_norm.weight", c->dim);
    add_vector(p, l, "ffn_norm.weight", c->dim);
    add_vector(p, l, "attn_q.bias", q);
    add_vector(p, l, "attn_k.bias", kv);
    add_vector(p, l, "attn_v.bias", kv);
    add_vector(p, l, "attn_q_norm.weight", hd);
    add_vector(p, l, "attn_k_norm.weight", hd);
    FR_TRY(add_layer_matrix(p, l, "attn_q.weight", q, c->dim));
    FR_TRY(add_layer_matrix(p, l, "attn_k.weight", kv, c->dim));
    FR_TRY(add_layer_matrix(p, l, "attn_v.weight", kv, c->dim));
    FR_TRY(add_layer_matrix(p, l, "attn_output.weight", c->dim, q));
    FR_TRY(add_layer_matrix(p, l, "ffn_gate.weight", ff, c->dim));
    FR_TRY(add_layer_matrix(p, l, "ffn_up.weight", ff, c->dim));
    return add_layer_matrix(p, l, "ffn_down.weight", c->dim, ff);
}

/* The recent head at its largest. */
static fr_status add_heads(part *p, int rank)
{
    const fr_memory_load *l = p->load;
    const fr_config *c = l->config;
    const fr_tensor *embed = find(p, -1, "token_embd.weight"), *head = find(p, -1, "output.weight");
    const int whole = n_local(p->slice.vocab), rough = n_local(fr_config_vocab_share(l->n_rough, rank, l->n_ranks));
    if (!embed)
        return fr_fail(FR_ENOTFOUND, "%s: tensor token_embd.weight is missing", fr_model_file_name(l->file));
    head = head ? head : embed;
    p->head_rows = larger(whole, rough);
    p->table = (fr_matrix){.dtype = embed->dtype, .rows = c->n_vocab, .cols = c->dim};
    add_vector(p, -1, "output_norm.weight", c->dim);
    FR_TRY(add_matrix(p, head->dtype, whole, c->dim));
    if (l->n_rough == 0)
        return FR_OK;
    FR_TRY(add_matrix(p, fr_model_held_type(head->dtype, c->dim, l->weights), rough, c->dim));
    return add_matrix(p, head->dtype, FR_RECENT, c->dim);
}

static void free_part(part *p)
{
    free(p->matrices);
    *p = (part){0};
}

/* Free it with free_part(), also when it failed. */
static fr_status size_part(const fr_memory_load *l, int rank, part *out)
{
    *out = (part){.load = l};
    FR_TRY(fr_config_split(l->config, fr_model_file_name(l->file), rank, l->n_ranks, &out->slice));
    FR_TRY(add_heads(out, rank));
    for (int i = 0; i < l->config->n_layers; i++)
        FR_TRY(add_layer(out, i));
    return FR_OK;
}

static fr_status reserve(const part *p, fr_device *dev)
{
    const fr_memory_load *l = p->load;
    const fr_pass_bounds bounds = {
        .rows = l->max_rows,
        .context = l->max_context < l->kv_positions ? l->max_context : (int)l->kv_positions,
        .heads = n_local(p->slice.heads), .head_dim = l->config->head_dim,
        .head_rows = FR_HEAD_ROWS, .vocab = larger(p->head_rows, FR_RECENT),
        .table = &p->table, .matrices = p->matrices, .n_matrices = p->n};
    return l->ops->reserve(dev, &bounds);
}

fr_status fr_memory_reserve(const fr_memory_load *l, fr_device *dev, int rank)
{
    part p;
    if (!l->ops->reserve)
        return FR_OK;
    fr_status st = size_part(l, rank, &p);
    if (st == FR_OK)
        st = reserve(&p, dev);
    free_part(&p);
    return st;
}

static int64_t total(const fr_memory_need *n)
{
    return n->weights + n->cache + n->scratch;
}

static fr_status need_of_rank(const fr_memory_load *l, int rank, fr_memory_need *out)
{
    part p;
    size_t floats[FR_FORWARD_ARRAYS];
    fr_status st = size_part(l, rank, &p);
    if (st == FR_OK) {
        const size_t pages = fr_forward_pages_bytes(l->config, &p.slice, (int)(l->kv_positions / FR_PAGE));
        *out = (fr_memory_need){.weights = p.bytes,
                                .cache = 2 * (int64_t)l->config->n_layers * (int64_t)l->ops->mem_bytes(pages)};
        fr_forward_floats(l->config, &p.slice, p.head_rows, l->max_rows, floats);
        for (int i = 0; i < FR_FORWARD_ARRAYS; i++)
            out->scratch += (int64_t)l->ops->mem_bytes(floats[i] * sizeof(float));
    }
    free_part(&p);
    return st;
}

/* Whose heads straddle KV heads holds more of these than others. */
fr_status fr_memory_need_of(const fr_memory_load *l, fr_memory_need *out)
{
    fr_memory_need need;
    *out = (fr_memory_need){0};
    for (int rank = 0; rank < l->n_ranks; rank++) {
        FR_TRY(need_of_rank(l, rank, &need));
        if (total(&need) > total(out))
            *out = need;
    }
    return FR_OK;
}

/* The least degree above l->n_ranks with which a rank's part fits; 0: none. What backend and communicator have taken
 * already is no more with more ranks, but a rank that was alone has no communicator yet. */
static int find_degree(const fr_memory_load *l, int64_t room)
{
    fr_memory_load more = *l;
    fr_memory_need need;
    room -= l->n_ranks == 1 ? FR_COMM_DEVICE_BYTES : 0;
    for (more.n_ranks++; more.n_ranks <= RANKS_MAX; more.n_ranks++) {
        if (fr_memory_need_of(&more, &need) != FR_OK)
            return 0; /* it cannot be split further */
        if (total(&need) + FR_MEMORY_DRIVER <= room)
            return more.n_ranks;
    }
    return 0;
}

fr_status fr_memory_check(const fr_memory_load *l, int64_t room)
{
    const double mib = 1 << 20;
    fr_memory_need need;
    char advice[96] = "no number of ranks fits: fewer --kv-positions, or fewer bits a weight";
    FR_TRY(fr_memory_need_of(l, &need));
    if (total(&need) + FR_MEMORY_DRIVER <= room)
        return FR_OK;
    int degree = find_degree(l, room);
    if (degree > 0)
        snprintf(advice, sizeof advice, "%d ranks, each with a GPU like this, fit", degree);
    return fr_fail(FR_ENOMEM,
                   "%s: a rank of %d needs %.0f MiB of GPU memory (weights %.0f, KV cache of %lld positions %.0f, "
                   "scratch %.0f, the driver %.0f), and %.0f are free: %s",
                   fr_model_file_name(l->file), l->n_ranks, (double)(total(&need) + FR_MEMORY_DRIVER) / mib,
                   (double)need.weights / mib, (long long)l->kv_positions, (double)need.cache / mib,
                   (double)need.scratch / mib, (double)FR_MEMORY_DRIVER / mib, (double)room / mib, advice);
}
