/* test_chain.c: chains in one tokenizer and in two, and steps that end in the middle of a
 * character. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "chain.h"
#include "fault_alloc.h"
#include "models.h"

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

/* Appends the ids of a text: each byte by itself when `bytes`, so that characters can be cut. */
static void append(fr_chain *c, const char *text, size_t n, int bytes)
{
    fr_ids ids = {0};
    if (bytes) {
        /* The byte tokens of the target: found by tokenising texts that hold them. */
        fr_ids all = {0};
        assert_int_equal(fr_tokenize(c->target, "\xf0\x9f\x98\x80", 4, 0, &all), FR_OK);
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < all.len; j++) {
                size_t len = 0;
                const char *token = fr_token_bytes(c->target, all.data[j], &len);
                if (len == 1 && token[0] == text[i]) {
                    assert_int_equal(fr_ids_put(&ids, &all.data[j], 1), FR_OK);
                    break;
                }
            }
        }
        assert_int_equal(ids.len, n);
        fr_ids_free(&all);
    } else {
        assert_int_equal(fr_tokenize(c->target, text, n, 0, &ids), FR_OK);
    }
    assert_int_equal(fr_chain_append(c, ids.data, ids.len), FR_OK);
    fr_ids_free(&ids);
}

static void assert_draft_text(const fr_chain *c, const char *want)
{
    fr_buf text = {0};
    assert_int_equal(fr_detokenize(c->draft, c->draft_ids.data + c->draft_prompt_len,
                                   c->draft_ids.len - (size_t)c->draft_prompt_len, 0, &text),
                     FR_OK);
    assert_int_equal(text.len, strlen(want));
    assert_memory_equal(text.data, want, text.len);
    fr_buf_free(&text);
}

static void one_tokenizer(void **state)
{
    (void)state;
    fr_chain c = {0};
    assert_int_equal(fr_chain_open(&c, tiny, tiny, NULL, "Add 5.", 0), FR_OK);
    assert_true(c.same_tokenizer);
    assert_int_equal(c.draft_prompt_len, c.prompt_len);
    assert_int_equal(fr_chain_len(&c), 0);
    append(&c, "Step (1).\n\n", 11, 0);
    append(&c, "Step (2).\n\n", 11, 0);
    assert_int_equal(c.n_steps, 2);
    assert_int_equal(c.draft_ids.len, 0);
    assert_memory_equal(c.text.data, "Step (1).\n\nStep (2).\n\n", 22);
    int n = 0;
    assert_ptr_equal(fr_chain_step(&c, 0, &n), c.ids.data + c.prompt_len);
    assert_int_equal(fr_chain_len(&c), 2 * n);
    fr_chain_truncate(&c, 1);
    assert_int_equal(fr_chain_len(&c), n);
    assert_int_equal(c.text.len, 11);
    assert_int_equal(fr_chain_append(&c, c.ids.data, 0), FR_EINVAL);
    fr_chain_close(&c);
    fr_chain_close(&c);
}

static void two_tokenizers(void **state)
{
    (void)state;
    fr_chain c = {0}, copy = {0};
    assert_int_equal(fr_chain_open(&c, tiny, other, NULL, "Add 5.", 0), FR_OK);
    assert_false(c.same_tokenizer);
    append(&c, "Step (1).\n\n", 11, 0);
    assert_draft_text(&c, "Step (1).\n\n");
    /* An end token has no text: the draft never sees it. */
    int n_ends = 0;
    const int32_t *ends = fr_tokenizer_ends(tiny, &n_ends);
    size_t before = c.draft_ids.len;
    assert_int_equal(fr_chain_append(&c, ends, 1), FR_OK);
    assert_int_equal(c.draft_ids.len, before);
    assert_int_equal(fr_chain_copy(&copy, &c), FR_OK);
    fr_chain_truncate(&c, 0);
    assert_draft_text(&c, "");
    assert_int_equal(copy.n_steps, 2);
    assert_draft_text(&copy, "Step (1).\n\n");
    assert_int_equal(fr_chain_copy(&c, &copy), FR_OK);
    assert_int_equal(c.ids.len, copy.ids.len);
    fr_chain_close(&c);
    fr_chain_close(&copy);
}

static void unfinished_characters_wait_for_their_end(void **state)
{
    (void)state;
    fr_chain c = {0};
    assert_int_equal(fr_chain_open(&c, tiny, other, NULL, "Add 5.", 0), FR_OK);
    append(&c, "\xf0\x9f", 2, 1);
    assert_draft_text(&c, "");
    append(&c, "\x98", 1, 1);
    assert_draft_text(&c, "");
    append(&c, "\x80", 1, 1);
    assert_draft_text(&c, "\xf0\x9f\x98\x80");
    append(&c, "\xf0", 1, 1);
    append(&c, "7", 1, 0); /* it was no character after all */
    assert_draft_text(&c, "\xf0\x9f\x98\x80\xef\xbf\xbd" "7");
    fr_chain_truncate(&c, 3);
    assert_draft_text(&c, "\xf0\x9f\x98\x80");
    fr_chain_close(&c);
}

static void repeats(void **state)
{
    (void)state;
    fr_chain c = {0};
    assert_int_equal(fr_chain_open(&c, tiny, NULL, NULL, "Add 5.", 0), FR_OK);
    append(&c, "a", 1, 0);
    append(&c, "b\n\n", 3, 0);
    append(&c, "b\n\n", 3, 0);
    assert_true(fr_chain_repeats(&c, 2));
    assert_false(fr_chain_repeats(&c, 3));
    append(&c, "b\n\n", 3, 0);
    assert_true(fr_chain_repeats(&c, 3));
    assert_false(fr_chain_repeats(&c, 4));
    assert_false(fr_chain_repeats(&c, 9));
    fr_chain_close(&c);
}

static void bad_prompts(void **state)
{
    (void)state;
    fr_chain c = {0};
    assert_int_equal(fr_chain_open(&c, tiny, NULL, NULL, "ab\xff", 0), FR_EFORMAT);
    assert_string_equal(fr_cause(), "problem: invalid UTF-8 at byte 2");
    assert_int_equal(fr_chain_open(&c, tiny, NULL, "\xc3", "a", 0), FR_EFORMAT);
    assert_string_equal(fr_cause(), "system: invalid UTF-8 at byte 0");
    assert_int_equal(fr_chain_open(&c, tiny, NULL, NULL, "", 1), FR_EINVAL);
    assert_null(c.ids.data);
    int32_t unknown = 1 << 30;
    assert_int_equal(fr_chain_open(&c, tiny, NULL, NULL, "a", 1), FR_OK);
    assert_int_not_equal(fr_chain_append(&c, &unknown, 1), FR_OK);
    assert_int_equal(c.n_steps, 0);
    assert_int_equal(fr_chain_len(&c), 0);
    fr_chain_close(&c);
}

static fr_status build(fr_chain *c, fr_chain *copy)
{
    fr_ids step = {0};
    fr_status st = fr_chain_open(c, tiny, other, "Be brief.", "Add 5.", 0);
    if (st == FR_OK)
        st = fr_tokenize(tiny, "Step (1).\n\n", 11, 0, &step);
    for (int i = 0; i < 20 && st == FR_OK; i++) {
        size_t ids = c->ids.len, draft_ids = c->draft_ids.len, text = c->text.len;
        st = fr_chain_append(c, step.data, step.len);
        if (st != FR_OK) { /* as before */
            assert_int_equal(c->n_steps, i);
            assert_true(c->ids.len == ids && c->draft_ids.len == draft_ids && c->text.len == text);
        }
    }
    if (st == FR_OK)
        st = fr_chain_copy(copy, c);
    fr_ids_free(&step);
    return st;
}

static void failed_allocations(void **state)
{
    (void)state;
    bool failed = true;
    for (long n = 0; failed; n++) {
        fr_chain c = {0}, copy = {0};
        fr_fault_alloc_arm(n);
        fr_status st = build(&c, &copy);
        failed = fr_fault_alloc_disarm();
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        fr_chain_close(&c);
        fr_chain_close(&copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_tokenizer), cmocka_unit_test(two_tokenizers),
        cmocka_unit_test(unfinished_characters_wait_for_their_end),
        cmocka_unit_test(repeats),       cmocka_unit_test(bad_prompts),
        cmocka_unit_test(failed_allocations),
    };
    return cmocka_run_group_tests(tests, load_tokenizers, free_tokenizers);
}
