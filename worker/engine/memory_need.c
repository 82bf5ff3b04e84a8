/* memory_need.c: see memory_need.h. */
#include "memory_need.h"

#include <stdio.h>

#include "check.h"
#include "forward.h"

#define RANKS_MAX 1024

static int64_t n_local(fr_range r)
{
    return r.hi - r.lo;
}

/* Rows and columns of matrix `name` of a layer that the device is given. */
static fr_status add_matrix(const fr_model_file *file, const fr_ops *ops, int layer, const char *name, int64_t rows,
                            int64_t cols, int64_t *sum)
{
    char full[64];
    if (layer >= 0)
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    const fr_tensor *t = fr_model_file_tensor(file, full);
    if (!t)
        return fr_fail(FR_ENOTFOUND, "%s: tensor %s is missing", fr_model_file_name(file), full);
    const fr_matrix m = {.dtype = t->dtype, .data = t->data, .rows = rows, .cols = cols};
    *sum += (int64_t)ops->weight_bytes(&m);
    return FR_OK;
}

static fr_status add_layer(const fr_model_file *file, const fr_config *c, const fr_ops *ops, const fr_slice *s, int l,
                           int64_t *sum)
{
    const int64_t hd = c->head_dim, q = n_local(s->heads) * hd, kv = n_local(s->kv_heads) * hd, ff = n_local(s->ff);
    FR_TRY(add_matrix(file, ops, l, "attn_q.weight", q, c->dim, sum));
    FR_TRY(add_matrix(file, ops, l, "attn_k.weight", kv, c->dim, sum));
    FR_TRY(add_matrix(file, ops, l, "attn_v.weight", kv, c->dim, sum));
    FR_TRY(add_matrix(file, ops, l, "attn_output.weight", c->dim, q, sum));
    FR_TRY(add_matrix(file, ops, l, "ffn_gate.weight", ff, c->dim, sum));
    FR_TRY(add_matrix(file, ops, l, "ffn_up.weight", ff, c->dim, sum));
    return add_matrix(file, ops, l, "ffn_down.weight", c->dim, ff, sum);
}

static int64_t total(const fr_memory_need *n)
{
    return n->weights + n->cache + n->scratch;
}

static fr_status need_of_rank(const fr_model_file *file, const fr_config *c, const fr_ops *ops, int rank, int n_ranks,
                              int64_t kv_positions, int max_rows, fr_memory_need *out)
{
    fr_slice s;
    fr_memory_need need = {0};
    FR_TRY(fr_config_split(c, fr_model_file_name(file), rank, n_ranks, &s));
    for (int l = 0; l < c->n_layers; l++)
        FR_TRY(add_layer(file, c, ops, &s, l, &need.weights));
    const char *head = fr_model_file_tensor(file, "output.weight") ? "output.weight" : "token_embd.weight";
    FR_TRY(add_matrix(file, ops, -1, head, n_local(s.vocab), c->dim, &need.weights));
    const int64_t hd = c->head_dim, q = n_local(s.heads) * hd, kv = n_local(s.kv_heads) * hd;
    need.cache = 2 * (int64_t)sizeof(uint16_t) * c->n_layers * kv_positions * kv;
    need.scratch = (int64_t)sizeof(float) * (max_rows * (2 * c->dim + 2 * q + 2 * kv + 2 * n_local(s.ff)) +
                                             FR_HEAD_ROWS * (c->dim + n_local(s.vocab)));
    *out = need;
    return FR_OK;
}

/* Whose heads straddle KV heads holds more of these than others. */
fr_status fr_memory_need_of(const fr_model_file *file, const fr_config *c, const fr_ops *ops, int n_ranks,
                            int64_t kv_positions, int max_rows, fr_memory_need *out)
{
    fr_memory_need need;
    *out = (fr_memory_need){0};
    for (int rank = 0; rank < n_ranks; rank++) {
        FR_TRY(need_of_rank(file, c, ops, rank, n_ranks, kv_positions, max_rows, &need));
        if (total(&need) > total(out))
            *out = need;
    }
    return FR_OK;
}

/* The least degree above n_ranks with which a rank's part fits; 0: none. */
static int find_degree(const fr_model_file *file, const fr_config *c, const fr_ops *ops, int n_ranks,
                       int64_t kv_positions, int max_rows, int64_t room)
{
    fr_memory_need need;
    for (int n = n_ranks + 1; n <= RANKS_MAX; n++) {
        if (fr_memory_need_of(file, c, ops, n, kv_positions, max_rows, &need) != FR_OK)
            return 0; /* it cannot be split further */
        if (total(&need) <= room)
            return n;
    }
    return 0;
}

fr_status fr_memory_check(const fr_model_file *file, const fr_config *c, const fr_ops *ops, int n_ranks,
                          int64_t kv_positions, int max_rows, int64_t room)
{
    const double mib = 1 << 20;
    fr_memory_need need;
    char advice[96] = "no number of ranks fits: fewer --kv-positions, or fewer bits a weight";
    FR_TRY(fr_memory_need_of(file, c, ops, n_ranks, kv_positions, max_rows, &need));
    if (total(&need) <= room)
        return FR_OK;
    int degree = find_degree(file, c, ops, n_ranks, kv_positions, max_rows, room);
    if (degree > 0)
        snprintf(advice, sizeof advice, "%d ranks, each with a GPU like this, fit", degree);
    return fr_fail(FR_ENOMEM,
                   "%s: a rank of %d needs %.0f MiB of GPU memory (weights %.0f, KV cache of %lld positions %.0f, "
                   "scratch %.0f), and %.0f are free: %s",
                   fr_model_file_name(file), n_ranks, (double)total(&need) / mib, (double)need.weights / mib,
                   (long long)kv_positions, (double)need.cache / mib, (double)need.scratch / mib,
                   (double)room / mib, advice);
}
