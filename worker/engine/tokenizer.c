/* tokenizer.c: the tokenizer's life and use. Text goes through three steps: control and user tokens
 * are cut out, leftmost first and there the longest; what lies between is split by the model's
 * expressions; each piece is merged. Immutable after fr_tokenizer_finish(): what a call needs is on
 * its stack or in its own scratch memory. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "hash.h"
#include "tokenizer_impl.h"
#include "utf8.h"

/* --- lists of ids --- */

void fr_ids_free(fr_ids *ids)
{
    if (!ids)
        return;
    free(ids->data);
    *ids = (fr_ids){0};
}

fr_status fr_ids_put(fr_ids *ids, const int32_t *more, size_t n)
{
    if (n > ids->cap - ids->len) {
        size_t cap = ids->cap ? ids->cap : 32;
        while (n > cap - ids->len) {
            if (cap > SIZE_MAX / 2 / sizeof *ids->data)
                return fr_no_memory();
            cap *= 2;
        }
        int32_t *data = realloc(ids->data, cap * sizeof *data);
        if (!data)
            return fr_no_memory();
        ids->data = data;
        ids->cap = cap;
    }
    if (n)
        memcpy(ids->data + ids->len, more, n * sizeof *more);
    ids->len += n;
    return FR_OK;
}

/* --- building --- */

fr_status fr_tokenizer_new(fr_tokenizer **out)
{
    fr_tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return fr_no_memory();
    t->bos = -1;
    *out = t;
    return FR_OK;
}

void fr_tokenizer_free(fr_tokenizer **p)
{
    fr_tokenizer *t = p ? *p : NULL;
    if (!t)
        return;
    free(t->score_prefill);
    free(t->score_question);
    fr_splitter_free(&t->splitter);
    fr_bpe_free(&t->bpe);
    fr_vocab_free(&t->vocab);
    free(t);
    *p = NULL;
}

fr_status fr_tokenizer_add_end(fr_tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->vocab.n)
        return fr_fail(FR_EFORMAT, "end token %d is not in the vocabulary of %d", id, t->vocab.n);
    if (fr_tokenizer_is_end(t, id))
        return FR_OK;
    if (t->n_ends == FR_ENDS_MAX)
        return fr_fail(FR_ELIMIT, "more than %d end tokens", FR_ENDS_MAX);
    t->ends[t->n_ends++] = id;
    return FR_OK;
}

fr_status fr_tokenizer_set_text(char **field, const char *what, const void *bytes, size_t n)
{
    size_t good = fr_utf8_check(bytes, n);
    if (good < n)
        return fr_fail(FR_EFORMAT, "%s: invalid UTF-8 at byte %zu", what, good);
    if (n && memchr(bytes, 0, n))
        return fr_fail(FR_EFORMAT, "%s: contains a zero byte", what);
    char *copy = malloc(n + 1);
    if (!copy)
        return fr_no_memory();
    if (n)
        memcpy(copy, bytes, n);
    copy[n] = 0;
    free(*field);
    *field = copy;
    return FR_OK;
}

/* Over what decides the ids of a text. Lengths go in too, so that tokens cannot run into each
 * other. */
static uint64_t take_digest(const fr_tokenizer *t)
{
    uint32_t pre = t->pre;
    uint64_t h = fr_hash(FR_HASH_INIT, &pre, sizeof pre);
    h = fr_hash(h, t->vocab.klass, (size_t)t->vocab.n);
    h = fr_hash(h, t->vocab.start, ((size_t)t->vocab.n + 1) * sizeof *t->vocab.start);
    h = fr_hash(h, t->vocab.bytes, t->vocab.start[t->vocab.n]);
    return fr_hash(h, t->bpe.merges, t->bpe.n * sizeof *t->bpe.merges);
}

fr_status fr_tokenizer_finish(fr_tokenizer *t)
{
    FR_TRY(fr_splitter_new(t->pre, &t->splitter));
    t->digest = take_digest(t);
    return FR_OK;
}

/* --- what it is --- */

uint64_t fr_tokenizer_digest(const fr_tokenizer *t)
{
    return t->digest;
}

int32_t fr_tokenizer_n_vocab(const fr_tokenizer *t)
{
    return t->vocab.n;
}

fr_chat_style fr_tokenizer_chat_style(const fr_tokenizer *t)
{
    return t->chat;
}

int fr_tokenizer_is_end(const fr_tokenizer *t, int32_t id)
{
    for (int i = 0; i < t->n_ends; i++) {
        if (t->ends[i] == id)
            return 1;
    }
    return 0;
}

int fr_tokenizer_is_special(const fr_tokenizer *t, int32_t id)
{
    if (id < 0 || id >= t->vocab.n)
        return 0;
    return t->vocab.klass[id] == FR_TOKEN_CONTROL || t->vocab.klass[id] == FR_TOKEN_USER;
}

const int32_t *fr_tokenizer_ends(const fr_tokenizer *t, int *n_out)
{
    *n_out = t->n_ends;
    return t->ends;
}

const char *fr_tokenizer_score_question(const fr_tokenizer *t)
{
    return t->score_question ? t->score_question : FR_SCORE_QUESTION;
}

const char *fr_tokenizer_score_prefill(const fr_tokenizer *t)
{
    return t->score_prefill ? t->score_prefill : FR_SCORE_PREFILL;
}

/* --- text to ids --- */

typedef struct text_run {
    const fr_tokenizer *t;
    fr_bpe_scratch scratch;
    fr_ids *ids;
} text_run;

static fr_status put_piece(void *arg, const char *piece, size_t n)
{
    text_run *r = arg;
    /* Llama 3's tokenizer takes a piece that is a token as it is, whatever the merges would make of
     * it (tokenizer.json's ignore_merges). */
    if (r->t->pre == FR_PRE_LLAMA3) {
        int32_t whole = fr_vocab_find(&r->t->vocab, piece, n, FR_TOKEN_NORMAL);
        if (whole >= 0)
            return fr_ids_put(r->ids, &whole, 1);
    }
    return fr_bpe_piece(&r->t->bpe, &r->scratch, piece, n, r->ids);
}

static fr_status put_plain(text_run *r, const char *text, size_t n)
{
    if (n == 0)
        return FR_OK;
    return fr_splitter_each(r->t->splitter, text, n, put_piece, r);
}

/* text is the parts joined. Plain text runs on from part to part; special tokens are looked for
 * inside each. */
static fr_status put_parts(text_run *r, const char *text, const fr_text_part *parts, int n_parts)
{
    size_t plain = 0, at = 0; /* plain: start of the text not yet put */
    for (int p = 0; p < n_parts; p++) {
        size_t end = at + parts[p].n;
        while (at < end) {
            size_t len = 0;
            int32_t id = fr_vocab_match_special(&r->t->vocab, text + at, end - at,
                                                parts[p].parse_special, &len);
            if (id < 0) {
                at++;
                continue;
            }
            FR_TRY(put_plain(r, text + plain, at - plain));
            FR_TRY(fr_ids_put(r->ids, &id, 1));
            at += len;
            plain = at;
        }
    }
    return put_plain(r, text + plain, at - plain);
}

static fr_status check_parts(const fr_text_part *parts, int n_parts, size_t *total_out)
{
    size_t total = 0;
    for (int p = 0; p < n_parts; p++) {
        if (parts[p].n >= INT32_MAX || (total += parts[p].n) >= INT32_MAX)
            return fr_fail(FR_ELIMIT, "a text of over 2 GiB is too long");
        size_t good = fr_utf8_check(parts[p].text, parts[p].n);
        if (good < parts[p].n)
            return fr_fail(FR_EFORMAT, "invalid UTF-8 at byte %zu", good);
    }
    *total_out = total;
    return FR_OK;
}

static char *join_parts(const fr_text_part *parts, int n_parts, size_t total)
{
    char *text = malloc(total + 1);
    size_t at = 0;
    for (int p = 0; text && p < n_parts; p++) {
        if (parts[p].n)
            memcpy(text + at, parts[p].text, parts[p].n);
        at += parts[p].n;
    }
    return text;
}

fr_status fr_tokenize_parts(const fr_tokenizer *t, const fr_text_part *parts, int n_parts,
                            fr_ids *ids)
{
    size_t total = 0, len_before = ids->len;
    FR_TRY(check_parts(parts, n_parts, &total));
    char *joined = n_parts == 1 ? NULL : join_parts(parts, n_parts, total);
    if (n_parts != 1 && !joined)
        return fr_no_memory();
    text_run r = {.t = t, .ids = ids};
    fr_status st = put_parts(&r, joined ? joined : parts[0].text, parts, n_parts);
    if (st != FR_OK)
        ids->len = len_before;
    fr_bpe_scratch_free(&r.scratch);
    free(joined);
    return st;
}

fr_status fr_tokenize(const fr_tokenizer *t, const char *text, size_t n, int parse_special,
                      fr_ids *ids)
{
    fr_text_part part = {text, n, parse_special};
    return fr_tokenize_parts(t, &part, 1, ids);
}

/* With the BOS in front when wanted and not there. */
static fr_status tokenize_with_bos(const fr_tokenizer *t, const fr_text_part *parts, int n_parts,
                                   fr_ids *ids)
{
    size_t before = ids->len;
    if (!t->add_bos || t->bos < 0)
        return fr_tokenize_parts(t, parts, n_parts, ids);
    FR_TRY(fr_ids_put(ids, &t->bos, 1));
    fr_status st = fr_tokenize_parts(t, parts, n_parts, ids);
    if (st != FR_OK) {
        ids->len = before;
    } else if (ids->len > before + 1 && ids->data[before + 1] == t->bos) {
        ids->len--;
        memmove(ids->data + before, ids->data + before + 1,
                (ids->len - before) * sizeof *ids->data);
    }
    return st;
}

fr_status fr_tokenize_prompt(const fr_tokenizer *t, const char *text, size_t n, fr_ids *ids)
{
    fr_text_part part = {text, n, 1};
    return tokenize_with_bos(t, &part, 1, ids);
}

fr_status fr_chat_tokenize_prompt(const fr_tokenizer *t, fr_chat_style style, const char *system,
                                  const char *user, fr_ids *ids)
{
    fr_text_part parts[FR_CHAT_PARTS_MAX];
    return tokenize_with_bos(t, parts, fr_chat_prompt_parts(style, system, user, parts), ids);
}

fr_status fr_chat_tokenize_probe(const fr_tokenizer *t, fr_chat_style style, const char *question,
                                 const char *prefill, fr_ids *ids)
{
    fr_text_part parts[FR_CHAT_PARTS_MAX];
    return fr_tokenize_parts(t, parts, fr_chat_probe_parts(style, question, prefill, parts), ids);
}

/* --- ids to text --- */

const char *fr_token_bytes(const fr_tokenizer *t, int32_t id, size_t *n_out)
{
    *n_out = 0;
    if (id < 0 || id >= t->vocab.n)
        return NULL;
    return (const char *)fr_vocab_bytes(&t->vocab, id, n_out);
}

fr_status fr_detokenize(const fr_tokenizer *t, const int32_t *ids, size_t n, int keep_special,
                        fr_buf *out)
{
    size_t before = out->len;
    for (size_t i = 0; i < n; i++) {
        size_t len = 0;
        const char *bytes = fr_token_bytes(t, ids[i], &len);
        fr_status st = FR_OK;
        if (!bytes)
            st = fr_fail(FR_EINVAL, "token %d is not in the vocabulary of %d", ids[i], t->vocab.n);
        else if (keep_special || t->vocab.klass[ids[i]] != FR_TOKEN_CONTROL)
            st = fr_buf_put(out, bytes, len);
        if (st != FR_OK) {
            out->len = before;
            return st;
        }
    }
    return FR_OK;
}
