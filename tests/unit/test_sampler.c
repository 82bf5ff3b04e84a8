/* test_sampler.c: slices of a vocabulary merge to the whole, and samples follow the softmax. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sampler.h"

enum { VOCAB = 1000 };

static void make_logits(float *logits, int salt)
{
    for (int i = 0; i < VOCAB; i++)
        logits[i] = (float)((i * 7919 + salt * 104729) % 1009) / 120.0f;
}

static void slices_merge_to_the_whole(void **state)
{
    (void)state;
    float logits[VOCAB];
    fr_row_answer *a = calloc(4, sizeof *a);
    assert_non_null(a);
    const fr_sampling kinds[] = {{0, 1, 0, 5, 0}, {0.7f, 1, 0, 5, 0}, {0.7f, 0.9f, 0, 5, 1}, {1.3f, 1, 40, 9, 0}};
    for (int salt = 0; salt < 20; salt++) {
        make_logits(logits, salt);
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            fr_row_query q;
            fr_sampling_query(&kinds[k], (uint32_t)salt, VOCAB, &q);
            q.n_wanted = 2;
            q.wanted[0] = 3;
            q.wanted[1] = 900;
            fr_row_query_answer(logits, VOCAB, 0, NULL, &q, &a[0]);
            fr_row_query_answer(logits, 400, 0, NULL, &q, &a[1]);
            fr_row_query_answer(logits + 400, 350, 400, NULL, &q, &a[2]);
            fr_row_query_answer(logits + 750, 250, 750, NULL, &q, &a[3]);
            fr_row_answer *m = malloc(sizeof *m);
            assert_non_null(m);
            fr_answer_merge(a + 1, 3, &q, m);
            assert_int_equal(m->winner, a[0].winner);
            assert_int_equal(fr_sample(&kinds[k], (uint32_t)salt, m), fr_sample(&kinds[k], (uint32_t)salt, &a[0]));
            assert_int_equal(m->n_top, a[0].n_top);
            for (int i = 0; i < m->n_top; i++)
                assert_int_equal(m->top[i].token, a[0].top[i].token);
            assert_true(m->wanted_logit[0] == logits[3] && m->wanted_logit[1] == logits[900]);
            assert_true(fabsf(fr_answer_logprob(m, logits[3]) - fr_answer_logprob(&a[0], logits[3])) < 1e-5f);
            free(m);
        }
    }
    free(a);
}

/* As a rank has them that holds none of the rough head's tokens. */
static void empty_slices_merge_to_nothing(void **state)
{
    (void)state;
    const float logits[3] = {1, 3, 2};
    const fr_row_query q = {.n_top = 2};
    fr_row_answer *a = calloc(4, sizeof *a), *m = &a[3];
    assert_non_null(a);
    fr_row_query_answer(NULL, 0, 0, NULL, &q, &a[0]);
    fr_row_query_answer(NULL, 0, 3, NULL, &q, &a[1]);
    fr_row_query_answer(logits, 3, 7, NULL, &q, &a[2]);
    fr_answer_merge(a, 2, &q, m);
    assert_true(m->winner == -1 && m->n_top == 0 && m->sum_exp == 0);
    fr_answer_merge(a, 3, &q, m);
    assert_true(m->winner == 8 && m->n_top == 2 && m->sum_exp == a[2].sum_exp);
    free(a);
}

/* Over many positions the samples of three tokens appear as often as their probabilities say. */
static void samples_follow_the_softmax(void **state)
{
    (void)state;
    const float logits[3] = {0, logf(2), logf(5)};
    const double want[3] = {1 / 8.0, 2 / 8.0, 5 / 8.0};
    const fr_sampling p = {.temperature = 1, .top_p = 1, .seed = 42};
    enum { N = 20000 };
    int count[3] = {0};
    fr_row_answer *a = malloc(sizeof *a);
    assert_non_null(a);
    for (uint32_t pos = 0; pos < N; pos++) {
        fr_row_query q;
        fr_sampling_query(&p, pos, 3, &q);
        fr_row_query_answer(logits, 3, 0, NULL, &q, a);
        count[fr_sample(&p, pos, a)]++;
    }
    free(a);
    double chi2 = 0;
    for (int i = 0; i < 3; i++)
        chi2 += (count[i] - N * want[i]) * (count[i] - N * want[i]) / (N * want[i]);
    assert_true(chi2 < 13.8); /* 0.1% of a chi-squared with 2 degrees; the seed is fixed, so this is no lottery */
}

static void a_nucleus_drops_the_unlikely(void **state)
{
    (void)state;
    const float logits[4] = {0, logf(10), logf(100), logf(1000)};
    const fr_sampling p = {.temperature = 1, .top_p = 0.95f, .seed = 1};
    fr_row_answer *a = malloc(sizeof *a);
    assert_non_null(a);
    int low = 0;
    for (uint32_t pos = 0; pos < 3000; pos++) {
        fr_row_query q;
        fr_sampling_query(&p, pos, 4, &q);
        fr_row_query_answer(logits, 4, 0, NULL, &q, a);
        low += fr_sample(&p, pos, a) < 2;
    }
    free(a);
    assert_int_equal(low, 0); /* 1000/1111 < 0.95 <= 1100/1111: two tokens stay */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_merge_to_the_whole),
        cmocka_unit_test(empty_slices_merge_to_nothing),
        cmocka_unit_test(samples_follow_the_softmax),
        cmocka_unit_test(a_nucleus_drops_the_unlikely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
