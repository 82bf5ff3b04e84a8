/* stop_rules.c: see stop_rules.h. */
#include "stop_rules.h"

#include <string.h>

#include "check.h"

/* Decodes ids [from, n) as the text so far. */
static fr_status decode_from(fr_stop_rules *r, const int32_t *ids, int from, int step_from, int n)
{
    r->text.len = 0;
    r->step_at = 0;
    if (step_from > from) {
        FR_TRY(fr_detokenize(r->tokenizer, ids + from, (size_t)(step_from - from), 0, &r->text));
        r->step_at = r->text.len;
        from = step_from;
    }
    return fr_detokenize(r->tokenizer, ids + from, (size_t)(n - from), 0, &r->text);
}

fr_status fr_stop_rules_open(fr_stop_rules *r, const fr_tokenizer *tokenizer,
                             const fr_msg_generate *m, const int32_t *ids, int n)
{
    int step_from = (int)m->step_from, chain_base = (int)m->prefix.chain_base;
    int first = step_from < chain_base ? step_from : chain_base;
    *r = (fr_stop_rules){.tokenizer = tokenizer, .stops = m->stops, .n_stops = m->n_stops};
    if (m->stop_at_step && m->delimiter[0])
        r->delimiter = m->delimiter;
    size_t longest = r->delimiter ? strlen(r->delimiter) : 0;
    for (size_t i = 0; i < r->n_stops; i++)
        longest = strlen(r->stops[i]) > longest ? strlen(r->stops[i]) : longest;
    if (longest == 0)
        return FR_OK;
    /* A rule reaches at most longest - 1 bytes back; tokens of no text make the number of tokens
     * unknown. */
    for (int back = 16;; back *= 4) {
        int from = n - first > back ? n - back : first;
        FR_TRY(decode_from(r, ids, from, step_from, n));
        if (from == first || r->text.len + 1 >= longest)
            return FR_OK;
    }
}

void fr_stop_rules_close(fr_stop_rules *r)
{
    fr_buf_free(&r->text);
}

/* Does an occurrence that begins at or after `first` end behind old_len? */
static int completed(const fr_stop_rules *r, const char *what, size_t first, size_t old_len)
{
    size_t n = strlen(what), from = old_len >= n ? old_len - (n - 1) : 0;
    if (from < first)
        from = first;
    return n > 0 && r->text.len > old_len &&
           memmem(r->text.data + from, r->text.len - from, what, n) != NULL;
}

fr_status fr_stop_rules_feed(fr_stop_rules *r, int32_t id, const char **stop_out)
{
    size_t old_len = r->text.len;
    *stop_out = NULL;
    if (!r->delimiter && r->n_stops == 0)
        return FR_OK;
    FR_TRY(fr_detokenize(r->tokenizer, &id, 1, 0, &r->text));
    if (r->delimiter && completed(r, r->delimiter, r->step_at, old_len))
        *stop_out = "step";
    for (size_t i = 0; i < r->n_stops && !*stop_out; i++)
        if (completed(r, r->stops[i], 0, old_len))
            *stop_out = "stop";
    return FR_OK;
}
