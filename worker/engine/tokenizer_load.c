/* tokenizer_load.c: a tokenizer from a model file's metadata (tokenizer.ggml.*). Ordinary tokens
 * are spelt in GPT-2's printable characters there, control and user tokens as they are. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "tokenizer_impl.h"
#include "utf8.h"

/* GGUF's token types. */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_UNUSED = 5 };

/* These end a turn or a text whatever a file calls them: many files name only one of theirs, or
 * mark them as text. */
static const char *const end_texts[] = {
    "<|im_end|>", "<|endoftext|>",   "<|eot_id|>",
    "<|eom_id|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>",
};

static int is_end_text(fr_str s)
{
    for (size_t i = 0; i < sizeof end_texts / sizeof *end_texts; i++) {
        if (fr_str_equal(s, (fr_str){end_texts[i], strlen(end_texts[i])}))
            return 1;
    }
    return 0;
}

/* Converters fill a vocabulary up to the size of the embedding with "[PAD151665]" and so on. */
static int is_padding(fr_str s, int type)
{
    if (type == TYPE_UNUSED)
        return 1;
    if (s.len < 6 || memcmp(s.data, "[PAD", 4) || s.data[s.len - 1] != ']')
        return 0;
    for (size_t i = 4; i < s.len - 1; i++) {
        if (s.data[i] < '0' || s.data[i] > '9')
            return 0;
    }
    return 1;
}

static fr_token_class class_of(fr_str s, int type)
{
    if (type == TYPE_CONTROL || type == TYPE_UNKNOWN || is_end_text(s))
        return FR_TOKEN_CONTROL;
    if (type == TYPE_USER)
        return FR_TOKEN_USER;
    return type == TYPE_UNUSED || s.len == 0 ? FR_TOKEN_INERT : FR_TOKEN_NORMAL;
}

/* The array of token types, or NULL when the file has none. */
static fr_status find_types(const fr_model_file *f, uint64_t n, const fr_meta **out)
{
    const fr_meta *m = fr_model_file_meta(f, "tokenizer.ggml.token_type");
    if (m && (m->type != FR_META_ARRAY || m->element_type == FR_META_STR || m->n_elements != n))
        return fr_fail(FR_EFORMAT, "tokenizer.ggml.token_type is no array of %llu numbers",
                       (unsigned long long)n);
    *out = m;
    return FR_OK;
}

static int type_of(const fr_meta *types, uint64_t i)
{
    double type = types ? fr_meta_element(types, i) : TYPE_NORMAL;
    return type >= 0 && type <= 100 ? (int)type : TYPE_NORMAL;
}

static fr_status add_token(fr_vocab *v, fr_str s, int type)
{
    char bytes[FR_TOKEN_BYTES_MAX * 2]; /* two characters at most spell a byte */
    size_t n = s.len;
    fr_token_class klass = class_of(s, type);
    if (klass == FR_TOKEN_NORMAL) {
        if (s.len <= sizeof bytes && fr_gpt2_bytes(s.data, s.len, bytes, &n))
            return fr_vocab_add(v, bytes, n, klass);
        klass = FR_TOKEN_INERT; /* not spelt as merges would: no text becomes it */
    }
    return fr_vocab_add(v, s.data, s.len, klass);
}

static fr_status load_vocab(const fr_model_file *f, fr_vocab *v)
{
    fr_str_iter it, again;
    const fr_meta *types = NULL;
    fr_str s;
    FR_TRY(fr_meta_str_array(f, "tokenizer.ggml.tokens", &it));
    FR_TRY(find_types(f, it.left, &types));
    again = it;
    uint64_t n = 0;
    size_t bytes = 0;
    for (uint64_t i = 0; fr_str_next(&it, &s); i++) {
        bytes += s.len;
        if (!is_padding(s, type_of(types, i)))
            n = i + 1; /* the padding at the end stays out */
    }
    if (n == 0)
        return fr_fail(FR_EFORMAT, "tokenizer.ggml.tokens is empty");
    FR_TRY(fr_vocab_init(v, n, bytes));
    for (uint64_t i = 0; i < n && fr_str_next(&again, &s); i++)
        FR_TRY(add_token(v, s, type_of(types, i)));
    return fr_vocab_index(v);
}

/* The token that one side of a merge spells, or -1. */
static int32_t find_side(const fr_vocab *v, const char *text, size_t n)
{
    char bytes[FR_TOKEN_BYTES_MAX * 2];
    size_t n_bytes = 0;
    int32_t id = -1;
    if (n > sizeof bytes)
        return -1;
    if (fr_gpt2_bytes(text, n, bytes, &n_bytes))
        id = fr_vocab_find(v, bytes, n_bytes, FR_TOKEN_NORMAL);
    return id >= 0 ? id : fr_vocab_find(v, text, n, FR_TOKEN_USER);
}

static fr_status load_merges(const fr_model_file *f, const fr_vocab *v, fr_bpe *b)
{
    fr_str_iter it;
    fr_str s;
    FR_TRY(fr_meta_str_array(f, "tokenizer.ggml.merges", &it));
    FR_TRY(fr_bpe_init(b, v, it.left));
    while (fr_str_next(&it, &s)) {
        char show[FR_SHOW_BYTES];
        const char *gap = s.len ? memchr(s.data + 1, ' ', s.len - 1) : NULL;
        int32_t left = -1, right = -1;
        if (gap) {
            left = find_side(v, s.data, (size_t)(gap - s.data));
            right = find_side(v, gap + 1, (size_t)(s.data + s.len - gap - 1));
        }
        if (left < 0 || right < 0)
            return fr_fail(FR_EFORMAT, "merge %zu (%s) names no two tokens", b->n,
                           fr_str_show(s, show));
        FR_TRY(fr_bpe_add(b, v, left, right));
    }
    return FR_OK;
}

/* A token id of the metadata; -1 when the file has none. */
static fr_status load_id(const fr_model_file *f, const fr_vocab *v, const char *key, int32_t *out)
{
    uint32_t id = 0;
    *out = -1;
    if (!fr_model_file_meta(f, key))
        return FR_OK;
    FR_TRY(fr_meta_u32(f, key, &id));
    if (id >= (uint32_t)v->n)
        return fr_fail(FR_EFORMAT, "%s is %u, the vocabulary has %d tokens", key, id, v->n);
    *out = (int32_t)id;
    return FR_OK;
}

/* What model folders say beyond GGUF's keys. */
static fr_status load_more_ends(const fr_model_file *f, fr_tokenizer *t)
{
    static const char key[] = "forerun.end_token_ids";
    const fr_meta *m = fr_model_file_meta(f, key);
    if (m && (m->type != FR_META_ARRAY || m->element_type != FR_META_U32))
        return fr_fail(FR_EFORMAT, "%s is no array of U32", key);
    for (uint64_t i = 0; m && i < m->n_elements; i++) {
        double id = fr_meta_element(m, i);
        FR_TRY(fr_tokenizer_add_end(t, id <= INT32_MAX ? (int32_t)id : -1));
    }
    return FR_OK;
}

static fr_status load_ends(const fr_model_file *f, fr_tokenizer *t)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int32_t id = -1;
        FR_TRY(load_id(f, &t->vocab, keys[i], &id));
        if (id >= 0)
            FR_TRY(fr_tokenizer_add_end(t, id));
    }
    FR_TRY(load_more_ends(f, t));
    for (size_t i = 0; i < sizeof end_texts / sizeof *end_texts; i++) {
        int32_t id = fr_vocab_find(&t->vocab, end_texts[i], strlen(end_texts[i]), FR_TOKEN_CONTROL);
        if (id >= 0)
            FR_TRY(fr_tokenizer_add_end(t, id));
    }
    return FR_OK;
}

static fr_status load_bos(const fr_model_file *f, fr_tokenizer *t)
{
    t->add_bos = t->pre == FR_PRE_LLAMA3 || t->pre == FR_PRE_LLAMA3_MERGED; /* unless the file says otherwise */
    if (fr_model_file_meta(f, "tokenizer.ggml.add_bos_token"))
        FR_TRY(fr_meta_bool(f, "tokenizer.ggml.add_bos_token", &t->add_bos));
    return load_id(f, &t->vocab, "tokenizer.ggml.bos_token_id", &t->bos);
}

/* An optional string; *out stays as it is when the file has none. */
static fr_status load_str(const fr_model_file *f, const char *key, fr_str *out)
{
    return fr_model_file_meta(f, key) ? fr_meta_str(f, key, out) : FR_OK;
}

static fr_status load_kind(const fr_model_file *f, fr_tokenizer *t)
{
    fr_str model = {0}, pre = {"gpt-2", 5};
    char show[FR_SHOW_BYTES];
    FR_TRY(fr_meta_str(f, "tokenizer.ggml.model", &model));
    if (!fr_str_equal(model, (fr_str){"gpt2", 4}))
        return fr_fail(FR_EUNSUPPORTED, "tokenizer.ggml.model is %s, only gpt2 is supported",
                       fr_str_show(model, show));
    FR_TRY(load_str(f, "tokenizer.ggml.pre", &pre));
    return fr_pre_find(pre, &t->pre);
}

static fr_status load_texts(const fr_model_file *f, fr_tokenizer *t)
{
    fr_str chat = {0}, question = {0}, prefill = {0};
    FR_TRY(load_str(f, "tokenizer.chat_template", &chat));
    FR_TRY(fr_chat_detect(chat.data, chat.len, &t->chat));
    FR_TRY(load_str(f, "forerun.score_question", &question));
    FR_TRY(load_str(f, "forerun.score_prefill", &prefill));
    if (question.data)
        FR_TRY(fr_tokenizer_set_text(&t->score_question, "forerun.score_question", question.data,
                                     question.len));
    if (prefill.data)
        FR_TRY(fr_tokenizer_set_text(&t->score_prefill, "forerun.score_prefill", prefill.data,
                                     prefill.len));
    return FR_OK;
}

static fr_status load(const fr_model_file *f, fr_tokenizer *t)
{
    FR_TRY(load_kind(f, t));
    FR_TRY(load_vocab(f, &t->vocab));
    FR_TRY(load_merges(f, &t->vocab, &t->bpe));
    FR_TRY(load_bos(f, t));
    FR_TRY(load_ends(f, t));
    FR_TRY(load_texts(f, t));
    return fr_tokenizer_finish(t);
}

fr_status fr_tokenizer_from_model(const fr_model_file *file, fr_tokenizer **out)
{
    fr_tokenizer *t = NULL;
    FR_TRY(fr_tokenizer_new(&t));
    fr_status st = load(file, t);
    if (st == FR_OK) {
        *out = t;
        return FR_OK;
    }
    fr_tokenizer_free(&t);
    /* Causes from below the file layer do not know the file yet. */
    const char *name = fr_model_file_name(file);
    if (st != FR_ENOMEM && strncmp(fr_cause(), name, strlen(name)))
        return fr_fail(st, "%s: %s", name, fr_cause());
    return st;
}
