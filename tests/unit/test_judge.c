/* test_judge.c: scores from probe results and log-probabilities. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "fault_alloc.h"
#include "judge.h"
#include "models.h"

static fr_tokenizer *tiny;

static int load_tokenizer(void **state)
{
    (void)state;
    return models_tiny_tokenizer(&tiny) != FR_OK;
}

static int free_tokenizer(void **state)
{
    (void)state;
    fr_tokenizer_free(&tiny);
    return 0;
}

/* A reply to two probes; the second is filled by the test. */
typedef struct reply {
    float first[10], second[10];
    fr_msg_probe_result probes[2];
    fr_msg_verified m;
} reply;

static void reply_init(reply *r)
{
    *r = (reply){0};
    for (int d = 0; d < 10; d++)
        r->first[d] = r->second[d] = logf(0.1f);
    r->probes[0] = (fr_msg_probe_result){.logprobs = r->first, .n_logprobs = 10};
    r->probes[1] = (fr_msg_probe_result){.logprobs = r->second, .n_logprobs = 10};
    r->m.probes = r->probes;
    r->m.n_probes = 2;
}

static void the_probe_asks_the_models_own_question(void **state)
{
    (void)state;
    fr_judge j = {0};
    fr_msg_probe p = {0};
    fr_buf text = {0};
    assert_int_equal(fr_judge_open(&j, NULL, NAN, tiny), FR_OK);
    assert_string_equal(j.ops->name, "score");
    fr_judge_probe(&j, 7, &p);
    assert_int_equal(p.at, 7);
    assert_int_equal(p.n_wanted, 10);
    assert_int_equal(fr_detokenize(tiny, p.tokens, p.n_tokens, 0, &text), FR_OK);
    assert_int_equal(fr_buf_put(&text, "", 1), FR_OK);
    assert_non_null(strstr((char *)text.data, fr_tokenizer_score_question(tiny)));
    assert_non_null(strstr((char *)text.data, fr_tokenizer_score_prefill(tiny)));
    for (int d = 0; d < 10; d++) {
        size_t n = 0;
        const char *bytes = fr_token_bytes(tiny, p.wanted[d], &n);
        assert_true(n == 1 && bytes[0] == '0' + d);
    }
    fr_buf_free(&text);
    fr_judge_close(&j);
}

static void a_digit_is_the_score_and_anything_else_is_zero(void **state)
{
    (void)state;
    fr_judge j = {0};
    reply r;
    float score = -1;
    reply_init(&r);
    assert_int_equal(fr_judge_open(&j, "score", NAN, tiny), FR_OK);
    for (int d = 0; d < 10; d++) {
        r.probes[1].best = j.digits[d];
        assert_int_equal(fr_judge_score(&j, &r.m, 1, 0, 5, &score), FR_OK);
        assert_int_equal((int)score, d);
        assert_int_equal(fr_judge_accepts(&j, score), d >= 7);
    }
    r.probes[1].best = j.probe.data[0];
    assert_int_equal(fr_judge_score(&j, &r.m, 1, 0, 5, &score), FR_OK);
    assert_true(score == 0);
    r.probes[1].best = -1;
    assert_int_equal(fr_judge_score(&j, &r.m, 1, 0, 5, &score), FR_OK);
    assert_true(score == 0);
    fr_judge_close(&j);
    assert_int_equal(fr_judge_open(&j, "score", 9, tiny), FR_OK);
    assert_false(fr_judge_accepts(&j, 8));
    assert_true(fr_judge_accepts(&j, 9));
    fr_judge_close(&j);
}

static void the_mean_is_over_digits_alone(void **state)
{
    (void)state;
    fr_judge j = {0};
    reply r;
    float score = -1;
    reply_init(&r);
    assert_int_equal(fr_judge_open(&j, "score-mean", NAN, tiny), FR_OK);
    assert_int_equal(fr_judge_score(&j, &r.m, 0, 0, 5, &score), FR_OK);
    assert_true(fabsf(score - 4.5f) < 1e-4f);
    for (int d = 0; d < 10; d++) /* half of the probability is elsewhere */
        r.first[d] = d == 8 || d == 9 ? logf(0.25f) : -INFINITY;
    assert_int_equal(fr_judge_score(&j, &r.m, 0, 0, 5, &score), FR_OK);
    assert_true(fabsf(score - 8.5f) < 1e-4f);
    for (int d = 0; d < 10; d++) /* as good as all of it is */
        r.first[d] = logf(0.0005f);
    assert_int_equal(fr_judge_score(&j, &r.m, 0, 0, 5, &score), FR_OK);
    assert_true(score == 0);
    fr_judge_close(&j);
}

static void logprobs_are_averaged_over_the_step(void **state)
{
    (void)state;
    fr_judge j = {0};
    const float logprobs[] = {-9, -0.25f, -0.75f, -9};
    fr_msg_verified m = {.drafted_logprobs = logprobs, .n_drafted_logprobs = 4};
    float score = 0;
    assert_int_equal(fr_judge_open(&j, "logprob", NAN, tiny), FR_OK);
    assert_int_equal(j.probe.len, 0);
    assert_int_equal(fr_judge_score(&j, &m, 1, 1, 2, &score), FR_OK);
    assert_true(fabsf(score + 0.5f) < 1e-6f);
    assert_true(fr_judge_accepts(&j, score));
    assert_int_equal(fr_judge_score(&j, &m, 1, 0, 4, &score), FR_OK);
    assert_false(fr_judge_accepts(&j, score));
    fr_judge_close(&j);
}

static void a_reply_that_does_not_fit_is_an_error(void **state)
{
    (void)state;
    fr_judge j = {0};
    reply r;
    float score = 0;
    const float bad[] = {-1, NAN};
    reply_init(&r);
    assert_int_equal(fr_judge_open(&j, "score", NAN, tiny), FR_OK);
    assert_int_equal(fr_judge_score(&j, &r.m, 2, 0, 1, &score), FR_EPROTO);
    r.probes[1].n_logprobs = 9;
    assert_int_equal(fr_judge_score(&j, &r.m, 1, 0, 1, &score), FR_EPROTO);
    r.first[3] = NAN;
    assert_int_equal(fr_judge_score(&j, &r.m, 0, 0, 1, &score), FR_EPROTO);
    fr_judge_close(&j);
    assert_int_equal(fr_judge_open(&j, "logprob", NAN, tiny), FR_OK);
    r.m.drafted_logprobs = bad;
    r.m.n_drafted_logprobs = 2;
    assert_int_equal(fr_judge_score(&j, &r.m, 0, 0, 2, &score), FR_EPROTO);
    assert_int_equal(fr_judge_score(&j, &r.m, 0, 1, 2, &score), FR_EPROTO);
    assert_int_equal(fr_judge_score(&j, &r.m, 0, 0, 1, &score), FR_OK);
    fr_judge_close(&j);
    assert_int_equal(fr_judge_open(&j, "taste", NAN, tiny), FR_EINVAL);
    assert_string_equal(fr_cause(),
                        "unknown judge \"taste\"; there are: score, score-mean, logprob");
}

static void failed_allocations(void **state)
{
    (void)state;
    bool failed = true;
    for (long n = 0; failed; n++) {
        fr_judge j = {0};
        fr_fault_alloc_arm(n);
        fr_status st = fr_judge_open(&j, "score", NAN, tiny);
        failed = fr_fault_alloc_disarm();
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        fr_judge_close(&j);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_probe_asks_the_models_own_question),
        cmocka_unit_test(a_digit_is_the_score_and_anything_else_is_zero),
        cmocka_unit_test(the_mean_is_over_digits_alone),
        cmocka_unit_test(logprobs_are_averaged_over_the_step),
        cmocka_unit_test(a_reply_that_does_not_fit_is_an_error),
        cmocka_unit_test(failed_allocations),
    };
    return cmocka_run_group_tests(tests, load_tokenizer, free_tokenizer);
}
