/* test_session.c: the engine's door on the embedded pair, one rank, over every backend of this machine. What strict
 * speculation rests on: a row's answer is the same bits by prefill, by decode, beside other sequences, after a fork or
 * a cut, and in a branch. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model.h"
#include "ops.h"
#include "sampler.h"
#include "session.h"

#define TARGET FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-target.gguf"
#define PROMPT "<|im_start|>user\nStart with 47. (1) Add 385. (2) Take away 96.<|im_end|>\n<|im_start|>assistant\n"

static fr_comm *comm;
static const char *backend;

static fr_session *open_with(const fr_session_options *o)
{
    fr_session *s = NULL;
    if (fr_session_open(TARGET, comm, o, &s) != FR_OK)
        fail_msg("%s", fr_cause());
    return s;
}

static fr_session *open_drafting(int draft_vocab, int max_rows, int64_t kv_positions)
{
    return open_with(&(fr_session_options){.backend = backend, .threads = 2, .max_rows = max_rows, .max_context = 512,
                                           .kv_positions = kv_positions, .draft_vocab = draft_vocab});
}

static fr_session *open_session(int max_rows, int64_t kv_positions)
{
    return open_drafting(0, max_rows, kv_positions);
}

static fr_row_query question(void)
{
    fr_row_query q = {.n_top = 8, .n_wanted = 2, .wanted = {11, 42}};
    return q;
}

static void assert_same(const fr_row_answer *a, const fr_row_answer *b)
{
    assert_int_equal(a->winner, b->winner);
    assert_memory_equal(&a->max, &b->max, sizeof a->max);
    assert_memory_equal(&a->sum_exp, &b->sum_exp, sizeof a->sum_exp);
    assert_memory_equal(a->wanted_logit, b->wanted_logit, 2 * sizeof(float));
    assert_int_equal(a->n_top, b->n_top);
    for (int i = 0; i < a->n_top; i++) {
        assert_int_equal(a->top[i].token, b->top[i].token);
        assert_memory_equal(&a->top[i].logit, &b->top[i].logit, sizeof(float));
    }
}

static void ok(fr_status st)
{
    if (st != FR_OK)
        fail_msg("%s", fr_cause());
}

static void prompt_ids(const fr_session *s, fr_ids *ids)
{
    ok(fr_tokenize(fr_session_tokenizer(s), PROMPT, strlen(PROMPT), 1, ids));
}

/* Answers about every position, the tokens given in chunks of `chunk` rows. */
static fr_row_answer *by_chunks(fr_session *s, int seq, const fr_ids *ids, int chunk)
{
    fr_row_answer *out = calloc(ids->len, sizeof *out);
    assert_non_null(out);
    const fr_row_query q = question();
    for (int at = 0; at < (int)ids->len; at += chunk) {
        int n = (int)ids->len - at < chunk ? (int)ids->len - at : chunk, row = 0, a = 0;
        fr_pass_begin(s);
        ok(fr_pass_append(s, seq, ids->data + at, n, &row));
        for (int i = 0; i < n; i++)
            ok(fr_pass_ask(s, row + i, &q, &a));
        ok(fr_pass_run(s));
        for (int i = 0; i < n; i++)
            out[at + i] = *fr_pass_answer(s, i);
    }
    return out;
}

static void chunks_do_not_matter(void **state)
{
    (void)state;
    fr_session *s = open_session(128, 1024);
    fr_ids ids = {0};
    prompt_ids(s, &ids);
    int seq = -1;
    ok(fr_seq_new(s, &seq));
    fr_row_answer *whole = by_chunks(s, seq, &ids, 128);
    const int chunks[] = {1, 2, 3, 8, 9, 16, 31};
    for (size_t k = 0; k < sizeof chunks / sizeof *chunks; k++) {
        ok(fr_seq_truncate(s, seq, 0));
        fr_row_answer *parts = by_chunks(s, seq, &ids, chunks[k]);
        for (size_t i = 0; i < ids.len; i++)
            assert_same(&whole[i], &parts[i]);
        free(parts);
    }
    free(whole);
    fr_ids_free(&ids);
    fr_session_close(&s);
}

/* One sequence forked in the middle, its fork and a stranger in one pass: all rows as when alone. */
static void neighbours_and_forks_do_not_matter(void **state)
{
    (void)state;
    fr_session *s = open_session(128, 1024);
    fr_ids ids = {0};
    prompt_ids(s, &ids);
    int seq = -1, fork = -1, other = -1, n = (int)ids.len, half = n / 2 + 1, row = 0, fork_row = 0, a = 0, b = 0;
    ok(fr_seq_new(s, &seq));
    fr_row_answer *whole = by_chunks(s, seq, &ids, 128);
    ok(fr_seq_fork(s, seq, half, &fork));
    ok(fr_seq_truncate(s, seq, half));
    ok(fr_seq_new(s, &other));
    const fr_row_query q = question();
    fr_pass_begin(s);
    ok(fr_pass_append(s, other, ids.data + 3, 11, &row));
    ok(fr_pass_append(s, fork, ids.data + half, n - half, &fork_row));
    ok(fr_pass_append(s, seq, ids.data + half, n - half, &row));
    ok(fr_pass_ask(s, fork_row + n - half - 1, &q, &a));
    ok(fr_pass_ask(s, row + n - half - 1, &q, &b));
    ok(fr_pass_run(s));
    assert_same(fr_pass_answer(s, a), &whole[n - 1]);
    assert_same(fr_pass_answer(s, b), &whole[n - 1]);
    free(whole);
    fr_ids_free(&ids);
    fr_session_close(&s);
}

/* A probe hanging off the middle of a trunk that is still being computed answers as if it followed it alone. */
static void a_branch_is_as_if_alone(void **state)
{
    (void)state;
    fr_session *s = open_session(128, 1024);
    fr_ids ids = {0};
    prompt_ids(s, &ids);
    int seq = -1, n = (int)ids.len, row = 0, probe = 0, a = 0, free_before = 0;
    ok(fr_seq_new(s, &seq));
    fr_row_answer *whole = by_chunks(s, seq, &ids, 128);
    free_before = (int)fr_session_kv_free(s);
    const int offs[] = {0, 1, 5, 16, 17, n - 20};
    const fr_row_query q = question();
    for (size_t k = 0; k < sizeof offs / sizeof *offs; k++) {
        ok(fr_seq_truncate(s, seq, 0));
        fr_pass_begin(s);
        ok(fr_pass_append(s, seq, ids.data, n - 4, &row));
        ok(fr_pass_branch(s, seq, offs[k], ids.data + offs[k], n - offs[k], &probe));
        ok(fr_pass_ask(s, probe + n - offs[k] - 1, &q, &a));
        ok(fr_pass_run(s));
        assert_same(fr_pass_answer(s, a), &whole[n - 1]);
        assert_true((int)fr_session_kv_free(s) >= free_before); /* the branch's pages are back */
    }
    free(whole);
    fr_ids_free(&ids);
    fr_session_close(&s);
}

static void an_abandoned_pass_leaves_no_trace(void **state)
{
    (void)state;
    fr_session *s = open_session(64, 512);
    fr_ids ids = {0};
    prompt_ids(s, &ids);
    int seq = -1, row = 0;
    ok(fr_seq_new(s, &seq));
    fr_pass_begin(s);
    ok(fr_pass_append(s, seq, ids.data, 20, &row));
    assert_int_equal(fr_seq_len(s, seq), 20);
    fr_pass_begin(s);
    assert_int_equal(fr_seq_len(s, seq), 0);
    fr_row_answer *a = by_chunks(s, seq, &ids, 64);
    free(a);
    fr_ids_free(&ids);
    fr_session_close(&s);
}

static int holds(const fr_ids *ids, int32_t id)
{
    for (size_t i = 0; i < ids->len; i++)
        if (ids->data[i] == id)
            return 1;
    return 0;
}

/* What the rough head says is what the whole one says about the tokens it has. */
static void assert_rough(const fr_row_answer *rough, const fr_row_answer *whole, const fr_ids *tokens)
{
    int n = 0;
    for (int i = 0; i < whole->n_top; i++) {
        if (!holds(tokens, whole->top[i].token))
            continue;
        assert_int_equal(rough->top[n].token, whole->top[i].token);
        assert_memory_equal(&rough->top[n].logit, &whole->top[i].logit, sizeof(float));
        n++;
    }
    assert_true(n > 0 && n < whole->n_top);
    assert_int_equal(rough->winner, rough->top[0].token);
    assert_memory_equal(&rough->max, &rough->top[0].logit, sizeof(float));
    for (int i = 0; i < rough->n_top; i++)
        assert_true(holds(tokens, rough->top[i].token));
}

/* Rough and other questions take turns within one pass, more of each than go through a head at once. The tokens of the
 * text itself are added to the rough head's. */
static void a_rough_head_answers_about_its_tokens(void **state)
{
    (void)state;
    enum { DRAFT_VOCAB = 300 };
    fr_session *s = open_drafting(DRAFT_VOCAB, 512, 1024);
    fr_ids ids = {0}, tokens = {0};
    int seq = -1, row = 0, a = 0, outside = 0;
    ok(fr_draft_vocab_read(TARGET, fr_session_tokenizer(s), DRAFT_VOCAB, &tokens));
    assert_int_equal(fr_session_info_of(s)->draft_vocab, tokens.len);
    while (ids.len < 80)
        prompt_ids(s, &ids);
    const int n = (int)ids.len;
    int n_added = 0;
    for (int i = 0; i < n; i++) {
        n_added += !holds(&tokens, ids.data[i]);
        if (!holds(&tokens, ids.data[i]))
            ok(fr_ids_put(&tokens, &ids.data[i], 1));
    }
    assert_true(n_added > 0);
    while (holds(&tokens, outside))
        outside++;
    fr_row_query q = {.n_top = FR_TOP_MAX, .n_wanted = 2, .wanted = {tokens.data[7], outside}};
    ok(fr_seq_new(s, &seq));
    fr_pass_begin(s);
    ok(fr_pass_append(s, seq, ids.data, n, &row));
    for (int i = 0; i < n; i++) {
        ok(fr_pass_ask_rough(s, row + i, &q, &a));
        assert_int_equal(a, 2 * i);
        ok(fr_pass_ask(s, row + i, &q, &a));
    }
    ok(fr_pass_run(s));
    for (int i = 0; i < n; i++) {
        const fr_row_answer *rough = fr_pass_answer(s, 2 * i), *whole = fr_pass_answer(s, 2 * i + 1);
        assert_rough(rough, whole, &tokens);
        assert_memory_equal(&rough->wanted_logit[0], &whole->wanted_logit[0], sizeof(float));
        assert_true(rough->wanted_logit[1] == -INFINITY && whole->wanted_logit[1] > -INFINITY);
    }
    fr_ids_free(&tokens);
    fr_ids_free(&ids);
    fr_session_close(&s);
}

static void without_a_rough_head_the_whole_one_answers(void **state)
{
    (void)state;
    const int sizes[] = {0, FR_DRAFT_VOCAB_AUTO, 512}; /* the vocabulary is small, and has no more than 512 */
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        fr_session *s = open_drafting(sizes[k], 64, 512);
        fr_ids ids = {0};
        const fr_row_query q = question();
        int seq = -1, row = 0, rough = 0, whole = 0;
        assert_int_equal(fr_session_info_of(s)->draft_vocab, 0);
        prompt_ids(s, &ids);
        ok(fr_seq_new(s, &seq));
        fr_pass_begin(s);
        ok(fr_pass_append(s, seq, ids.data, 20, &row));
        ok(fr_pass_ask_rough(s, row + 19, &q, &rough));
        ok(fr_pass_ask(s, row + 19, &q, &whole));
        ok(fr_pass_run(s));
        assert_same(fr_pass_answer(s, rough), fr_pass_answer(s, whole));
        fr_ids_free(&ids);
        fr_session_close(&s);
    }
}

/* Lists that no tokenizer gives to a model that fits it. */
static void a_rough_head_that_cannot_be_is_refused(void **state)
{
    (void)state;
    const fr_ops *ops = NULL;
    fr_device *dev = NULL;
    fr_model_file *file = NULL;
    fr_model *model = NULL;
    int32_t list[20] = {0};
    for (int i = 0; i < 20; i++)
        list[i] = 2 * i;
    fr_ids ids = {.data = list, .len = 20};
    ok(fr_ops_choose(backend, &ops));
    ok(ops->open(&(fr_device_options){.threads = 1}, &dev));
    ok(fr_model_file_open(TARGET, &file));
    fr_model_load_options how = {.n_ranks = 4, .rough_tokens = &ids};
    assert_int_equal(fr_model_load(file, ops, dev, &how, &model), FR_EINVAL);
    assert_non_null(strstr(fr_cause(), "20 tokens"));
    list[19] = 512;
    how.n_ranks = 1;
    assert_int_equal(fr_model_load(file, ops, dev, &how, &model), FR_EFORMAT);
    assert_non_null(strstr(fr_cause(), "head of 512"));
    assert_null(model);
    fr_model_file_close(&file);
    ops->close(&dev);
}

/* Two answers about a row: finite, and no further apart than quantising puts them. */
static void assert_near(const fr_row_answer *a, const fr_row_answer *b)
{
    const float apart = 3; /* it is 1.9 at most, 0.5 on average */
    const float *x = a->wanted_logit, *y = b->wanted_logit;
    assert_true(isfinite(a->max) && isfinite(a->sum_exp));
    assert_true(fabsf(a->max - b->max) < apart);
    for (int i = 0; i < 2; i++)
        assert_true(isfinite(x[i]) && fabsf(x[i] - y[i]) < apart);
}

/* The file has all its matrices in Q8_0; of those the whole head alone stays. */
static void weights_quantised_once_more_are_near(void **state)
{
    (void)state;
    const fr_session_options o = {.backend = backend, .threads = 2, .max_rows = 128, .max_context = 512,
                                  .kv_positions = 1024, .draft_weights = FR_DRAFT_WEIGHTS_Q4_0};
    fr_session *plain = open_session(128, 1024), *small = open_with(&o);
    const fr_session_info *p = fr_session_info_of(plain), *q = fr_session_info_of(small);
    const int64_t head_bytes = (int64_t)fr_dtype_row_bytes(FR_Q8_0, p->dim) * p->n_vocab;
    assert_int_equal(q->weight_bytes, head_bytes + (p->weight_bytes - head_bytes) / 34 * 18);
    assert_true(q->model_digest != p->model_digest && q->tokenizer_digest == p->tokenizer_digest);
    fr_ids ids = {0};
    int seq = -1, other = -1;
    prompt_ids(plain, &ids);
    ok(fr_seq_new(plain, &seq));
    ok(fr_seq_new(small, &other));
    fr_row_answer *a = by_chunks(plain, seq, &ids, 128), *b = by_chunks(small, other, &ids, 128);
    ok(fr_seq_truncate(small, other, 0));
    fr_row_answer *again = by_chunks(small, other, &ids, 1);
    int n_same = 0;
    for (size_t i = 0; i < ids.len; i++) {
        assert_near(&b[i], &a[i]);
        assert_same(&b[i], &again[i]);
        n_same += a[i].winner == b[i].winner;
    }
    assert_true(n_same < (int)ids.len && n_same > (int)ids.len / 2);
    free(a);
    free(b);
    free(again);
    fr_ids_free(&ids);
    fr_session_close(&plain);
    fr_session_close(&small);
}

/* The rough head is held as the layers are: near the whole one, which is as in the file. */
static void a_rough_head_is_quantised_too(void **state)
{
    (void)state;
    const fr_session_options o = {.backend = backend, .threads = 2, .max_rows = 64, .max_context = 512,
                                  .kv_positions = 512, .draft_vocab = 300, .draft_weights = FR_DRAFT_WEIGHTS_Q4_0};
    fr_session *s = open_with(&o);
    const fr_row_query q = {.n_wanted = 2, .wanted = {11, 42}}; /* of the lowest ids: in the rough head */
    fr_ids ids = {0};
    int seq = -1, row = 0, rough = 0, whole = 0;
    prompt_ids(s, &ids);
    ok(fr_seq_new(s, &seq));
    fr_pass_begin(s);
    ok(fr_pass_append(s, seq, ids.data, 20, &row));
    ok(fr_pass_ask_rough(s, row + 19, &q, &rough));
    ok(fr_pass_ask(s, row + 19, &q, &whole));
    ok(fr_pass_run(s));
    const fr_row_answer *r = fr_pass_answer(s, rough), *w = fr_pass_answer(s, whole);
    for (int i = 0; i < 2; i++) {
        assert_true(r->wanted_logit[i] != w->wanted_logit[i]);
        assert_true(fabsf(r->wanted_logit[i] - w->wanted_logit[i]) < 0.5f); /* it is 0.1 */
    }
    fr_ids_free(&ids);
    fr_session_close(&s);
}

static void bad_requests_are_refused(void **state)
{
    (void)state;
    fr_session *s = open_session(16, 64);
    const int32_t bad[1] = {512}, negative[1] = {-1}, fine[65] = {0};
    int seq = -1, row = 0, a = 0;
    ok(fr_seq_new(s, &seq));
    fr_pass_begin(s);
    assert_int_equal(fr_pass_append(s, seq, bad, 1, &row), FR_EINVAL);
    assert_int_equal(fr_pass_append(s, seq, negative, 1, &row), FR_EINVAL);
    assert_int_equal(fr_pass_append(s, seq, fine, 17, &row), FR_ELIMIT);
    assert_int_equal(fr_pass_append(s, 99, fine, 1, &row), FR_EINVAL);
    assert_int_equal(fr_pass_branch(s, seq, 1, fine, 1, &row), FR_EINVAL);
    const fr_row_query q = {.n_top = FR_TOP_MAX + 1};
    assert_int_equal(fr_pass_append(s, seq, fine, 1, &row), FR_OK);
    assert_int_equal(fr_pass_ask(s, row, &q, &a), FR_EINVAL);
    assert_int_equal(fr_pass_ask(s, 1, &(fr_row_query){0}, &a), FR_EINVAL);
    fr_session_close(&s);
}

static void a_missing_model_is_named(void **state)
{
    (void)state;
    fr_session *s = NULL;
    const fr_session_options o = {0};
    assert_int_equal(fr_session_open("/no/such.gguf", comm, &o, &s), FR_ENOTFOUND);
    assert_non_null(strstr(fr_cause(), "/no/such.gguf"));
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_do_not_matter),
        cmocka_unit_test(neighbours_and_forks_do_not_matter),
        cmocka_unit_test(a_branch_is_as_if_alone),
        cmocka_unit_test(an_abandoned_pass_leaves_no_trace),
        cmocka_unit_test(a_rough_head_answers_about_its_tokens),
        cmocka_unit_test(without_a_rough_head_the_whole_one_answers),
        cmocka_unit_test(a_rough_head_that_cannot_be_is_refused),
        cmocka_unit_test(weights_quantised_once_more_are_near),
        cmocka_unit_test(a_rough_head_is_quantised_too),
        cmocka_unit_test(bad_requests_are_refused),
        cmocka_unit_test(a_missing_model_is_named),
    };
    if (fr_comm_self_open(&comm) != FR_OK)
        return 1;
    int failed = 0;
    for (const fr_ops *const *b = fr_ops_all(); *b; b++) {
        const fr_ops *usable = NULL;
        backend = (*b)->name;
        if (fr_ops_choose(backend, &usable) != FR_OK) {
            printf("skipped: %s\n", fr_cause());
            continue;
        }
        printf("backend %s\n", backend);
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    comm->ops->close(&comm);
    return failed;
}
