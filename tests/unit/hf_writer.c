/* hf_writer.c: see hf_writer.h. Weights follow from the tensor's published name. GGUF files of llama
 * get the rows of Q and K permuted, as converters do. */
#include "hf_writer.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hash.h"

enum { Q = HF_HEADS * HF_HEAD, KV = HF_KV_HEADS * HF_HEAD, VALUES_MAX = HF_VOCAB * HF_HIDDEN };

static const struct {
    const char *theirs, *ours;
    int rows, cols;     /* cols 0: a vector */
    const char *family; /* NULL: all */
    int heads;          /* to permute */
} known[] = {
    {"input_layernorm.weight", "attn_norm.weight", HF_HIDDEN, 0, NULL, 0},
    {"self_attn.q_proj.weight", "attn_q.weight", Q, HF_HIDDEN, NULL, HF_HEADS},
    {"self_attn.k_proj.weight", "attn_k.weight", KV, HF_HIDDEN, NULL, HF_KV_HEADS},
    {"self_attn.v_proj.weight", "attn_v.weight", KV, HF_HIDDEN, NULL, 0},
    {"self_attn.q_proj.bias", "attn_q.bias", Q, 0, "qwen2", 0},
    {"self_attn.k_proj.bias", "attn_k.bias", KV, 0, "qwen2", 0},
    {"self_attn.v_proj.bias", "attn_v.bias", KV, 0, "qwen2", 0},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", HF_HEAD, 0, "qwen3", 0},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", HF_HEAD, 0, "qwen3", 0},
    {"self_attn.o_proj.weight", "attn_output.weight", HF_HIDDEN, Q, NULL, 0},
    {"post_attention_layernorm.weight", "ffn_norm.weight", HF_HIDDEN, 0, NULL, 0},
    {"mlp.gate_proj.weight", "ffn_gate.weight", HF_FF, HF_HIDDEN, NULL, 0},
    {"mlp.up_proj.weight", "ffn_up.weight", HF_FF, HF_HIDDEN, NULL, 0},
    {"mlp.down_proj.weight", "ffn_down.weight", HF_HIDDEN, HF_FF, NULL, 0},
};
enum { KNOWN = sizeof known / sizeof *known, TENSORS_MAX = HF_LAYERS * KNOWN + 3 };

typedef struct tensor {
    char theirs[80], ours[64];
    int rows, cols, heads;
    size_t bytes;
} tensor;

static void must(int fine, const char *what)
{
    if (!fine) {
        fprintf(stderr, "hf_writer: cannot write %s\n", what);
        abort();
    }
}

/* --- weights --- */

static void add(tensor *list, int *n, const char *theirs, const char *ours, int rows, int cols)
{
    tensor *t = &list[(*n)++];
    *t = (tensor){.rows = rows, .cols = cols};
    snprintf(t->theirs, sizeof t->theirs, "%s", theirs);
    snprintf(t->ours, sizeof t->ours, "%s", ours);
}

static int list_tensors(const hf_model *m, tensor list[TENSORS_MAX])
{
    int n = 0;
    add(list, &n, "model.embed_tokens.weight", "token_embd.weight", HF_VOCAB, HF_HIDDEN);
    for (int l = 0; l < HF_LAYERS; l++) {
        for (int i = 0; i < KNOWN; i++) {
            char theirs[80], ours[64];
            if (known[i].family && strcmp(known[i].family, m->family) != 0)
                continue;
            snprintf(theirs, sizeof theirs, "model.layers.%d.%s", l, known[i].theirs);
            snprintf(ours, sizeof ours, "blk.%d.%s", l, known[i].ours);
            add(list, &n, theirs, ours, known[i].rows, known[i].cols);
            list[n - 1].heads = known[i].heads;
        }
    }
    add(list, &n, "model.norm.weight", "output_norm.weight", HF_HIDDEN, 0);
    if (!m->tied)
        add(list, &n, "lm_head.weight", "output.weight", HF_VOCAB, HF_HIDDEN);
    for (int i = 0; i < n; i++)
        list[i].bytes = (size_t)list[i].rows * (size_t)(list[i].cols ? list[i].cols : 1) *
                        (size_t)fr_dtype_find(m->dtype)->block_bytes;
    return n;
}

/* Multiples of 1/128, which every type holds exactly: norms around 1, the others around 0. */
static float value_of(const tensor *t, uint32_t *random)
{
    *random = *random * 1664525 + 1013904223;
    int is_norm = strstr(t->theirs, "norm") != NULL;
    return (is_norm ? 1.0f : 0.0f) + (float)((int)(*random >> 8) % 33 - 16) / 128;
}

static void put_value(uint8_t *at, fr_dtype dtype, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    uint16_t half = dtype == FR_F16 ? fr_f32_to_f16(v) : (uint16_t)(bits >> 16);
    if (dtype == FR_F32)
        memcpy(at, &bits, 4);
    else
        memcpy(at, &half, 2);
}

static void fill(const hf_model *m, const tensor *t, uint8_t *out)
{
    uint32_t random = (uint32_t)fr_hash(FR_HASH_INIT, t->theirs, strlen(t->theirs));
    size_t size = (size_t)fr_dtype_find(m->dtype)->block_bytes;
    for (size_t i = 0; i < t->bytes / size; i++)
        put_value(out + i * size, m->dtype, value_of(t, &random));
    if (m->nan_in && strcmp(t->theirs, m->nan_in) == 0)
        put_value(out + (size_t)(m->nan_row * (t->cols ? t->cols : 1)) * size, m->dtype,
                  __builtin_nanf(""));
}

/* --- a folder --- */

void hf_write_file(const char *folder, const char *name, const void *data, size_t n)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    must(f && fwrite(data, 1, n, f) == n && fclose(f) == 0, path);
}

char *hf_read_file(const char *folder, const char *name, size_t *n_out)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    must(f != NULL, path);
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    rewind(f);
    char *text = calloc(1, n + 1);
    must(text && fread(text, 1, n, f) == n, path);
    fclose(f);
    *n_out = n;
    return text;
}

void hf_remove_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        unlink(path);
    }
    if (dir)
        closedir(dir);
    rmdir(folder);
}

static void write_buf(const char *folder, const char *name, fr_buf *b)
{
    hf_write_file(folder, name, b->data, b->len);
    fr_buf_free(b);
}

static void put(fr_buf *b, const char *text)
{
    gguf_bytes(b, text, strlen(text));
}

static void write_shard(const char *folder, const char *name, const hf_model *m, const tensor *list,
                        int n)
{
    static const char *const types[] = {[FR_F32] = "F32", [FR_F16] = "F16", [FR_BF16] = "BF16"};
    fr_buf header = {0}, file = {0};
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        const tensor *t = &list[i];
        char cols[16] = "";
        if (t->cols)
            snprintf(cols, sizeof cols, ",%d", t->cols);
        must(fr_buf_printf(
                 &header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%d%s],\"data_offsets\":[%zu,%zu]}",
                 i ? "," : "{", t->theirs, types[m->dtype], t->rows, cols, at,
                 at + t->bytes) == FR_OK,
             name);
        at += t->bytes;
    }
    put(&header, "}");
    gguf_u64(&file, header.len);
    gguf_bytes(&file, header.data, header.len);
    for (int i = 0; i < n; i++) {
        uint8_t data[VALUES_MAX * 4];
        fill(m, &list[i], data);
        gguf_bytes(&file, data, list[i].bytes);
    }
    fr_buf_free(&header);
    write_buf(folder, name, &file);
}

static void write_shards(const char *folder, const hf_model *m, const tensor *list, int n)
{
    fr_buf index = {0};
    put(&index, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (int s = 0; s < m->n_shards; s++) {
        char name[64];
        int from = n * s / m->n_shards, to = n * (s + 1) / m->n_shards;
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", s + 1, m->n_shards);
        write_shard(folder, name, m, list + from, to - from);
        for (int i = from; i < to; i++)
            must(fr_buf_printf(&index, "%s\"%s\":\"%s\"", i ? "," : "", list[i].theirs, name) ==
                     FR_OK,
                 name);
    }
    put(&index, "}}");
    write_buf(folder, "model.safetensors.index.json", &index);
}

static void write_config(const char *folder, const hf_model *m)
{
    fr_buf b = {0};
    const char *architecture = m->family[0] == 'l'   ? "LlamaForCausalLM"
                               : m->family[4] == '2' ? "Qwen2ForCausalLM"
                                                     : "Qwen3ForCausalLM";
    must(fr_buf_printf(&b,
                       "{\"architectures\":[\"%s\"],\"hidden_act\":\"silu\",\"hidden_size\":%d,"
                       "\"num_hidden_layers\":%d,\"num_attention_heads\":%d,"
                       "\"num_key_value_heads\":%d,\"head_dim\":%d,\"intermediate_size\":%d,"
                       "\"max_position_embeddings\":512,\"rms_norm_eps\":1e-06,"
                       "\"rope_theta\":10000.0,\"rope_scaling\":%s,\"vocab_size\":%d,"
                       "\"tie_word_embeddings\":%s,\"bos_token_id\":261,\"eos_token_id\":262,"
                       "\"use_sliding_window\":false,\"torch_dtype\":\"bfloat16\"}\n",
                       architecture, HF_HIDDEN, HF_LAYERS, HF_HEADS, HF_KV_HEADS, HF_HEAD, HF_FF,
                       m->scaling ? m->scaling : "null", HF_VOCAB,
                       m->tied ? "true" : "false") == FR_OK,
         "config.json");
    write_buf(folder, "config.json", &b);
}

/* --- the tokenizer, the same in both --- */

static const char *const merges[] = {"a b", "ab c", "Ġ a", "c d", NULL};
static const gguf_special specials[] = {
    {"<tool>", 4}, {"<|im_start|>", 3}, {"<|im_end|>", 3}, {NULL, 0}};
static const char chat[] = "{{ '<|im_start|>' }}";
static const gguf_vocab vocab = {
    .pre = "qwen2", .merges = merges, .specials = specials, .chat = chat, .add_bos = 0, .bos = 261};

static void write_tokenizer(const char *folder)
{
    fr_buf b = {0};
    char text[3];
    put(&b, "{\"version\":\"1.0\",\"added_tokens\":["
            "{\"id\":260,\"content\":\"<tool>\",\"special\":false},"
            "{\"id\":261,\"content\":\"<|im_start|>\",\"special\":false},"
            "{\"id\":262,\"content\":\"<|im_end|>\",\"special\":true}],"
            "\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":{\"type\":\"Sequence\","
            "\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\""
            "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| ?"
            "[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},"
            "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\","
            "\"add_prefix_space\":false,\"use_regex\":false}]},\"post_processor\":null,"
            "\"model\":{\"type\":\"BPE\",\"byte_fallback\":false,\"merges\":"
            "[\"a b\",[\"ab\",\"c\"],\"Ġ a\",[\"c\",\"d\"]],\"vocab\":{");
    for (int i = 0; i < 256; i++) {
        gguf_spell(i, text);
        const char *escape = i == '"' || i == '\\' ? "\\" : "";
        must(fr_buf_printf(&b, "\"%s%s\":%d,", escape, text, i) == FR_OK, "tokenizer.json");
    }
    put(&b, "\"ab\":256,\"abc\":257,\"Ġa\":258,\"cd\":259}}}");
    write_buf(folder, "tokenizer.json", &b);
    put(&b,
        "{\"add_bos_token\":false,\"bos_token\":\"<|im_start|>\","
        "\"eos_token\":{\"content\":\"<|im_end|>\"},\"chat_template\":\"{{ '<|im_start|>' }}\"}");
    write_buf(folder, "tokenizer_config.json", &b);
    put(&b, "{\"eos_token_id\":[262,260]}");
    write_buf(folder, "generation_config.json", &b);
}

void hf_write_folder(const char *folder, const hf_model *m)
{
    tensor list[TENSORS_MAX];
    int n = list_tensors(m, list);
    write_config(folder, m);
    write_tokenizer(folder);
    if (m->n_shards == 1)
        write_shard(folder, "model.safetensors", m, list, n);
    else
        write_shards(folder, m, list, n);
}

/* --- a GGUF file --- */

static void meta_u32(fr_buf *b, const hf_model *m, const char *key, uint32_t v)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", m->family, key);
    gguf_meta_u32(b, full, v);
}

static void put_metadata(fr_buf *b, const hf_model *m, uint64_t n_tensors)
{
    char eps[96];
    snprintf(eps, sizeof eps, "%s.attention.layer_norm_rms_epsilon", m->family);
    gguf_header(b, 3, n_tensors, 9 + gguf_tokenizer_n_meta(&vocab));
    gguf_meta_str(b, "general.architecture", m->family);
    meta_u32(b, m, "block_count", HF_LAYERS);
    meta_u32(b, m, "embedding_length", HF_HIDDEN);
    meta_u32(b, m, "attention.head_count", HF_HEADS);
    meta_u32(b, m, "attention.head_count_kv", HF_KV_HEADS);
    meta_u32(b, m, "attention.key_length", HF_HEAD);
    meta_u32(b, m, "feed_forward_length", HF_FF);
    meta_u32(b, m, "context_length", 512);
    gguf_meta_f32(b, eps, 1e-6f);
    gguf_tokenizer_meta(b, &vocab);
}

/* Row r of the file is this row of the matrix: pairs (i, i + n/2) of a head become (2i, 2i + 1). */
static int permuted(int r)
{
    int in_head = r % HF_HEAD;
    return r - in_head + in_head / 2 + in_head % 2 * (HF_HEAD / 2);
}

static void put_data(fr_buf *b, const hf_model *m, const tensor *t)
{
    uint8_t data[VALUES_MAX * 4];
    size_t row = t->bytes / (size_t)t->rows;
    int permute = t->heads && !m->keep_rows && strcmp(m->family, "llama") == 0;
    fill(m, t, data);
    for (int r = 0; r < t->rows; r++) {
        int from = permute ? permuted(r) : r;
        gguf_bytes(b, data + (size_t)from * row, row);
    }
}

void hf_write_gguf(const char *path, const hf_model *m)
{
    tensor list[TENSORS_MAX];
    fr_buf b = {0}, data = {0};
    int n = list_tensors(m, list);
    put_metadata(&b, m, (uint64_t)n + (m->rope_factors != NULL) + (m->stray != NULL));
    for (int i = 0; i < n; i++) {
        const uint64_t dims[2] = {(uint64_t)(list[i].cols ? list[i].cols : list[i].rows),
                                  (uint64_t)list[i].rows};
        gguf_data(&data, 32, 0);
        gguf_tensor(&b, list[i].ours, m->dtype, list[i].cols ? 2 : 1, dims, data.len);
        put_data(&data, m, &list[i]);
    }
    gguf_data(&data, 32, 0);
    if (m->rope_factors) {
        gguf_tensor(&b, "rope_freqs.weight", FR_F32, 1, &(uint64_t){HF_HEAD / 2}, data.len);
        gguf_bytes(&data, m->rope_factors, HF_HEAD / 2 * sizeof(float));
    }
    gguf_data(&data, 32, 0);
    if (m->stray) {
        gguf_tensor(&b, m->stray, FR_F32, 1, &(uint64_t){HF_HIDDEN}, data.len);
        gguf_data(&data, 32, HF_HIDDEN * sizeof(float));
    }
    gguf_data(&b, 32, 0);
    gguf_bytes(&b, data.data, data.len);
    fr_buf_free(&data);
    FILE *f = fopen(path, "wb");
    must(f && fwrite(b.data, 1, b.len, f) == b.len && fclose(f) == 0, path);
    fr_buf_free(&b);
}
