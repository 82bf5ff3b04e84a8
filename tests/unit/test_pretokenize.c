/* test_pretokenize.c: where the four families cut text. The expected cuts follow from the published
 * expressions; the real models' golden ids (tests/golden) check the same against llama.cpp. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"
#include "check.h"
#include "fault_alloc.h"
#include "pretokenize.h"
#include "utf8.h"

static fr_status put_cut(void *arg, const char *piece, size_t n)
{
    fr_buf *out = arg;
    assert_true(n > 0);
    if (out->len)
        FR_TRY(fr_buf_put(out, "^", 1));
    return fr_buf_put(out, piece, n);
}

static void assert_cuts(fr_pre pre, const char *text, const char *want)
{
    fr_splitter *s = NULL;
    fr_buf out = {0};
    assert_int_equal(fr_splitter_new(pre, &s), FR_OK);
    assert_int_equal(fr_splitter_each(s, text, strlen(text), put_cut, &out), FR_OK);
    assert_int_equal(fr_buf_put(&out, "", 1), FR_OK);
    assert_string_equal((char *)out.data, want);
    fr_buf_free(&out);
    fr_splitter_free(&s);
    assert_null(s);
}

static void test_gpt2(void **state)
{
    (void)state;
    assert_cuts(FR_PRE_GPT2, "", "");
    assert_cuts(FR_PRE_GPT2, "Hello world", "Hello^ world");
    assert_cuts(FR_PRE_GPT2, "I'm I'M we'll 1234 x2", "I^'m^ I^'^M^ we^'ll^ 1234^ x^2");
    assert_cuts(FR_PRE_GPT2, "a   b\n\n\n  c  ", "a^  ^ b^\n\n\n ^ c^  ");
    assert_cuts(FR_PRE_GPT2, "x\n\ny", "x^\n^\n^y");
    assert_cuts(FR_PRE_GPT2, "a!? ...b", "a^!?^ ...^b");
}

static void test_digits(void **state)
{
    (void)state;
    assert_cuts(FR_PRE_DIGITS, "ab 123 c", "ab^ ^1^2^3^ c");
    assert_cuts(FR_PRE_DIGITS, "**  2  #s",
                "**^  ^2^ ^ #^s"); /* lookaheads end where the digit cuts */
    assert_cuts(FR_PRE_DIGITS, "½x", "½^x");
}

static void test_llama3(void **state)
{
    (void)state;
    assert_cuts(FR_PRE_LLAMA3, "1234567 89", "123^456^7^ ^89");
    assert_cuts(FR_PRE_LLAMA3, "I'M (x).\n\n y", "I^'M^ (^x^).\n\n^ y");
    assert_cuts(FR_PRE_LLAMA3, "a \n \n  b", "a^ \n \n^ ^ b");
}

static void test_qwen2(void **state)
{
    (void)state;
    assert_cuts(FR_PRE_QWEN2, "So 16 - 3 = 13.\n\n", "So^ ^1^6^ -^ ^3^ =^ ^1^3^.\n\n");
    assert_cuts(FR_PRE_QWEN2, "$x_i\tz", "$x^_i^\tz");
    assert_cuts(FR_PRE_QWEN2, "日本語、テキスト é", "日本語^、テキスト^ é");
    assert_cuts(FR_PRE_QWEN2, "\r\na\r\n", "\r\n^a^\r\n");
}

/* U+00A0, U+2003 and U+3000 are spaces; U+200B and U+180E are not. */
static void test_spaces(void **state)
{
    (void)state;
    assert_cuts(FR_PRE_GPT2, "a\u00a0\u2003\u3000b", "a^\u00a0\u2003^\u3000^b");
    assert_cuts(FR_PRE_GPT2, "a\u200b\u180eb", "a^\u200b\u180e^b");
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        fr_pre pre;
    } known[] = {
        {"gpt-2", FR_PRE_GPT2},
        {"smollm", FR_PRE_DIGITS},
        {"llama-bpe", FR_PRE_LLAMA3},
        {"llama3", FR_PRE_LLAMA3},
        {"llama-v3", FR_PRE_LLAMA3},
        {"qwen2", FR_PRE_QWEN2},
        {"deepseek-r1-qwen", FR_PRE_QWEN2},
    };
    fr_pre pre = FR_PRE_GPT2;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        assert_int_equal(fr_pre_find((fr_str){known[i].name, strlen(known[i].name)}, &pre), FR_OK);
        assert_int_equal(pre, known[i].pre);
    }
    assert_int_equal(fr_pre_find((fr_str){"qwen", 4}, &pre), FR_EUNSUPPORTED);
    assert_string_equal(fr_cause(), "pre-tokenizer qwen is not supported");
    fr_splitter *s = NULL;
    assert_int_equal(fr_splitter_new((fr_pre)9, &s), FR_EUNSUPPORTED);
    assert_null(s);
}

static fr_status stop(void *arg, const char *piece, size_t n)
{
    (void)piece;
    (void)n;
    return ++*(int *)arg == 2 ? fr_fail(FR_ECANCELLED, "enough") : FR_OK;
}

static void test_failing_piece(void **state)
{
    (void)state;
    fr_splitter *s = NULL;
    int calls = 0;
    assert_int_equal(fr_splitter_new(FR_PRE_DIGITS, &s), FR_OK);
    assert_int_equal(fr_splitter_each(s, "a b c d", 7, stop, &calls), FR_ECANCELLED);
    assert_int_equal(calls, 2);
    fr_splitter_free(&s);
}

/* Long runs take linear time and no stack: a megabyte of each kind. */
static void test_long_runs(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    static const char kinds[] = {'a', ' ', '\n', '.', '7'};
    char *text = malloc(N);
    assert_non_null(text);
    for (fr_pre pre = FR_PRE_GPT2; pre <= FR_PRE_QWEN2; pre++) {
        fr_splitter *s = NULL;
        assert_int_equal(fr_splitter_new(pre, &s), FR_OK);
        for (size_t k = 0; k < sizeof kinds; k++) {
            fr_buf out = {0};
            memset(text, kinds[k], N);
            assert_int_equal(fr_splitter_each(s, text, N, put_cut, &out), FR_OK);
            assert_true(out.len >= N);
            fr_buf_free(&out);
        }
        fr_splitter_free(&s);
    }
    free(text);
}

static void test_utf8_check(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t good;
    } cases[] = {
        {"", 0},
        {"plain", 5},
        {"é日🙂", 9},
        {"a\xff", 1},
        {"ab\x80", 2},
        {"\xc3", 0},
        {"x\xe6\x97", 1},
        {"\xf0\x9f\x99", 0},
        {"\xc0\x80", 0},
        {"\xed\xa0\x80", 0},
        {"\xe0\x80\x80", 0},
        {"\xf4\x90\x80\x80", 0},
        {"\xf4\x8f\xbf\xbf", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(fr_utf8_check(cases[i].text, strlen(cases[i].text)), cases[i].good);
}

static void test_utf8_cut(void **state)
{
    (void)state;
    static const char text[] = "a\xe5\xad\x97" "b\xf0\x9f\x99\x82";
    static const size_t kept[] = {0, 1, 1, 1, 4, 5, 5, 5, 5, 9, 9};
    for (size_t most = 0; most < sizeof kept / sizeof *kept; most++)
        assert_int_equal(fr_utf8_cut(text, strlen(text), most), kept[most]);
}

/* Every byte has one spelling; other characters spell none. */
static void test_gpt2_bytes(void **state)
{
    (void)state;
    char out[8];
    size_t n = 0;
    assert_int_equal(fr_gpt2_bytes("Ġa", 3, out, &n), 1);
    assert_int_equal(n, 2);
    assert_memory_equal(out, " a", 2);
    assert_int_equal(fr_gpt2_bytes("ĊĉÃ©", 8, out, &n), 1);
    assert_memory_equal(out, "\n\t\xc3\xa9", 4);
    assert_int_equal(fr_gpt2_bytes("ġĢŃ", 6, out, &n), 1); /* 7f, 80, ad */
    assert_int_equal(n, 3);
    assert_memory_equal(out, "\x7f\x80\xad", 3);
    assert_int_equal(fr_gpt2_bytes("a b", 3, out, &n), 0); /* a space is spelt U+0120 */
    assert_int_equal(fr_gpt2_bytes("日", 3, out, &n), 0);
    assert_int_equal(fr_gpt2_bytes("\xc4", 1, out, &n), 0);
}

static void test_no_memory(void **state)
{
    (void)state;
    fr_splitter *s = NULL;
    fr_fault_alloc_arm(0);
    assert_int_equal(fr_splitter_new(FR_PRE_QWEN2, &s), FR_ENOMEM);
    assert_true(fr_fault_alloc_disarm());
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt2),          cmocka_unit_test(test_digits),
        cmocka_unit_test(test_llama3),        cmocka_unit_test(test_qwen2),
        cmocka_unit_test(test_spaces),        cmocka_unit_test(test_names),
        cmocka_unit_test(test_failing_piece), cmocka_unit_test(test_long_runs),
        cmocka_unit_test(test_utf8_check),    cmocka_unit_test(test_utf8_cut),
        cmocka_unit_test(test_gpt2_bytes),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
