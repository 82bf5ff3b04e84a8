/* plain.c: policies `target` and `draft`: one model writes the chain alone.
 *
 * One streamed Generate runs to the chain's end; steps are committed as they complete. A draft
 * with its own tokenizer writes step by step instead, since each step is tokenised anew for the
 * chain.
 *
 * The host repeats a call on another group when one dies, and then tokens come again from the
 * call's beginning. They are the same ones, unless the two groups compute a near-tie differently
 * (other degrees of tensor parallelism may): then the committed steps stand, the step under way
 * is dropped, and the call is made anew behind them. So every step is what one group wrote behind
 * the steps before it. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "drafting.h"
#include "policies.h"
#include "writer.h"

typedef struct plain {
    fr_policy base;
    const fr_policy_host *host;
    fr_chain *chain;
    const fr_policy_params *params;
    fr_role role;
    fr_writer writer;
    uint64_t call;  /* 0: none */
    size_t from;    /* length of the chain's ids when the call was made */
    fr_ids step;    /* scratch: a draft's step in the target's ids */
    int finished;
} plain;

static fr_status open_plain(const fr_policy_ops *ops, fr_role role, const fr_policy_host *host,
                            fr_chain *chain, const fr_policy_params *params, fr_policy **out)
{
    plain *p = calloc(1, sizeof *p);
    if (!p)
        return fr_no_memory();
    *p = (plain){.base.ops = ops, .host = host, .chain = chain, .params = params, .role = role};
    fr_writer_init(&p->writer, host, chain, params);
    *out = &p->base;
    return FR_OK;
}

static fr_status target_open(const fr_policy_host *host, fr_chain *chain,
                             const fr_policy_params *params, fr_policy **out)
{
    return open_plain(&fr_policy_target, FR_ROLE_TARGET, host, chain, params, out);
}

static fr_status draft_open(const fr_policy_host *host, fr_chain *chain,
                            const fr_policy_params *params, fr_policy **out)
{
    return open_plain(&fr_policy_draft, FR_ROLE_DRAFT, host, chain, params, out);
}

static void plain_close(fr_policy **policy)
{
    plain *p = policy ? (plain *)*policy : NULL;
    if (!p)
        return;
    fr_writer_free(&p->writer);
    fr_ids_free(&p->step);
    free(p);
    *policy = NULL;
}

static int by_step(const plain *p)
{
    return p->role == FR_ROLE_DRAFT && !p->chain->same_tokenizer;
}

static fr_status finish(plain *p, const char *stop)
{
    p->finished = 1;
    p->host->finish(p->host->ctx, stop);
    return FR_OK;
}

/* Asks for all that follows the committed chain, or reports that nothing does. */
static fr_status go_on(plain *p)
{
    fr_writer_restart(&p->writer, p->role == FR_ROLE_TARGET ? FR_ORIGIN_TARGET : FR_ORIGIN_DRAFT);
    if (p->writer.stop)
        return finish(p, p->writer.stop);
    const fr_ids *ids = &p->chain->ids;
    p->from = ids->len;
    if (by_step(p)) {
        FR_TRY(fr_drafting_ask(p->host, p->chain, p->params, 0, &p->call));
    } else {
        fr_generate_call call = {.role = p->role,
                                 .ids = ids->data,
                                 .n_ids = (int)ids->len,
                                 .chain_base = p->chain->prompt_len,
                                 .step_from = (int)ids->len,
                                 .stream = 1,
                                 .max_tokens = fr_chain_room(p->chain, p->params, 0)};
        FR_TRY(fr_ask_generate(p->host, &call, &p->call));
    }
    if (!p->call && by_step(p) && p->chain->draft && p->params->max_context > 0 &&
        (int)p->chain->draft_ids.len >= p->params->max_context)
        return finish(p, "context");
    if (!p->call)
        return fr_fail(FR_EUNAVAILABLE, "the draft model cannot continue the chain at token %d",
                       fr_chain_len(p->chain));
    return FR_OK;
}

/* How many tokens of the call were taken, and what token i of them was. */
static size_t taken(const plain *p)
{
    return p->chain->ids.len - p->from + p->writer.pending.len;
}

static int32_t taken_token(const plain *p, size_t i)
{
    size_t committed = p->chain->ids.len - p->from;
    return i < committed ? p->chain->ids.data[p->from + i] : p->writer.pending.data[i - committed];
}

/* Takes ids[n], token number `first` of the call and on. *same_out: 0 when they contradict
 * tokens taken before. */
static fr_status take(plain *p, size_t first, const int32_t *ids, size_t n, int *same_out)
{
    *same_out = 1;
    for (size_t i = 0; i < n; i++) {
        size_t have = taken(p);
        if (first + i < have) {
            *same_out = taken_token(p, first + i) == ids[i];
            if (!*same_out)
                return FR_OK;
        } else if (first + i == have && !p->writer.stop) {
            if (p->role == FR_ROLE_DRAFT) {
                p->writer.drafted++;
                p->writer.kept++;
            }
            FR_TRY(fr_writer_put(&p->writer, ids[i]));
        }
    }
    return FR_OK;
}

static fr_status on_tokens(plain *p, const fr_msg_tokens *m)
{
    int same = 1;
    if (by_step(p) || m->position < p->from || m->position - p->from > taken(p))
        return FR_OK; /* the complete reply has them all */
    const size_t had = taken(p);
    FR_TRY(take(p, m->position - p->from, m->ids, m->n_ids, &same));
    if (!same) {
        p->host->cancel(p->host->ctx, p->call);
        p->call = 0;
        return go_on(p);
    }
    /* Even when complete, the reply is waited for: it says what the call cost. */
    if (taken(p) > had)
        fr_writer_show(&p->writer);
    return FR_OK;
}

static fr_status on_generated(plain *p, const fr_msg_generated *m)
{
    int same = 1;
    p->call = 0;
    FR_TRY(take(p, 0, m->ids, m->n_ids, &same));
    if (!same || m->n_ids < taken(p)) /* fewer: a repeated call ended sooner */
        return go_on(p);
    if (!p->writer.stop && (strcmp(m->stop, "end") == 0 || strcmp(m->stop, "context") == 0)) {
        /* The engine's own end tokens or context ended it before this side's limits did. */
        FR_TRY(fr_writer_finish(&p->writer, m->stop));
        return finish(p, m->stop);
    }
    if (!p->writer.stop)
        return fr_fail(FR_EPROTO, "generated: stopped by \"%s\" after %zu tokens", m->stop,
                       m->n_ids);
    return go_on(p);
}

static fr_status on_drafted_step(plain *p, const fr_msg_generated *m)
{
    p->call = 0;
    p->step.len = 0;
    FR_TRY(fr_drafting_take(p->chain, p->params, m, &p->step));
    if (p->step.len == 0)
        return fr_fail(FR_EFORMAT, "the draft model wrote no usable text for step %d",
                       p->chain->n_steps);
    for (size_t i = 0; i < p->step.len && !p->writer.stop; i++) {
        p->writer.drafted++;
        p->writer.kept++;
        FR_TRY(fr_writer_put(&p->writer, p->step.data[i]));
    }
    if (!p->writer.stop && p->writer.pending.len)
        FR_TRY(fr_writer_finish(&p->writer, NULL));
    return go_on(p);
}

static fr_status plain_advance(fr_policy *policy, const fr_policy_event *e)
{
    plain *p = (plain *)policy;
    if (p->finished)
        return FR_OK;
    if (e->kind == FR_EVENT_START)
        return go_on(p);
    if (e->call != p->call || !p->call)
        return FR_OK;
    switch (e->kind) {
    case FR_EVENT_TOKENS:
        return on_tokens(p, e->tokens);
    case FR_EVENT_GENERATED:
        return by_step(p) ? on_drafted_step(p, e->generated) : on_generated(p, e->generated);
    case FR_EVENT_FAILED:
        return fr_fail(e->status, "%s", e->cause);
    default:
        return fr_fail(FR_EPROTO, "policy %s: unexpected event %d", p->base.ops->name,
                       (int)e->kind);
    }
}

const fr_policy_ops fr_policy_target = {
    .name = "target",
    .exact = 1,
    .open = target_open,
    .advance = plain_advance,
    .close = plain_close,
};

const fr_policy_ops fr_policy_draft = {
    .name = "draft",
    .needs_draft = 1,
    .open = draft_open,
    .advance = plain_advance,
    .close = plain_close,
};
