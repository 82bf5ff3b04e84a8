/* step_scan.c: see step_scan.h. */
#include "step_scan.h"

#include <limits.h>
#include <string.h>

#include "check.h"

void fr_step_scan_init(fr_step_scan *s, const fr_tokenizer *tokenizer,
                       const fr_policy_params *params)
{
    *s = (fr_step_scan){.tokenizer = tokenizer,
                        .delimiter = params->delimiter ? params->delimiter : "\n\n"};
    s->n_delimiter = strlen(s->delimiter);
    s->cap = params->step_tokens > 0 ? params->step_tokens : INT_MAX;
}

void fr_step_scan_free(fr_step_scan *s)
{
    fr_buf_free(&s->text);
    fr_ids_free(&s->ends);
}

void fr_step_scan_reset(fr_step_scan *s)
{
    s->text.len = 0;
    s->ends.len = 0;
}

static int completes_delimiter(const fr_step_scan *s, size_t old_len)
{
    size_t n = s->n_delimiter;
    if (n == 0 || s->text.len == old_len)
        return 0;
    size_t from = old_len >= n ? old_len - (n - 1) : 0;
    return memmem(s->text.data + from, s->text.len - from, s->delimiter, n) != NULL;
}

/* The longest front of the step that leaves no character unfinished; all of it when there is
 * none. */
static int whole_characters(const fr_step_scan *s)
{
    size_t n = s->ends.len;
    while (n > 0 && fr_utf8_unfinished(s->text.data, (size_t)s->ends.data[n - 1]) != 0)
        n--;
    return (int)(n ? n : s->ends.len);
}

fr_status fr_step_scan_feed(fr_step_scan *s, int32_t id, int *length_out)
{
    *length_out = 0;
    size_t old_len = s->text.len;
    FR_TRY(fr_detokenize(s->tokenizer, &id, 1, 0, &s->text));
    if (s->text.len > INT32_MAX)
        return fr_fail(FR_ELIMIT, "a step of %zu bytes is too long", s->text.len);
    int32_t end = (int32_t)s->text.len;
    FR_TRY(fr_ids_put(&s->ends, &end, 1));
    if (fr_tokenizer_is_end(s->tokenizer, id) || completes_delimiter(s, old_len))
        *length_out = (int)s->ends.len;
    else if (s->ends.len >= (size_t)s->cap)
        *length_out = whole_characters(s);
    if (*length_out)
        fr_step_scan_reset(s);
    return FR_OK;
}
