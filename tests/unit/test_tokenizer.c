/* test_tokenizer.c: the tokenizer over the tiny pair and over small vocabularies made here (gguf_writer.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fault_alloc.h"
#include "gguf_writer.h"
#include "hash.h"
#include "tokenizer.h"

#define TINY(role) FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-" role ".gguf"

static fr_tokenizer *open_tiny(const char *path)
{
    fr_model_file *f = NULL;
    fr_tokenizer *t = NULL;
    if (fr_model_file_open(path, &f) != FR_OK || fr_tokenizer_from_model(f, &t) != FR_OK)
        fail_msg("%s", fr_cause());
    fr_model_file_close(&f); /* the tokenizer does not need it any more */
    return t;
}

static int setup(void **state)
{
    *state = open_tiny(TINY("target"));
    return 0;
}

static int teardown(void **state)
{
    fr_tokenizer *t = *state;
    fr_tokenizer_free(&t);
    assert_null(t);
    fr_tokenizer_free(&t);
    fr_tokenizer_free(NULL);
    return 0;
}

/* "12 5 7": the ids of the text. */
static void ids_text(const fr_ids *ids, char *out, size_t size)
{
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < ids->len && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, i ? " %d" : "%d", ids->data[i]);
}

static void assert_round_trip(const fr_tokenizer *t, const char *text, size_t n, int parse_special)
{
    fr_ids ids = {0};
    fr_buf out = {0};
    assert_int_equal(fr_tokenize(t, text, n, parse_special, &ids), FR_OK);
    assert_int_equal(fr_detokenize(t, ids.data, ids.len, 1, &out), FR_OK);
    assert_int_equal(out.len, n);
    assert_true(n == 0 || memcmp(out.data, text, n) == 0);
    fr_buf_free(&out);
    fr_ids_free(&ids);
}

/* --- the tiny pair --- */

static void test_tiny_pair(void **state)
{
    const fr_tokenizer *t = *state;
    fr_tokenizer *draft = open_tiny(TINY("draft"));
    assert_true(fr_tokenizer_digest(t) == fr_tokenizer_digest(draft));
    assert_int_equal(fr_tokenizer_n_vocab(t), 512);
    assert_int_equal(fr_tokenizer_chat_style(t), FR_CHAT_CHATML);
    int n_ends = 0;
    const int32_t *ends = fr_tokenizer_ends(t, &n_ends);
    assert_int_equal(n_ends, 2);
    for (int i = 0; i < n_ends; i++)
        assert_int_equal(fr_tokenizer_is_end(t, ends[i]), 1);
    assert_int_equal(fr_tokenizer_is_end(t, 0), 0);
    assert_int_equal(fr_tokenizer_is_end(t, -1), 0);
    assert_string_equal(fr_tokenizer_score_question(t), FR_SCORE_QUESTION);
    assert_string_equal(fr_tokenizer_score_prefill(t), FR_SCORE_PREFILL);
    fr_tokenizer_free(&draft);
}

static void test_round_trips(void **state)
{
    static const char *const texts[] = {
        "",  "a", "\n\n", "Step 1: 3 + 4 = 7.\n\nStep 2: 7 * 2 = 14.\n\n", "日本語 é 🙂 \u00a0x",
        "<|im_start|>user\nhi<|im_end|>\n", "<|im_start", "\x01\x02\x7f",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_round_trip(*state, texts[i], strlen(texts[i]), 0);
        assert_round_trip(*state, texts[i], strlen(texts[i]), 1);
    }
    assert_round_trip(*state, "zero \0 byte", 11, 1);
}

static size_t put_utf8(uint32_t cp, char *out)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t n = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, cp >>= 6)
        out[i] = (char)(0x80 | (cp & 63));
    out[0] = (char)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | cp);
    return n;
}

static uint32_t next_random(uint32_t *s)
{
    *s = *s * 1664525 + 1013904223;
    return *s >> 8;
}

/* Characters of every length, and special tokens among them. */
static size_t random_text(uint32_t *seed, char *text)
{
    static const uint32_t limits[] = {0x80, 0x80, 0x80, 0x250, 0x3000, 0x10000, 0x110000};
    static const char *const extra[] = {"<|im_end|>", "<|im_", "  ", "\n\n", "'s", "12"};
    size_t n = 0;
    for (uint32_t i = 0, count = next_random(seed) % 60; i < count; i++) {
        if (next_random(seed) % 8 == 0) {
            const char *s = extra[next_random(seed) % 6];
            memcpy(text + n, s, strlen(s));
            n += strlen(s);
            continue;
        }
        uint32_t cp = next_random(seed) % limits[next_random(seed) % 7];
        n += put_utf8(cp >= 0xd800 && cp < 0xe000 ? '?' : cp, text + n);
    }
    return n;
}

static void test_random_round_trips(void **state)
{
    char text[1024];
    for (uint32_t seed = 1; seed <= 3000; seed++) {
        uint32_t random = seed;
        size_t n = random_text(&random, text);
        assert_round_trip(*state, text, n, (int)(seed % 2));
    }
}

static void test_specials(void **state)
{
    const fr_tokenizer *t = *state;
    static const char text[] = "<|im_end|>\n";
    fr_ids with = {0}, without = {0};
    size_t n = 0;
    assert_int_equal(fr_tokenize(t, text, strlen(text), 1, &with), FR_OK);
    assert_int_equal(fr_tokenize(t, text, strlen(text), 0, &without), FR_OK);
    assert_int_equal(with.len, 2);
    assert_true(without.len > 2);
    assert_int_equal(fr_tokenizer_is_end(t, with.data[0]), 1);
    const char *bytes = fr_token_bytes(t, with.data[0], &n);
    assert_int_equal(n, 10);
    assert_memory_equal(bytes, "<|im_end|>", 10);
    for (size_t i = 0; i < without.len; i++)
        assert_int_equal(fr_tokenizer_is_end(t, without.data[i]), 0);
    fr_buf out = {0};
    assert_int_equal(fr_detokenize(t, with.data, with.len, 0, &out), FR_OK);
    assert_int_equal(out.len, 1);
    int32_t wrong[] = {with.data[0], 512};
    assert_int_equal(fr_detokenize(t, wrong, 2, 1, &out), FR_EINVAL);
    assert_int_equal(out.len, 1);
    assert_null(fr_token_bytes(t, 512, &n));
    assert_null(fr_token_bytes(t, -1, &n));
    assert_int_equal(n, 0);
    fr_buf_free(&out);
    fr_ids_free(&with);
    fr_ids_free(&without);
}

static void test_invalid_utf8(void **state)
{
    fr_ids ids = {0};
    int32_t before = 7;
    assert_int_equal(fr_ids_put(&ids, &before, 1), FR_OK);
    assert_int_equal(fr_tokenize(*state, "ab\xff", 3, 1, &ids), FR_EFORMAT);
    assert_string_equal(fr_cause(), "invalid UTF-8 at byte 2");
    assert_int_equal(fr_chat_tokenize_prompt(*state, FR_CHAT_CHATML, NULL, "\x80", &ids), FR_EFORMAT);
    assert_int_equal(ids.len, 1);
    fr_ids_free(&ids);
}

/* At every cut of a text, what is not held back is whole characters, and at most three bytes are. */
static void test_hold_back(void **state)
{
    (void)state;
    static const char text[] = "aé日🙂z🙂é";
    for (size_t n = 0; n < sizeof text; n++) {
        size_t back = fr_utf8_unfinished(text, n), start = n;
        while (start > 0 && ((uint8_t)text[start] & 0xc0) == 0x80)
            start--;
        assert_int_equal(back, ((uint8_t)text[n] & 0xc0) == 0x80 ? n - start : 0);
    }
    assert_int_equal(fr_utf8_unfinished("a\xff", 2), 0); /* never to be completed */
    assert_int_equal(fr_utf8_unfinished("\x80\x80\x80\x80", 4), 0);
    assert_int_equal(fr_utf8_unfinished("\xf5", 1), 0);
}

/* --- blobs --- */

static void assert_same(const fr_tokenizer *a, const fr_tokenizer *b)
{
    char text[1024];
    int n_a = 0, n_b = 0;
    assert_true(fr_tokenizer_digest(a) == fr_tokenizer_digest(b));
    assert_int_equal(fr_tokenizer_n_vocab(a), fr_tokenizer_n_vocab(b));
    assert_int_equal(fr_tokenizer_chat_style(a), fr_tokenizer_chat_style(b));
    assert_string_equal(fr_tokenizer_score_question(a), fr_tokenizer_score_question(b));
    assert_string_equal(fr_tokenizer_score_prefill(a), fr_tokenizer_score_prefill(b));
    const int32_t *ends_a = fr_tokenizer_ends(a, &n_a), *ends_b = fr_tokenizer_ends(b, &n_b);
    assert_int_equal(n_a, n_b);
    assert_true(n_a == 0 || memcmp(ends_a, ends_b, (size_t)n_a * sizeof *ends_a) == 0);
    for (uint32_t seed = 1; seed <= 200; seed++) {
        uint32_t random = seed;
        fr_ids ids_a = {0}, ids_b = {0};
        size_t n = random_text(&random, text);
        assert_int_equal(fr_tokenize_prompt(a, text, n, &ids_a), FR_OK);
        assert_int_equal(fr_tokenize_prompt(b, text, n, &ids_b), FR_OK);
        assert_int_equal(ids_a.len, ids_b.len);
        assert_true(ids_a.len == 0 || memcmp(ids_a.data, ids_b.data, ids_a.len * sizeof *ids_a.data) == 0);
        fr_ids_free(&ids_a);
        fr_ids_free(&ids_b);
    }
}

static void test_blob(void **state)
{
    fr_buf blob = {0}, again = {0};
    fr_tokenizer *t = NULL;
    assert_int_equal(fr_tokenizer_pack(*state, &blob), FR_OK);
    assert_int_equal(fr_tokenizer_unpack(blob.data, blob.len, &t), FR_OK);
    assert_same(*state, t);
    assert_int_equal(fr_tokenizer_pack(t, &again), FR_OK);
    assert_int_equal(again.len, blob.len);
    assert_memory_equal(again.data, blob.data, blob.len);
    fr_buf_free(&blob);
    fr_buf_free(&again);
    fr_tokenizer_free(&t);
}

/* Opens an exact heap copy, so that reading beyond it is seen. */
static fr_status unpack_copy(const void *data, size_t n, fr_tokenizer **out)
{
    void *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, data, n);
    fr_status st = fr_tokenizer_unpack(copy, n, out);
    free(copy);
    return st;
}

static void test_damaged_blob(void **state)
{
    fr_buf blob = {0};
    fr_tokenizer *t = NULL;
    assert_int_equal(fr_tokenizer_pack(*state, &blob), FR_OK);
    for (size_t n = 0; n < blob.len; n++) {
        assert_int_equal(unpack_copy(blob.data, n, &t), FR_EFORMAT);
        assert_null(t);
    }
    for (size_t i = 0; i < blob.len; i++) {
        blob.data[i] ^= (uint8_t)(1 << i % 8);
        fr_status st = fr_tokenizer_unpack(blob.data, blob.len, &t);
        assert_true(st == FR_EFORMAT || (st == FR_EUNSUPPORTED && i < 8));
        blob.data[i] ^= (uint8_t)(1 << i % 8);
    }
    assert_null(t);
    fr_buf_free(&blob);
}

/* A blob whose sender means harm has a right checksum: every 32-bit word of it in turn set to bad values. */
static void test_forged_blob(void **state)
{
    static const uint32_t evil[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff};
    fr_buf blob = {0};
    assert_int_equal(fr_tokenizer_pack(*state, &blob), FR_OK);
    for (size_t i = 8; i + 12 <= blob.len; i += i < 64 ? 1 : 61) {
        for (size_t k = 0; k < sizeof evil / sizeof *evil; k++) {
            fr_buf forged = {0};
            fr_tokenizer *t = NULL;
            assert_int_equal(fr_buf_put(&forged, blob.data, blob.len - 8), FR_OK);
            memcpy(forged.data + i, &evil[k], 4);
            assert_int_equal(fr_buf_put_u64(&forged, fr_hash(FR_HASH_INIT, forged.data, forged.len)), FR_OK);
            fr_status st = unpack_copy(forged.data, forged.len, &t);
            assert_true(st == FR_OK || st == FR_EFORMAT || st == FR_EUNSUPPORTED || st == FR_ELIMIT);
            if (st == FR_OK)
                assert_true(fr_tokenizer_n_vocab(t) == 512);
            fr_tokenizer_free(&t);
            fr_buf_free(&forged);
        }
    }
    fr_buf_free(&blob);
}

/* --- small vocabularies --- */

static const char *const abc_merges[] = {"a b", "ab c", "Ġ a", "c d", "Ċ Ċ", NULL};
static const gguf_special abc_specials[] = {
    {"<|im_start|>", 3}, {"<|im_end|>", 3}, {"<|im_end|><", 3}, {"<tool>", 4}, {"[PAD265]", 5}, {"[PAD266]", 4}, {NULL, 0}};
/* ids: bytes 0..255, 256 ab, 257 abc, 258 " a", 259 cd, 260 "\n\n", 261 im_start, 262 im_end, 263, 264 tool */

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
    assert_int_equal(fr_tokenizer_n_vocab(t), 265); /* without the padding, whatever its type says */
    assert_ids(t, "abc", 0, "257");
    assert_ids(t, "abcd", 0, "257 100"); /* "ab c" goes before "c d" */
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
    const fr_text_part parts[] = {
        {"<|im_start|>\n", 13, 1}, {"\nab<|im_end|>", 13, 0}, {"<|im_end|>a", 11, 1}, {"", 0, 0}, {"bc", 2, 0}};
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
    static const gguf_special specials[] = {
        {"<|eot_id|>", 3}, {"<|endoftext|>", 1}, {"<｜end▁of▁sentence｜>", 3}, {"<|end|>", 3}, {NULL, 0}};
    gguf_vocab v = abc;
    v.specials = specials;
    v.pre = NULL; /* GPT-2 */
    fr_tokenizer *t = make(&v);
    int n = 0;
    fr_tokenizer_ends(t, &n);
    assert_int_equal(n, 3);
    assert_int_equal(fr_tokenizer_is_end(t, 261) + fr_tokenizer_is_end(t, 262) + fr_tokenizer_is_end(t, 263), 3);
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
    uint8_t *zero = memmem(b.data, b.len, "\xc4\x80", 2); /* the spelling of byte 0: the first token */
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
    refuse(&v, FR_EFORMAT, "v.gguf: tokenizer.ggml.bos_token_id is 265, the vocabulary has 265 tokens");
    v = abc;
    v.merges = unknown_side;
    refuse(&v, FR_EFORMAT, "v.gguf: merge 1 (q????c) names no two tokens");
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

static void test_no_memory(void **state)
{
    fr_model_file *f = NULL;
    fr_buf blob = {0};
    assert_int_equal(fr_model_file_open(TINY("draft"), &f), FR_OK);
    assert_int_equal(fr_tokenizer_pack(*state, &blob), FR_OK);
    static const char text[] = "Step 1: <|im_end|> 3 + 4 = 7, antidisestablishmentarianism";
    for (int what = 0; what < 5; what++) {
        for (long n = 0;; n++) {
            fr_tokenizer *t = NULL;
            fr_buf out = {0};
            fr_ids ids = {0};
            fr_status st = FR_OK;
            fr_fault_alloc_arm(n);
            switch (what) {
            case 0:
                st = fr_tokenizer_from_model(f, &t);
                break;
            case 1:
                st = fr_tokenizer_pack(*state, &out);
                break;
            case 2:
                st = fr_tokenizer_unpack(blob.data, blob.len, &t);
                break;
            case 3:
                st = fr_tokenize(*state, text, strlen(text), 1, &ids);
                break;
            default:
                st = fr_chat_tokenize_prompt(*state, FR_CHAT_CHATML, text, text, &ids);
            }
            int failed = fr_fault_alloc_disarm();
            assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
            assert_true(!failed || (!t && ids.len == 0 && out.len == 0));
            fr_tokenizer_free(&t);
            fr_buf_free(&out);
            fr_ids_free(&ids);
            if (!failed)
                break;
        }
    }
    fr_buf_free(&blob);
    fr_model_file_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_pair),     cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_random_round_trips), cmocka_unit_test(test_specials),
        cmocka_unit_test(test_invalid_utf8),  cmocka_unit_test(test_hold_back),
        cmocka_unit_test(test_blob),          cmocka_unit_test(test_damaged_blob),
        cmocka_unit_test(test_forged_blob),   cmocka_unit_test(test_merges),
        cmocka_unit_test(test_special_matching), cmocka_unit_test(test_parts),
        cmocka_unit_test(test_bos),           cmocka_unit_test(test_whole_pieces),
        cmocka_unit_test(test_digest),        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_missing_byte),  cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_patched_metadata), cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
