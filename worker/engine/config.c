/* config.c: see config.h. */
#include "config.h"

#include <stdio.h>
#include <string.h>

#include "check.h"
#include "utf8.h"

static const struct {
    const char *name;
    fr_arch arch;
    fr_rope_style rope;
} architectures[] = {
    {"llama", FR_ARCH_LLAMA, FR_ROPE_NORM},
    {"qwen2", FR_ARCH_QWEN2, FR_ROPE_NEOX},
    {"qwen3", FR_ARCH_QWEN3, FR_ROPE_NEOX},
};

#define N_ARCHITECTURES (sizeof architectures / sizeof *architectures)

/* Largest value accepted for any size in the metadata: keeps every product below far from overflow. */
#define MAX_SIZE (1u << 24)

static fr_status read_size(const fr_model_file *f, const char *arch, const char *key, int *out)
{
    char full[96];
    uint32_t v = 0;
    snprintf(full, sizeof full, "%s.%s", arch, key);
    FR_TRY(fr_meta_u32(f, full, &v));
    if (v == 0 || v > MAX_SIZE)
        return fr_fail(FR_EFORMAT, "%s: %s is %u", fr_model_file_name(f), full, v);
    *out = (int)v;
    return FR_OK;
}

static int has(const fr_model_file *f, const char *arch, const char *key)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", arch, key);
    return fr_model_file_meta(f, full) != NULL;
}

/* What the forward pass divides by, or takes the root of. */
static fr_status read_positive(const fr_model_file *f, const char *arch, const char *key, float *out)
{
    char full[96];
    float v = 0;
    snprintf(full, sizeof full, "%s.%s", arch, key);
    FR_TRY(fr_meta_f32(f, full, &v));
    if (v <= 0)
        return fr_fail(FR_EFORMAT, "%s: %s is %g, want a positive number", fr_model_file_name(f), full, (double)v);
    *out = v;
    return FR_OK;
}

static fr_status read_rope(const fr_model_file *f, const char *arch, fr_config *c)
{
    c->n_rot = c->head_dim;
    if (has(f, arch, "rope.dimension_count"))
        FR_TRY(read_size(f, arch, "rope.dimension_count", &c->n_rot));
    if (c->n_rot > c->head_dim || c->n_rot % 2)
        return fr_fail(FR_EFORMAT, "%s: %s.rope.dimension_count is %d of a head of %d", fr_model_file_name(f),
                       arch, c->n_rot, c->head_dim);
    c->rope_base = 10000;
    if (has(f, arch, "rope.freq_base"))
        FR_TRY(read_positive(f, arch, "rope.freq_base", &c->rope_base));
    c->rope_scale = c->rope_magnitude = 1;
    if (fr_model_file_meta(f, "forerun.rope_magnitude"))
        FR_TRY(fr_meta_f32(f, "forerun.rope_magnitude", &c->rope_magnitude));
    char key[96];
    fr_str type = {0};
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    if (!fr_model_file_meta(f, key))
        return FR_OK;
    FR_TRY(fr_meta_str(f, key, &type));
    if (type.len == 4 && memcmp(type.data, "none", 4) == 0)
        return FR_OK;
    if (type.len != 6 || memcmp(type.data, "linear", 6) != 0)
        return fr_fail(FR_EUNSUPPORTED, "%s: %s \"%.*s\" is not supported (none, linear)", fr_model_file_name(f),
                       key, (int)type.len, type.data);
    return read_positive(f, arch, "rope.scaling.factor", &c->rope_scale);
}

static fr_status read_metadata(const fr_model_file *f, const char *arch, fr_config *c)
{
    FR_TRY(read_size(f, arch, "block_count", &c->n_layers));
    FR_TRY(read_size(f, arch, "embedding_length", &c->dim));
    FR_TRY(read_size(f, arch, "attention.head_count", &c->n_heads));
    FR_TRY(read_size(f, arch, "feed_forward_length", &c->n_ff));
    FR_TRY(read_size(f, arch, "context_length", &c->context));
    c->n_kv_heads = c->n_heads;
    if (has(f, arch, "attention.head_count_kv"))
        FR_TRY(read_size(f, arch, "attention.head_count_kv", &c->n_kv_heads));
    c->head_dim = c->dim / c->n_heads;
    if (has(f, arch, "attention.key_length"))
        FR_TRY(read_size(f, arch, "attention.key_length", &c->head_dim));
    if (c->n_heads % c->n_kv_heads)
        return fr_fail(FR_EFORMAT, "%s: %d heads cannot share %d KV heads", fr_model_file_name(f), c->n_heads,
                       c->n_kv_heads);
    if (c->head_dim == 0 || c->head_dim % 8)
        return fr_fail(FR_EUNSUPPORTED, "%s: head size %d is not a multiple of 8", fr_model_file_name(f),
                       c->head_dim);
    FR_TRY(read_positive(f, arch, "attention.layer_norm_rms_epsilon", &c->eps));
    return read_rope(f, arch, c);
}

fr_status fr_config_tensor(const fr_model_file *f, int layer, const char *name, int64_t rows, int64_t cols,
                           int optional, const fr_tensor **out)
{
    char full[96];
    if (layer >= 0)
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    else
        snprintf(full, sizeof full, "%s", name);
    const fr_tensor *t = fr_model_file_tensor(f, full);
    *out = t;
    if (!t)
        return optional ? FR_OK : fr_fail(FR_ENOTFOUND, "%s: tensor %s is missing", fr_model_file_name(f), full);
    int64_t want0 = cols ? cols : rows, want1 = cols ? rows : 1;
    if (t->dims[0] != want0 || t->dims[1] != want1 || t->dims[2] != 1 || t->dims[3] != 1)
        return fr_fail(FR_EFORMAT, "%s: tensor %s has shape [%lld, %lld], want [%lld, %lld]",
                       fr_model_file_name(f), full, (long long)t->dims[0], (long long)t->dims[1],
                       (long long)want0, (long long)want1);
    return FR_OK;
}

/* The columns of a row-parallel matrix that must stay together, as a number of `unit_cols`-wide things. */
static int split_unit(const fr_tensor *t, int unit_cols, int unit_so_far)
{
    int block = 1, unit = unit_so_far;
    const fr_dtype_info *info = fr_dtype_find(t->dtype);
    if (info)
        block = info->block_values;
    while ((unit * unit_cols) % block)
        unit += unit_so_far;
    return unit;
}

static fr_status check_layers(const fr_model_file *f, fr_config *c)
{
    int64_t q = (int64_t)c->n_heads * c->head_dim;
    c->head_unit = c->ff_unit = 1;
    for (int l = 0; l < c->n_layers; l++) {
        const fr_tensor *out = NULL, *down = NULL;
        FR_TRY(fr_config_tensor(f, l, "attn_output.weight", c->dim, q, 0, &out));
        FR_TRY(fr_config_tensor(f, l, "ffn_down.weight", c->dim, c->n_ff, 0, &down));
        c->head_unit = split_unit(out, c->head_dim, c->head_unit);
        c->ff_unit = split_unit(down, 1, c->ff_unit);
    }
    return FR_OK;
}

fr_status fr_config_read(const fr_model_file *f, fr_config *out)
{
    fr_config c = {0};
    fr_str arch = {0}, name = {0};
    int halves = 0;
    FR_TRY(fr_meta_str(f, "general.architecture", &arch));
    size_t i = 0;
    while (i < N_ARCHITECTURES &&
           (strlen(architectures[i].name) != arch.len || memcmp(architectures[i].name, arch.data, arch.len) != 0))
        i++;
    if (i == N_ARCHITECTURES)
        return fr_fail(FR_EUNSUPPORTED, "%s: architecture \"%.*s\" is not supported (llama, qwen2, qwen3)",
                       fr_model_file_name(f), (int)(arch.len < 64 ? arch.len : 64), arch.data);
    c.arch = architectures[i].arch;
    if (fr_model_file_meta(f, "forerun.rope_halves"))
        FR_TRY(fr_meta_bool(f, "forerun.rope_halves", &halves));
    c.rope_style = halves ? FR_ROPE_NEOX : architectures[i].rope;
    if (fr_model_file_meta(f, "general.name"))
        FR_TRY(fr_meta_str(f, "general.name", &name));
    if (name.data)
        snprintf(c.name, sizeof c.name, "%.*s", (int)fr_utf8_cut(name.data, name.len, sizeof c.name - 1), name.data);
    FR_TRY(read_metadata(f, architectures[i].name, &c));
    const fr_tensor *embed = fr_model_file_tensor(f, "token_embd.weight");
    if (!embed)
        return fr_fail(FR_ENOTFOUND, "%s: tensor token_embd.weight is missing", fr_model_file_name(f));
    if (embed->dims[0] != c.dim || embed->dims[1] < 1 || embed->dims[1] > MAX_SIZE || embed->dims[2] != 1)
        return fr_fail(FR_EFORMAT, "%s: tensor token_embd.weight has shape [%lld, %lld], want [%d, vocabulary]",
                       fr_model_file_name(f), (long long)embed->dims[0], (long long)embed->dims[1], c.dim);
    c.n_vocab = (int)embed->dims[1];
    FR_TRY(check_layers(f, &c));
    *out = c;
    return FR_OK;
}

static fr_range share(int units, int unit, int rank, int n_ranks)
{
    int lo = (rank * units + n_ranks - 1) / n_ranks, hi = ((rank + 1) * units + n_ranks - 1) / n_ranks;
    return (fr_range){lo * unit, hi * unit};
}

fr_range fr_config_vocab_share(int n, int rank, int n_ranks)
{
    fr_range rows = share((n + 15) / 16, 16, rank, n_ranks);
    return (fr_range){rows.lo, rows.hi < n ? rows.hi : n};
}

fr_status fr_config_split(const fr_config *c, const char *file_name, int rank, int n_ranks, fr_slice *out)
{
    int head_units = c->n_heads / c->head_unit, ff_units = c->n_ff / c->ff_unit;
    int most = head_units < ff_units ? head_units : ff_units;
    /* Heads or columns that do not fill whole units cannot be split at all. */
    if (c->n_heads % c->head_unit || c->n_ff % c->ff_unit)
        most = 1;
    if (n_ranks > most)
        return fr_fail(FR_EINVAL,
                       "%s: cannot be split over %d ranks (%d heads in units of %d, %d feed-forward columns in "
                       "units of %d): 1 to %d ranks work",
                       file_name, n_ranks, c->n_heads, c->head_unit, c->n_ff, c->ff_unit, most);
    if (n_ranks == 1) {
        *out = (fr_slice){{0, c->n_heads}, {0, c->n_kv_heads}, {0, c->n_ff}, {0, c->n_vocab}};
        return FR_OK;
    }
    int group = c->n_heads / c->n_kv_heads;
    fr_slice s;
    s.heads = share(head_units, c->head_unit, rank, n_ranks);
    s.kv_heads = (fr_range){s.heads.lo / group, (s.heads.hi + group - 1) / group};
    s.ff = share(ff_units, c->ff_unit, rank, n_ranks);
    s.vocab = fr_config_vocab_share(c->n_vocab, rank, n_ranks);
    *out = s;
    return FR_OK;
}
