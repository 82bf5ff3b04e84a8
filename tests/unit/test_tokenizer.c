/* test_tokenizer.c: the tokenizer in use, over the tiny pair: round trips, blobs, threads, memory
 * that runs out. Loading and small vocabularies are test_tokenizer_load.c's. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fault_alloc.h"
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
        "",
        "a",
        "\n\n",
        "Step 1: 3 + 4 = 7.\n\nStep 2: 7 * 2 = 14.\n\n",
        "日本語 é 🙂 \u00a0x",
        "<|im_start|>user\nhi<|im_end|>\n",
        "<|im_start",
        "\x01\x02\x7f",
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
    assert_int_equal(fr_chat_tokenize_prompt(*state, FR_CHAT_CHATML, NULL, "\x80", &ids),
                     FR_EFORMAT);
    assert_int_equal(ids.len, 1);
    fr_ids_free(&ids);
}

/* At every cut of a text, what is not held back is whole characters. */
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
        assert_true(ids_a.len == 0 ||
                    memcmp(ids_a.data, ids_b.data, ids_a.len * sizeof *ids_a.data) == 0);
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

/* A blob whose sender means harm has a right checksum: every 32-bit word of it in turn set to bad
 * values. */
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
            assert_int_equal(
                fr_buf_put_u64(&forged, fr_hash(FR_HASH_INIT, forged.data, forged.len)), FR_OK);
            fr_status st = unpack_copy(forged.data, forged.len, &t);
            assert_true(st == FR_OK || st == FR_EFORMAT || st == FR_EUNSUPPORTED ||
                        st == FR_ELIMIT);
            if (st == FR_OK)
                assert_true(fr_tokenizer_n_vocab(t) == 512);
            fr_tokenizer_free(&t);
            fr_buf_free(&forged);
        }
    }
    fr_buf_free(&blob);
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

/* One tokenizer, several threads: each gets what one alone gets. */
static void *tokenize_again(void *arg)
{
    const fr_tokenizer *t = arg;
    char text[1024];
    uint64_t digest = FR_HASH_INIT;
    for (uint32_t seed = 1; seed <= 300; seed++) {
        uint32_t random = seed;
        fr_ids ids = {0};
        size_t n = random_text(&random, text);
        if (fr_tokenize(t, text, n, 1, &ids) == FR_OK)
            digest = fr_hash(digest, ids.data, ids.len * sizeof *ids.data);
        fr_ids_free(&ids);
    }
    return (void *)(uintptr_t)digest;
}

static void test_threads(void **state)
{
    enum { N = 4 };
    pthread_t threads[N];
    void *alone = tokenize_again(*state);
    for (int i = 0; i < N; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, tokenize_again, *state), 0);
    for (int i = 0; i < N; i++) {
        void *here = NULL;
        assert_int_equal(pthread_join(threads[i], &here), 0);
        assert_ptr_equal(here, alone);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_pair),
        cmocka_unit_test(test_round_trips),
        cmocka_unit_test(test_random_round_trips),
        cmocka_unit_test(test_specials),
        cmocka_unit_test(test_invalid_utf8),
        cmocka_unit_test(test_hold_back),
        cmocka_unit_test(test_blob),
        cmocka_unit_test(test_damaged_blob),
        cmocka_unit_test(test_forged_blob),
        cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
