/* token.c: policy `token`: strict speculation from the chain's end to its completion
 * (speculate.h). */
#include <stdlib.h>

#include "check.h"
#include "policies.h"
#include "speculate.h"

typedef struct token {
    fr_policy base;
    fr_speculation spec;
    int finished;
} token;

static fr_status token_open(const fr_policy_host *host, fr_chain *chain,
                            const fr_policy_params *params, fr_policy **out)
{
    token *p = calloc(1, sizeof *p);
    if (!p)
        return fr_no_memory();
    p->base.ops = &fr_policy_token;
    fr_speculate_init(&p->spec, host, chain, params);
    *out = &p->base;
    return FR_OK;
}

static void token_close(fr_policy **policy)
{
    token *p = policy ? (token *)*policy : NULL;
    if (!p)
        return;
    fr_speculate_free(&p->spec);
    free(p);
    *policy = NULL;
}

static fr_status token_advance(fr_policy *policy, const fr_policy_event *e)
{
    token *p = (token *)policy;
    if (p->finished)
        return FR_OK;
    if (e->kind == FR_EVENT_START) {
        FR_TRY(fr_speculate_begin(&p->spec, FR_ORIGIN_TOKEN, 0));
        FR_TRY(fr_speculate_pump(&p->spec));
    } else {
        FR_TRY(fr_speculate_advance(&p->spec, e));
    }
    if (p->spec.done) {
        p->finished = 1;
        p->spec.host->finish(p->spec.host->ctx, p->spec.writer.stop);
    }
    return FR_OK;
}

const fr_policy_ops fr_policy_token = {
    .name = "token",
    .exact = 1,
    .needs_same_tokenizer = 1,
    .open = token_open,
    .advance = token_advance,
    .close = token_close,
};
