/* test_hf_folder.c: model folders as publishers ship them, made here (hf_writer.h): what opens, under which names; and
 * that a folder's tokenizer is that of the GGUF file of the same model. */
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
#include "hf_fixture.h"
#include "tokenizer.h"

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
    fr_model_file *f = hf_open_model(&hf_plain);
    assert_string_equal(fr_model_file_name(f), hf_folder);
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
    hf_model sharded = hf_plain;
    fr_model_file *one = hf_open_model(&hf_plain);
    uint64_t digest = fr_model_file_digest(one);
    char whole[128];
    snprintf(whole, sizeof whole, "%s/model.safetensors", hf_folder);
    fr_model_file *by_file = hf_open_path("/model.safetensors");
    assert_true(fr_model_file_digest(by_file) == digest);
    fr_model_file_close(&by_file);
    sharded.n_shards = 3;
    unlink(whole); /* it stays mapped */
    hf_write_folder(hf_folder, &sharded);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        fr_model_file *many = hf_open_path(ways[w]);
        assert_string_equal(fr_model_file_name(many), hf_folder);
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
    hf_model m = hf_plain;
    m.tied = 1;
    fr_model_file *f = hf_open_model(&m);
    assert_null(fr_model_file_tensor(f, "output.weight"));
    fr_model_file_close(&f);
    size_t n = 0;
    char *config = hf_read_file(hf_folder, "config.json", &n);
    hf_write_folder(hf_folder, &hf_plain);
    hf_write_file(hf_folder, "config.json", config, n);
    free(config);
    f = hf_open_path("");
    assert_null(fr_model_file_tensor(f, "output.weight"));
    fr_model_file_close(&f);
}

static void test_tokenizer(void **state)
{
    (void)state;
    static const char text[] = "abcd <tool>\n ab<|im_end|>";
    char path[128];
    fr_model_file *files[2] = {hf_open_model(&hf_plain), NULL};
    fr_tokenizer *t[2] = {NULL, NULL};
    fr_ids ids[2] = {{0}, {0}};
    snprintf(path, sizeof path, "%s/same.gguf", hf_folder);
    hf_write_gguf(path, &hf_plain);
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

/* Of Llama 3's splits: is a piece that is a token one, though no merges lead to it? "abc" is such a token here. */
static void test_ignore_merges(void **state)
{
    (void)state;
    static const char *const flags[] = {"\"ignore_merges\":true,", "\"ignore_merges\":false,", ""};
    static const int32_t whole[] = {257}, merged[] = {256, 'c'};
    for (int i = 0; i < 3; i++) {
        char model[64];
        fr_tokenizer *t = NULL;
        fr_ids ids = {0};
        snprintf(model, sizeof model, "%s\"byte_fallback\"", flags[i]);
        hf_write_folder(hf_folder, &hf_plain);
        hf_change("tokenizer.json", "\\\\p{N}| ?", "\\\\p{N}{1,3}| ?");
        hf_change("tokenizer.json", "[\"ab\",\"c\"],", "");
        hf_change("tokenizer.json", "\"byte_fallback\"", model);
        fr_model_file *f = hf_open_path("");
        assert_int_equal(fr_tokenizer_from_model(f, &t), FR_OK);
        assert_int_equal(fr_tokenize(t, "abc", 3, 1, &ids), FR_OK);
        assert_int_equal(ids.len, i == 0 ? 1 : 2);
        assert_memory_equal(ids.data, i == 0 ? whole : merged, ids.len * sizeof *ids.data);
        fr_ids_free(&ids);
        fr_tokenizer_free(&t);
        fr_model_file_close(&f);
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
    fr_model_file *f = hf_open_model(&hf_plain);
    uint64_t digest = fr_model_file_digest(f);
    fr_model_file_close(&f);
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        hf_write_folder(hf_folder, &hf_plain);
        hf_change(same[i][0], same[i][1], same[i][2]);
        f = hf_open_path("");
        if (fr_model_file_digest(f) != digest)
            fail_msg("%s: %s is not the same as %s", same[i][0], same[i][2], same[i][1]);
        fr_model_file_close(&f);
    }
}

static void assert_adds_bos(int want)
{
    int add = -1;
    fr_model_file *f = hf_open_path("");
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
    hf_write_folder(hf_folder, &hf_plain);
    hf_change("tokenizer.json", "\"post_processor\":null", with_bos);
    assert_adds_bos(0);
    hf_change("tokenizer_config.json", "\"add_bos_token\":false,", "");
    assert_adds_bos(1);
}

static void test_chat_template_file(void **state)
{
    (void)state;
    static const char llama3[] = "<|start_header_id|>";
    hf_write_folder(hf_folder, &hf_plain);
    hf_write_file(hf_folder, "chat_template.jinja", llama3, strlen(llama3));
    fr_model_file *f = hf_open_path("");
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
        hf_model m = hf_plain;
        float magnitude = 1;
        m.scaling = known[k].scaling;
        fr_model_file *f = hf_open_model(&m);
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
    hf_model m = hf_plain;
    m.scaling = "{\"type\":\"linear\",\"factor\":4}";
    fr_model_file *f = hf_open_model(&m);
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
    fr_model_file *f = hf_open_model(&hf_plain);
    assert_int_equal(fr_tokenizer_from_model(f, &t), FR_OK);
    assert_int_equal(fr_draft_vocab_write(hf_folder, t, counts, 20, &path), FR_OK);
    snprintf(want, sizeof want, "%s/model.vocab", hf_folder);
    assert_string_equal(path, want);
    free(path);
    fr_tokenizer_free(&t);
    fr_model_file_close(&f);
}

#define TEST(function) cmocka_unit_test_setup(function, hf_folder_empty)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_names),
        TEST(test_paths),
        TEST(test_tied),
        TEST(test_tokenizer), TEST(test_ignore_merges),
        TEST(test_chat_template_file),
        TEST(test_other_spellings),
        TEST(test_adds_bos),
        TEST(test_rope_factors),
        TEST(test_linear_scaling),
        TEST(test_draft_vocab),
    };
    return cmocka_run_group_tests(tests, hf_folder_make, hf_folder_remove);
}
