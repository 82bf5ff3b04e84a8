/* test_golden_tokenize.c: token ids against those of llama.cpp, for the real models. Needs the
 * environment variable FORERUN_MODELS to name the folder with the model files; skipped (exit 77)
 * without it. Also checked for each model: a tokenizer that went through a blob gives the same ids,
 * and prompts tokenised in parts equal those tokenised whole. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <cjson/cJSON.h>

#include "clock.h"
#include "tokenizer.h"

enum { SKIPPED = 77 };

typedef struct golden {
    cJSON *json;
    fr_model_file *file;
    fr_tokenizer *direct, *unpacked;
} golden;

static char *read_file(const char *path)
{
    FILE *in = fopen(path, "rb");
    if (!in)
        return NULL;
    fseek(in, 0, SEEK_END);
    long n = ftell(in);
    rewind(in);
    char *text = calloc(1, (size_t)n + 1);
    size_t got = text ? fread(text, 1, (size_t)n, in) : 0;
    fclose(in);
    if (got != (size_t)n) {
        free(text);
        return NULL;
    }
    return text;
}

static int open_golden(void **state, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tests/golden/%s.json", FORERUN_SOURCE_DIR, name);
    char *text = read_file(path);
    assert_non_null(text);
    golden *g = calloc(1, sizeof *g);
    assert_non_null(g);
    g->json = cJSON_Parse(text);
    free(text);
    assert_non_null(g->json);
    const char *model = cJSON_GetStringValue(cJSON_GetObjectItem(g->json, "model"));
    snprintf(path, sizeof path, "%s/%s", getenv("FORERUN_MODELS"), model);
    double t0 = fr_now_s();
    if (fr_model_file_open(path, &g->file) != FR_OK)
        fail_msg("%s", fr_cause());
    double t1 = fr_now_s();
    if (fr_tokenizer_from_model(g->file, &g->direct) != FR_OK)
        fail_msg("%s", fr_cause());
    double t2 = fr_now_s();
    fr_buf blob = {0};
    assert_int_equal(fr_tokenizer_pack(g->direct, &blob), FR_OK);
    double t3 = fr_now_s();
    assert_int_equal(fr_tokenizer_unpack(blob.data, blob.len, &g->unpacked), FR_OK);
    printf("%s: %d tokens; file %.1f ms, tokenizer %.1f ms, pack %.1f ms (%zu bytes), unpack %.1f "
           "ms\n",
           name, fr_tokenizer_n_vocab(g->direct), (t1 - t0) * 1e3, (t2 - t1) * 1e3, (t3 - t2) * 1e3,
           blob.len, (fr_now_s() - t3) * 1e3);
    fr_buf_free(&blob);
    *state = g;
    return 0;
}

static int open_small(void **state)
{
    return open_golden(state, "smollm2-135m");
}

static int open_draft(void **state)
{
    return open_golden(state, "qwen2.5-coder-0.5b");
}

static int open_target(void **state)
{
    return open_golden(state, "qwen2.5-coder-1.5b");
}

static int close_golden(void **state)
{
    golden *g = *state;
    fr_tokenizer_free(&g->unpacked);
    fr_tokenizer_free(&g->direct);
    fr_model_file_close(&g->file);
    cJSON_Delete(g->json);
    free(g);
    return 0;
}

static void assert_ids(const fr_ids *ids, const cJSON *want, const char *text)
{
    if (ids->len != (size_t)cJSON_GetArraySize(want))
        fail_msg("%zu ids, want %d: %s", ids->len, cJSON_GetArraySize(want), text);
    size_t i = 0;
    const cJSON *id;
    cJSON_ArrayForEach(id, want)
    {
        if (ids->data[i] != id->valueint)
            fail_msg("id %zu is %d, want %d: %s", i, ids->data[i], id->valueint, text);
        i++;
    }
}

static void assert_tokenizes(const fr_tokenizer *t, const char *text, const cJSON *want)
{
    fr_ids ids = {0};
    assert_int_equal(fr_tokenize(t, text, strlen(text), 1, &ids), FR_OK);
    assert_ids(&ids, want, text);
    fr_ids_free(&ids);
}

/* A list of the golden file; an empty one would test nothing. */
static const cJSON *list_of(const golden *g, const char *name)
{
    const cJSON *list = cJSON_GetObjectItem(g->json, name);
    assert_true(cJSON_GetArraySize(list) > 0);
    return list;
}

static void test_texts(void **state)
{
    golden *g = *state;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, list_of(g, "tokenize"))
    {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "text"));
        assert_tokenizes(g->direct, text, cJSON_GetObjectItem(entry, "ids"));
        assert_tokenizes(g->unpacked, text, cJSON_GetObjectItem(entry, "ids"));
    }
}

/* The texts between the template's, cut out of a golden prompt: system and user. */
static char *between(const char *text, const char *from, const char *to)
{
    const char *start = strstr(text, from);
    assert_non_null(start);
    start += strlen(from);
    const char *end = strstr(start, to);
    assert_non_null(end);
    return strndup(start, (size_t)(end - start));
}

static void test_prompts(void **state)
{
    golden *g = *state;
    const cJSON *entry;
    cJSON_ArrayForEach(entry, list_of(g, "greedy"))
    {
        const char *prompt = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "prompt"));
        const cJSON *want = cJSON_GetObjectItem(entry, "prompt_ids");
        assert_tokenizes(g->direct, prompt, want);
        char *system = between(prompt, "system\n", "<|im_end|>");
        char *user = between(prompt, "user\n", "<|im_end|>");
        fr_ids ids = {0};
        assert_int_equal(fr_chat_tokenize_prompt(g->direct, fr_tokenizer_chat_style(g->direct),
                                                 system, user, &ids),
                         FR_OK);
        assert_ids(&ids, want, prompt);
        fr_ids_free(&ids);
        free(system);
        free(user);
    }
}

/* What the model wrote: its ids give its text. */
static void test_detokenize(void **state)
{
    golden *g = *state;
    const cJSON *entry, *token;
    cJSON_ArrayForEach(entry, list_of(g, "greedy"))
    {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "text"));
        fr_buf out = {0};
        cJSON_ArrayForEach(token, cJSON_GetObjectItem(entry, "tokens"))
        {
            int32_t id = cJSON_GetObjectItem(token, "id")->valueint;
            assert_int_equal(fr_detokenize(g->unpacked, &id, 1, 0, &out), FR_OK);
        }
        assert_int_equal(fr_buf_put(&out, "", 1), FR_OK);
        assert_string_equal((char *)out.data, text);
        fr_buf_free(&out);
    }
}

static void test_same_tokenizer(void **state)
{
    (void)state;
    void *draft = NULL, *target = NULL, *small = NULL;
    open_draft(&draft);
    open_target(&target);
    open_small(&small);
    uint64_t of_draft = fr_tokenizer_digest(((golden *)draft)->direct);
    assert_true(of_draft == fr_tokenizer_digest(((golden *)target)->direct));
    assert_true(of_draft == fr_tokenizer_digest(((golden *)draft)->unpacked));
    assert_true(of_draft != fr_tokenizer_digest(((golden *)small)->direct));
    close_golden(&draft);
    close_golden(&target);
    close_golden(&small);
}

#define MODEL_TESTS(open)                                                  \
    cmocka_unit_test_setup_teardown(test_texts, open, close_golden),       \
        cmocka_unit_test_setup_teardown(test_prompts, open, close_golden), \
        cmocka_unit_test_setup_teardown(test_detokenize, open, close_golden)

int main(void)
{
    const char *models = getenv("FORERUN_MODELS");
    if (!models || !*models) {
        printf("skipped: FORERUN_MODELS names no folder with the models\n");
        return SKIPPED;
    }
    const struct CMUnitTest tests[] = {
        MODEL_TESTS(open_small),
        MODEL_TESTS(open_draft),
        MODEL_TESTS(open_target),
        cmocka_unit_test(test_same_tokenizer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
