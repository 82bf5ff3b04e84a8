/* model_vocab.c: `forerun model vocab`: writes MODEL.vocab, the frequent tokens that a draft chooses
 * its guesses from (draft_vocab.h), as texts use them. Texts are taken as they are: of JSON lines
 * the names and quotes count too, which costs a few places of thousands. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "draft_vocab.h"
#include "json_out.h"
#include "model_file.h"

typedef struct ranking {
    int64_t *counts; /* [vocabulary] */
    int64_t total;
    int distinct, size; /* size: ids in the file */
    int64_t covered;    /* of the total, by the ids that the draft then chooses from */
    char *path;
} ranking;

static fr_status count_text(const fr_tokenizer *t, const char *path, ranking *r)
{
    char *text = NULL;
    size_t n = 0;
    fr_ids ids = {0};
    FR_TRY(fr_model_read_file(path, &text, &n));
    fr_status st = fr_tokenize(t, text, n, 0, &ids);
    if (st == FR_EFORMAT)
        st = fr_fail(st, "%s: %s", path, fr_cause());
    for (size_t i = 0; st == FR_OK && i < ids.len; i++)
        r->distinct += r->counts[ids.data[i]]++ == 0;
    r->total += (int64_t)ids.len;
    fr_ids_free(&ids);
    free(text);
    return st;
}

static fr_status rank(const fr_model_options *o, const char *model_path, const fr_tokenizer *t,
                      ranking *r)
{
    fr_ids chosen = {0};
    r->counts = calloc((size_t)fr_tokenizer_n_vocab(t), sizeof *r->counts);
    if (!r->counts)
        return fr_no_memory();
    for (int i = 0; i < o->n_texts; i++)
        FR_TRY(count_text(t, o->texts[i], r));
    if (r->total == 0)
        return fr_fail(FR_EINVAL, "%s: no text in it", o->texts[0]);
    r->size = o->size < fr_tokenizer_n_vocab(t) ? o->size : fr_tokenizer_n_vocab(t);
    FR_TRY(fr_draft_vocab_write(model_path, t, r->counts, r->size, &r->path));
    fr_status st = fr_draft_vocab_read(model_path, t, r->size, &chosen);
    for (size_t i = 0; i < chosen.len; i++)
        r->covered += r->counts[chosen.data[i]];
    fr_ids_free(&chosen);
    return st;
}

static fr_status report(const fr_model_options *o, const ranking *r)
{
    double share = (double)r->covered / (double)r->total;
    if (!o->json) {
        printf("%s: %d tokens; of the %lld in the texts (%d different ones) they are %.2f%%\n",
               r->path, r->size, (long long)r->total, r->distinct, 100 * share);
        return FR_OK;
    }
    cJSON *json = NULL;
    FR_TRY(fr_json_object(&json));
    fr_status st = fr_json_text(json, "file", r->path);
    if (st == FR_OK)
        st = fr_json_number(json, "size", r->size);
    if (st == FR_OK)
        st = fr_json_number(json, "text_tokens", (double)r->total);
    if (st == FR_OK)
        st = fr_json_number(json, "distinct", r->distinct);
    if (st == FR_OK)
        st = fr_json_number(json, "covered", share);
    if (st == FR_OK)
        st = fr_json_print(json);
    cJSON_Delete(json);
    return st;
}

static fr_status vocab(fr_model_options *o, const char *path)
{
    fr_model_file *f = NULL;
    fr_tokenizer *t = NULL;
    ranking r = {0};
    if (o->n_texts == 0)
        return fr_fail(FR_EINVAL, "model vocab: --text F is needed");
    FR_TRY(fr_model_file_open(path, &f));
    fr_status st = fr_tokenizer_from_model(f, &t);
    if (st == FR_OK)
        st = rank(o, path, t, &r);
    if (st == FR_OK)
        st = report(o, &r);
    free(r.path);
    free(r.counts);
    fr_tokenizer_free(&t);
    fr_model_file_close(&f);
    return st;
}

static const struct argp_option options[] = {
    {"text", FR_MODEL_TEXT, "F", 0, "a text to count the tokens of; may be given several times", 1},
    {"size", FR_MODEL_SIZE, "N", 0, "tokens in the list (default 32768)", 1},
    {0}};

const fr_model_command fr_model_vocab = {
    .name = "vocab",
    .args_doc = "MODEL",
    .n_args = 1,
    .options = options,
    .run = vocab,
    .doc = "Lists the tokens that a draft chooses its guesses from, as texts use them.",
};
