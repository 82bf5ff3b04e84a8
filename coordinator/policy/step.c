/* step.c: policy `step`: the draft writes steps, the target judges several at once, and rewrites
 * those it rejects.
 *
 *  1. Drafting: steps are drafted one behind the other onto `ahead`, a copy of the chain, up to
 *     `lookahead` of them.
 *  2. Verifying: all drafted steps go to the target in one pass, with a probe behind each if the
 *     judge asks by probes. With overlap this begins with the first complete step, and drafting
 *     goes on meanwhile.
 *  3. Verdict: accepted steps are committed up to the first rejected one. That one is reported,
 *     and all behind it is void.
 *  4. Rewriting: the target writes the step itself by strict speculation (speculate.h), seeded
 *     with what the same pass already said about the rejected tokens. Back to 1.
 *
 * What is committed is a pure function of the chain: a drafted step depends only on the prefix
 * it was drafted from, its score only on that prefix and on it, and a rewritten step is the
 * target's own. Lookahead, overlap and the order of replies move the work about, never the
 * outcome. So everything that keeps a step from being drafted must look at nothing but its
 * prefix too: `blocked` (the draft repeats itself, or there is no room for step and probe). The
 * one exception is a draft group that is gone and does not come back within the host's grace:
 * then the target writes on alone, step by step, until a draft is there again.
 *
 * A step cut at step_tokens, or at the chain's limit, is judged like any other. A "</think>" in
 * a step is text. */
#include <stdlib.h>

#include "check.h"
#include "drafting.h"
#include "judge.h"
#include "policies.h"
#include "speculate.h"

/* So many equal steps in a row are a loop, which no judge that looks at one step at a time will
 * leave: the target writes the next one. Two can be honest ("So:", a row of a table); three
 * hardly are. */
#define LOOP 3

typedef struct step {
    fr_policy base;
    const fr_policy_host *host;
    fr_chain *chain;
    const fr_policy_params *params;
    fr_judge judge;
    fr_chain ahead;        /* the chain, then the drafted steps that are not decided */
    uint64_t draft_call;   /* 0: none, as below */
    uint64_t verify_call;
    int n_verifying;       /* steps under verification: the first ones behind the chain */
    int blocked;           /* the draft cannot write the step behind `ahead` */
    int rewriting;
    fr_speculation spec;
    fr_ids drafted;        /* scratch: one step in the target's ids */
    fr_msg_probe *probes;  /* of the verification under way */
    int cap_probes;
    int finished;
} step;

static fr_status step_open(const fr_policy_host *host, fr_chain *chain,
                           const fr_policy_params *params, fr_policy **out)
{
    step *p = calloc(1, sizeof *p);
    if (!p)
        return fr_no_memory();
    *p = (step){.base.ops = &fr_policy_step, .host = host, .chain = chain, .params = params};
    fr_status st = fr_judge_open(&p->judge, params->judge, params->threshold, chain->target);
    if (st != FR_OK) {
        free(p);
        return st;
    }
    fr_speculate_init(&p->spec, host, chain, params);
    *out = &p->base;
    return FR_OK;
}

static void step_close(fr_policy **policy)
{
    step *p = policy ? (step *)*policy : NULL;
    if (!p)
        return;
    fr_speculate_free(&p->spec);
    fr_judge_close(&p->judge);
    fr_chain_close(&p->ahead);
    fr_ids_free(&p->drafted);
    free(p->probes);
    free(p);
    *policy = NULL;
}

static void drop_draft(step *p)
{
    if (p->draft_call)
        p->host->cancel(p->host->ctx, p->draft_call);
    p->draft_call = 0;
}

/* Drafted steps that are not under verification. */
static int waiting(const step *p)
{
    return p->ahead.n_steps - p->chain->n_steps - p->n_verifying;
}

static int lookahead(const step *p)
{
    return p->params->lookahead > 1 ? p->params->lookahead : 1;
}

/* ---- 1. drafting ---- */

static fr_status draft_on(step *p)
{
    int may = !p->verify_call || p->params->overlap;
    if (p->draft_call || p->blocked || !may || waiting(p) >= lookahead(p) ||
        fr_chain_stop(&p->ahead, p->params))
        return FR_OK;
    if (!fr_chain_repeats(&p->ahead, LOOP))
        FR_TRY(fr_drafting_ask(p->host, &p->ahead, p->params, 0, &p->draft_call));
    p->blocked = p->draft_call == 0;
    return FR_OK;
}

/* The probe behind the drafted step must fit the context too. */
static int judgeable(const step *p)
{
    size_t need = p->ahead.ids.len + p->drafted.len + p->judge.probe.len;
    return p->params->max_context <= 0 || need <= (size_t)p->params->max_context;
}

static fr_status on_drafted(step *p, const fr_policy_event *e)
{
    p->draft_call = 0;
    p->drafted.len = 0;
    if (e->kind == FR_EVENT_GENERATED)
        FR_TRY(fr_drafting_take(&p->ahead, p->params, e->generated, &p->drafted));
    p->blocked = p->drafted.len == 0 || !judgeable(p);
    return p->blocked ? FR_OK : fr_chain_append(&p->ahead, p->drafted.data, p->drafted.len);
}

/* ---- 2. verifying ---- */

static fr_status put_probes(step *p, int first, int n)
{
    if (!p->judge.ops->probes)
        return FR_OK;
    if (n > p->cap_probes) {
        fr_msg_probe *probes = realloc(p->probes, (size_t)n * sizeof *probes);
        if (!probes)
            return fr_no_memory();
        p->probes = probes;
        p->cap_probes = n;
    }
    for (int i = 0; i < n; i++) {
        int k = 0;
        const int32_t *ids = fr_chain_step(&p->ahead, first + i, &k);
        /* The question stands behind the step's delimiter, but takes the place of an end token. */
        int at = (int)(ids - p->ahead.ids.data) + k;
        fr_judge_probe(&p->judge, at - fr_tokenizer_is_end(p->chain->target, ids[k - 1]),
                       &p->probes[i]);
    }
    return FR_OK;
}

static fr_status verify(step *p)
{
    int first = p->chain->n_steps, n = waiting(p), k = 0;
    n = n < lookahead(p) ? n : lookahead(p);
    FR_TRY(put_probes(p, first, n));
    const int32_t *last = fr_chain_step(&p->ahead, first + n - 1, &k);
    fr_verify_call call = {.ids = p->ahead.ids.data, .n_ids = (int)(last - p->ahead.ids.data) + k,
                           .chain_base = p->chain->prompt_len, .position = (int)p->chain->ids.len,
                           .probes = p->probes, .n_probes = p->judge.ops->probes ? n : 0};
    p->n_verifying = n;
    return p->host->verify(p->host->ctx, &call, &p->verify_call);
}

/* ---- 4. rewriting ---- */

/* `ahead` is the chain again: its first n_same steps are, those committed since are appended. */
static fr_status restart_ahead(step *p, int n_same)
{
    p->blocked = 0;
    fr_chain_truncate(&p->ahead, n_same);
    for (int i = n_same; i < p->chain->n_steps; i++) {
        int n = 0;
        const int32_t *ids = fr_chain_step(p->chain, i, &n);
        FR_TRY(fr_chain_append(&p->ahead, ids, (size_t)n));
    }
    return FR_OK;
}

/* The target writes the next step. drafted[n], answered by own[n + 1]: the rejected one; own
 * NULL: there was none. */
static fr_status rewrite(step *p, const int32_t *drafted, int n, const int32_t *own)
{
    int n_same = p->chain->n_steps;
    drop_draft(p);
    FR_TRY(fr_speculate_begin(&p->spec, own ? FR_ORIGIN_REWRITTEN : FR_ORIGIN_TARGET, 1));
    if (own)
        FR_TRY(fr_speculate_seed(&p->spec, drafted, n, own));
    FR_TRY(fr_speculate_pump(&p->spec));
    p->rewriting = !p->spec.done;
    return restart_ahead(p, n_same);
}

static fr_status on_rewriting(step *p, const fr_policy_event *e)
{
    int n_same = p->chain->n_steps;
    FR_TRY(fr_speculate_advance(&p->spec, e));
    p->rewriting = !p->spec.done;
    return p->rewriting ? FR_OK : restart_ahead(p, n_same);
}

/* ---- 3. verdict ---- */

static fr_status check_reply(const step *p, const fr_msg_verified *m, int n_drafted)
{
    if (m->n_own != (size_t)n_drafted + 1)
        return fr_fail(FR_EPROTO, "verified: %zu own tokens for %d drafted", m->n_own, n_drafted);
    for (int i = 0; p->judge.ops->probes && i < p->n_verifying && (size_t)i < m->n_probes; i++)
        if (m->probes[i].at != p->probes[i].at)
            return fr_fail(FR_EPROTO, "verified: probe %d is at %u, was asked at %u", i,
                           m->probes[i].at, p->probes[i].at);
    return FR_OK;
}

static fr_status on_verified(step *p, const fr_msg_verified *m)
{
    int first = p->chain->n_steps, n_steps = p->n_verifying, offset = 0, n = 0;
    const int32_t *last = fr_chain_step(&p->ahead, first + n_steps - 1, &n);
    p->verify_call = 0;
    FR_TRY(check_reply(p, m, (int)(last - p->ahead.ids.data) + n - (int)p->chain->ids.len));
    for (int i = 0; i < n_steps; i++, offset += n) {
        const int32_t *ids = fr_chain_step(&p->ahead, first + i, &n);
        fr_step_record record = {.ids = ids, .n_ids = n, .origin = FR_ORIGIN_DRAFT, .drafted = n};
        FR_TRY(fr_judge_score(&p->judge, m, i, offset, n, &record.score));
        record.accepted = fr_judge_accepts(&p->judge, record.score);
        record.kept = record.accepted ? n : 0;
        FR_TRY(p->host->commit(p->host->ctx, &record));
        if (!record.accepted) {
            p->n_verifying = 0;
            return rewrite(p, ids, n, m->own + offset);
        }
    }
    p->n_verifying = 0;
    return FR_OK;
}

/* ---- the machine ---- */

static fr_status pump(step *p)
{
    /* A rewritten step can be complete as soon as it is begun, so this goes round until
     * something is in flight. */
    while (!p->rewriting && !p->verify_call) {
        const char *stop = fr_chain_stop(p->chain, p->params);
        if (stop) {
            p->finished = 1;
            p->host->finish(p->host->ctx, stop);
            return FR_OK;
        }
        FR_TRY(draft_on(p));
        if (waiting(p) > 0 && (p->params->overlap || !p->draft_call))
            FR_TRY(verify(p));
        else if (p->draft_call)
            return FR_OK;
        else
            FR_TRY(rewrite(p, NULL, 0, NULL));
    }
    return p->rewriting ? FR_OK : draft_on(p);
}

static fr_status on_verify_reply(step *p, const fr_policy_event *e)
{
    if (e->kind == FR_EVENT_VERIFIED)
        return on_verified(p, e->verified);
    if (e->kind == FR_EVENT_FAILED) /* not a rejection: nothing is known about the steps */
        return fr_fail(e->status, "%s", e->cause);
    return fr_fail(FR_EPROTO, "a verification was answered by event %d", (int)e->kind);
}

static fr_status step_advance(fr_policy *policy, const fr_policy_event *e)
{
    step *p = (step *)policy;
    /* Tokens are of use to the rewriting only: a drafted step must be complete. */
    if (p->finished || (e->kind == FR_EVENT_TOKENS && !p->rewriting))
        return FR_OK;
    if (e->kind == FR_EVENT_START)
        FR_TRY(fr_chain_copy(&p->ahead, p->chain));
    else if (p->rewriting)
        FR_TRY(on_rewriting(p, e));
    else if (e->call && e->call == p->draft_call)
        FR_TRY(on_drafted(p, e));
    else if (e->call && e->call == p->verify_call)
        FR_TRY(on_verify_reply(p, e));
    else
        return FR_OK;
    return pump(p);
}

const fr_policy_ops fr_policy_step = {
    .name = "step",
    .needs_draft = 1,
    .outlives_draft = 1,
    .open = step_open,
    .advance = step_advance,
    .close = step_close,
};
