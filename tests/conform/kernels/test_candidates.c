/* test_candidates.c: the answers about rows of logits equal the plain definition to the bit, and
 * answers about slices merge to the answer about the whole. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "suite.h"

static void assert_answers_equal(const fr_row_answer *a, const fr_row_answer *b,
                                 const fr_row_query *q)
{
    assert_memory_equal(&a->max, &b->max, sizeof a->max);
    assert_memory_equal(&a->sum_exp, &b->sum_exp, sizeof a->sum_exp);
    assert_int_equal(a->winner, b->winner);
    assert_memory_equal(&a->winner_value, &b->winner_value, sizeof a->winner_value);
    assert_memory_equal(&a->winner_logit, &b->winner_logit, sizeof a->winner_logit);
    assert_int_equal(a->n_top, b->n_top);
    for (int i = 0; i < a->n_top; i++) {
        assert_int_equal(a->top[i].token, b->top[i].token);
        assert_true(a->top[i].logit == b->top[i].logit);
    }
    assert_memory_equal(a->wanted_logit, b->wanted_logit,
                        (size_t)q->n_wanted * sizeof a->wanted_logit[0]);
}

/* Rows of several kinds: flat, peaked, full of ties, mostly absent. */
static void fill_row(suite_random *r, float *logits, int vocab, int kind)
{
    for (int i = 0; i < vocab; i++) {
        float x = suite_normal(r);
        logits[i] = kind == 0   ? x
                    : kind == 1 ? x * 5 + (suite_next(r) % 1000 == 0 ? 15.0f : 0)
                    : kind == 2 ? (float)(suite_next(r) % 3)
                                : (suite_next(r) % 4 ? -INFINITY : x * 100);
    }
    if (kind == 3 && vocab > 3)
        logits[vocab / 2] = NAN;
}

/* The token of a column, by the words of ops.h. */
static int32_t token_at(int32_t first_token, const int32_t *tokens, int column)
{
    return tokens ? tokens[column] : first_token + column;
}

static fr_row_query query(suite_random *r, int row, int vocab, int32_t first_token,
                          const int32_t *tokens)
{
    /* 1e-39: every positive logit becomes infinite, and the lowest id must win. */
    const float temperatures[] = {0, 0.7f, 1.0f, 0.05f, 3.0f, 1e-4f, 1e-39f};
    const int tops[] = {0, 1, 40, FR_TOP_MAX};
    fr_row_query q = {.temperature = temperatures[row % 7],
                      .seed = (uint64_t)suite_next(r) << 32 | suite_next(r),
                      .sample = suite_next(r) % 4,
                      .position = suite_next(r) % 5000,
                      .n_top = tops[row % 4],
                      .n_wanted = 3,
                      .wanted = {token_at(first_token, tokens, 0),
                                 token_at(first_token, tokens, vocab - 1),
                                 token_at(first_token, tokens, vocab / 2) + 1}};
    q.n_vocab = row % 5 == 4 ? token_at(first_token, tokens, vocab - vocab / 3 - 1) + 1 : 0;
    return q;
}

/* Ascending, with gaps of all small sizes, none included. */
static int32_t *list_tokens(suite_random *r, int n)
{
    int32_t *tokens = suite_alloc((size_t)n * sizeof *tokens), next = (int32_t)(suite_next(r) % 50);
    for (int i = 0; i < n; i++) {
        tokens[i] = next;
        next += 1 + (int32_t)(suite_next(r) % 3 ? 0 : suite_next(r) % 9);
    }
    return tokens;
}

static void check_rows(suite_random *r, fr_device *dev, int n, int vocab, int32_t first_token,
                       const int32_t *tokens)
{
    float *logits = suite_alloc((size_t)n * (size_t)vocab * sizeof *logits);
    fr_row_query *queries = suite_alloc((size_t)n * sizeof *queries);
    fr_row_answer *want = suite_alloc(sizeof *want);
    for (int i = 0; i < n; i++) {
        fill_row(r, logits + (int64_t)i * vocab, vocab, (i + i / 7) % 4);
        queries[i] = query(r, i, vocab, first_token, tokens);
    }
    const size_t each = fr_answer_bytes(queries, n);
    uint8_t *answers = suite_alloc((size_t)n * each);
    assert_int_equal(suite_ops->candidates(dev, logits, n, vocab, first_token, tokens, queries, answers, each), FR_OK);
    for (int i = 0; i < n; i++) {
        fr_row_query_answer(logits + (int64_t)i * vocab, vocab, first_token, tokens, &queries[i],
                            want);
        assert_answers_equal(fr_answer_at(answers, each, i), want, &queries[i]);
    }
    free(want);
    free(answers);
    free(queries);
    free(logits);
}

static void test_equal_the_definition(void **state)
{
    (void)state;
    const int vocabs[] = {1, 2, 15, 16, 17, 1000, 1024, 1025, 3000};
    suite_random r = {10};
    for (int threads = 1; threads <= 3; threads++) {
        fr_device *dev = suite_open(suite_ops, threads);
        for (size_t i = 0; i < sizeof vocabs / sizeof vocabs[0]; i++)
            check_rows(&r, dev, 24, vocabs[i], (int32_t)i * 1000, NULL);
        check_rows(&r, dev, 70, 300, 7, NULL);
        for (size_t i = 0; i < sizeof vocabs / sizeof vocabs[0]; i++) {
            int32_t *tokens = list_tokens(&r, vocabs[i]);
            check_rows(&r, dev, 24, vocabs[i], 0, tokens);
            free(tokens);
        }
        suite_ops->close(&dev);
    }
}

static void test_large_vocabulary(void **state)
{
    (void)state;
    suite_random r = {11};
    fr_device *dev = suite_open(suite_ops, 2);
    check_rows(&r, dev, 12, 49152, 0, NULL);
    check_rows(&r, dev, 2, 152064, 0, NULL);
    suite_ops->close(&dev);
}

/* The definition itself, against sums in f64 and the sampling distribution. */
static void test_definition(void **state)
{
    (void)state;
    enum { VOCAB = 2500 };
    suite_random r = {12};
    float logits[VOCAB];
    fill_row(&r, logits, VOCAB, 1);
    fr_row_query q = {
        .temperature = 0, .n_top = 10, .n_wanted = 2, .wanted = {600, 99}, .n_vocab = 100 + VOCAB};
    fr_row_answer a = {0};
    fr_row_query_answer(logits, VOCAB, 100, NULL, &q, &a);
    double sum = 0;
    for (int i = 0; i < VOCAB; i++)
        sum += exp((double)logits[i] - (double)a.max);
    assert_true(fabs(a.sum_exp / sum - 1) < 1e-6);
    assert_int_equal(a.winner, a.top[0].token);
    assert_true(a.max == a.top[0].logit && logits[a.winner - 100] == a.max);
    for (int i = 1; i < a.n_top; i++)
        assert_true(a.top[i].logit <= a.top[i - 1].logit);
    assert_true(a.wanted_logit[0] == logits[500] && a.wanted_logit[1] == -INFINITY);

    const float three[] = {0, 1, 2}; /* probabilities at temperature 2: 0.186, 0.307, 0.506 */
    int wins[3] = {0};
    q = (fr_row_query){.temperature = 2, .seed = 5};
    for (q.position = 0; q.position < 20000; q.position++) {
        fr_row_query_answer(three, 3, 0, NULL, &q, &a);
        wins[a.winner]++;
    }
    assert_true(abs(wins[0] - 3726) < 200 && abs(wins[1] - 6142) < 250 &&
                abs(wins[2] - 10130) < 270);
}

/* Rows of few candidates each, and of many: answers as far apart as they need to be. */
static void test_apart(void **state)
{
    (void)state;
    enum { ROWS = 3, VOCAB = 700 };
    const int tops[] = {0, 4, 5, FR_TOP_MAX};
    suite_random r = {16};
    fr_device *dev = suite_open(suite_ops, 2);
    float logits[ROWS * VOCAB];
    for (int row = 0; row < ROWS; row++)
        fill_row(&r, logits + row * VOCAB, VOCAB, row);
    for (int i = 0; i < 4; i++) {
        fr_row_query queries[ROWS];
        for (int row = 0; row < ROWS; row++)
            queries[row] = (fr_row_query){.temperature = 1, .seed = 3, .n_top = row == 1 ? tops[i] : 0};
        const size_t each = fr_answer_bytes(queries, ROWS);
        uint8_t *answers = suite_alloc(ROWS * each);
        assert_true(each >= offsetof(fr_row_answer, top) + (size_t)tops[i] * sizeof(fr_candidate));
        assert_int_equal(suite_ops->candidates(dev, logits, ROWS, VOCAB, 0, NULL, queries, answers, each), FR_OK);
        for (int row = 0; row < ROWS; row++) {
            fr_row_answer want = {0};
            fr_row_query_answer(logits + row * VOCAB, VOCAB, 0, NULL, &queries[row], &want);
            assert_answers_equal(fr_answer_at(answers, each, row), &want, &queries[row]);
        }
        free(answers);
    }
    suite_ops->close(&dev);
}

/* No logit at all: an empty slice, all padding, or nothing above -INFINITY. */
static void test_nothing_to_win(void **state)
{
    (void)state;
    fr_device *dev = suite_open(suite_ops, 1);
    const float absent[20] = {-INFINITY, -INFINITY, NAN}, *none = absent;
    fr_row_answer a = {0};
    fr_row_query q = {.temperature = 1, .n_top = 2, .n_vocab = 50};
    assert_int_equal(suite_ops->candidates(dev, none, 1, 20, 60, NULL, &q, &a, sizeof a), FR_OK);
    assert_int_equal(a.winner, -1);
    assert_int_equal(a.n_top, 0);
    assert_true(a.sum_exp == 0 && a.max == -INFINITY);
    const float some[20] = {1, 2, 3}; /* no column, after a call that had some */
    assert_int_equal(suite_ops->candidates(dev, some, 1, 20, 10, NULL, &q, &a, sizeof a), FR_OK);
    assert_int_equal(a.n_top, 2);
    assert_int_equal(suite_ops->candidates(dev, none, 1, 0, 0, NULL, &q, &a, sizeof a), FR_OK);
    assert_int_equal(a.winner, -1);
    assert_int_equal(a.n_top, 0);
    assert_true(a.sum_exp == 0 && a.max == -INFINITY && a.winner_value == -INFINITY);
    assert_int_equal(suite_ops->candidates(dev, none, 1, 3, 10, NULL, &q, &a, sizeof a), FR_OK);
    assert_int_equal(a.winner, 10);
    assert_true(a.sum_exp == 0 && a.winner_value == -INFINITY);
    const int32_t listed[3] = {41, 49, 50}, padding[3] = {50, 51, 60};
    assert_int_equal(suite_ops->candidates(dev, none, 1, 3, 10, listed, &q, &a, sizeof a), FR_OK);
    assert_int_equal(a.winner, 41);
    assert_int_equal(suite_ops->candidates(dev, none, 1, 3, 10, padding, &q, &a, sizeof a), FR_OK);
    assert_int_equal(a.winner, -1);
    suite_ops->close(&dev);
}

/* Every logit becomes -INFINITY, or none a number: nothing is above -INFINITY, so nothing wins. */
static void test_too_cold(void **state)
{
    (void)state;
    enum { VOCAB = 1500 };
    const float temperatures[] = {1e-39f, NAN};
    suite_random r = {15};
    fr_device *dev = suite_open(suite_ops, 2);
    float logits[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        logits[i] = -1 - fabsf(suite_normal(&r));
    for (int i = 0; i < 2; i++) {
        fr_row_query q = {.temperature = temperatures[i], .seed = 3, .n_top = 5};
        fr_row_answer got = {0}, want = {0};
        assert_int_equal(suite_ops->candidates(dev, logits, 1, VOCAB, 7, NULL, &q, &got, sizeof got), FR_OK);
        fr_row_query_answer(logits, VOCAB, 7, NULL, &q, &want);
        assert_answers_equal(&got, &want, &q);
    }
    suite_ops->close(&dev);
}

static void test_slices_merge(void **state)
{
    (void)state;
    enum { VOCAB = 5000, ROUNDS = 40 };
    suite_random r = {13};
    fr_device *dev = suite_open(suite_ops, 2);
    float *logits = suite_alloc(VOCAB * sizeof *logits);
    for (int round = 0; round < ROUNDS; round++) {
        fill_row(&r, logits, VOCAB, round % 3);
        fr_row_query q = query(&r, round, VOCAB, 0, NULL);
        q.n_vocab = 0;
        fr_row_answer whole = {0}, part = {0};
        assert_int_equal(suite_ops->candidates(dev, logits, 1, VOCAB, 0, NULL, &q, &whole, sizeof whole), FR_OK);
        int at = 0, winner = -1;
        float best = -INFINITY;
        double sum = 0;
        while (at < VOCAB) {
            int n = 1 + (int)(suite_next(&r) % 3000);
            n = n < VOCAB - at ? n : VOCAB - at;
            assert_int_equal(suite_ops->candidates(dev, logits + at, 1, n, at, NULL, &q, &part, sizeof part),
                             FR_OK);
            if (part.winner_value > best) {
                best = part.winner_value;
                winner = part.winner;
            }
            sum += part.sum_exp * exp((double)part.max - (double)whole.max);
            at += n;
        }
        assert_int_equal(winner, whole.winner);
        assert_true(best == whole.winner_value);
        assert_true(fabs(sum / whole.sum_exp - 1) < 1e-5);
    }
    free(logits);
    suite_ops->close(&dev);
}

/* A list answers as the whole row does in which nothing else is possible: the noise is each token's
 * own, so a draft of few columns stays coupled to a target of all. */
static void test_list_is_the_rest_absent(void **state)
{
    (void)state;
    enum { LISTED = 2100, ROUNDS = 40 };
    suite_random r = {14};
    fr_device *dev = suite_open(suite_ops, 2);
    float *listed = suite_alloc(LISTED * sizeof *listed);
    for (int round = 0; round < ROUNDS; round++) {
        int32_t *tokens = list_tokens(&r, LISTED), vocab = tokens[LISTED - 1] + 1;
        float *all = suite_alloc((size_t)vocab * sizeof *all);
        fr_row_answer a = {0}, b = {0};
        fr_row_query q = query(&r, round, LISTED, 0, tokens);
        fill_row(&r, listed, LISTED, round % 3);
        for (int i = 0; i < vocab; i++)
            all[i] = -INFINITY;
        for (int i = 0; i < LISTED; i++)
            all[tokens[i]] = listed[i];
        assert_int_equal(suite_ops->candidates(dev, listed, 1, LISTED, 0, tokens, &q, &a, sizeof a), FR_OK);
        assert_int_equal(suite_ops->candidates(dev, all, 1, vocab, 0, NULL, &q, &b, sizeof b), FR_OK);
        assert_true(fabs(a.sum_exp / b.sum_exp - 1) < 1e-5);
        b.sum_exp = a.sum_exp; /* added up in another order */
        assert_answers_equal(&a, &b, &q);
        free(all);
        free(tokens);
    }
    free(listed);
    suite_ops->close(&dev);
}

int suite_run_candidates(void)
{
    const struct CMUnitTest candidates_tests[] = {
        cmocka_unit_test(test_definition),       cmocka_unit_test(test_equal_the_definition),
        cmocka_unit_test(test_large_vocabulary), cmocka_unit_test(test_nothing_to_win),
        cmocka_unit_test(test_apart),            cmocka_unit_test(test_too_cold),
        cmocka_unit_test(test_slices_merge),     cmocka_unit_test(test_list_is_the_rest_absent),
    };
    return cmocka_run_group_tests(candidates_tests, NULL, NULL);
}
