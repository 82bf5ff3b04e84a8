/* model_check.c: `forerun model check`: a model against golden data of another engine. Token ids
 * must be equal; the greedy texts are compared teacher-forced: the golden tokens are fed, and at
 * each position the own most likely token and the golden token's log-probability are compared.
 * Format of the data: tests/golden/README.md. */
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "json_out.h"
#include "sampler.h"

typedef struct checking {
    const char *file;
    fr_session *session;
    long tokenize_equal, tokenize_total, positions, top1;
    double sum_abs;
    /* of the text under way */
    int prompt_len;
    const int32_t *tokens;  /* prompt and golden tokens */
    const double *logprobs; /* of the golden tokens */
} checking;

static fr_status read_ids(const char *file, const cJSON *array, fr_ids *out)
{
    const cJSON *v;
    if (!cJSON_IsArray(array))
        return fr_fail(FR_EFORMAT, "%s: a list of ids is missing", file);
    cJSON_ArrayForEach(v, array)
    {
        int32_t id = v->valueint;
        if (!cJSON_IsNumber(v))
            return fr_fail(FR_EFORMAT, "%s: an id is not a number", file);
        FR_TRY(fr_ids_put(out, &id, 1));
    }
    return FR_OK;
}

static int equal_ids(const fr_ids *a, const fr_ids *b)
{
    return a->len == b->len &&
           (a->len == 0 || memcmp(a->data, b->data, a->len * sizeof *a->data) == 0);
}

/* prompt: with the BOS that a prompt begins with where the model wants one. */
static fr_status check_tokens(checking *c, const cJSON *text, const cJSON *ids, int prompt)
{
    const fr_tokenizer *t = fr_session_tokenizer(c->session);
    fr_ids want = {0}, have = {0};
    if (!cJSON_IsString(text))
        return fr_fail(FR_EFORMAT, "%s: a text is missing", c->file);
    size_t n = strlen(text->valuestring);
    fr_status st = read_ids(c->file, ids, &want);
    if (st == FR_OK)
        st = prompt ? fr_tokenize_prompt(t, text->valuestring, n, &have)
                    : fr_tokenize(t, text->valuestring, n, 1, &have);
    if (st == FR_OK) {
        c->tokenize_total++;
        c->tokenize_equal += equal_ids(&want, &have);
    }
    fr_ids_free(&want);
    fr_ids_free(&have);
    return st;
}

static int ask(void *ctx, int i, fr_row_query *query)
{
    checking *c = ctx;
    if (i < c->prompt_len - 1)
        return 0;
    query->n_wanted = 1;
    query->wanted[0] = c->tokens[i + 1];
    return 1;
}

static fr_status take(void *ctx, int i, const fr_row_query *query, const fr_row_answer *answer)
{
    checking *c = ctx;
    int32_t token = c->tokens[i + 1];
    float logprob = fr_answer_logprob(answer, fr_answer_logit(answer, query, token));
    c->positions++;
    c->top1 += answer->winner == token;
    c->sum_abs += fabs((double)logprob - c->logprobs[i + 1 - c->prompt_len]);
    return FR_OK;
}

static fr_status read_golden_tokens(const checking *c, const cJSON *list, fr_ids *ids,
                                    double *logprobs)
{
    const cJSON *v;
    int n_vocab = fr_session_info_of(c->session)->n_vocab, n = 0;
    cJSON_ArrayForEach(v, list)
    {
        const cJSON *id = cJSON_GetObjectItemCaseSensitive(v, "id");
        const cJSON *logprob = cJSON_GetObjectItemCaseSensitive(v, "logprob");
        if (!cJSON_IsNumber(id) || !cJSON_IsNumber(logprob) || id->valueint < 0 ||
            id->valueint >= n_vocab)
            return fr_fail(FR_EFORMAT, "%s: a token is not {id, logprob} of this vocabulary",
                           c->file);
        int32_t token = id->valueint;
        FR_TRY(fr_ids_put(ids, &token, 1));
        logprobs[n++] = logprob->valuedouble;
    }
    return FR_OK;
}

static fr_status score_text(checking *c, const fr_ids *ids)
{
    fr_scoring how = {.ctx = c, .ask = ask, .take = take};
    int seq = -1;
    FR_TRY(fr_seq_new(c->session, &seq));
    /* The last token is only predicted, never fed. */
    fr_status st = fr_model_score(c->session, seq, ids->data, (int)ids->len - 1, &how);
    fr_seq_free(c->session, seq);
    return st;
}

static fr_status check_greedy(checking *c, const cJSON *item)
{
    const cJSON *tokens = cJSON_GetObjectItemCaseSensitive(item, "tokens");
    const cJSON *prompt_ids = cJSON_GetObjectItemCaseSensitive(item, "prompt_ids");
    int n = cJSON_GetArraySize(tokens);
    if (!cJSON_IsArray(tokens) || n == 0 || cJSON_GetArraySize(prompt_ids) == 0)
        return fr_fail(FR_EFORMAT, "%s: a greedy text without prompt_ids or tokens", c->file);
    FR_TRY(check_tokens(c, cJSON_GetObjectItemCaseSensitive(item, "prompt"), prompt_ids, 1));
    fr_ids ids = {0};
    double *logprobs = calloc((size_t)n, sizeof *logprobs);
    fr_status st = logprobs ? read_ids(c->file, prompt_ids, &ids) : fr_no_memory();
    c->prompt_len = (int)ids.len;
    if (st == FR_OK)
        st = read_golden_tokens(c, tokens, &ids, logprobs);
    c->tokens = ids.data;
    c->logprobs = logprobs;
    if (st == FR_OK)
        st = score_text(c, &ids);
    fr_ids_free(&ids);
    free(logprobs);
    return st;
}

static fr_status check_all(checking *c, const cJSON *golden)
{
    const cJSON *item;
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(golden, "tokenize"))
        FR_TRY(check_tokens(c, cJSON_GetObjectItemCaseSensitive(item, "text"),
                            cJSON_GetObjectItemCaseSensitive(item, "ids"), 0));
    cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(golden, "greedy"))
        FR_TRY(check_greedy(c, item));
    if (c->tokenize_total == 0)
        return fr_fail(FR_EFORMAT, "%s: neither \"tokenize\" nor \"greedy\" in it", c->file);
    return FR_OK;
}

static fr_status report(const checking *c, int json)
{
    double top1 = c->positions ? (double)c->top1 / (double)c->positions : NAN;
    double mean = c->positions ? c->sum_abs / (double)c->positions : NAN;
    if (!json) {
        printf("token ids equal: %ld of %ld texts\npositions: %ld\ntop-1 agreement: %.4f\n"
               "mean |difference of log-probability|: %.4f\n",
               c->tokenize_equal, c->tokenize_total, c->positions, top1, mean);
        return FR_OK;
    }
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    fr_status st = fr_json_number(o, "tokenize_equal", (double)c->tokenize_equal);
    if (st == FR_OK)
        st = fr_json_number(o, "tokenize_total", (double)c->tokenize_total);
    if (st == FR_OK)
        st = fr_json_number(o, "positions", (double)c->positions);
    if (st == FR_OK)
        st = fr_json_number(o, "top1", top1);
    if (st == FR_OK)
        st = fr_json_number(o, "mean_abs_dlogprob", mean);
    if (st == FR_OK)
        st = fr_json_print(o);
    cJSON_Delete(o);
    return st;
}

static fr_status run_group(fr_model_options *o, const char *path, const cJSON *golden)
{
    fr_model_group group = {0};
    int leader = 0;
    FR_TRY(fr_model_group_open(o, path, &group, &leader));
    fr_status st = FR_OK;
    if (leader) {
        checking c = {.file = o->golden, .session = group.session};
        st = check_all(&c, golden);
        if (st == FR_OK)
            st = report(&c, o->json);
    }
    fr_model_group_close(&group);
    return st;
}

static fr_status check(fr_model_options *o, const char *path)
{
    char *text = NULL;
    size_t n = 0;
    if (!o->golden)
        return fr_fail(FR_EINVAL, "model check: --golden FILE is needed");
    FR_TRY(fr_model_read_file(o->golden, &text, &n));
    cJSON *golden = cJSON_ParseWithLength(text, n);
    free(text);
    fr_status st = cJSON_IsObject(golden) ? run_group(o, path, golden)
                                          : fr_fail(FR_EFORMAT, "%s: not a JSON object", o->golden);
    cJSON_Delete(golden);
    return st;
}

static const struct argp_option options[] = {
    {"golden", FR_MODEL_GOLDEN, "FILE", 0, "the golden data", 1},
    {0}};

const fr_model_command fr_model_check = {
    .name = "check",
    .args_doc = "MODEL",
    .n_args = 1,
    .takes_session = 1,
    .options = options,
    .run = check,
    .doc = "Compares a model with golden data: token ids, most likely tokens, log-probabilities.",
};
