/* hf_tokenizer.c: see hf_tokenizer.h.
 *
 * tokenizer.json: model.vocab maps the spelling of a token to its id, model.merges lists pairs,
 * added_tokens are those outside the merges. What is written is what llama.cpp's converter would
 * have written, so that one tokenizer has one digest, from a folder or from a GGUF file: gaps in
 * the ids are padding, added tokens are control tokens when they are called special or look so,
 * else their authors' own. A normaliser NFC (Qwen's) is left out, as GGUF files leave it out. */
#include "hf_tokenizer.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "hf_pretokenizer.h"
#include "pretokenize.h"

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5 }; /* GGUF's */

typedef struct token_list {
    const char *path;  /* of tokenizer.json */
    const char **text; /* [n]; NULL: no token has this id */
    uint8_t *type;     /* [n] */
    uint32_t n, room;
} token_list;

/* --- tokens --- */

/* NFC, or a Sequence of nothing else. */
static fr_status check_normalizer(fr_hf_object step)
{
    char show[FR_SHOW_BYTES];
    const char *type = NULL;
    const cJSON *one;
    FR_TRY(fr_hf_text(step, "type", &type));
    if (strcmp(type, "NFC") == 0)
        return FR_OK;
    if (strcmp(type, "Sequence") != 0)
        return fr_fail(FR_EUNSUPPORTED, "%s: normalizer %s is not supported (NFC)", step.path,
                       fr_str_show(fr_str_of(type), show));
    cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(step.at, "normalizers"))
    {
        FR_TRY(check_normalizer((fr_hf_object){step.path, one}));
    }
    return FR_OK;
}

/* *pre: the splits' name in GGUF; changed where a piece that is a token goes through the merges too. */
static fr_status check_model(fr_hf_object model, const char **pre)
{
    char show[FR_SHOW_BYTES];
    const char *type = NULL;
    int byte_fallback = 0, ignore_merges = 0;
    FR_TRY(fr_hf_text(model, "type", &type));
    FR_TRY(fr_hf_optional_bool(model, "byte_fallback", &byte_fallback));
    FR_TRY(fr_hf_optional_bool(model, "ignore_merges", &ignore_merges));
    if (strcmp(type, "BPE") != 0 || byte_fallback)
        return fr_fail(FR_EUNSUPPORTED, "%s: model %s%s is not supported (byte-level BPE)",
                       model.path, fr_str_show(fr_str_of(type), show),
                       byte_fallback ? " with byte_fallback" : "");
    int llama3 = strcmp(*pre, "llama-bpe") == 0;
    if (ignore_merges && !llama3)
        return fr_fail(FR_EUNSUPPORTED, "%s: ignore_merges is supported for Llama 3's splits only",
                       model.path);
    if (llama3 && !ignore_merges)
        *pre = FR_PRE_LLAMA3_MERGED_NAME;
    return FR_OK;
}

static fr_status take_token(token_list *l, const char *text, const cJSON *id_value, int type)
{
    char show[FR_SHOW_BYTES];
    uint32_t id = 0;
    if (!fr_hf_as_u32(id_value, &id))
        return fr_fail(FR_EFORMAT, "%s: token %s has no id", l->path,
                       fr_str_show(fr_str_of(text), show));
    if (id >= l->room)
        return fr_fail(FR_EFORMAT, "%s: token %s has id %u, the embedding has %u rows", l->path,
                       fr_str_show(fr_str_of(text), show), id, l->room);
    if (l->text[id] && type == TYPE_NORMAL)
        return fr_fail(FR_EFORMAT, "%s: id %u belongs to two tokens", l->path, id);
    l->text[id] = text;
    l->type[id] = (uint8_t)type;
    l->n = id >= l->n ? id + 1 : l->n;
    return FR_OK;
}

static int begins_and_ends(const char *text, const char *begin, const char *end)
{
    size_t n = strlen(text), n_begin = strlen(begin), n_end = strlen(end);
    return n >= n_begin + n_end && memcmp(text, begin, n_begin) == 0 &&
           memcmp(text + n - n_end, end, n_end) == 0;
}

/* Some authors did not call special what is. */
static int looks_special(const char *text)
{
    return begins_and_ends(text, "<|", "|>") || begins_and_ends(text, "<｜", "｜>");
}

/* An added token is looked for as it stands: none that takes the spaces beside it, or must be a word of its own. */
static fr_status check_matching(fr_hf_object token, const char *text)
{
    static const char *const flags[] = {"lstrip", "rstrip", "single_word"};
    char show[FR_SHOW_BYTES];
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        int set = 0;
        FR_TRY(fr_hf_optional_bool(token, flags[i], &set));
        if (set)
            return fr_fail(FR_EUNSUPPORTED, "%s: added token %s with %s is not supported", token.path,
                           fr_str_show(fr_str_of(text), show), flags[i]);
    }
    return FR_OK;
}

static fr_status take_added(token_list *l, fr_hf_object tokenizer)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(tokenizer.at, "added_tokens"), *token;
    cJSON_ArrayForEach(token, list)
    {
        fr_hf_object o = {l->path, token};
        const char *text = NULL;
        int special = 0;
        FR_TRY(fr_hf_text(o, "content", &text));
        FR_TRY(check_matching(o, text));
        FR_TRY(fr_hf_optional_bool(o, "special", &special));
        FR_TRY(take_token(l, text, cJSON_GetObjectItemCaseSensitive(token, "id"),
                          special || looks_special(text) ? TYPE_CONTROL : TYPE_USER));
    }
    return FR_OK;
}

static fr_status take_tokens(token_list *l, fr_hf_object tokenizer, fr_hf_object model)
{
    fr_hf_object vocab = fr_hf_child(model, "vocab");
    const cJSON *token;
    l->text = calloc(l->room, sizeof *l->text);
    l->type = calloc(l->room, sizeof *l->type);
    if (!l->text || !l->type)
        return fr_no_memory();
    cJSON_ArrayForEach(token, vocab.at)
    {
        FR_TRY(take_token(l, token->string, token, TYPE_NORMAL));
    }
    if (l->n == 0)
        return fr_fail(FR_EFORMAT, "%s: model.vocab holds no tokens", l->path);
    return take_added(l, tokenizer);
}

static fr_status put_tokens(const token_list *l, fr_meta_writer *w)
{
    char padding[32];
    FR_TRY(fr_meta_put_array(w, "tokenizer.ggml.tokens", FR_META_STR, l->n));
    for (uint32_t i = 0; i < l->n; i++) {
        if (!l->text[i])
            snprintf(padding, sizeof padding, "[PAD%u]", i);
        FR_TRY(fr_meta_add_str(w, fr_str_of(l->text[i] ? l->text[i] : padding)));
    }
    FR_TRY(fr_meta_put_array(w, "tokenizer.ggml.token_type", FR_META_U32, l->n));
    for (uint32_t i = 0; i < l->n; i++)
        FR_TRY(fr_meta_add_u32(w, l->text[i] ? l->type[i] : TYPE_UNUSED));
    return FR_OK;
}

/* --- merges --- */

/* "a b", or in newer files ["a", "b"]; text receives the former. */
static fr_status spell_merge(const char *path, int number, const cJSON *merge, fr_buf *text)
{
    const char *whole = cJSON_GetStringValue(merge);
    text->len = 0;
    if (whole)
        return fr_buf_put(text, whole, strlen(whole));
    const char *left = cJSON_GetStringValue(cJSON_GetArrayItem(merge, 0));
    const char *right = cJSON_GetStringValue(cJSON_GetArrayItem(merge, 1));
    if (!left || !right || strchr(left, ' ') || strchr(right, ' '))
        return fr_fail(FR_EFORMAT, "%s: merge %d is no pair of tokens", path, number);
    return fr_buf_printf(text, "%s %s", left, right);
}

static fr_status put_merges(fr_hf_object model, fr_meta_writer *w)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(model.at, "merges"), *merge;
    if (!cJSON_IsArray(list))
        return fr_fail(FR_EFORMAT, "%s: model.merges is no list", model.path);
    int n = 0;
    fr_buf text = {0};
    fr_status st = fr_meta_put_array(w, "tokenizer.ggml.merges", FR_META_STR,
                                     (uint64_t)cJSON_GetArraySize(list));
    cJSON_ArrayForEach(merge, list)
    {
        if (st == FR_OK)
            st = spell_merge(model.path, n++, merge, &text);
        if (st == FR_OK)
            st = fr_meta_add_str(w, (fr_str){(const char *)text.data, text.len});
    }
    fr_buf_free(&text);
    return st;
}

/* --- the tokens with a role --- */

/* "<s>", or {"content": "<s>", ...}; NULL: none. */
static const char *named_token(fr_hf_object settings, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(settings.at, key);
    const cJSON *content = cJSON_GetObjectItemCaseSensitive(value, "content");
    return cJSON_GetStringValue(content ? content : value);
}

/* The id of the token that a file names by its text: *out is 1 + id, 0 when none is
 * named. */
static fr_status find_named(const token_list *l, fr_hf_object settings, const char *key,
                            uint32_t *out)
{
    char show[FR_SHOW_BYTES];
    const char *text = named_token(settings, key);
    *out = 0;
    if (!text)
        return FR_OK;
    for (uint32_t id = 0; id < l->n; id++) {
        if (l->text[id] && strcmp(l->text[id], text) == 0) {
            *out = id + 1;
            return FR_OK;
        }
    }
    return fr_fail(FR_EFORMAT, "%s: %s %s is not in the vocabulary", settings.path, key,
                   fr_str_show(fr_str_of(text), show));
}

static fr_status check_id(const token_list *l, fr_hf_object o, const char *key, const cJSON *value,
                          uint32_t *out)
{
    if (!fr_hf_as_u32(value, out) || *out >= l->n)
        return fr_fail(FR_EFORMAT, "%s: %s names no token of the vocabulary of %u", o.path, key,
                       l->n);
    return FR_OK;
}

/* Does the tokenizer itself begin a text with a token? 1, 0, or -1: it does not say. */
static int template_adds_bos(fr_hf_object step)
{
    const cJSON *type = cJSON_GetObjectItemCaseSensitive(step.at, "type"), *one;
    const char *name = cJSON_GetStringValue(type);
    if (name && strcmp(name, "TemplateProcessing") == 0) {
        const cJSON *single = cJSON_GetObjectItemCaseSensitive(step.at, "single");
        return cJSON_HasObjectItem(cJSON_GetArrayItem(single, 0), "SpecialToken");
    }
    cJSON_ArrayForEach(one, cJSON_GetObjectItemCaseSensitive(step.at, "processors"))
    {
        int adds = template_adds_bos((fr_hf_object){step.path, one});
        if (adds >= 0)
            return adds;
    }
    return -1;
}

static fr_status put_bos(const fr_hf_tokenizer_files *f, const token_list *l, fr_meta_writer *w)
{
    uint32_t bos = 0;
    int add = template_adds_bos(fr_hf_child(f->tokenizer, "post_processor"));
    FR_TRY(fr_hf_optional_bool(f->settings, "add_bos_token", &add));
    FR_TRY(find_named(l, f->settings, "bos_token", &bos));
    if (!bos && fr_hf_has(f->config, "bos_token_id")) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(f->config.at, "bos_token_id");
        FR_TRY(check_id(l, f->config, "bos_token_id", value, &bos));
        bos++;
    }
    if (bos)
        FR_TRY(fr_meta_put_u32(w, "tokenizer.ggml.bos_token_id", bos - 1));
    return add >= 0 ? fr_meta_put_bool(w, "tokenizer.ggml.add_bos_token", add) : FR_OK;
}

/* The end tokens of a file: a number or a list. Counted, and written when w is not NULL. */
static fr_status take_ends(const token_list *l, fr_hf_object o, fr_meta_writer *w, uint64_t *n)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(o.at, "eos_token_id"), *one;
    const cJSON *first = cJSON_IsArray(value) ? value->child : value;
    uint32_t id = 0;
    if (!fr_hf_has(o, "eos_token_id"))
        return FR_OK;
    for (one = first; one; one = cJSON_IsArray(value) ? one->next : NULL) {
        FR_TRY(check_id(l, o, "eos_token_id", one, &id));
        if (w)
            FR_TRY(fr_meta_add_u32(w, id));
        ++*n;
    }
    return FR_OK;
}

static fr_status put_ends(const fr_hf_tokenizer_files *f, const token_list *l, fr_meta_writer *w)
{
    uint32_t eos = 0;
    uint64_t n = 0, written = 0;
    FR_TRY(find_named(l, f->settings, "eos_token", &eos));
    if (eos)
        FR_TRY(fr_meta_put_u32(w, "tokenizer.ggml.eos_token_id", eos - 1));
    FR_TRY(take_ends(l, f->config, NULL, &n));
    FR_TRY(take_ends(l, f->generation, NULL, &n));
    FR_TRY(fr_meta_put_array(w, "forerun.end_token_ids", FR_META_U32, n));
    FR_TRY(take_ends(l, f->config, w, &written));
    return take_ends(l, f->generation, w, &written);
}

/* --- the chat template --- */

/* One text, or a list of {"name", "template"}, of which "default" is meant. */
static fr_status put_chat(const fr_hf_tokenizer_files *f, fr_meta_writer *w)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(f->settings.at, "chat_template"), *one;
    const char *text = cJSON_GetStringValue(value);
    fr_str chat = f->chat_template;
    if (cJSON_IsArray(value)) {
        cJSON_ArrayForEach(one, value)
        {
            const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(one, "name"));
            if (name && strcmp(name, "default") == 0)
                text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(one, "template"));
        }
    }
    if (!chat.data && text)
        chat = fr_str_of(text);
    return chat.data ? fr_meta_put_str(w, "tokenizer.chat_template", chat) : FR_OK;
}

static fr_status put_all(const fr_hf_tokenizer_files *f, token_list *l, fr_meta_writer *w)
{
    fr_hf_object model = fr_hf_child(f->tokenizer, "model");
    fr_hf_object normalizer = fr_hf_child(f->tokenizer, "normalizer");
    const char *pre = NULL;
    FR_TRY(fr_hf_pretokenizer(f->tokenizer, &pre));
    FR_TRY(check_model(model, &pre));
    if (normalizer.at)
        FR_TRY(check_normalizer(normalizer));
    FR_TRY(take_tokens(l, f->tokenizer, model));
    FR_TRY(fr_meta_put_str(w, "tokenizer.ggml.model", fr_str_of("gpt2")));
    FR_TRY(fr_meta_put_str(w, "tokenizer.ggml.pre", fr_str_of(pre)));
    FR_TRY(put_tokens(l, w));
    FR_TRY(put_merges(model, w));
    FR_TRY(put_bos(f, l, w));
    FR_TRY(put_ends(f, l, w));
    return put_chat(f, w);
}

fr_status fr_hf_tokenizer_put(const fr_hf_tokenizer_files *files, int64_t n_vocab,
                              fr_meta_writer *w)
{
    token_list l = {.path = files->tokenizer.path, .room = (uint32_t)n_vocab};
    fr_status st = put_all(files, &l, w);
    free(l.text);
    free(l.type);
    return st;
}
