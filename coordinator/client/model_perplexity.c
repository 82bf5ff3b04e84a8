/* model_perplexity.c: `forerun model perplexity`, by llama-perplexity's rule, so that numbers
 * compare: the text's tokens are cut into chunks of --ctx that do not overlap (an unfinished one at
 * the end is dropped), the first token of a chunk gives way to BOS where the model wants one, and
 * the second half of each chunk is scored. */
#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "json_out.h"
#include "sampler.h"

typedef struct scoring {
    const int32_t *tokens; /* of the chunk */
    int ctx;
    double nll;            /* summed over all chunks */
    long n_scored;
} scoring;

static int ask(void *ctx, int i, fr_row_query *query)
{
    scoring *s = ctx;
    if (i < s->ctx / 2 || i > s->ctx - 2)
        return 0;
    query->n_wanted = 1;
    query->wanted[0] = s->tokens[i + 1];
    return 1;
}

static fr_status take(void *ctx, int i, const fr_row_query *query, const fr_row_answer *answer)
{
    scoring *s = ctx;
    float logit = fr_answer_logit(answer, query, s->tokens[i + 1]);
    s->nll -= (double)fr_answer_logprob(answer, logit);
    s->n_scored++;
    return FR_OK;
}

static fr_status score_chunks(fr_session *session, fr_ids *ids, int has_bos, int32_t bos,
                              scoring *s)
{
    fr_scoring how = {.ctx = s, .ask = ask, .take = take};
    for (size_t at = 0; at + (size_t)s->ctx <= ids->len; at += (size_t)s->ctx) {
        int seq = -1;
        if (has_bos)
            ids->data[at] = bos;
        s->tokens = ids->data + at;
        FR_TRY(fr_seq_new(session, &seq));
        fr_status st = fr_model_score(session, seq, s->tokens, s->ctx, &how);
        fr_seq_free(session, seq);
        FR_TRY(st);
    }
    return FR_OK;
}

static fr_status report(const fr_model_options *o, const scoring *s, size_t n_tokens)
{
    double perplexity = exp(s->nll / (double)s->n_scored);
    long chunks = (long)(n_tokens / (size_t)s->ctx);
    if (!o->json) {
        printf("perplexity %.4f over %ld chunks of %d tokens (%zu tokens)\n", perplexity, chunks,
               s->ctx, n_tokens);
        return FR_OK;
    }
    cJSON *json = NULL;
    FR_TRY(fr_json_object(&json));
    fr_status st = fr_json_number(json, "perplexity", perplexity);
    if (st == FR_OK)
        st = fr_json_number(json, "tokens", (double)n_tokens);
    if (st == FR_OK)
        st = fr_json_number(json, "chunks", (double)chunks);
    if (st == FR_OK)
        st = fr_json_print(json);
    cJSON_Delete(json);
    return st;
}

static fr_status measure(const fr_model_options *o, fr_session *session, const char *text, size_t n)
{
    const fr_tokenizer *t = fr_session_tokenizer(session);
    fr_ids ids = {0}, bos = {0};
    scoring s = {.ctx = o->ctx};
    fr_status st = fr_tokenize_prompt(t, "", 0, &bos); /* BOS alone, where the model wants it */
    if (st == FR_OK)
        st = fr_ids_put(&ids, bos.data, bos.len);
    if (st == FR_OK)
        st = fr_tokenize(t, text, n, 0, &ids);
    if (st == FR_OK && ids.len < (size_t)o->ctx)
        st = fr_fail(FR_EINVAL, "%s: %zu tokens are less than one chunk of --ctx %d", o->file,
                     ids.len, o->ctx);
    if (st == FR_OK)
        st = score_chunks(session, &ids, bos.len > 0, bos.len ? bos.data[0] : 0, &s);
    if (st == FR_OK)
        st = report(o, &s, ids.len);
    fr_ids_free(&ids);
    fr_ids_free(&bos);
    return st;
}

static fr_status perplexity(fr_model_options *o, const char *path)
{
    fr_model_group group = {0};
    char *text = NULL;
    size_t n = 0;
    int leader = 0;
    if (!o->file)
        return fr_fail(FR_EINVAL, "model perplexity: -f TEXT is needed");
    FR_TRY(fr_model_read_file(o->file, &text, &n));
    fr_status st = fr_model_group_open(o, path, &group, &leader);
    if (st == FR_OK && leader)
        st = measure(o, group.session, text, n);
    fr_model_group_close(&group);
    free(text);
    return st;
}

static const struct argp_option options[] = {
    {"file", 'f', "TEXT", 0, "the text file to score", 1},
    {"ctx", FR_MODEL_CTX, "N", 0, "tokens of a chunk (default 512)", 1},
    {0}};

const fr_model_command fr_model_perplexity = {
    .name = "perplexity", .args_doc = "MODEL", .n_args = 1, .takes_session = 1, .options = options,
    .run = perplexity, .doc = "Measures the perplexity of a text, by llama-perplexity's rule.",
};
