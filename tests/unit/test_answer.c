/* test_answer.c: finding answers in chains, and comparing them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "answer.h"
#include "fault_alloc.h"

static void answers_are_found(void **state)
{
    (void)state;
    static const char *const table[][2] = {
        {"The answer is \\boxed{17}.", "17"},
        {"\\boxed{1} and then \\boxed{2}.\n", "2"},
        {"\\boxed{\\frac{1}{2}} follows", "\\frac{1}{2}"},
        {"\\boxed{ {a} + \\{b\\} }", "{a} + \\{b\\}"},
        {"\\boxed{5} but then \\boxed{unfinished", "5"},
        {"\\boxed{}", ""},
        {"\\boxed{1 \\boxed{2} 3}", "2"},
        {"\\boxed{4 \\} } \\boxed{ {5}", "4 \\}"},
        {"} \\boxed{6} } {", "6"},
        {"so it is 1,234.50.", "1,234.50"},
        {"It costs $18 a day", "18"},
        {"from -3 to -7.", "-7"},
        {"7-3", "3"},
        {"x\xe2\x88\x92" "5", "5"},
        {"it is \xe2\x88\x92" "5", "\xe2\x88\x92" "5"},
        {"about .5", ".5"},
        {"3/4 of it", "3/4"},
        {"numbers 1,23 end", "23"},
        {"50% of 80 is 40!", "40"},
        {"no number", ""},
        {"", ""},
        {"12.", "12"},
        {"**42**", "42"},
        {"\\boxed", ""},
        {"10000,000", "10000,000"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        fr_buf out = {0};
        assert_int_equal(fr_answer_extract(table[i][0], strlen(table[i][0]), &out), FR_OK);
        assert_string_equal((char *)out.data, table[i][1]);
        assert_int_equal(out.len, strlen(table[i][1]));
        fr_buf_free(&out);
    }
}

/* A chain that repeats itself: in time that grows with its square, this test is not over before its limit. */
static void groups_that_are_never_closed(void **state)
{
    (void)state;
    static const char begin[] = "\\boxed{7}", open[] = "\\boxed{";
    fr_buf text = {0}, out = {0};
    assert_int_equal(fr_buf_put(&text, begin, sizeof begin - 1), FR_OK);
    for (int i = 0; i < 300000; i++)
        assert_int_equal(fr_buf_put(&text, open, sizeof open - 1), FR_OK);
    assert_int_equal(fr_answer_extract((char *)text.data, text.len, &out), FR_OK);
    assert_string_equal((char *)out.data, "7");
    fr_buf_free(&text);
    fr_buf_free(&out);
}

static void a_text_need_not_be_terminated(void **state)
{
    (void)state;
    fr_buf out = {0};
    assert_int_equal(fr_answer_extract("1234", 2, &out), FR_OK);
    assert_string_equal((char *)out.data, "12");
    assert_int_equal(fr_answer_extract(NULL, 0, &out), FR_OK);
    assert_int_equal(out.len, 2);
    fr_buf_free(&out);
    fr_fault_alloc_arm(0);
    assert_int_equal(fr_answer_extract("7", 1, &out), FR_ENOMEM);
    assert_true(fr_fault_alloc_disarm());
}

static void equal_answers(void **state)
{
    (void)state;
    static const char *const table[][2] = {
        {"18", "18"}, {"18.0", "18"}, {"18.", "18"}, {"$18", "18"}, {"\\$18.00", "18"},
        {"18 dollars", "18"}, {"70,000", "70000"}, {"1,234,567", "1234567"}, {"025", "25"},
        {"0.50", ".5"}, {"1/2", "0.5"}, {"2/4", "1/2"}, {"\\frac{1}{2}", "1/2"},
        {"\\dfrac{1}{2}", "\\frac12"}, {"\\tfrac{3}{4}", "0.75"}, {"-\\frac{1}{2}", "-0.5"},
        {"\\frac{-1}{2}", "-1/2"}, {"50\\%", "50"}, {"50%", "50"}, {"90^\\circ", "90"},
        {"90^{\\circ}", "90 degrees"}, {"\\text{Tuesday}", "tuesday"}, {"12\\text{ cm}", "12"},
        {"\\left(1, 2\\right)", "(1,2)"}, {"x = 5", "5"},
        {"\\frac{\\sqrt{3}}{2}", "\\frac{\\sqrt{3}} {2}"}, {"+7", "7"}, {"-0", "0"},
        {"\xe2\x88\x92" "5", "-5"}, {"18 eggs a day", "18"}, {"5 km/h", "5"}, {"3\\,000", "3000"},
        {"\\(7\\)", "7"}, {"**7**", "7"}, {"\\mathrm{A}", "A"}, {"1e3", "1E3"},
        {"\\frac{\\frac{1}{2}}{3}", "(1/2)/3"}, {"0", "0.000"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (!fr_answer_equal(table[i][0], table[i][1]) ||
            !fr_answer_equal(table[i][1], table[i][0]))
            fail_msg("%s is not %s", table[i][0], table[i][1]);
    }
}

static void different_answers(void **state)
{
    (void)state;
    static const char *const table[][2] = {
        {"18", "19"}, {"18", "-18"}, {"1.5", "15"}, {"1/2", "1/3"}, {"", ""}, {"", "0"}, {"$", "$"},
        {"2x", "2"}, {"2 x", "2"}, {"2 pi", "2"}, {"(1,2)", "(2,1)"}, {"A", "B"}, {"1/0", "2/0"},
        {"1000000000000000000000001", "1000000000000000000000002"}, {"0.1", "0.10000000001"},
        {"3 or 4", "3"}, {"\\leftarrow 5", "5"}, {"1,23", "123"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (fr_answer_equal(table[i][0], table[i][1]))
            fail_msg("%s equals %s", table[i][0], table[i][1]);
    }
}

static void odd_input_is_harmless(void **state)
{
    (void)state;
    static const char *const odd[] = {
        "\\frac", "\\frac{", "\\frac{1", "\\frac{1}", "\\frac{1}{", "\\text{", "\\text{a", "}{",
        "\\", "-", "+", ".", ",", "=", "x=", "/", "1/", "(", "(1", "()", "0", "\\frac\\frac\\frac",
        "\\text{\\text{\\text{}}}", "$$$", "....", "\xff\xfe"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        char out[FR_ANSWER_MAX];
        fr_answer_normalize(odd[i], out);
        assert_true(strlen(out) <= strlen(odd[i]));
        fr_answer_equal(odd[i], "1");
    }
    char big[FR_ANSWER_MAX * 3 + 1];
    memset(big, '7', sizeof big - 1);
    big[sizeof big - 1] = 0;
    assert_true(fr_answer_equal(big, big));
    assert_false(fr_answer_equal(big, big + 1));
    char nested[FR_ANSWER_MAX] = "";
    for (int i = 0; i < 80; i++)
        strcat(nested, "\\frac{1}{");
    fr_answer_equal(nested, "1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_found),     cmocka_unit_test(groups_that_are_never_closed),
        cmocka_unit_test(a_text_need_not_be_terminated),
        cmocka_unit_test(equal_answers),         cmocka_unit_test(different_answers),
        cmocka_unit_test(odd_input_is_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
