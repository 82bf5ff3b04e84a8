/* writer.c: see writer.h. */
#include "writer.h"

#include <math.h>
#include <string.h>

#include "check.h"

int fr_chain_room(const fr_chain *chain, const fr_policy_params *params, int more)
{
    int room = params->max_tokens - fr_chain_len(chain) - more;
    if (params->max_context > 0) {
        int left = params->max_context - (int)chain->ids.len - more;
        room = left < room ? left : room;
    }
    return room > 0 ? room : 0;
}

const char *fr_chain_stop(const fr_chain *chain, const fr_policy_params *params)
{
    int n = fr_chain_len(chain);
    if (n > 0 && fr_tokenizer_is_end(chain->target, chain->ids.data[chain->ids.len - 1]))
        return "end";
    if (n >= params->max_tokens)
        return "limit";
    return fr_chain_room(chain, params, 0) == 0 ? "context" : NULL;
}

void fr_writer_init(fr_writer *w, const fr_policy_host *host, fr_chain *chain,
                    const fr_policy_params *params)
{
    *w = (fr_writer){.host = host, .chain = chain, .params = params};
    fr_step_scan_init(&w->scan, chain->target, params);
}

void fr_writer_free(fr_writer *w)
{
    fr_step_scan_free(&w->scan);
    fr_ids_free(&w->pending);
}

void fr_writer_restart(fr_writer *w, fr_origin origin)
{
    fr_step_scan_reset(&w->scan);
    w->pending.len = 0;
    w->origin = origin;
    w->drafted = w->kept = w->n_committed = 0;
    w->stop = fr_chain_stop(w->chain, w->params);
}

static fr_status commit(fr_writer *w, int n)
{
    fr_step_record step = {.ids = w->pending.data, .n_ids = n, .origin = w->origin, .accepted = 1,
                           .score = NAN, .drafted = w->drafted, .kept = w->kept};
    FR_TRY(w->host->commit(w->host->ctx, &step));
    w->pending.len -= (size_t)n;
    memmove(w->pending.data, w->pending.data + n, w->pending.len * sizeof *w->pending.data);
    w->drafted = w->kept = 0;
    w->n_committed++;
    return FR_OK;
}

static fr_status put_step_token(fr_writer *w, int32_t id)
{
    int length = 0;
    FR_TRY(fr_ids_put(&w->pending, &id, 1));
    FR_TRY(fr_step_scan_feed(&w->scan, id, &length));
    if (length == 0)
        return FR_OK;
    FR_TRY(commit(w, length));
    /* What was held back is shorter than the cap and without a delimiter: it completes no step. */
    for (size_t i = 0; i < w->pending.len; i++)
        FR_TRY(fr_step_scan_feed(&w->scan, w->pending.data[i], &length));
    return FR_OK;
}

fr_status fr_writer_put(fr_writer *w, int32_t id)
{
    FR_TRY(put_step_token(w, id));
    int n = (int)w->pending.len;
    if (fr_tokenizer_is_end(w->chain->target, id))
        w->stop = "end";
    else if (fr_chain_len(w->chain) + n >= w->params->max_tokens)
        w->stop = "limit";
    else if (fr_chain_room(w->chain, w->params, n) == 0)
        w->stop = "context";
    return w->stop && n ? commit(w, n) : FR_OK;
}

fr_status fr_writer_finish(fr_writer *w, const char *stop)
{
    w->stop = stop;
    return w->pending.len ? commit(w, (int)w->pending.len) : FR_OK;
}

void fr_writer_show(const fr_writer *w)
{
    w->host->tail(w->host->ctx, w->pending.data, (int)w->pending.len);
}
