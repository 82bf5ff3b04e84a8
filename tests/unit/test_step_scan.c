/* test_step_scan.c: where steps end, and drafted steps between two tokenizers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "drafting.h"
#include "models.h"
#include "step_scan.h"

static fr_tokenizer *tiny, *other;

static int load_tokenizers(void **state)
{
    (void)state;
    return models_tiny_tokenizer(&tiny) != FR_OK || models_other_tokenizer(&other) != FR_OK;
}

static int free_tokenizers(void **state)
{
    (void)state;
    fr_tokenizer_free(&tiny);
    fr_tokenizer_free(&other);
    return 0;
}

/* Feeds ids[n] as a writer would; writes the steps' lengths, the unfinished rest included, and
 * returns their number. */
static int scan_ids(const fr_tokenizer *t, const char *delimiter, int cap, const int32_t *ids,
                    size_t n, int *lengths)
{
    const fr_policy_params params = {.delimiter = delimiter, .step_tokens = cap};
    fr_step_scan s;
    int steps = 0, length = 0;
    size_t begin = 0;
    fr_step_scan_init(&s, t, &params);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(fr_step_scan_feed(&s, ids[i], &length), FR_OK);
        if (length) {
            lengths[steps++] = length;
            begin += (size_t)length;
            i = begin - 1;
        }
    }
    if (begin < n)
        lengths[steps++] = (int)(n - begin);
    fr_step_scan_free(&s);
    return steps;
}

/* In the byte-level tokenizer: a token a byte, but for two newlines at the end of the text. */
static int scan_text(const char *delimiter, int cap, const char *text, int *lengths)
{
    fr_ids ids = {0};
    assert_int_equal(fr_tokenize(other, text, strlen(text), 0, &ids), FR_OK);
    int n = scan_ids(other, delimiter, cap, ids.data, ids.len, lengths);
    fr_ids_free(&ids);
    return n;
}

static void the_token_that_completes_the_delimiter_ends_a_step(void **state)
{
    (void)state;
    int n[16];
    assert_int_equal(scan_text("\n\n", 0, "ab\n\ncd\n\n", n), 2);
    assert_true(n[0] == 4 && n[1] == 3);
    assert_int_equal(scan_text("\n\n", 0, "a\nb\nc", n), 1);
    assert_int_equal(scan_text("xyz", 0, "wxyzab", n), 2);
    assert_true(n[0] == 4 && n[1] == 2);
    assert_int_equal(scan_text("", 0, "a\n\nb", n), 1);
    assert_int_equal(scan_text(NULL, 0, "a\n\nb", n), 2);
}

static void a_delimiter_is_counted_from_the_steps_beginning(void **state)
{
    (void)state;
    int32_t newline[6];
    fr_ids one = {0};
    int n[8];
    assert_int_equal(fr_tokenize(other, "\n", 1, 0, &one), FR_OK);
    assert_int_equal(one.len, 1);
    for (int i = 0; i < 6; i++)
        newline[i] = one.data[0];
    fr_ids_free(&one);
    /* The third newline belongs to the next step, and makes no delimiter with the second. */
    assert_int_equal(scan_ids(other, "\n\n", 0, newline, 5, n), 3);
    assert_true(n[0] == 2 && n[1] == 2 && n[2] == 1);
}

static void end_tokens_end_steps(void **state)
{
    (void)state;
    int n_ends = 0, n[4];
    const int32_t *ends = fr_tokenizer_ends(other, &n_ends);
    int32_t ids[] = {'a', ends[0], 'b'};
    assert_int_equal(scan_ids(other, "\n\n", 0, ids, 3, n), 2);
    assert_true(n[0] == 2 && n[1] == 1);
}

static void a_long_step_is_cut_before_an_unfinished_character(void **state)
{
    (void)state;
    int n[16];
    assert_int_equal(scan_text("\n\n", 4, "abcdefgh", n), 2);
    assert_true(n[0] == 4 && n[1] == 4);
    assert_int_equal(scan_text("\n\n", 4, "ab\xf0\x9f\x98\x80xy", n), 3);
    assert_true(n[0] == 2 && n[1] == 4 && n[2] == 2);
    /* No whole character fits: cut in it. */
    assert_int_equal(scan_text("\n\n", 3, "\xf0\x9f\x98\x80z", n), 2);
    assert_true(n[0] == 3 && n[1] == 2);
    assert_int_equal(scan_text("\n\n", 1, "\xc3\xa9", n), 2);
}

/* ---- drafted steps ---- */

static const fr_policy_params params = {
    .max_tokens = 100, .step_tokens = 12, .max_context = 4096, .delimiter = "\n\n"};

static void draft_text(const fr_chain *c, const char *text, size_t n_text, int end,
                       const char *want, int want_end)
{
    fr_ids drafted = {0}, got = {0};
    fr_buf bytes = {0};
    int n_ends = 0;
    for (size_t i = 0; i < n_text; i++) { /* byte by byte: any bytes can be drafted */
        int32_t id = -1;
        for (int32_t t = 0; t < 256 && id < 0; t++) {
            size_t k = 0;
            const char *b = fr_token_bytes(other, t, &k);
            id = k == 1 && b[0] == text[i] ? t : -1;
        }
        assert_int_equal(fr_ids_put(&drafted, &id, 1), FR_OK);
    }
    if (end)
        assert_int_equal(fr_ids_put(&drafted, fr_tokenizer_ends(other, &n_ends), 1), FR_OK);
    fr_msg_generated g = {.ids = drafted.data, .n_ids = drafted.len, .stop = "limit"};
    assert_int_equal(fr_drafting_take(c, &params, &g, &got), FR_OK);
    assert_int_equal(fr_detokenize(tiny, got.data, got.len, 0, &bytes), FR_OK);
    assert_int_equal(bytes.len, strlen(want));
    assert_memory_equal(bytes.data, want, bytes.len);
    assert_int_equal(got.len && fr_tokenizer_is_end(tiny, got.data[got.len - 1]), want_end);
    fr_ids_free(&drafted);
    fr_ids_free(&got);
    fr_buf_free(&bytes);
}

static void drafted_text_becomes_the_targets_ids(void **state)
{
    (void)state;
    fr_chain c = {0};
    assert_int_equal(fr_chain_open(&c, tiny, other, NULL, "Add 5.", 0), FR_OK);
    draft_text(&c, "Step (1).\n\n", 11, 0, "Step (1).\n\n", 0);
    draft_text(&c, "17", 2, 1, "17", 1);
    draft_text(&c, "", 0, 1, "", 1);
    draft_text(&c, "", 0, 0, "", 0);
    draft_text(&c, "a\n\nb", 4, 1, "a\n\n", 0); /* cut where a step ends */
    fr_chain_close(&c);
}

static void unusable_ends_are_left_out(void **state)
{
    (void)state;
    fr_chain c = {0};
    assert_int_equal(fr_chain_open(&c, tiny, other, NULL, "Add 5.", 0), FR_OK);
    draft_text(&c, "ab\xf0\x9f", 4, 0, "ab", 0);
    draft_text(&c, "ab\xf0\x9f", 4, 1, "ab", 0); /* what was cut did not end there */
    draft_text(&c, "a\xff" "b", 3, 1, "a\xef\xbf\xbd" "b", 1);
    draft_text(&c, "\xf0\x9f", 2, 0, "\xef\xbf\xbd\xef\xbf\xbd", 0);
    draft_text(&c, "</think>", 8, 0, "</think>", 0); /* only text */
    draft_text(&c, "<|im_end|>", 10, 0, "<|im_end|>", 0); /* spelt out, not the token */
    fr_chain_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_token_that_completes_the_delimiter_ends_a_step),
        cmocka_unit_test(a_delimiter_is_counted_from_the_steps_beginning),
        cmocka_unit_test(end_tokens_end_steps),
        cmocka_unit_test(a_long_step_is_cut_before_an_unfinished_character),
        cmocka_unit_test(drafted_text_becomes_the_targets_ids),
        cmocka_unit_test(unusable_ends_are_left_out),
    };
    return cmocka_run_group_tests(tests, load_tokenizers, free_tokenizers);
}
