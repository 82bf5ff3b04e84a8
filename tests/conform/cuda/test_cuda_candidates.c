/* test_cuda_candidates.c: the launcher of candidates_cuda.h answers as the plain definition does:
 * every byte of an answer is compared, those too that neither may write. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "candidates_cuda.h"
#include "suite.h"

static void *device_copy(const void *host, size_t bytes)
{
    void *copy = NULL;
    assert_int_equal(cudaMalloc(&copy, bytes > 0 ? bytes : 1), cudaSuccess);
    if (bytes > 0)
        assert_int_equal(cudaMemcpy(copy, host, bytes, cudaMemcpyHostToDevice), cudaSuccess);
    return copy;
}

/* Answers about n rows by the GPU; bytes it leaves alone are 0xA5. */
static void answer(const float *logits, int n, int vocab, int32_t first_token,
                   const int32_t *tokens, const fr_row_query *queries, fr_row_answer *answers)
{
    const size_t answer_bytes = (size_t)n * sizeof *answers,
                 scratch_bytes = fr_cuda_candidates_scratch_bytes(n, vocab);
    void *scratch = suite_alloc(scratch_bytes);
    memset(scratch, 0x5A, scratch_bytes);
    memset(answers, 0xA5, answer_bytes);
    float *logits_copy = device_copy(logits, (size_t)n * (size_t)vocab * sizeof *logits);
    int32_t *tokens_copy = tokens ? device_copy(tokens, (size_t)vocab * sizeof *tokens) : NULL;
    fr_row_query *queries_copy = device_copy(queries, (size_t)n * sizeof *queries);
    fr_cuda_candidates_args args = {.logits = logits_copy,
                                    .tokens = tokens_copy,
                                    .queries = queries_copy,
                                    .answers = device_copy(answers, answer_bytes),
                                    .answer_bytes = sizeof *answers,
                                    .scratch = device_copy(scratch, scratch_bytes),
                                    .n = n,
                                    .vocab = vocab,
                                    .first_token = first_token};
    for (int run = 0; run < 2; run++) /* the second finds what the first left in the scratch */
        fr_cuda_candidates(NULL, &args);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaMemcpy(answers, args.answers, answer_bytes, cudaMemcpyDeviceToHost),
                     cudaSuccess);
    cudaFree(args.scratch);
    cudaFree(args.answers);
    cudaFree(queries_copy);
    cudaFree(tokens_copy);
    cudaFree(logits_copy);
    free(scratch);
}

static void assert_answer(const fr_row_answer *a, const fr_row_answer *want)
{
    assert_memory_equal(&a->max, &want->max, sizeof a->max);
    assert_memory_equal(&a->sum_exp, &want->sum_exp, sizeof a->sum_exp);
    assert_int_equal(a->winner, want->winner);
    assert_memory_equal(&a->winner_value, &want->winner_value, sizeof a->winner_value);
    assert_memory_equal(&a->winner_logit, &want->winner_logit, sizeof a->winner_logit);
    assert_int_equal(a->n_top, want->n_top);
    assert_memory_equal(a, want, sizeof *a);
}

static void check(const float *logits, int n, int vocab, int32_t first_token, const int32_t *tokens,
                  const fr_row_query *queries)
{
    fr_row_answer *answers = suite_alloc((size_t)n * sizeof *answers),
                  *want = suite_alloc(sizeof *want);
    answer(logits, n, vocab, first_token, tokens, queries, answers);
    for (int i = 0; i < n; i++) {
        memset(want, 0xA5, sizeof *want);
        fr_row_query_answer(logits + (int64_t)i * vocab, vocab, first_token, tokens, &queries[i],
                            want);
        assert_answer(&answers[i], want);
    }
    free(want);
    free(answers);
}

typedef enum row_kind {
    FLAT,        /* about normal */
    PEAKED,      /* and few that stand out */
    FEW_VALUES,  /* 0, 1 and 2 */
    MOST_ABSENT, /* -INFINITY, some NaN */
    EQUAL,
    ASCENDING, /* each further column enters `top` */
    DESCENDING,
    ZEROS, /* of both signs */
    UNDEFINED,
    INFINITE, /* some +INFINITY */
    ROW_KINDS
} row_kind;

static float logit_of(suite_random *r, row_kind kind, int column)
{
    float x = suite_normal(r);
    uint32_t dice = suite_next(r);
    switch (kind) {
    case FLAT:
        return x;
    case PEAKED:
        return x * 5 + (dice % 1000 == 0 ? 15.0f : 0);
    case FEW_VALUES:
        return (float)(dice % 3);
    case MOST_ABSENT:
        return dice % 4 ? -INFINITY : dice % 16 == 0 ? NAN : x * 100;
    case EQUAL:
        return -2.5f;
    case ASCENDING:
        return (float)column / 64 - 100;
    case DESCENDING:
        return (float)-column / 64;
    case ZEROS:
        return dice % 2 ? 0.0f : -0.0f;
    case UNDEFINED:
        return dice % 2 ? NAN : -NAN;
    default:
        return dice % 100 ? x : INFINITY;
    }
}

static float *make_rows(suite_random *r, int n, int vocab)
{
    float *logits = suite_alloc((size_t)n * (size_t)vocab * sizeof *logits);
    for (int row = 0; row < n; row++)
        for (int i = 0; i < vocab; i++)
            logits[(int64_t)row * vocab + i] = logit_of(r, (row_kind)(row % ROW_KINDS), i);
    return logits;
}

static int32_t token_at(int32_t first_token, const int32_t *tokens, int column)
{
    return tokens ? tokens[column] : first_token + column;
}

static fr_row_query make_query(suite_random *r, int row, int vocab, int32_t first_token,
                               const int32_t *tokens)
{
    /* 1e-39: every positive logit becomes infinite, and the lowest id must win. */
    const float temperatures[] = {0, 0.7f, 1.0f, 0.05f, 3.0f, 1e-4f, 1e-39f, -1.0f, 1e30f, NAN};
    const int tops[] = {0, 1, 20, 50, FR_TOP_MAX, FR_TOP_MAX + 9, -3};
    fr_row_query q = {.temperature = temperatures[suite_next(r) % 10],
                      .seed = (uint64_t)suite_next(r) << 32 | suite_next(r),
                      .sample = suite_next(r) % 4,
                      .position = suite_next(r) % 5000,
                      .n_top = tops[suite_next(r) % 7],
                      .n_wanted = FR_WANTED_MAX,
                      .n_vocab = 0};
    for (int i = 0; i < FR_WANTED_MAX; i++)
        q.wanted[i] = token_at(first_token, tokens, (int)(suite_next(r) % (uint32_t)vocab)) + i / 8;
    q.wanted[0] = token_at(first_token, tokens, 0) - 1;
    q.wanted[1] = token_at(first_token, tokens, 0);
    q.wanted[2] = token_at(first_token, tokens, vocab - 1);
    q.wanted[3] = token_at(first_token, tokens, vocab - 1) + 1;
    if (row % 5 == 4)
        q.n_vocab = token_at(first_token, tokens, vocab - vocab / 3 - 1) + 1;
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

static void check_random(suite_random *r, int n, int vocab, int32_t first_token,
                         const int32_t *tokens)
{
    float *logits = make_rows(r, n, vocab);
    fr_row_query *queries = suite_alloc((size_t)n * sizeof *queries);
    for (int i = 0; i < n; i++)
        queries[i] = make_query(r, i, vocab, first_token, tokens);
    check(logits, n, vocab, first_token, tokens, queries);
    free(queries);
    free(logits);
}

static void test_every_kind_of_row(void **state)
{
    (void)state;
    const int vocabs[] = {1, 2, 15, 16, 17, 32, 33, 255, 1000, 1023, 1024, 1025, 3000, 9000};
    suite_random r = {20};
    for (size_t i = 0; i < sizeof vocabs / sizeof vocabs[0]; i++) {
        check_random(&r, 2 * ROW_KINDS, vocabs[i], (int32_t)i * 1000, NULL);
        int32_t *tokens = list_tokens(&r, vocabs[i]);
        check_random(&r, ROW_KINDS, vocabs[i], 0, tokens);
        free(tokens);
    }
    check_random(&r, 70, 300, 7, NULL);
}

static void test_large_vocabulary(void **state)
{
    (void)state;
    suite_random r = {21};
    check_random(&r, ROW_KINDS, 49152, 0, NULL);
    check_random(&r, 3, 152064, 0, NULL);
    check_random(&r, 1, (1 << 20) + 3000, 0, NULL); /* more chunks than threads that add up what they gave */
}

/* The first of equal columns wins, in whichever chunks, groups and threads they lie; the same for
 * `top`. */
static void test_ties(void **state)
{
    (void)state;
    enum { VOCAB = 5000 };
    const int columns[] = {0, 1, 31, 32, 255, 256, 1023, 1024, 2047, 3333, 4096, 4999};
    const int n = sizeof columns / sizeof columns[0];
    static float logits[2 * VOCAB];
    for (int first = 0; first < n; first++)
        for (int second = first + 1; second < n; second++) {
            fr_row_query queries[2] = {{.n_top = 3}, {.temperature = 1e-39f, .n_top = 1}};
            for (int i = 0; i < VOCAB; i++)
                logits[i] = -(float)(i % 7) - 1;
            logits[columns[first]] = logits[columns[second]] = 4;
            memcpy(logits + VOCAB, logits, VOCAB * sizeof *logits);
            check(logits, 2, VOCAB, 100, NULL, queries);
        }
}

/* How many columns stand above the rest decides whether the list of a row has room. */
static void test_full_list(void **state)
{
    (void)state;
    enum { VOCAB = 20000 };
    suite_random r = {22};
    float *logits = suite_alloc(VOCAB * sizeof *logits);
    const int tops[] = {1, 50, FR_TOP_MAX}, above[] = {0, 255, 256, 1023, 1024, 1025, 2048, 3000};
    for (size_t k = 0; k < sizeof above / sizeof above[0]; k++)
        for (size_t t = 0; t < sizeof tops / sizeof tops[0]; t++) {
            const int start = (int)(suite_next(&r) % (VOCAB - 3000));
            for (int i = 0; i < VOCAB; i++)
                logits[i] = i >= start && i < start + above[k] ? 7 : suite_normal(&r);
            fr_row_query q = {.temperature = 0.5f, .seed = k, .n_top = tops[t]};
            check(logits, 1, VOCAB, 0, NULL, &q);
        }
    free(logits);
}

/* No logit at all: an empty slice, all padding, or nothing above -INFINITY. */
static void test_nothing_to_win(void **state)
{
    (void)state;
    const float absent[20] = {-INFINITY, -INFINITY, NAN};
    const int32_t listed[3] = {41, 49, 50}, padding[3] = {50, 51, 60};
    for (int greedy = 0; greedy < 2; greedy++) {
        fr_row_query q = {.temperature = greedy ? 0 : 1,
                          .n_top = 2,
                          .n_wanted = 1,
                          .wanted = {50},
                          .n_vocab = 50};
        fr_row_answer a;
        check(absent, 1, 20, 60, NULL, &q);
        check(absent, 1, 3, 10, NULL, &q);
        check(absent, 1, 3, 10, listed, &q);
        check(absent, 1, 3, 10, padding, &q);
        check(absent, 1, 0, 10, NULL, &q);
        answer(absent, 1, 3, 10, padding, &q, &a);
        assert_int_equal(a.winner, -1);
        answer(absent, 1, 3, 10, listed, &q, &a);
        assert_int_equal(a.winner, 41);
        assert_true(a.sum_exp == 0 && a.winner_value == -INFINITY);
    }
}

/* Noise decides near ties, so a wrong bound shows: many seeds, rows close together and far apart. */
static void test_sampling(void **state)
{
    (void)state;
    enum { ROWS = 64, VOCAB = 2100 };
    suite_random r = {23};
    float *logits = suite_alloc(ROWS * VOCAB * sizeof *logits);
    fr_row_query queries[ROWS];
    for (int row = 0; row < ROWS; row++) {
        const float spread = ldexpf(1, row % 8 - 4);
        for (int i = 0; i < VOCAB; i++)
            logits[row * VOCAB + i] = suite_normal(&r) * spread;
        queries[row] = (fr_row_query){.temperature = 1, .seed = (uint64_t)row, .position = 9};
    }
    check(logits, ROWS, VOCAB, 0, NULL, queries);
    free(logits);
}

int main(void)
{
    const struct CMUnitTest candidates_tests[] = {
        cmocka_unit_test(test_every_kind_of_row),
        cmocka_unit_test(test_large_vocabulary),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_full_list),
        cmocka_unit_test(test_nothing_to_win),
        cmocka_unit_test(test_sampling),
    };
    return cmocka_run_group_tests(candidates_tests, NULL, NULL);
}
