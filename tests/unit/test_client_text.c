/* test_client_text.c: what the client writes: escaping, tables, JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "fault_alloc.h"
#include "json_out.h"
#include "table.h"
#include "ui.h"

static void assert_escaped(const char *in, size_t n, fr_ui_lines lines, const char *want)
{
    fr_buf out = {0};
    assert_int_equal(fr_ui_escape(in, n, lines, &out), FR_OK);
    assert_int_equal(out.len, strlen(want));
    assert_memory_equal(out.data, want, out.len);
    fr_buf_free(&out);
}

static void test_escape(void **state)
{
    (void)state;
    assert_escaped("a\nb\tc", 5, FR_UI_TEXT, "a\nb\tc");
    assert_escaped("a\nb\tc", 5, FR_UI_ONE_LINE, "a b c");
    assert_escaped("\033[2Jx\r\a\x7f", 8, FR_UI_TEXT, "\\x1b[2Jx\\x0d\\x07\\x7f");
    assert_escaped("\0x", 2, FR_UI_TEXT, "\\x00x");
    assert_escaped("\xc2\x9b"
                   "31m",
                   5, FR_UI_TEXT, "\\x9b31m"); /* C1: CSI in one character */
    assert_escaped("\xe2\x80\xae"
                   "abc",
                   6, FR_UI_TEXT, "\\u{202e}abc"); /* right-to-left override */
    assert_escaped("\xff\xc3", 2, FR_UI_TEXT, "\xef\xbf\xbd\xef\xbf\xbd"); /* no UTF-8 */
    assert_escaped("gr\xc3\xbc\xc3\x9f\xf0\x9f\x99\x82", 10, FR_UI_TEXT,
                   "gr\xc3\xbc\xc3\x9f\xf0\x9f\x99\x82");
    assert_escaped("", 0, FR_UI_TEXT, "");
}

static void test_is_utf8(void **state)
{
    (void)state;
    size_t at = 99;
    assert_true(fr_ui_is_utf8("\xc3\xbc", 2, &at));
    assert_true(fr_ui_is_utf8("", 0, &at));
    assert_false(fr_ui_is_utf8("ab\xc3", 3, &at));
    assert_int_equal(at, 2);
    assert_false(fr_ui_is_utf8("a\0b", 3, &at));
    assert_int_equal(at, 1);
    assert_false(fr_ui_is_utf8("\xed\xa0\x80", 3, &at)); /* a surrogate */
}

static void test_table(void **state)
{
    (void)state;
    fr_table t = {0};
    fr_buf out = {0};
    assert_int_equal(fr_table_row(&t, "NAME\tN\tLAST"), FR_OK);
    assert_int_equal(fr_table_row(&t, "%s\t%d\t%s", "gr\xc3\xbc\xc3\x9f" "e", 12345, "x"), FR_OK);
    assert_int_equal(fr_table_row(&t, "%s\t%d\t%s", "", 1, "\033"), FR_OK);
    assert_int_equal(fr_table_format(&t, &out), FR_OK);
    const char *want = "NAME   N      LAST\ngr\xc3\xbc\xc3\x9f"
                       "e  12345  x\n       1      \\x1b\n";
    assert_int_equal(out.len, strlen(want));
    assert_memory_equal(out.data, want, out.len);
    fr_buf_free(&out);
    fr_table_free(&t);
}

static fr_msg_job_info sample_job(void)
{
    fr_msg_job_info j = {.job = 7,
                         .state = "done",
                         .steps = 2,
                         .chain_tokens = 30,
                         .drafted = 20,
                         .accepted = 15,
                         .target_tokens = 31,
                         .passes = 10,
                         .seconds = 1.5,
                         .text = {(const uint8_t *)"a\xff", 2},
                         .answer = "42",
                         .cause = "",
                         .stop = "end"};
    j.spec = (fr_msg_job_spec){.problem = "p",
                               .system = "",
                               .policy = "token",
                               .judge = "",
                               .delimiter = "",
                               .name = "",
                               .sampling = {.seed = 18446744073709551615u}};
    return j;
}

static void assert_json(cJSON *o, const char *want)
{
    char *text = cJSON_PrintUnformatted(o);
    assert_non_null(text);
    assert_string_equal(text, want);
    free(text);
    cJSON_Delete(o);
}

static void test_json(void **state)
{
    (void)state;
    cJSON *o = NULL;
    fr_msg_step step = {.job = 7,
                        .index = 1,
                        .origin = "draft",
                        .verdict = "accepted",
                        .score = NAN,
                        .text = {(const uint8_t *)"x\n\n", 3},
                        .tokens = 3,
                        .drafted = 3,
                        .accepted = 3,
                        .seconds = 0.5};
    assert_int_equal(fr_json_step(&step, &o), FR_OK);
    assert_json(
        o,
        "{\"event\":\"step\",\"job\":7,\"index\":1,\"origin\":\"draft\",\"verdict\":\"accepted\","
        "\"score\":null,\"text\":\"x\\n\\n\",\"tokens\":3,\"drafted\":3,\"accepted\":3,\"seconds\":"
        "0.5}");
    fr_msg_job_info job = sample_job();
    assert_int_equal(fr_json_job("done", &job, &o), FR_OK);
    assert_json(
        o, "{\"event\":\"done\",\"job\":7,\"state\":\"done\",\"text\":\"a\xef\xbf\xbd\",\"answer\":"
           "\"42\","
           "\"seconds\":1.5,\"tokens\":{\"chain\":30,\"drafted\":20,\"accepted\":15,\"target\":31},"
           "\"steps\":2,"
           "\"passes\":10,\"policy\":\"token\",\"seed\":18446744073709551615,\"stop\":\"end\","
           "\"batch_dependent\":false}");
    assert_int_equal(fr_json_job_brief(&job, &o), FR_OK);
    assert_null(cJSON_GetObjectItem(o, "text"));
    assert_non_null(cJSON_GetObjectItem(o, "answer"));
    assert_non_null(cJSON_GetObjectItem(o, "problem"));
    cJSON_Delete(o);
    assert_int_equal(fr_json_failed(0, FR_EINVAL, "no such \"policy\"", &o), FR_OK);
    assert_json(o, "{\"event\":\"failed\",\"status\":\"invalid argument\",\"cause\":\"no such "
                   "\\\"policy\\\"\"}");
}

static void test_summary(void **state)
{
    (void)state;
    fr_buf out = {0};
    fr_msg_job_info job = sample_job();
    assert_int_equal(fr_ui_summary(&job, &out), FR_OK);
    assert_string_equal((char *)out.data,
                        "answer: 42\npolicy token: 30 tokens in 2 steps, 1.50 s, 20.0 tok/s, "
                        "accepted 75% of 20 drafted, 10 target passes\n");
    out.len = 0;
    job.batch_dependent = 1;
    assert_int_equal(fr_ui_summary(&job, &out), FR_OK);
    assert_non_null(strstr((char *)out.data, " target passes\na group computed this with --batch-invariant off"));
    fr_buf_free(&out);
    cJSON *o = NULL;
    assert_int_equal(fr_json_job("done", &job, &o), FR_OK);
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(o, "batch_dependent")));
    cJSON_Delete(o);
}

/* Why a job waits is in every view of it. */
static void check_waiting(const char *job_state, const char *cause)
{
    char cell[96];
    fr_msg_job_info job = sample_job();
    job.state = job_state;
    job.cause = cause;
    snprintf(cell, sizeof cell, "%s: %s  token ", job_state, cause);
    cJSON *o = NULL;
    assert_int_equal(fr_json_job_brief(&job, &o), FR_OK);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(o, "cause")), job.cause);
    assert_null(cJSON_GetObjectItem(o, "status"));
    cJSON_Delete(o);
    fr_table t = {0};
    fr_buf out = {0};
    assert_int_equal(fr_table_jobs(&t, &job, 1), FR_OK);
    assert_int_equal(fr_table_format(&t, &out), FR_OK);
    assert_non_null(strstr((char *)out.data, cell));
    fr_table_free(&t);
    fr_buf_free(&out);
}

static void test_waiting(void **state)
{
    (void)state;
    check_waiting("running", "waiting for a draft group");
    check_waiting("queued", "waiting for a running job to end and for a target group");
}

/* Every allocation of our own that fails is told as such. */
static void test_no_memory(void **state)
{
    (void)state;
    fr_msg_job_info job = sample_job();
    for (long n = 0;; n++) {
        cJSON *o = NULL;
        fr_table t = {0};
        fr_buf out = {0};
        fr_fault_alloc_arm(n);
        fr_status st = fr_json_job("done", &job, &o);
        if (st == FR_OK)
            st = fr_table_jobs(&t, &job, 1);
        if (st == FR_OK)
            st = fr_table_format(&t, &out);
        int failed = fr_fault_alloc_disarm();
        cJSON_Delete(o);
        fr_table_free(&t);
        fr_buf_free(&out);
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        if (!failed)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_escape),  cmocka_unit_test(test_is_utf8),
        cmocka_unit_test(test_table),   cmocka_unit_test(test_json),
        cmocka_unit_test(test_summary), cmocka_unit_test(test_waiting),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("client_text", tests, NULL, NULL);
}
