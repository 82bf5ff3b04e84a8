/* test_hf_session.c: a small model (hf_writer.h) answers from a model folder as it does from a GGUF
 * file with the same weights: to the bit where the file holds the same matrices, within rounding for
 * llama, whose GGUF files hold Q and K permuted. And weights that are no numbers are refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hf_writer.h"
#include "session.h"

enum { N_TOKENS = 48, TOP = 8 };
#define TOLERANCE 2e-3f /* of a logit: sums over a head's values in another order */

static char folder[] = "/tmp/forerun-hf-XXXXXX";
static char gguf_path[64];
static fr_comm *comm;

static fr_status try_open(const char *path, fr_session **out)
{
    const fr_session_options o = {.threads = 1, .max_rows = 64, .max_context = 128};
    return fr_session_open(path, comm, &o, out);
}

static void ok(fr_status st)
{
    if (st != FR_OK)
        fail_msg("%s", fr_cause());
}

/* What the model at `path` says about every position of a fixed text. */
static void answers_of(const char *path, fr_row_answer out[N_TOKENS])
{
    fr_session *s = NULL;
    int32_t tokens[N_TOKENS];
    int seq = -1, row = 0, a = 0;
    const fr_row_query q = {.n_top = TOP};
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = (i * 37 + i * i) % HF_TOKENS;
    ok(try_open(path, &s));
    ok(fr_seq_new(s, &seq));
    fr_pass_begin(s);
    ok(fr_pass_append(s, seq, tokens, N_TOKENS, &row));
    for (int i = 0; i < N_TOKENS; i++)
        ok(fr_pass_ask(s, row + i, &q, &a));
    ok(fr_pass_run(s));
    for (int i = 0; i < N_TOKENS; i++)
        out[i] = *fr_pass_answer(s, i);
    fr_session_close(&s);
}

/* Both forms of a model, and the largest difference of a leading logit; -1 when it is none to the
 * bit. */
static float compare(const hf_model *of_folder, const hf_model *of_gguf)
{
    static fr_row_answer a[N_TOKENS], b[N_TOKENS];
    float most = -1;
    hf_write_folder(folder, of_folder);
    hf_write_gguf(gguf_path, of_gguf);
    answers_of(folder, a);
    answers_of(gguf_path, b);
    for (int i = 0; i < N_TOKENS; i++) {
        assert_true(isfinite(a[i].max));
        for (int k = 0; k < TOP; k++) {
            float difference = fabsf(a[i].top[k].logit - b[i].top[k].logit);
            if (memcmp(&a[i].top[k].logit, &b[i].top[k].logit, sizeof(float)) != 0 ||
                a[i].top[k].token != b[i].top[k].token)
                most = fmaxf(most, difference);
        }
        if (memcmp(&a[i].sum_exp, &b[i].sum_exp, sizeof a[i].sum_exp) != 0)
            most = fmaxf(most, 0);
    }
    return most;
}

static int fresh_folder(void **state)
{
    (void)state;
    hf_remove_folder(folder);
    strcpy(folder, "/tmp/forerun-hf-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(gguf_path, sizeof gguf_path, "%s/x.gguf", folder);
    return 0;
}

static void test_same_bits(void **state)
{
    (void)state;
    static const char *const families[] = {"qwen2", "qwen3"};
    static const fr_dtype dtypes[] = {FR_F32, FR_F16, FR_BF16};
    for (int f = 0; f < 2; f++) {
        for (int d = 0; d < 3; d++) {
            const hf_model m = {
                .family = families[f], .dtype = dtypes[d], .tied = d % 2, .n_shards = 1 + d};
            fresh_folder(NULL);
            float difference = compare(&m, &m);
            if (difference != -1)
                fail_msg("%s %d: differs by %g", families[f], (int)dtypes[d], (double)difference);
        }
    }
}

/* Llama: within rounding when the folder's matrices count as not permuted, far off otherwise. */
static void test_rope_style(void **state)
{
    (void)state;
    hf_model m = {.family = "llama", .dtype = FR_F32, .n_shards = 1};
    float difference = compare(&m, &m);
    if (difference > TOLERANCE)
        fail_msg("llama differs by %g", (double)difference);
    /* The control: a GGUF file of llama whose rows were left as they are is another model. */
    const hf_model not_permuted = {
        .family = "llama", .dtype = FR_F32, .n_shards = 1, .keep_rows = 1};
    difference = compare(&m, &not_permuted);
    assert_true(difference > 10 * TOLERANCE);
}

/* Llama 3's scaling: the folder's formula, and the factors that a GGUF file has (transformers'
 * values). */
static void test_llama3_scaling(void **state)
{
    (void)state;
    static const float factors[HF_HEAD / 2] = {1.0f, 1.29397583f, 7.66738513f, 8, 8, 8, 8, 8};
    hf_model m = {.family = "llama",
                  .dtype = FR_BF16,
                  .n_shards = 2,
                  .rope_factors = factors,
                  .scaling = "{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
                             "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":64}"};
    float difference = compare(&m, &m);
    if (difference > TOLERANCE)
        fail_msg("differs by %g", (double)difference);
    hf_model unscaled = m;
    unscaled.rope_factors = NULL;
    assert_true(compare(&m, &unscaled) > 10 * TOLERANCE);
}

/* YaRN makes the rotated values larger, so that attention is sharper: another answer. */
static void test_yarn_counts(void **state)
{
    (void)state;
    static const float factors[HF_HEAD / 2] = {1.0f, 1.23076923f, 1.6f, 2.28571429f, 4, 4, 4, 4};
    hf_model m = {.family = "qwen3",
                  .dtype = FR_F32,
                  .n_shards = 1,
                  .rope_factors = factors,
                  .scaling = "{\"type\":\"yarn\",\"factor\":4.0,\"attention_factor\":1.0}"};
    float difference = compare(&m, &m);
    if (difference > TOLERANCE)
        fail_msg("differs by %g", (double)difference);
    hf_model larger = m;
    larger.scaling = "{\"type\":\"yarn\",\"factor\":4.0}";
    assert_true(compare(&larger, &m) > 10 * TOLERANCE);
}

/* Opens `path`, which must fail for that place of that tensor. */
static void refuse_nan(const char *path, const char *tensor, int row, int col)
{
    char want[256];
    fr_session *s = NULL;
    snprintf(want, sizeof want, "%s: tensor %s: row %d, column %d is not a finite number", path,
             tensor, row, col);
    assert_int_equal(try_open(path, &s), FR_EFORMAT);
    assert_string_equal(fr_cause(), want);
    assert_null(s);
}

/* In a matrix, a vector, an embedding beside a head, and one that is the head. The name is the
 * file's own. */
static void test_not_finite(void **state)
{
    (void)state;
    static const struct {
        const char *theirs, *ours;
        int is_vector, tied;
    } places[] = {
        {"model.layers.1.mlp.down_proj.weight", "blk.1.ffn_down.weight", 0, 0},
        {"model.layers.0.self_attn.k_proj.bias", "blk.0.attn_k.bias", 1, 0},
        {"model.embed_tokens.weight", "token_embd.weight", 0, 0},
        {"model.embed_tokens.weight", "token_embd.weight", 0, 1},
    };
    static const fr_dtype dtypes[] = {FR_F32, FR_F16, FR_BF16};
    for (size_t i = 0; i < 3 * sizeof places / sizeof *places; i++) {
        const char *theirs = places[i / 3].theirs, *ours = places[i / 3].ours;
        int row = places[i / 3].is_vector ? 0 : 17, col = places[i / 3].is_vector ? 17 : 0;
        const hf_model m = {.family = "qwen2",
                            .dtype = dtypes[i % 3],
                            .tied = places[i / 3].tied,
                            .n_shards = 1,
                            .nan_in = theirs,
                            .nan_row = 17};
        fresh_folder(NULL);
        hf_write_folder(folder, &m);
        hf_write_gguf(gguf_path, &m);
        refuse_nan(folder, theirs, row, col);
        refuse_nan(gguf_path, ours, row, col);
    }
}

/* Opens the GGUF file of m, which must fail for that reason. */
static void refuse_gguf(const hf_model *m, fr_status want, const char *cause)
{
    char shown[256];
    fr_session *s = NULL;
    hf_write_gguf(gguf_path, m);
    snprintf(shown, sizeof shown, "%s: %s", gguf_path, cause);
    assert_int_equal(try_open(gguf_path, &s), want);
    assert_string_equal(fr_cause(), shown);
    assert_null(s);
}

/* What the family does not have would be left out of the arithmetic. */
static void test_stray_tensors(void **state)
{
    (void)state;
    static const char *const stray[] = {"blk.1.attn_output.bias", "blk.2.attn_norm.weight", "x"};
    for (size_t i = 0; i < sizeof stray / sizeof *stray; i++) {
        char cause[128];
        const hf_model m = {.family = "qwen2", .dtype = FR_F32, .stray = stray[i]};
        snprintf(cause, sizeof cause, "tensor %s is not one that this architecture has", stray[i]);
        refuse_gguf(&m, FR_EUNSUPPORTED, cause);
    }
}

static void test_bad_rope_factors(void **state)
{
    (void)state;
    static const float bad[][HF_HEAD / 2] = {{1, 0}, {1, -1}, {1, NAN}, {1, INFINITY}};
    static const char *const shown[] = {"0", "-1", "nan", "inf"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char cause[128];
        const hf_model m = {.family = "qwen2", .dtype = FR_F32, .rope_factors = bad[i]};
        snprintf(cause, sizeof cause, "tensor rope_freqs.weight: value 1 is %s, want a positive number", shown[i]);
        refuse_gguf(&m, FR_EFORMAT, cause);
    }
}

static int set_up(void **state)
{
    (void)state;
    return fr_comm_self_open(&comm) == FR_OK && mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    hf_remove_folder(folder);
    comm->ops->close(&comm);
    return 0;
}

#define TEST(function) cmocka_unit_test_setup(function, fresh_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_same_bits), TEST(test_rope_style),
                                       TEST(test_llama3_scaling), TEST(test_yarn_counts),
                                       TEST(test_not_finite), TEST(test_stray_tensors),
                                       TEST(test_bad_rope_factors)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
