/* hf_config.c: see hf_config.h. */
#include "hf_config.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "hf_rope.h"

#define MAX_SIZE (1u << 24) /* as in config.c */

static const struct {
    const char *theirs, *ours;
    fr_hf_family family;
} families[] = {
    {"LlamaForCausalLM", "llama", FR_HF_LLAMA},
    {"Qwen2ForCausalLM", "qwen2", FR_HF_QWEN2},
    {"Qwen3ForCausalLM", "qwen3", FR_HF_QWEN3},
};

static fr_status find_family(fr_hf_object config, const char **name_out, fr_hf_family *out)
{
    char show[FR_SHOW_BYTES];
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(config.at, "architectures");
    const char *name = cJSON_GetStringValue(cJSON_GetArrayItem(list, 0));
    if (!name)
        return fr_fail(FR_EFORMAT, "%s: architectures names none", config.path);
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (strcmp(name, families[i].theirs) == 0) {
            *name_out = families[i].ours;
            *out = families[i].family;
            return FR_OK;
        }
    }
    return fr_fail(FR_EUNSUPPORTED,
                   "%s: architecture %s is not supported (LlamaForCausalLM, Qwen2ForCausalLM, "
                   "Qwen3ForCausalLM)",
                   config.path, fr_str_show(fr_str_of(name), show));
}

static fr_status check_layer_types(fr_hf_object config)
{
    char show[FR_SHOW_BYTES];
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(config.at, "layer_types"), *one;
    cJSON_ArrayForEach(one, list)
    {
        const char *type = cJSON_GetStringValue(one);
        if (!type || strcmp(type, "full_attention") != 0)
            return fr_fail(FR_EUNSUPPORTED, "%s: layer_types %s is not supported (full_attention)",
                           config.path, fr_str_show(fr_str_of(type ? type : "?"), show));
    }
    return FR_OK;
}

/* What would change the arithmetic, and is not computed here. */
static fr_status check_supported(fr_hf_object config)
{
    char show[FR_SHOW_BYTES];
    const char *activation = "silu";
    int sliding = 0;
    double rotated = 1;
    FR_TRY(fr_hf_optional_text(config, "hidden_act", &activation));
    FR_TRY(fr_hf_optional_bool(config, "use_sliding_window", &sliding));
    FR_TRY(fr_hf_optional_double(config, "partial_rotary_factor", &rotated));
    if (strcmp(activation, "silu") != 0)
        return fr_fail(FR_EUNSUPPORTED, "%s: hidden_act %s is not supported (silu)", config.path,
                       fr_str_show(fr_str_of(activation), show));
    if (sliding)
        return fr_fail(FR_EUNSUPPORTED, "%s: use_sliding_window is not supported", config.path);
    FR_TRY(check_layer_types(config));
    if (rotated != 1)
        return fr_fail(FR_EUNSUPPORTED, "%s: partial_rotary_factor %g is not supported (1)",
                       config.path, rotated);
    if (fr_hf_has(config, "quantization_config")) {
        const char *method = "of a kind not named";
        FR_TRY(fr_hf_optional_text(fr_hf_child(config, "quantization_config"), "quant_method",
                                   &method));
        return fr_fail(FR_EUNSUPPORTED,
                       "%s: quantization_config %s is not supported (BF16, F16 and F32 weights)",
                       config.path, fr_str_show(fr_str_of(method), show));
    }
    return FR_OK;
}

/* --- sizes --- */

typedef struct sizes {
    uint32_t layers, hidden, heads, kv_heads, head, ff, context, vocab;
    double eps;
} sizes;

static fr_status read_size(fr_hf_object config, const char *key, uint32_t *out)
{
    FR_TRY(fr_hf_u32(config, key, out));
    if (*out == 0 || *out > MAX_SIZE)
        return fr_fail(FR_EFORMAT, "%s: %s is %u", config.path, key, *out);
    return FR_OK;
}

static fr_status read_sizes(fr_hf_object config, sizes *s)
{
    FR_TRY(read_size(config, "num_hidden_layers", &s->layers));
    FR_TRY(read_size(config, "hidden_size", &s->hidden));
    FR_TRY(read_size(config, "num_attention_heads", &s->heads));
    FR_TRY(read_size(config, "intermediate_size", &s->ff));
    FR_TRY(read_size(config, "max_position_embeddings", &s->context));
    FR_TRY(read_size(config, "vocab_size", &s->vocab));
    s->kv_heads = s->heads;
    if (fr_hf_has(config, "num_key_value_heads"))
        FR_TRY(read_size(config, "num_key_value_heads", &s->kv_heads));
    s->head = s->hidden / s->heads;
    if (fr_hf_has(config, "head_dim"))
        FR_TRY(read_size(config, "head_dim", &s->head));
    if (s->head == 0 || s->head % 2)
        return fr_fail(FR_EFORMAT, "%s: %u hidden values for %u heads", config.path, s->hidden,
                       s->heads);
    return fr_hf_double(config, "rms_norm_eps", &s->eps);
}

/* --- metadata --- */

typedef struct putting {
    fr_meta_writer *w;
    const char *arch;
    char key[96];
} putting;

static const char *key_of(putting *p, const char *key)
{
    snprintf(p->key, sizeof p->key, "%s.%s", p->arch, key);
    return p->key;
}

static fr_status put_sizes(putting *p, const sizes *s)
{
    FR_TRY(fr_meta_put_str(p->w, "general.architecture", fr_str_of(p->arch)));
    FR_TRY(fr_meta_put_u32(p->w, key_of(p, "block_count"), s->layers));
    FR_TRY(fr_meta_put_u32(p->w, key_of(p, "context_length"), s->context));
    FR_TRY(fr_meta_put_u32(p->w, key_of(p, "embedding_length"), s->hidden));
    FR_TRY(fr_meta_put_u32(p->w, key_of(p, "feed_forward_length"), s->ff));
    FR_TRY(fr_meta_put_u32(p->w, key_of(p, "attention.head_count"), s->heads));
    FR_TRY(fr_meta_put_u32(p->w, key_of(p, "attention.head_count_kv"), s->kv_heads));
    FR_TRY(fr_meta_put_u32(p->w, key_of(p, "attention.key_length"), s->head));
    return fr_meta_put_f32(p->w, key_of(p, "attention.layer_norm_rms_epsilon"), (float)s->eps);
}

/* Publishers' matrices are for pairs (i, i + n/2) in every family; only GGUF files of llama have
 * theirs permuted for pairs (2i, 2i + 1). */
static fr_status put_rope(putting *p, const fr_hf_rope *r)
{
    FR_TRY(fr_meta_put_bool(p->w, "forerun.rope_halves", 1));
    FR_TRY(fr_meta_put_f32(p->w, key_of(p, "rope.freq_base"), r->base));
    if (r->magnitude != 1)
        FR_TRY(fr_meta_put_f32(p->w, "forerun.rope_magnitude", r->magnitude));
    if (r->linear == 1)
        return FR_OK;
    FR_TRY(fr_meta_put_str(p->w, key_of(p, "rope.scaling.type"), fr_str_of("linear")));
    return fr_meta_put_f32(p->w, key_of(p, "rope.scaling.factor"), r->linear);
}

fr_status fr_hf_config_put(fr_hf_object config, fr_meta_writer *w, fr_hf_shape *out)
{
    putting p = {.w = w};
    sizes s = {0};
    fr_hf_rope rope = {0};
    out->tied = -1;
    FR_TRY(find_family(config, &p.arch, &out->family));
    FR_TRY(check_supported(config));
    FR_TRY(read_sizes(config, &s));
    FR_TRY(fr_hf_optional_bool(config, "tie_word_embeddings", &out->tied));
    FR_TRY(fr_hf_rope_read(config, (int)s.head, s.context, &rope));
    out->rope_factors = rope.factors;
    out->n_layers = s.layers;
    out->hidden = s.hidden;
    out->q = (int64_t)s.heads * s.head;
    out->kv = (int64_t)s.kv_heads * s.head;
    out->head = s.head;
    out->ff = s.ff;
    out->vocab = s.vocab;
    FR_TRY(put_sizes(&p, &s));
    return put_rope(&p, &rope);
}

void fr_hf_shape_free(fr_hf_shape *s)
{
    free(s->rope_factors);
    *s = (fr_hf_shape){0};
}
