/* test_hf_refused.c: model folders that do not open (what does: test_hf_folder.c), each refused with one line that
 * names the file and what is wrong in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fault_alloc.h"
#include "hf_fixture.h"
#include "tokenizer.h"

/* Opens the folder, which must fail with `want` and one line "FOLDER/file: ...cause...". */
static void refuse(fr_status want, const char *file, const char *cause)
{
    char start[256];
    fr_model_file *f = NULL;
    fr_status st = fr_model_file_open(hf_folder, &f);
    snprintf(start, sizeof start, "%s%s: ", hf_folder, file);
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
        hf_write_folder(hf_folder, &hf_plain);
        hf_change(file, bad[i].from, bad[i].to);
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
        {"\"hidden_act\"", "\"quantization_config\":{\"bits\":4},\"hidden_act\"",
         FR_EUNSUPPORTED, "quantization_config of a kind not named is not supported"},
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
        {"\"use_regex\":false", "\"use_regex\":true", FR_EUNSUPPORTED, "ByteLevel beside a Split"},
        {"\"pre_tokenizer\"", "\"pre\"", FR_ENOTFOUND, "type is missing"},
        {"\"ab\":256", "\"ab\":272", FR_EFORMAT, "token ab has id 272, the embedding has 272 rows"},
        {"\"ab\":256", "\"ab\":257", FR_EFORMAT, "id 257 belongs to two tokens"},
        {"\"ab\":256", "\"ab\":-1", FR_EFORMAT, "token ab has no id"},
        {"[\"ab\",\"c\"]", "[\"ab\"]", FR_EFORMAT, "merge 1 is no pair of tokens"},
        {"[\"ab\",\"c\"]", "7", FR_EFORMAT, "merge 1 is no pair of tokens"},
        {"\"merges\"", "\"merged\"", FR_EFORMAT, "model.merges is no list"},
        {"\"content\":\"<tool>\",", "", FR_ENOTFOUND, "content is missing"},
        {"\"content\":\"<tool>\"", "\"content\":\"<tool>\",\"lstrip\":true", FR_EUNSUPPORTED,
         "added token <tool> with lstrip is not supported"},
        {"\"content\":\"<tool>\"", "\"content\":\"<tool>\",\"rstrip\":true", FR_EUNSUPPORTED,
         "added token <tool> with rstrip is not supported"},
        {"\"content\":\"<tool>\"", "\"content\":\"<tool>\",\"single_word\":true", FR_EUNSUPPORTED,
         "added token <tool> with single_word is not supported"},
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
    hf_write_folder(hf_folder, &hf_plain);
    hf_change("tokenizer.json", "[\"ab\",\"c\"]", "[\"ab\",\"zz\"]");
    fr_model_file *f = hf_open_path("");
    assert_int_equal(fr_tokenizer_from_model(f, &t), FR_EFORMAT);
    assert_non_null(strstr(fr_cause(), "merge 1 (ab zz) names no two tokens"));
    assert_int_equal(strncmp(fr_cause(), hf_folder, strlen(hf_folder)), 0);
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
        hf_write_folder(hf_folder, &hf_plain);
        hf_change("model.safetensors", bad[i].from, bad[i].to);
        refuse(bad[i].want, "/model.safetensors", bad[i].cause);
    }
    /* Another config.json: the shapes are told as it has them. */
    hf_write_folder(hf_folder, &hf_plain);
    hf_change("config.json", "\"intermediate_size\":96", "\"intermediate_size\":80");
    refuse(FR_EFORMAT, "/model.safetensors", "has shape [96, 64], config.json wants [80, 64]");
    hf_write_folder(hf_folder, &hf_plain);
    hf_change("config.json", "\"vocab_size\":272", "\"vocab_size\":260"); /* there are tokens behind */
    refuse(FR_EFORMAT, "/model.safetensors",
           "tensor model.embed_tokens.weight has 272 rows, config.json's vocab_size is 260");
    hf_write_folder(hf_folder, &hf_plain);
    hf_change("config.json", "Qwen2", "Llama"); /* which may have biases */
    fr_model_file *f = hf_open_path("");
    fr_model_file_close(&f);
    hf_model llama = hf_plain;
    llama.family = "llama";
    hf_write_folder(hf_folder, &llama);
    hf_change("config.json", "Llama", "Qwen2");
    refuse(FR_ENOTFOUND, "", "tensor model.layers.0.self_attn.q_proj.bias is missing");
    hf_model tied = hf_plain;
    tied.tied = 1;
    hf_write_folder(hf_folder, &tied);
    hf_change("config.json", "\"tie_word_embeddings\":true", "\"tie_word_embeddings\":false");
    refuse(FR_ENOTFOUND, "", "tensor lm_head.weight is missing");
}

static void test_bad_shards(void **state)
{
    (void)state;
    char second[128];
    const char *const index = "model.safetensors.index.json";
    hf_model m = hf_plain;
    m.n_shards = 3;
    snprintf(second, sizeof second, "%s/model-00002-of-00003.safetensors", hf_folder);
    hf_write_folder(hf_folder, &m);
    unlink(second);
    refuse(FR_ENOTFOUND, "/model.safetensors.index.json",
           "the file model-00002-of-00003.safetensors that it names: No such file");
    hf_write_folder(hf_folder, &m);
    hf_change(index, "\"model.norm.weight\":\"model-00003", "\"model.norm.weight\":\"model-00001");
    refuse(FR_EFORMAT, "/model-00001-of-00003.safetensors",
           "tensor model.norm.weight is not in it, as model.safetensors.index.json says");
    hf_write_folder(hf_folder, &m);
    hf_change(index, "\"model.norm.weight\":\"model-00003-of-00003.safetensors\",", "");
    refuse(FR_ENOTFOUND, "", "tensor model.norm.weight is missing");
    hf_write_folder(hf_folder, &m);
    hf_change(index, "\"model-00001-of-00003.safetensors\"",
           "\"../model-00001-of-00003.safetensors\"");
    refuse(FR_EFORMAT, "/model.safetensors.index.json",
           "../model-00001-of-00003.safetensors is not the name of a safetensors file beside it");
    hf_write_folder(hf_folder, &m);
    hf_change(index, "\"model-00001-of-00003.safetensors\"", "1");
    refuse(FR_EFORMAT, "/model.safetensors.index.json", "its file is no text");
    hf_write_folder(hf_folder, &m);
    hf_change(index, "weight_map", "weights");
    refuse(FR_EFORMAT, "/model.safetensors.index.json", "has no weight_map");
    hf_write_folder(hf_folder, &m);
    hf_write_file(hf_folder, "model-00002-of-00003.safetensors", "x", 0);
    refuse(FR_EFORMAT, "/model-00002-of-00003.safetensors", "the file is empty");
}

static void remove_file(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", hf_folder, name);
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
        hf_write_folder(hf_folder, &hf_plain);
        hf_write_file(hf_folder, files[i], pointer, sizeof pointer - 1);
        refuse(FR_EFORMAT, shown, "a Git LFS pointer: the file itself was not fetched");
    }
}

static void test_missing_files(void **state)
{
    (void)state;
    fr_model_file *f = NULL;
    char path[128];
    refuse(FR_EINVAL, "", "a folder without config.json is no model");
    hf_write_folder(hf_folder, &hf_plain);
    remove_file("tokenizer.json");
    refuse(FR_ENOTFOUND, "/tokenizer.json", "No such file");
    hf_write_folder(hf_folder, &hf_plain);
    remove_file("model.safetensors");
    refuse(FR_ENOTFOUND, "",
           "the folder has neither model.safetensors nor model.safetensors.index.json");
    snprintf(path, sizeof path, "%s/other.safetensors", hf_folder);
    assert_int_equal(fr_model_file_open(path, &f), FR_ENOTFOUND);
    assert_int_equal(strncmp(fr_cause(), path, strlen(path)), 0);
    hf_write_folder(hf_folder, &hf_plain);
    remove_file("generation_config.json");
    remove_file("tokenizer_config.json");
    f = hf_open_path("");
    fr_model_file_close(&f);
}

static void test_no_memory(void **state)
{
    (void)state;
    hf_model m = hf_plain;
    m.n_shards = 2;
    m.scaling = "{\"type\":\"yarn\",\"factor\":4.0}";
    hf_write_folder(hf_folder, &m);
    long n = 0;
    for (;; n++) {
        fr_model_file *f = NULL;
        fr_fault_alloc_arm(n);
        fr_status st = fr_model_file_open(hf_folder, &f);
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

#define TEST(function) cmocka_unit_test_setup(function, hf_folder_empty)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_bad_config),
        TEST(test_bad_tokenizer),
        TEST(test_bad_merge),
        TEST(test_bad_tensors),
        TEST(test_bad_shards),
        TEST(test_lfs_pointers),
        TEST(test_missing_files),
        TEST(test_no_memory),
    };
    return cmocka_run_group_tests(tests, hf_folder_make, hf_folder_remove);
}
