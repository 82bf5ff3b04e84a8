/* drafting.c: see drafting.h. */
#include "drafting.h"

#include <limits.h>

#include "check.h"
#include "writer.h"

fr_status fr_ask_generate(const fr_policy_host *host, const fr_generate_call *call,
                          uint64_t *call_out)
{
    *call_out = 0;
    fr_status st = host->generate(host->ctx, call, call_out);
    if (st == FR_EUNAVAILABLE && call->role == FR_ROLE_DRAFT) {
        *call_out = 0;
        return FR_OK;
    }
    return st;
}

fr_status fr_drafting_ask(const fr_policy_host *host, const fr_chain *ahead,
                          const fr_policy_params *params, int stream, uint64_t *call_out)
{
    *call_out = 0;
    if (!ahead->draft)
        return FR_OK;
    const fr_ids *ids = ahead->same_tokenizer ? &ahead->ids : &ahead->draft_ids;
    int room = INT_MAX;
    if (ahead->same_tokenizer)
        room = fr_chain_room(ahead, params, 0);
    else if (params->max_context > 0)
        room = params->max_context - (int)ids->len;
    int cap = params->step_tokens > 0 ? params->step_tokens : params->max_tokens;
    fr_generate_call call = {.role = FR_ROLE_DRAFT,
                             .ids = ids->data,
                             .n_ids = (int)ids->len,
                             .chain_base = ahead->draft_prompt_len,
                             .max_tokens = cap < room ? cap : room,
                             .stop_at_step = 1,
                             .step_from = (int)ids->len,
                             .stream = stream};
    return call.max_tokens > 0 ? fr_ask_generate(host, &call, call_out) : FR_OK;
}

/* Cuts the step that begins at out[begin] where steps end. *open_out: 1 when it does not end:
 * more could follow. */
static fr_status cut_step(const fr_chain *ahead, const fr_policy_params *params, fr_ids *out,
                          size_t begin, int *open_out)
{
    size_t room = (size_t)fr_chain_room(ahead, params, 0), n = out->len - begin,
           keep = n < room ? n : room;
    fr_step_scan scan;
    fr_step_scan_init(&scan, ahead->target, params);
    fr_status st = FR_OK;
    int length = 0;
    for (size_t i = 0; i < keep && length == 0 && st == FR_OK; i++)
        st = fr_step_scan_feed(&scan, out->data[begin + i], &length);
    fr_step_scan_free(&scan);
    if (length)
        keep = (size_t)length;
    *open_out = keep == n && length == 0;
    out->len = begin + keep;
    return st;
}

/* The drafted text as the target may read it. *cut_out: 1 when its end was left out. */
static fr_status usable_text(const fr_chain *ahead, const int32_t *ids, size_t n, fr_buf *out,
                             int *cut_out)
{
    fr_buf text = {0};
    fr_status st = fr_detokenize(ahead->draft, ids, n, 0, &text);
    if (st == FR_OK) {
        size_t unfinished = fr_utf8_unfinished(text.data, text.len);
        *cut_out = unfinished > 0 && unfinished < text.len;
        st = fr_utf8_clean(text.data, text.len - (*cut_out ? unfinished : 0), out);
    }
    fr_buf_free(&text);
    return st;
}

static fr_status retokenize(const fr_chain *ahead, const fr_policy_params *params,
                            const fr_msg_generated *reply, fr_buf *text, fr_ids *out)
{
    size_t n = 0, begin = out->len;
    int cut = 0, open = 0, n_ends = 0;
    while (n < reply->n_ids && !fr_tokenizer_is_end(ahead->draft, reply->ids[n]))
        n++;
    FR_TRY(usable_text(ahead, reply->ids, n, text, &cut));
    if (text->len)
        FR_TRY(fr_tokenize(ahead->target, (const char *)text->data, text->len, 0, out));
    FR_TRY(cut_step(ahead, params, out, begin, &open));
    const int32_t *ends = fr_tokenizer_ends(ahead->target, &n_ends);
    int ended = n < reply->n_ids && !cut && open && n_ends > 0;
    return ended && fr_chain_room(ahead, params, (int)(out->len - begin)) > 0
               ? fr_ids_put(out, ends, 1)
               : FR_OK;
}

fr_status fr_drafting_take(const fr_chain *ahead, const fr_policy_params *params,
                           const fr_msg_generated *reply, fr_ids *out)
{
    if (ahead->same_tokenizer) {
        int open = 0;
        size_t begin = out->len;
        FR_TRY(fr_ids_put(out, reply->ids, reply->n_ids));
        return cut_step(ahead, params, out, begin, &open);
    }
    fr_buf text = {0};
    fr_status st = retokenize(ahead, params, reply, &text, out);
    fr_buf_free(&text);
    return st;
}
