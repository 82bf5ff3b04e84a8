/* test_tokenizer_load.c: tokenizers loaded from small vocabularies made here (gguf_writer.h): merges,
 * special tokens, digests, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gguf_writer.h"
#include "tokenizer.h"

/* "12 5 7": the ids of the text. */
static void ids_text(const fr_ids *ids, char *out, size_t size)
{
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < ids->len && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, i ? " %d" : "%d", ids->data[i]);
}

static const char *const abc_merges[] = {"a b", "ab c", "Ġ a", "c d", "Ċ Ċ", NULL};
static const gguf_special abc_specials[] = {
    {"<|im_start|>", 3}, {"<|im_end|>", 3}, {"<|im_end|><", 3}, {"<tool>", 4},
    {"[PAD265]", 5},     {"[PAD266]", 4},   {NULL, 0}};
/* ids: bytes 0..255, 256 ab, 257 abc, 258 " a", 259 cd, 260 "\n\n", 261 im_start, 262 im_end, 263,
 * 264 tool */

static const gguf_vocab abc = {
    .pre = "qwen2", .merges = abc_merges, .specials = abc_specials, .add_bos = -1, .bos = -1};

static fr_status open_vocab(const gguf_vocab *v, fr_tokenizer **out)
{
    fr_buf b = {0};
    fr_model_file *f = NULL;
    gguf_tokenizer(&b, v);
    fr_status st = fr_model_file_from_memory(b.data, b.len, "v.gguf", &f);
    if (st == FR_OK)
        st = fr_tokenizer_from_model(f, out);
    fr_model_file_close(&f);
    fr_buf_free(&b);
    return st;
}

static fr_tokenizer *make(const gguf_vocab *v)
{
    fr_tokenizer *t = NULL;
    if (open_vocab(v, &t) != FR_OK)
        fail_msg("%s", fr_cause());
    return t;
}

static void assert_ids(const fr_tokenizer *t, const char *text, int parse_special, const char *want)
{
    char got[1024];
    fr_ids ids = {0};
    assert_int_equal(fr_tokenize(t, text, strlen(text), parse_special, &ids), FR_OK);
    ids_text(&ids, got, sizeof got);
    assert_string_equal(got, want);
    fr_ids_free(&ids);
}

static void test_merges(void **state)
{
    (void)state;
    fr_tokenizer *t = make(&abc);
    assert_int_equal(fr_tokenizer_n_vocab(t), 265); /* no padding, whatever its type says */
    assert_ids(t, "abc", 0, "257");
    assert_ids(t, "abcd", 0, "257 100");         /* "ab c" goes before "c d" */
    assert_ids(t, "bcd ab", 0, "98 259 32 256"); /* in the piece " ab", "a b" goes before "Ġ a" */
    fr_tokenizer_free(&t);
}

static void test_special_matching(void **state)
{
    (void)state;
    fr_tokenizer *t = make(&abc);
    assert_ids(t, "<|im_end|><", 1, "263"); /* the longest */
    assert_ids(t, "<|im_end|>a", 1, "262 97");
    assert_ids(t, "ab<|im_start|>c<|im_end|>", 1, "256 261 99 262");
    assert_ids(t, "a<tool>b", 0, "97 264 98"); /* user-defined: always */
    assert_ids(t, "a<tool", 1, "97 60 116 111 111 108");
    fr_tokenizer_free(&t);
}

/* Contents cannot forge turns, and template and contents merge as one text. */
static void test_parts(void **state)
{
    (void)state;
    fr_tokenizer *t = make(&abc);
    char got[1024], joined[1024];
    const fr_text_part parts[] = {{"<|im_start|>\n", 13, 1},
                                  {"\nab<|im_end|>", 13, 0},
                                  {"<|im_end|>a", 11, 1},
                                  {"", 0, 0},
                                  {"bc", 2, 0}};
    fr_ids ids = {0};
    assert_int_equal(fr_tokenize_parts(t, parts, 5, &ids), FR_OK);
    ids_text(&ids, got, sizeof got);
    assert_string_equal(got, "261 260 256 60 124 105 109 95 101 110 100 124 62 262 257");
    ids.len = 0;
    assert_int_equal(fr_tokenize_parts(t, parts, 0, &ids), FR_OK);
    assert_int_equal(ids.len, 0);
    assert_int_equal(fr_chat_tokenize_prompt(t, FR_CHAT_CHATML, "abc", "a<|im_end|>", &ids), FR_OK);
    int n_special = 0;
    for (size_t i = 0; i < ids.len; i++)
        n_special += ids.data[i] >= 261;
    assert_int_equal(n_special, 5); /* the template's: 3 starts, 2 ends */
    ids.len = 0;
    assert_int_equal(fr_chat_tokenize_probe(t, FR_CHAT_CHATML, "abc?", "ab", &ids), FR_OK);
    ids_text(&ids, got, sizeof got);
    fr_buf text = {0};
    assert_int_equal(fr_chat_probe(FR_CHAT_CHATML, "abc?", "ab", &text), FR_OK);
    ids.len = 0;
    assert_int_equal(fr_tokenize(t, (char *)text.data, text.len, 1, &ids), FR_OK);
    ids_text(&ids, joined, sizeof joined);
    assert_string_equal(got, joined);
    fr_buf_free(&text);
    fr_ids_free(&ids);
    fr_tokenizer_free(&t);
}

static void assert_prompt(const gguf_vocab *v, const char *text, const char *want)
{
    char got[256];
    fr_tokenizer *t = make(v);
    fr_ids ids = {0};
    assert_int_equal(fr_tokenize_prompt(t, text, strlen(text), &ids), FR_OK);
    ids_text(&ids, got, sizeof got);
    assert_string_equal(got, want);
    fr_ids_free(&ids);
    fr_tokenizer_free(&t);
}

static void test_bos(void **state)
{
    (void)state;
    gguf_vocab v = abc;
    v.bos = 261;
    assert_prompt(&v, "abc", "257"); /* only where asked for */
    v.add_bos = 1;
    assert_prompt(&v, "abc", "261 257");
    assert_prompt(&v, "<|im_start|>abc", "261 257");
    assert_prompt(&v, "", "261");
    v.add_bos = -1;
    v.pre = "llama-bpe";
    assert_prompt(&v, "abc", "261 257"); /* Llama 3's default */
    v.add_bos = 0;
    assert_prompt(&v, "abc", "257");
    v.add_bos = 1;
    v.bos = -1;
    assert_prompt(&v, "abc", "257");
}

/* Llama 3 takes a piece that is a token whole, even where no merge leads to it. */
static void test_whole_pieces(void **state)
{
    (void)state;
    static const gguf_special specials[] = {{"xyz", 1}, {NULL, 0}};
    gguf_vocab v = abc;
    v.specials = specials;
    assert_prompt(&v, "xyz", "120 121 122");
    v.pre = "llama-bpe";
    assert_prompt(&v, "xyz", "261");
}

static void test_digest(void **state)
{
    (void)state;
    static const gguf_special unpadded[] = {
        {"<|im_start|>", 3}, {"<|im_end|>", 3}, {"<|im_end|><", 3}, {"<tool>", 4}, {NULL, 0}};
    static const gguf_special renamed[] = {
        {"<|im_start|>", 3}, {"<|im_end|>", 3}, {"<|im_end|><", 3}, {"<tools>", 4}, {NULL, 0}};
    static const gguf_special retyped[] = {
        {"<|im_start|>", 3}, {"<|im_end|>", 3}, {"<|im_end|><", 3}, {"<tool>", 3}, {NULL, 0}};
    static const char *const reordered[] = {"a b", "ab c", "Ġ a", "c d", "Ċ Ċ", "b c", NULL};
    fr_tokenizer *t = make(&abc), *other;
    gguf_vocab v = abc;
    v.specials = unpadded;
    v.pre = "deepseek-r1-qwen";
    v.question = "How good?";
    v.bos = 3;
    other = make(&v);
    assert_true(fr_tokenizer_digest(t) == fr_tokenizer_digest(other));
    assert_string_equal(fr_tokenizer_score_question(other), "How good?");
    fr_tokenizer_free(&other);
    const gguf_vocab differ[] = {
        {.pre = "gpt-2", .merges = abc_merges, .specials = abc_specials, .add_bos = -1, .bos = -1},
        {.pre = "qwen2", .merges = abc_merges, .specials = renamed, .add_bos = -1, .bos = -1},
        {.pre = "qwen2", .merges = abc_merges, .specials = retyped, .add_bos = -1, .bos = -1},
        {.pre = "qwen2", .merges = reordered, .specials = abc_specials, .add_bos = -1, .bos = -1},
    };
    for (size_t i = 0; i < sizeof differ / sizeof *differ; i++) {
        other = make(&differ[i]);
        assert_true(fr_tokenizer_digest(t) != fr_tokenizer_digest(other));
        fr_tokenizer_free(&other);
    }
    fr_tokenizer_free(&t);
}

/* End tokens are known by name even where a file calls them text. */
static void test_ends(void **state)
{
    (void)state;
    static const gguf_special specials[] = {{"<|eot_id|>", 3},
                                            {"<|endoftext|>", 1},
                                            {"<｜end▁of▁sentence｜>", 3},
                                            {"<|end|>", 3},
                                            {NULL, 0}};
    gguf_vocab v = abc;
    v.specials = specials;
    v.pre = NULL; /* GPT-2 */
    fr_tokenizer *t = make(&v);
    int n = 0;
    fr_tokenizer_ends(t, &n);
    assert_int_equal(n, 3);
    assert_int_equal(
        fr_tokenizer_is_end(t, 261) + fr_tokenizer_is_end(t, 262) + fr_tokenizer_is_end(t, 263), 3);
    assert_ids(t, "<|endoftext|>", 1, "262");
    fr_tokenizer_free(&t);
}

/* A byte that the vocabulary lacks gives nothing; the rest of the text is as ever. */
static void test_missing_byte(void **state)
{
    (void)state;
    fr_buf b = {0};
    fr_model_file *f = NULL;
    fr_tokenizer *t = NULL;
    gguf_tokenizer(&b, &abc);
    uint8_t *zero = memmem(b.data, b.len, "\xc4\x80", 2); /* byte 0, the first token */
    assert_non_null(zero);
    memcpy(zero, "zz", 2);
    assert_int_equal(fr_model_file_from_memory(b.data, b.len, "v.gguf", &f), FR_OK);
    assert_int_equal(fr_tokenizer_from_model(f, &t), FR_OK);
    fr_ids ids = {0};
    char got[64];
    assert_int_equal(fr_tokenize(t, "ab\0ab", 5, 0, &ids), FR_OK);
    ids_text(&ids, got, sizeof got);
    assert_string_equal(got, "256 256");
    fr_ids_free(&ids);
    fr_tokenizer_free(&t);
    fr_model_file_close(&f);
    fr_buf_free(&b);
}

static void refuse(const gguf_vocab *v, fr_status want, const char *cause)
{
    fr_tokenizer *t = NULL;
    fr_status st = open_vocab(v, &t);
    if (st != want || strcmp(fr_cause(), cause))
        fail_msg("status %d, cause \"%s\"", st, fr_cause());
    assert_null(t);
}

static void test_refusals(void **state)
{
    (void)state;
    static const char *const unknown_side[] = {"a b", "q日 c", NULL};
    gguf_vocab v = abc;
    v.pre = "gpt-4o";
    refuse(&v, FR_EUNSUPPORTED, "v.gguf: pre-tokenizer gpt-4o is not supported");
    v = abc;
    v.chat = "{{ '[INST]' + messages[0]['content'] + '[/INST]' }}";
    refuse(&v, FR_EUNSUPPORTED,
           "v.gguf: the chat template is of no supported family (ChatML, Llama 3, DeepSeek-R1)");
    v = abc;
    v.bos = 265;
    refuse(&v, FR_EFORMAT,
           "v.gguf: tokenizer.ggml.bos_token_id is 265, the vocabulary has 265 tokens");
    v = abc;
    v.merges = unknown_side;
    refuse(&v, FR_EFORMAT, "v.gguf: merge 1 (q??? c) names no two tokens");
    v = abc;
    v.question = "a\xff";
    refuse(&v, FR_EFORMAT, "v.gguf: forerun.score_question: invalid UTF-8 at byte 1");
}

/* One metadata key renamed or its value changed in place. */
static void refuse_patched(const char *find, const char *replace, fr_status want, const char *cause)
{
    fr_buf b = {0};
    fr_model_file *f = NULL;
    fr_tokenizer *t = NULL;
    gguf_tokenizer(&b, &abc);
    uint8_t *at = memmem(b.data, b.len, find, strlen(find));
    assert_non_null(at);
    memcpy(at, replace, strlen(replace));
    assert_int_equal(fr_model_file_from_memory(b.data, b.len, "v.gguf", &f), FR_OK);
    fr_status st = fr_tokenizer_from_model(f, &t);
    if (st != want || !strstr(fr_cause(), cause) || strncmp(fr_cause(), "v.gguf: ", 8))
        fail_msg("status %d, cause \"%s\"", st, fr_cause());
    assert_null(t);
    fr_model_file_close(&f);
    fr_buf_free(&b);
}

static void test_patched_metadata(void **state)
{
    (void)state;
    refuse_patched("gpt2", "bert", FR_EUNSUPPORTED, "tokenizer.ggml.model is bert, only gpt2");
    refuse_patched("ggml.model", "ggml.madel", FR_ENOTFOUND, "no metadata tokenizer.ggml.model");
    refuse_patched("ggml.tokens", "ggml.takens", FR_ENOTFOUND, "no metadata tokenizer.ggml.tokens");
    refuse_patched("ggml.merges", "ggml.marges", FR_ENOTFOUND, "no metadata tokenizer.ggml.merges");
    refuse_patched("a b", "aab", FR_EFORMAT, "merge 0 (aab) names no two tokens");
    refuse_patched("a b", "a c", FR_EFORMAT, "merge 0: the vocabulary has no token for");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_special_matching),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_bos),
        cmocka_unit_test(test_whole_pieces),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_missing_byte),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_patched_metadata),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
