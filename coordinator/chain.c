/* chain.c: see chain.h.
 *
 * When the tokenizers differ the draft's ids of a step are those of the step's text tokenised by
 * itself. A step that was cut in the middle of a character leaves its last bytes to the next
 * one, and bytes that are no UTF-8 at all reach the draft as U+FFFD: what the draft reads is
 * only a hint, but it must be the same hint after a restart. */
#include "chain.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "check.h"

/* Bytes at the front of data that are whole, valid UTF-8 characters. */
static size_t valid_utf8(const void *data, size_t n)
{
    size_t at = 0;
    while (at < n) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k =
            utf8proc_iterate((const utf8proc_uint8_t *)data + at, (utf8proc_ssize_t)(n - at), &c);
        if (k <= 0)
            break;
        at += (size_t)k;
    }
    return at;
}

fr_status fr_utf8_clean(const void *data, size_t n, fr_buf *out)
{
    const char *text = data;
    for (size_t at = 0; at < n; at++) {
        size_t good = valid_utf8(text + at, n - at);
        FR_TRY(fr_buf_put(out, text + at, good));
        at += good;
        if (at < n)
            FR_TRY(fr_buf_put(out, "\xef\xbf\xbd", 3));
    }
    return FR_OK;
}

static fr_status check_text(const char *field, const char *text)
{
    size_t n = strlen(text), good = valid_utf8(text, n);
    if (good < n)
        return fr_fail(FR_EFORMAT, "%s: invalid UTF-8 at byte %zu", field, good);
    return FR_OK;
}

static fr_status put_prompt(const fr_tokenizer *t, const char *system, const char *problem, int raw,
                            fr_ids *ids)
{
    if (raw)
        return fr_tokenize_prompt(t, problem, strlen(problem), ids);
    return fr_chat_tokenize_prompt(t, fr_tokenizer_chat_style(t), system, problem, ids);
}

fr_status fr_chain_open(fr_chain *c, const fr_tokenizer *target, const fr_tokenizer *draft,
                        const char *system, const char *problem, int raw)
{
    *c = (fr_chain){.target = target, .draft = draft};
    FR_TRY(check_text("problem", problem));
    if (system)
        FR_TRY(check_text("system", system));
    c->same_tokenizer = draft && fr_tokenizer_digest(draft) == fr_tokenizer_digest(target);
    fr_status st;
    FR_TRY_GOTO(st, put_prompt(target, system, problem, raw, &c->ids), fail);
    if (draft && !c->same_tokenizer)
        FR_TRY_GOTO(st, put_prompt(draft, system, problem, raw, &c->draft_ids), fail);
    if (c->ids.len == 0 || (draft && !c->same_tokenizer && c->draft_ids.len == 0)) {
        st = fr_fail(FR_EINVAL, "problem: the prompt is empty");
        goto fail;
    }
    c->prompt_len = (int)c->ids.len;
    c->draft_prompt_len = c->same_tokenizer ? c->prompt_len : (int)c->draft_ids.len;
    return FR_OK;
fail:
    fr_chain_close(c);
    return st;
}

void fr_chain_close(fr_chain *c)
{
    if (!c)
        return;
    fr_ids_free(&c->ids);
    fr_ids_free(&c->draft_ids);
    fr_buf_free(&c->text);
    free(c->marks);
    *c = (fr_chain){0};
}

static fr_status reserve_marks(fr_chain *c, int n)
{
    if (n <= c->cap_marks)
        return FR_OK;
    int cap = c->cap_marks ? c->cap_marks : 16;
    while (cap < n)
        cap *= 2;
    fr_chain_mark *marks = realloc(c->marks, (size_t)cap * sizeof *marks);
    if (!marks)
        return fr_no_memory();
    c->marks = marks;
    c->cap_marks = cap;
    return FR_OK;
}

static void rewind_to(fr_chain *c, const fr_chain_mark *m)
{
    c->ids.len = m->ids;
    c->draft_ids.len = m->draft_ids;
    c->text.len = m->text;
}

static fr_status put_draft_ids(fr_chain *c, const char *text, size_t n)
{
    fr_buf clean = {0};
    fr_status st = fr_utf8_clean(text, n, &clean);
    if (st == FR_OK)
        st = fr_tokenize(c->draft, (const char *)clean.data, clean.len, 0, &c->draft_ids);
    fr_buf_free(&clean);
    return st;
}

static fr_status append_step(fr_chain *c, const int32_t *ids, size_t n)
{
    size_t begin = c->text.len - fr_utf8_unfinished(c->text.data, c->text.len);
    FR_TRY(fr_ids_put(&c->ids, ids, n));
    FR_TRY(fr_detokenize(c->target, ids, n, 0, &c->text));
    if (!c->draft || c->same_tokenizer)
        return FR_OK;
    size_t end = c->text.len - fr_utf8_unfinished(c->text.data, c->text.len);
    return end > begin ? put_draft_ids(c, (const char *)c->text.data + begin, end - begin) : FR_OK;
}

fr_status fr_chain_append(fr_chain *c, const int32_t *ids, size_t n)
{
    if (n == 0)
        return fr_fail(FR_EINVAL, "step %d is empty", c->n_steps);
    FR_TRY(reserve_marks(c, c->n_steps + 1));
    fr_chain_mark mark = {c->ids.len, c->draft_ids.len, c->text.len};
    fr_status st = append_step(c, ids, n);
    if (st != FR_OK) {
        rewind_to(c, &mark);
        return st;
    }
    c->marks[c->n_steps++] = mark;
    return FR_OK;
}

int fr_chain_len(const fr_chain *c)
{
    return (int)c->ids.len - c->prompt_len;
}

fr_status fr_chain_copy(fr_chain *to, const fr_chain *from)
{
    to->target = from->target;
    to->draft = from->draft;
    to->same_tokenizer = from->same_tokenizer;
    to->prompt_len = from->prompt_len;
    to->draft_prompt_len = from->draft_prompt_len;
    to->n_steps = 0;
    to->ids.len = to->draft_ids.len = to->text.len = 0;
    FR_TRY(reserve_marks(to, from->n_steps));
    FR_TRY(fr_ids_put(&to->ids, from->ids.data, from->ids.len));
    FR_TRY(fr_ids_put(&to->draft_ids, from->draft_ids.data, from->draft_ids.len));
    FR_TRY(fr_buf_put(&to->text, from->text.data, from->text.len));
    if (from->n_steps)
        memcpy(to->marks, from->marks, (size_t)from->n_steps * sizeof *to->marks);
    to->n_steps = from->n_steps;
    return FR_OK;
}

void fr_chain_truncate(fr_chain *c, int n_steps)
{
    if (n_steps >= c->n_steps)
        return;
    rewind_to(c, &c->marks[n_steps]);
    c->n_steps = n_steps;
}

const int32_t *fr_chain_step(const fr_chain *c, int i, int *n_out)
{
    size_t begin = c->marks[i].ids, end = i + 1 < c->n_steps ? c->marks[i + 1].ids : c->ids.len;
    *n_out = (int)(end - begin);
    return c->ids.data + begin;
}

int fr_chain_repeats(const fr_chain *c, int times)
{
    if (times < 2 || c->n_steps < times)
        return 0;
    int n = 0, m = 0;
    const int32_t *last = fr_chain_step(c, c->n_steps - 1, &n);
    for (int i = 2; i <= times; i++) {
        const int32_t *other = fr_chain_step(c, c->n_steps - i, &m);
        if (m != n || memcmp(other, last, (size_t)n * sizeof *last) != 0)
            return 0;
    }
    return 1;
}
