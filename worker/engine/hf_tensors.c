/* hf_tensors.c: see hf_tensors.h. */
#include "hf_tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { ALL = FR_HF_LLAMA | FR_HF_QWEN2 | FR_HF_QWEN3, NOT_QWEN2 = FR_HF_LLAMA | FR_HF_QWEN3 };

typedef enum { NONE, HIDDEN, Q, KV, HEAD, FF, VOCAB } size_name;

typedef struct known_tensor {
    const char *theirs, *ours;
    size_name rows, cols; /* cols NONE: a vector */
    int needed, allowed;  /* families */
} known_tensor;

/* Of a layer: model.layers.N. and blk.N. go before. Llama and Qwen 3 may have biases of Q, K and V
 * (attention_bias). */
static const known_tensor of_layer[] = {
    {"input_layernorm.weight", "attn_norm.weight", HIDDEN, NONE, ALL, 0},
    {"self_attn.q_proj.weight", "attn_q.weight", Q, HIDDEN, ALL, 0},
    {"self_attn.k_proj.weight", "attn_k.weight", KV, HIDDEN, ALL, 0},
    {"self_attn.v_proj.weight", "attn_v.weight", KV, HIDDEN, ALL, 0},
    {"self_attn.q_proj.bias", "attn_q.bias", Q, NONE, FR_HF_QWEN2, NOT_QWEN2},
    {"self_attn.k_proj.bias", "attn_k.bias", KV, NONE, FR_HF_QWEN2, NOT_QWEN2},
    {"self_attn.v_proj.bias", "attn_v.bias", KV, NONE, FR_HF_QWEN2, NOT_QWEN2},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", HEAD, NONE, FR_HF_QWEN3, 0},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", HEAD, NONE, FR_HF_QWEN3, 0},
    {"self_attn.o_proj.weight", "attn_output.weight", HIDDEN, Q, ALL, 0},
    {"post_attention_layernorm.weight", "ffn_norm.weight", HIDDEN, NONE, ALL, 0},
    {"mlp.gate_proj.weight", "ffn_gate.weight", FF, HIDDEN, ALL, 0},
    {"mlp.up_proj.weight", "ffn_up.weight", FF, HIDDEN, ALL, 0},
    {"mlp.down_proj.weight", "ffn_down.weight", HIDDEN, FF, ALL, 0},
};
static const known_tensor of_model[] = {
    {"model.embed_tokens.weight", "token_embd.weight", VOCAB, HIDDEN, ALL, 0},
    {"model.norm.weight", "output_norm.weight", HIDDEN, NONE, ALL, 0},
    {"lm_head.weight", "output.weight", VOCAB, HIDDEN, 0, ALL}, /* needed unless tied */
};
#define COUNT(list) (sizeof(list) / sizeof *(list))

/* Older files of llama keep the rotation frequencies, which follow from config.json. */
static const char frequencies[] = "self_attn.rotary_emb.inv_freq";

static int64_t size_of(const fr_hf_shape *s, size_name name)
{
    const int64_t sizes[] = {
        [NONE] = 1,       [HIDDEN] = s->hidden, [Q] = s->q,        [KV] = s->kv,
        [HEAD] = s->head, [FF] = s->ff,         [VOCAB] = s->vocab};
    return sizes[name];
}

/* "model.layers.12.rest": 1, the number and the rest. */
static int split_layer(const char *name, int *layer_out, const char **rest_out)
{
    static const char prefix[] = "model.layers.";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return 0;
    const char *digits = name + sizeof prefix - 1;
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 8 || digits[n] != '.')
        return 0;
    *layer_out = atoi(digits);
    *rest_out = digits + n + 1;
    return 1;
}

static const known_tensor *find(const fr_hf_shape *s, const known_tensor *list, size_t n,
                                const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i].theirs, name) == 0)
            return (list[i].needed | list[i].allowed) & (int)s->family ? &list[i] : NULL;
    }
    return NULL;
}

static void show_shape(const int64_t *dims, int n_dims, char *out, size_t cap)
{
    size_t at = (size_t)snprintf(out, cap, "[");
    for (int d = 0; d < n_dims && at < cap; d++)
        at += (size_t)snprintf(out + at, cap - at, d ? ", %lld" : "%lld", (long long)dims[d]);
    if (at < cap)
        snprintf(out + at, cap - at, "]");
}

static fr_status check_shape(const fr_hf_shape *s, const char *file, const fr_safetensor *t,
                             const known_tensor *k)
{
    char name[FR_SHOW_BYTES], have[192], want[64];
    const int64_t dims[2] = {size_of(s, k->rows), size_of(s, k->cols)};
    int n_dims = k->cols == NONE ? 1 : 2;
    if (t->n_dims == n_dims && t->dims[0] == dims[0] && t->dims[1] == dims[1])
        return FR_OK;
    if (k->rows == VOCAB && t->n_dims == n_dims && t->dims[1] == dims[1])
        return fr_fail(FR_EFORMAT, "%s: tensor %s has %lld rows, config.json's vocab_size is %lld", file,
                       fr_str_show(t->name, name), (long long)t->dims[0], (long long)dims[0]);
    show_shape(t->dims, t->n_dims, have, sizeof have);
    show_shape(dims, n_dims, want, sizeof want);
    return fr_fail(FR_EFORMAT, "%s: tensor %s has shape %s, config.json wants %s", file,
                   fr_str_show(t->name, name), have, want);
}

fr_status fr_hf_tensor_name(const fr_hf_shape *s, const char *file, const fr_safetensor *t,
                            char out[FR_HF_NAME_BYTES])
{
    char show[FR_SHOW_BYTES];
    const char *rest = NULL;
    const known_tensor *k = NULL;
    int layer = -1, in_layer = split_layer(t->name.data, &layer, &rest);
    out[0] = 0;
    if (in_layer && strcmp(rest, frequencies) == 0)
        return FR_OK;
    if (!in_layer)
        k = find(s, of_model, COUNT(of_model), t->name.data);
    else if (layer < s->n_layers)
        k = find(s, of_layer, COUNT(of_layer), rest);
    if (!k)
        return fr_fail(FR_EUNSUPPORTED, "%s: tensor %s is not one that this architecture has", file,
                       fr_str_show(t->name, show));
    if (!t->readable)
        return fr_fail(FR_EUNSUPPORTED, "%s: tensor %s: dtype %s is not supported (BF16, F16, F32)",
                       file, fr_str_show(t->name, show), t->type);
    FR_TRY(check_shape(s, file, t, k));
    if (k == &of_model[2] && s->tied == 1)
        return FR_OK; /* written although it is the embedding */
    if (in_layer)
        snprintf(out, FR_HF_NAME_BYTES, "blk.%d.%s", layer, k->ours);
    else
        snprintf(out, FR_HF_NAME_BYTES, "%s", k->ours);
    return FR_OK;
}

static fr_status missing(const char *folder, const char *prefix, const known_tensor *k)
{
    return fr_fail(FR_ENOTFOUND, "%s: tensor %s%s is missing", folder, prefix, k->theirs);
}

fr_status fr_hf_tensors_complete(const fr_hf_shape *s, const char *folder, fr_hf_has_tensor *has,
                                 const void *arg)
{
    char ours[FR_HF_NAME_BYTES], prefix[32];
    for (size_t i = 0; i < COUNT(of_model); i++) {
        const known_tensor *k = &of_model[i];
        int needed = k->needed || s->tied == 0;
        if (needed && !has(arg, k->ours))
            return missing(folder, "", k);
    }
    for (int l = 0; l < s->n_layers; l++) {
        snprintf(prefix, sizeof prefix, "model.layers.%d.", l);
        for (size_t i = 0; i < COUNT(of_layer); i++) {
            snprintf(ours, sizeof ours, "blk.%d.%s", l, of_layer[i].ours);
            if ((of_layer[i].needed & (int)s->family) && !has(arg, ours))
                return missing(folder, prefix, &of_layer[i]);
        }
    }
    return FR_OK;
}
