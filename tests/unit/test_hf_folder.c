/* test_hf_folder.c: model folders as publishers ship them, made here (hf_writer.h): what opens, under
 * which names; that a folder's tokenizer is that of the GGUF file of the same model; and what is
 * refused, each with one line that names the file and what is wrong in it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "draft_vocab.h"
#include "fault_alloc.h"
#include "hf_writer.h"
#include "tokenizer.h"

static char folder[] = "/tmp/forerun-hf-XXXXXX";
static const hf_model plain = {.family = "qwen2", .dtype = FR_BF16, .n_shards = 1};

static fr_model_file *open_path(const char *name)
{
    char path[128];
    fr_model_file *f = NULL;
    snprintf(path, sizeof path, "%s%s", folder, name);
    if (fr_model_file_open(path, &f) != FR_OK)
        fail_msg("%s", fr_cause());
    return f;
}

static fr_model_file *open_model(const hf_model *m)
{
    hf_write_folder(folder, m);
    return open_path("");
}

static int clear_folder(void **state)
{
    (void)state;
    hf_remove_folder(folder);
    strcpy(folder, "/tmp/forerun-hf-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

/* Replaces the first `from` in the file by `to`. */
static void change(const char *file, const char *from, const char *to)
{
    size_t n = 0;
    fr_buf b = {0};
    char *text = hf_read_file(folder, file, &n), *at = memmem(text, n, from, strlen(from));
    if (!at)
        fail_msg("%s has no %s", file, from);
    gguf_bytes(&b, text, (size_t)(at - text));
    gguf_bytes(&b, to, strlen(to));
    gguf_bytes(&b, at + strlen(from), n - (size_t)(at - text) - strlen(from));
    hf_write_file(folder, file, b.data, b.len);
    fr_buf_free(&b);
    free(text);
}

/* --- what opens --- */

static void assert_u32(const fr_model_file *f, const char *key, uint32_t want)
{
    uint32_t v = 0;
    if (fr_meta_u32(f, key, &v) != FR_OK)
        fail_msg("%s", fr_cause());
    assert_int_equal(v, want);
}

static void test_names(void **state)
{
    (void)state;
    fr_model_file *f = open_model(&plain);
    assert_string_equal(fr_model_file_name(f), folder);
    assert_u32(f, "qwen2.block_count", HF_LAYERS);
    assert_u32(f, "qwen2.attention.head_count_kv", HF_KV_HEADS);
    assert_u32(f, "qwen2.context_length", 512);
    const fr_tensor *t = fr_model_file_tensor(f, "blk.1.ffn_down.weight");
    assert_non_null(t);
    assert_int_equal(t->dtype, FR_BF16);
    assert_int_equal(t->dims[0], HF_FF);
    assert_int_equal(t->dims[1], HF_HIDDEN);
    assert_int_equal(t->bytes, HF_FF * HF_HIDDEN * 2);
    assert_true(fr_str_equal(t->source, (fr_str){"model.layers.1.mlp.down_proj.weight", 35}));
    assert_non_null(fr_model_file_tensor(f, "output.weight"));
    assert_null(fr_model_file_tensor(f, "rope_freqs.weight"));
    assert_int_equal(fr_model_file_n_tensors(f), 2 * 12 + 3);
    fr_model_file_close(&f);
}

/* By every path of one model: the same tensors, with the same bytes. */
static void test_paths(void **state)
{
    (void)state;
    static const char *const ways[] = {"", "/", "//", "/model.safetensors.index.json"};
    hf_model sharded = plain;
    fr_model_file *one = open_model(&plain);
    uint64_t digest = fr_model_file_digest(one);
    char whole[128];
    snprintf(whole, sizeof whole, "%s/model.safetensors", folder);
    fr_model_file *by_file = open_path("/model.safetensors");
    assert_true(fr_model_file_digest(by_file) == digest);
    fr_model_file_close(&by_file);
    sharded.n_shards = 3;
    unlink(whole); /* it stays mapped */
    hf_write_folder(folder, &sharded);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        fr_model_file *many = open_path(ways[w]);
        assert_string_equal(fr_model_file_name(many), folder);
        assert_int_equal(fr_model_file_n_tensors(many), fr_model_file_n_tensors(one));
        for (size_t i = 0; i < fr_model_file_n_tensors(one); i++) {
            const fr_tensor *a = fr_model_file_tensor_at(one, i),
                            *b = fr_model_file_tensor_at(many, i);
            assert_true(fr_str_equal(a->name, b->name) && a->bytes == b->bytes);
            assert_memory_equal(a->data, b->data, a->bytes);
            fr_model_file_drop(many, b->data, b->bytes);
            assert_memory_equal(a->data, b->data, a->bytes);
        }
        fr_model_file_close(&many);
    }
    fr_model_file_close(&one);
}

/* A tied model may come with a head all the same; an untied one must. */
static void test_tied(void **state)
{
    (void)state;
    hf_model m = plain;
    m.tied = 1;
    fr_model_file *f = open_model(&m);
    assert_null(fr_model_file_tensor(f, "output.weight"));
    fr_model_file_close(&f);
    size_t n = 0;
    char *config = hf_read_file(folder, "config.json", &n);
    hf_write_folder(folder, &plain);
    hf_write_file(folder, "config.json", config, n);
    free(config);
    f = open_path("");
    assert_null(fr_model_file_tensor(f, "output.weight"));
    fr_model_file_close(&f);
}

static void test_tokenizer(void **state)
{
    (void)state;
    static const char text[] = "abcd <tool>\n ab<|im_end|>";
    char path[128];
    fr_model_file *files[2] = {open_model(&plain), NULL};
    fr_tokenizer *t[2] = {NULL, NULL};
    fr_ids ids[2] = {{0}, {0}};
    snprintf(path, sizeof path, "%s/same.gguf", folder);
    hf_write_gguf(path, &plain);
    assert_int_equal(fr_model_file_open(path, &files[1]), FR_OK);
    for (int i = 0; i < 2; i++) {
        if (fr_tokenizer_from_model(files[i], &t[i]) != FR_OK)
            fail_msg("%s", fr_cause());
        assert_int_equal(fr_tokenizer_chat_style(t[i]), FR_CHAT_CHATML);
        assert_int_equal(fr_tokenizer_n_vocab(t[i]), HF_TOKENS);
        assert_true(fr_tokenizer_is_end(t[i], 262));
        assert_int_equal(fr_tokenize(t[i], text, strlen(text), 1, &ids[i]), FR_OK);
    }
    assert_true(fr_tokenizer_digest(t[0]) == fr_tokenizer_digest(t[1]));
    assert_true(fr_tokenizer_is_end(t[0], 260)); /* generation_config.json says so */
    assert_int_equal(ids[0].len, ids[1].len);
    assert_memory_equal(ids[0].data, ids[1].data, ids[0].len * sizeof(int32_t));
    for (int i = 0; i < 2; i++) {
        fr_ids_free(&ids[i]);
        fr_tokenizer_free(&t[i]);
        fr_model_file_close(&files[i]);
    }
}

/* Settings that mean what the plain ones mean. */
static void test_other_spellings(void **state)
{
    (void)state;
    static const char *const same[][3] = {
        {"tokenizer.json", "{\"type\":\"NFC\"}", "{\"type\":\"Sequence\",\"normalizers\":[]}"},
        {"tokenizer.json", "{\"type\":\"NFC\"}", "null"},
        {"tokenizer.json", "\"Isolated\",\"invert\":false", "\"Removed\",\"invert\":true"},
        {"config.json", "\"rope_theta\":10000.0,\"rope_scaling\":null",
         "\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000.0}"},
        {"config.json", "\"use_sliding_window\":false", "\"layer_types\":[\"full_attention\"]"},
        {"tokenizer_config.json", "\"{{ '<|im_start|>' }}\"",
         "[{\"name\":\"tools\",\"template\":\"x\"},"
         "{\"name\":\"default\",\"template\":\"{{ '<|im_start|>' }}\"}]"},
    };
    fr_model_file *f = open_model(&plain);
    uint64_t digest = fr_model_file_digest(f);
    fr_model_file_close(&f);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        hf_write_folder(folder, &plain);
        change(same[i][0], same[i][1], same[i][2]);
        f = open_path("");
        if (fr_model_file_digest(f) != digest)
            fail_msg("%s: %s is not the same as %s", same[i][0], same[i][2], same[i][1]);
        fr_model_file_close(&f);
    }
}

static void assert_adds_bos(int want)
{
    int add = -1;
    fr_model_file *f = open_path("");
    assert_int_equal(fr_meta_bool(f, "tokenizer.ggml.add_bos_token", &add), FR_OK);
    assert_int_equal(add, want);
    fr_model_file_close(&f);
}

/* A tokenizer that begins every text with a token says so by its template; a setting goes before. */
static void test_adds_bos(void **state)
{
    (void)state;
    static const char with_bos[] =
        "\"post_processor\":{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"},"
        "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<|im_start|>\"}},"
        "{\"Sequence\":{\"id\":\"A\"}}]}]}";
    hf_write_folder(folder, &plain);
    change("tokenizer.json", "\"post_processor\":null", with_bos);
    assert_adds_bos(0);
    change("tokenizer_config.json", "\"add_bos_token\":false,", "");
    assert_adds_bos(1);
}

static void test_chat_template_file(void **state)
{
    (void)state;
    static const char llama3[] = "<|start_header_id|>";
    hf_write_folder(folder, &plain);
    hf_write_file(folder, "chat_template.jinja", llama3, strlen(llama3));
    fr_model_file *f = open_path("");
    fr_str chat = {0};
    assert_int_equal(fr_meta_str(f, "tokenizer.chat_template", &chat), FR_OK);
    assert_true(fr_str_equal(chat, (fr_str){llama3, strlen(llama3)}));
    fr_model_file_close(&f);
}

/* Expected values: transformers' formulas, evaluated in Python. */
static void test_rope_factors(void **state)
{
    (void)state;
    static const struct {
        const char *scaling;
        float factors[HF_HEAD / 2], magnitude;
    } known[] = {
        {"{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4."
         "0,"
         "\"original_max_position_embeddings\":64}",
         {1.0f, 1.29397583f, 7.66738513f, 8, 8, 8, 8, 8},
         1},
        {"{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":512}",
         {1.0f, 1.23076923f, 1.6f, 2.28571429f, 4, 4, 4, 4},
         1.13862944f},
        {"{\"type\":\"yarn\",\"factor\":4.0,\"attention_factor\":0.5}",
         {1.0f, 1.23076923f, 1.6f, 2.28571429f, 4, 4, 4, 4},
         0.5f},
    };
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        hf_model m = plain;
        float magnitude = 1;
        m.scaling = known[k].scaling;
        fr_model_file *f = open_model(&m);
        const fr_tensor *t = fr_model_file_tensor(f, "rope_freqs.weight");
        assert_non_null(t);
        assert_int_equal(t->dtype, FR_F32);
        assert_int_equal(t->dims[0], HF_HEAD / 2);
        for (int i = 0; i < HF_HEAD / 2; i++)
            assert_true(fabsf(((const float *)t->data)[i] / known[k].factors[i] - 1) < 1e-6f);
        if (fr_model_file_meta(f, "forerun.rope_magnitude"))
            assert_int_equal(fr_meta_f32(f, "forerun.rope_magnitude", &magnitude), FR_OK);
        assert_true(fabsf(magnitude / known[k].magnitude - 1) < 1e-6f);
        fr_model_file_close(&f);
    }
}

static void test_linear_scaling(void **state)
{
    (void)state;
    float factor = 0;
    hf_model m = plain;
    m.scaling = "{\"type\":\"linear\",\"factor\":4}";
    fr_model_file *f = open_model(&m);
    assert_int_equal(fr_meta_f32(f, "qwen2.rope.scaling.factor", &factor), FR_OK);
    assert_true(factor == 4);
    fr_model_file_close(&f);
}

/* The list of a draft's frequent tokens lies in the folder. */
static void test_draft_vocab(void **state)
{
    (void)state;
    char want[128], *path = NULL;
    int64_t counts[HF_TOKENS] = {0};
    fr_tokenizer *t = NULL;
    fr_model_file *f = open_model(&plain);
    assert_int_equal(fr_tokenizer_from_model(f, &t), FR_OK);
    assert_int_equal(fr_draft_vocab_write(folder, t, counts, 20, &path), FR_OK);
    snprintf(want, sizeof want, "%s/model.vocab", folder);
    assert_string_equal(path, want);
    free(path);
    fr_tokenizer_free(&t);
    fr_model_file_close(&f);
}

/* --- what is refused --- */

/* Opens the folder, which must fail with `want` and one line "FOLDER/file: ...cause...". */
static void refuse(fr_status want, const char *file, const char *cause)
{
    char start[256];
    fr_model_file *f = NULL;
    fr_status st = fr_model_file_open(folder, &f);
    snprintf(start, sizeof start, "%s%s: ", folder, file);
    if (st != want || strncmp(fr_cause(), start, strlen(start)) || !strstr(fr_cause(), cause) ||
        strchr(fr_cause(), '\n'))
        fail_msg("status %d, cause \"%s\", want %d, \"%s\", \"%s\"", st, fr_cause(), want, start,
                 cause);
    assert_null(f);
}

typedef struct bad_change {
    const char *from, *to;
    fr_status want;
    const char *cause;
} bad_change;

/* Each change by itself makes a good folder a bad one. */
static void refuse_changes(const char *file, const bad_change *bad, size_t n)
{
    char shown[64];
    snprintf(shown, sizeof shown, "/%s", file);
    for (size_t i = 0; i < n; i++) {
        hf_write_folder(folder, &plain);
        change(file, bad[i].from, bad[i].to);
        refuse(bad[i].want, shown, bad[i].cause);
    }
}
#define REFUSE_CHANGES(file, bad) refuse_changes(file, bad, sizeof(bad) / sizeof *(bad))

static void test_bad_config(void **state)
{
    (void)state;
    static const bad_change bad[] = {
        {"Qwen2ForCausalLM", "MambaForCausalLM", FR_EUNSUPPORTED,
         "architecture MambaForCausalLM is not supported (LlamaForCausalLM, "},
        {"[\"Qwen2ForCausalLM\"]", "[]", FR_EFORMAT, "architectures names none"},
        {"\"hidden_size\":64,", "", FR_ENOTFOUND, "hidden_size is missing"},
        {"\"hidden_size\":64,", "\"hidden_size\":\"x\",", FR_EFORMAT,
         "hidden_size is no whole number"},
        {"\"num_hidden_layers\":2", "\"num_hidden_layers\":0", FR_EFORMAT,
         "num_hidden_layers is 0"},
        {"\"vocab_size\":272", "\"vocab_size\":99999999", FR_EFORMAT, "vocab_size is 99999999"},
        {"\"head_dim\":16", "\"head_dim\":15", FR_EFORMAT, "64 hidden values for 4 heads"},
        {"\"silu\"", "\"gelu\"", FR_EUNSUPPORTED, "hidden_act gelu is not supported (silu)"},
        {"\"use_sliding_window\":false", "\"use_sliding_window\":true", FR_EUNSUPPORTED,
         "use_sliding_window is not supported"},
        {"\"hidden_act\"",
         "\"layer_types\":[\"full_attention\",\"sliding_attention\"],\"hidden_act\"",
         FR_EUNSUPPORTED, "layer_types sliding_attention is not supported (full_attention)"},
        {"\"hidden_act\"", "\"quantization_config\":{\"quant_method\":\"gptq\"},\"hidden_act\"",
         FR_EUNSUPPORTED, "quantization_config gptq is not supported"},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}",
         FR_EUNSUPPORTED, "rope scaling dynamic is not supported (default, linear, llama3, yarn)"},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"rope_type\":\"linear\"}", FR_ENOTFOUND,
         "factor is missing"},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":0}",
         FR_EFORMAT, "factor is 0, want a positive number"},
        {"\"rope_scaling\":null", "\"rope_parameters\":{\"rope_type\":\"x\",\"rope_theta\":1e6}",
         FR_EUNSUPPORTED, "rope scaling x is not supported"},
        {"\"rope_scaling\":null", "\"rope_scaling\":\"yarn\"", FR_EFORMAT,
         "rope_scaling is no object"},
        {"\"rope_scaling\":null", "\"rope_parameters\":[1]", FR_EFORMAT,
         "rope_parameters is no object"},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":0.5}",
         FR_EFORMAT, "yarn: factor is 0.5, want 1 to 1048576"},
        {"\"rope_scaling\":null", "\"rope_scaling\":{\"type\":\"yarn\",\"factor\":2e6}",
         FR_EFORMAT, "yarn: factor is 2e+06, want 1 to 1048576"},
        {"}\n", "", FR_EFORMAT, "not one JSON object (at byte "},
        {"}\n", "}\n{}", FR_EFORMAT, "not one JSON object (at byte "},
    };
    REFUSE_CHANGES("config.json", bad);
}

static void test_bad_tokenizer(void **state)
{
    (void)state;
    static const bad_change bad[] = {
        {"\"BPE\"", "\"Unigram\"", FR_EUNSUPPORTED,
         "model Unigram is not supported (byte-level BPE)"},
        {"\"byte_fallback\":false", "\"byte_fallback\":true", FR_EUNSUPPORTED,
         "with byte_fallback"},
        {"\"byte_fallback\"", "\"ignore_merges\":true,\"byte_fallback\"", FR_EUNSUPPORTED,
         "ignore_merges is supported for Llama 3's splits only"},
        {"\"NFC\"", "\"Lowercase\"", FR_EUNSUPPORTED, "normalizer Lowercase is not supported"},
        {"{\"type\":\"NFC\"}",
         "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Replace\"}]}",
         FR_EUNSUPPORTED, "normalizer Replace is not supported (NFC)"},
        {"(?i:'s", "(?i:'x", FR_EUNSUPPORTED, "pre_tokenizer: Split by (?i:'x"},
        {"\"Isolated\"", "\"Removed\"", FR_EUNSUPPORTED, "Split with behavior Removed"},
        {"\"add_prefix_space\":false", "\"add_prefix_space\":true", FR_EUNSUPPORTED,
         "ByteLevel with add_prefix_space"},
        {"\"ByteLevel\"", "\"Metaspace\"", FR_EUNSUPPORTED, "pre_tokenizer: step Metaspace"},
        {"\"use_regex\":false", "\"use_regex\":true", FR_EUNSUPPORTED, "ByteLevel beside?a?Split"},
        {"\"pre_tokenizer\"", "\"pre\"", FR_ENOTFOUND, "type is missing"},
        {"\"ab\":256", "\"ab\":272", FR_EFORMAT, "token ab has id 272, the embedding has 272 rows"},
        {"\"ab\":256", "\"ab\":257", FR_EFORMAT, "id 257 belongs to two tokens"},
        {"\"ab\":256", "\"ab\":-1", FR_EFORMAT, "token ab has no id"},
        {"[\"ab\",\"c\"]", "[\"ab\"]", FR_EFORMAT, "merge 1 is no pair of tokens"},
        {"[\"ab\",\"c\"]", "7", FR_EFORMAT, "merge 1 is no pair of tokens"},
        {"\"merges\"", "\"merged\"", FR_EFORMAT, "model.merges is no list"},
        {"\"content\":\"<tool>\",", "", FR_ENOTFOUND, "content is missing"},
    };
    static const bad_change bad_ends[] = {
        {"262", "263", FR_EFORMAT, "eos_token_id names no token of the vocabulary of 263"},
        {"[262,260]", "\"x\"", FR_EFORMAT, "eos_token_id names no token"},
    };
    static const bad_change bad_settings[] = {
        {"\"bos_token\":\"<|im_start|>\"", "\"bos_token\":\"<s>\"", FR_EFORMAT,
         "bos_token <s> is not in the vocabulary"},
        {"\"add_bos_token\":false", "\"add_bos_token\":3", FR_EFORMAT,
         "add_bos_token is no true or false"},
    };
    REFUSE_CHANGES("tokenizer.json", bad);
    REFUSE_CHANGES("generation_config.json", bad_ends);
    REFUSE_CHANGES("tokenizer_config.json", bad_settings);
}

/* Merges that name no tokens are found when the tokenizer is made; the folder is named then. */
static void test_bad_merge(void **state)
{
    (void)state;
    fr_tokenizer *t = NULL;
    hf_write_folder(folder, &plain);
    change("tokenizer.json", "[\"ab\",\"c\"]", "[\"ab\",\"zz\"]");
    fr_model_file *f = open_path("");
    assert_int_equal(fr_tokenizer_from_model(f, &t), FR_EFORMAT);
    assert_non_null(strstr(fr_cause(), "merge 1 (ab?zz) names no two tokens"));
    assert_int_equal(strncmp(fr_cause(), folder, strlen(folder)), 0);
    fr_model_file_close(&f);
}

static void test_bad_tensors(void **state)
{
    (void)state;
    static const bad_change bad[] = {
        /* of equal length: the header's is in front */
        {"layers.1.mlp.up_proj.weight", "layers.1.mlp.xy_proj.weight", FR_EUNSUPPORTED,
         "tensor model.layers.1.mlp.xy_proj.weight is not one that this architecture has"},
        {"layers.1.mlp.up_proj.weight", "layers.9.mlp.up_proj.weight", FR_EUNSUPPORTED,
         "tensor model.layers.9.mlp.up_proj.weight is not one"},
        {"\"shape\":[96,64]", "\"shape\":[64,96]", FR_EFORMAT,
         "tensor model.layers.0.mlp.gate_proj.weight has shape [64, 96], config.json wants [96, "
         "64]"},
        {"\"BF16\",\"shape\":[96,64]", "\"I16\" ,\"shape\":[96,64]", FR_EUNSUPPORTED,
         "tensor model.layers.0.mlp.gate_proj.weight: dtype I16 is not supported (BF16, F16, F32)"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        hf_write_folder(folder, &plain);
        change("model.safetensors", bad[i].from, bad[i].to);
        refuse(bad[i].want, "/model.safetensors", bad[i].cause);
    }
    /* Another config.json: the shapes are told as it has them. */
    hf_write_folder(folder, &plain);
    change("config.json", "\"intermediate_size\":96", "\"intermediate_size\":80");
    refuse(FR_EFORMAT, "/model.safetensors", "has shape [96, 64], config.json wants [80, 64]");
    hf_write_folder(folder, &plain);
    change("config.json", "\"vocab_size\":272", "\"vocab_size\":260"); /* there are tokens behind */
    refuse(FR_EFORMAT, "/model.safetensors",
           "tensor model.embed_tokens.weight has 272 rows, config.json's vocab_size is 260");
    hf_write_folder(folder, &plain);
    change("config.json", "Qwen2", "Llama"); /* which may have biases */
    fr_model_file *f = open_path("");
    fr_model_file_close(&f);
    hf_model llama = plain;
    llama.family = "llama";
    hf_write_folder(folder, &llama);
    change("config.json", "Llama", "Qwen2");
    refuse(FR_ENOTFOUND, "", "tensor model.layers.0.self_attn.q_proj.bias is missing");
    hf_model tied = plain;
    tied.tied = 1;
    hf_write_folder(folder, &tied);
    change("config.json", "\"tie_word_embeddings\":true", "\"tie_word_embeddings\":false");
    refuse(FR_ENOTFOUND, "", "tensor lm_head.weight is missing");
}

static void test_bad_shards(void **state)
{
    (void)state;
    char second[128];
    const char *const index = "model.safetensors.index.json";
    hf_model m = plain;
    m.n_shards = 3;
    snprintf(second, sizeof second, "%s/model-00002-of-00003.safetensors", folder);
    hf_write_folder(folder, &m);
    unlink(second);
    refuse(FR_ENOTFOUND, "/model.safetensors.index.json",
           "the file model-00002-of-00003.safetensors that it names: No such file");
    hf_write_folder(folder, &m);
    change(index, "\"model.norm.weight\":\"model-00003", "\"model.norm.weight\":\"model-00001");
    refuse(FR_EFORMAT, "/model-00001-of-00003.safetensors",
           "tensor model.norm.weight is not in it, as model.safetensors.index.json says");
    hf_write_folder(folder, &m);
    change(index, "\"model.norm.weight\":\"model-00003-of-00003.safetensors\",", "");
    refuse(FR_ENOTFOUND, "", "tensor model.norm.weight is missing");
    hf_write_folder(folder, &m);
    change(index, "\"model-00001-of-00003.safetensors\"",
           "\"../model-00001-of-00003.safetensors\"");
    refuse(FR_EFORMAT, "/model.safetensors.index.json",
           "../model-00001-of-00003.safetensors is not the name of a safetensors file beside it");
    hf_write_folder(folder, &m);
    change(index, "\"model-00001-of-00003.safetensors\"", "1");
    refuse(FR_EFORMAT, "/model.safetensors.index.json", "its file is no text");
    hf_write_folder(folder, &m);
    change(index, "weight_map", "weights");
    refuse(FR_EFORMAT, "/model.safetensors.index.json", "has no weight_map");
    hf_write_folder(folder, &m);
    hf_write_file(folder, "model-00002-of-00003.safetensors", "x", 0);
    refuse(FR_EFORMAT, "/model-00002-of-00003.safetensors", "the file is empty");
}

static void remove_file(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(unlink(path), 0);
}

/* A clone without Git LFS has these in the place of its large files. */
static void test_lfs_pointers(void **state)
{
    (void)state;
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\n"
                                  "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
                                  "size 12345\n";
    static const char *const files[] = {"model.safetensors", "tokenizer.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char shown[64];
        snprintf(shown, sizeof shown, "/%s", files[i]);
        hf_write_folder(folder, &plain);
        hf_write_file(folder, files[i], pointer, sizeof pointer - 1);
        refuse(FR_EFORMAT, shown, "a Git LFS pointer: the file itself was not fetched");
    }
}

static void test_missing_files(void **state)
{
    (void)state;
    fr_model_file *f = NULL;
    char path[128];
    refuse(FR_EINVAL, "", "a folder without config.json is no model");
    hf_write_folder(folder, &plain);
    remove_file("tokenizer.json");
    refuse(FR_ENOTFOUND, "/tokenizer.json", "No such file");
    hf_write_folder(folder, &plain);
    remove_file("model.safetensors");
    refuse(FR_ENOTFOUND, "",
           "the folder has neither model.safetensors nor model.safetensors.index.json");
    snprintf(path, sizeof path, "%s/other.safetensors", folder);
    assert_int_equal(fr_model_file_open(path, &f), FR_ENOTFOUND);
    assert_int_equal(strncmp(fr_cause(), path, strlen(path)), 0);
    hf_write_folder(folder, &plain);
    remove_file("generation_config.json");
    remove_file("tokenizer_config.json");
    f = open_path("");
    fr_model_file_close(&f);
}

static void test_no_memory(void **state)
{
    (void)state;
    hf_model m = plain;
    m.n_shards = 2;
    m.scaling = "{\"type\":\"yarn\",\"factor\":4.0}";
    hf_write_folder(folder, &m);
    long n = 0;
    for (;; n++) {
        fr_model_file *f = NULL;
        fr_fault_alloc_arm(n);
        fr_status st = fr_model_file_open(folder, &f);
        if (!fr_fault_alloc_disarm()) {
            assert_int_equal(st, FR_OK);
            fr_model_file_close(&f);
            break;
        }
        if (st != FR_ENOMEM)
            fail_msg("allocation %ld: %s", n, fr_cause());
        assert_null(f);
    }
    assert_true(n >= 30);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    hf_remove_folder(folder);
    return 0;
}

#define TEST(function) cmocka_unit_test_setup(function, clear_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_names),
        TEST(test_paths),
        TEST(test_tied),
        TEST(test_tokenizer),
        TEST(test_chat_template_file),
        TEST(test_other_spellings),
        TEST(test_adds_bos),
        TEST(test_rope_factors),
        TEST(test_linear_scaling),
        TEST(test_draft_vocab),
        TEST(test_bad_config),
        TEST(test_bad_tokenizer),
        TEST(test_bad_merge),
        TEST(test_bad_tensors),
        TEST(test_bad_shards),
        TEST(test_lfs_pointers),
        TEST(test_missing_files),
        TEST(test_no_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
