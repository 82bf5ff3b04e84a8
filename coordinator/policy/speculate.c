/* speculate.c: see speculate.h.
 *
 *  1. pump: nothing in flight. N-grams propose tokens, or the draft model is asked for some (2),
 *     then verify (3).
 *  2. The draft's reply arrives: its tokens join the sequence, verify (3).
 *  3. verify: the target is asked. With overlap the draft goes on behind the tokens under
 *     verification, beginning with its guess of the target's bonus token.
 *  4. The target's reply arrives: accept. Were all tokens kept, what the draft wrote meanwhile
 *     fits if it begins with the bonus token; else it is cancelled. Back to 1. */
#include "speculate.h"

#include <string.h>

#include "check.h"
#include "drafting.h"

/* A draft model is right far more often than a short n-gram match (which costs a wide pass when
 * it is wrong), so with one at hand only longer matches go first. Without one every match is
 * better than a pass for a single token. */
#define GOOD_MATCH 4

void fr_speculate_init(fr_speculation *s, const fr_policy_host *host, fr_chain *chain,
                       const fr_policy_params *params)
{
    *s = (fr_speculation){.host = host, .chain = chain, .params = params, .lost_at_step = -1};
    fr_writer_init(&s->writer, host, chain, params);
    fr_controller_init(&s->controller);
}

void fr_speculate_free(fr_speculation *s)
{
    fr_writer_free(&s->writer);
    fr_ngram_free(&s->ngram);
    fr_ids_free(&s->seq);
    fr_ids_free(&s->drafts);
}

static void update_done(fr_speculation *s)
{
    s->done = s->writer.stop || (s->one_step && s->writer.n_committed > 0);
}

fr_status fr_speculate_begin(fr_speculation *s, fr_origin origin, int one_step)
{
    fr_writer_restart(&s->writer, origin);
    s->seq.len = s->drafts.len = 0;
    FR_TRY(fr_ids_put(&s->seq, s->chain->ids.data, s->chain->ids.len));
    s->n_approved = s->seq.len;
    s->proposed_at = SIZE_MAX;
    s->draft_ended = 0;
    s->one_step = one_step;
    update_done(s);
    return FR_OK;
}

/* Puts the target's own tokens behind the approved ones, as far as they follow from what was
 * drafted. drafted may point to just there: it is read before it is overwritten. *kept_out: 1
 * when all of it was kept and the bonus token too. */
static fr_status accept(fr_speculation *s, const int32_t *drafted, int n, const int32_t *own,
                        int count, int *kept_out)
{
    fr_writer *w = &s->writer;
    int same = 1, i = 0;
    s->seq.len = s->n_approved;
    for (; i <= n && same && !s->done; i++) {
        same = i == n || drafted[i] == own[i];
        if (count && i < n) {
            w->drafted += same ? 1 : n - i;
            w->kept += same;
            if (s->from_ngrams)
                fr_controller_judged_match(&s->controller, same);
            else
                fr_controller_judged(&s->controller, s->told[i], same);
        }
        FR_TRY(fr_ids_put(&s->seq, &own[i], 1));
        FR_TRY(fr_writer_put(w, own[i]));
        update_done(s);
    }
    s->n_approved = s->seq.len;
    *kept_out = same && i == n + 1;
    return FR_OK;
}

fr_status fr_speculate_seed(fr_speculation *s, const int32_t *drafted, int n, const int32_t *own)
{
    int kept = 0;
    return accept(s, drafted, n, own, 0, &kept);
}

/* ---- drafting ---- */

static int draft_usable(const fr_speculation *s)
{
    return s->chain->draft && s->chain->same_tokenizer && s->lost_at_step != s->chain->n_steps;
}

/* How many tokens may be drafted behind the approved ones and `more`: one less than there is
 * room for, since a verification always yields one more. */
static int draft_room(const fr_speculation *s, int more)
{
    int room = fr_chain_room(s->chain, s->params, (int)s->writer.pending.len + more) - 1;
    int want = s->params->draft_tokens < FR_DRAFT_MAX ? s->params->draft_tokens : FR_DRAFT_MAX;
    return want < room ? want : room;
}

static void drop_draft(fr_speculation *s)
{
    if (s->draft_call)
        s->host->cancel(s->host->ctx, s->draft_call);
    s->draft_call = 0;
    s->drafts.len = 0;
}

/* told [n]: the draft's log-probabilities; NULL when they come from n-grams. */
static fr_status put_drafted(fr_speculation *s, const int32_t *ids, const float *told, size_t n)
{
    int room = draft_room(s, 0);
    s->from_ngrams = !told;
    for (size_t i = 0; i < n && (int)i < room; i++) {
        FR_TRY(fr_ids_put(&s->seq, &ids[i], 1));
        if (told)
            s->told[i] = told[i];
        if (fr_tokenizer_is_end(s->chain->target, ids[i]))
            break;
    }
    return FR_OK;
}

/* No verification is under way: what the draft has written so far must go on from the approved
 * tokens. */
static fr_status settle_drafts(fr_speculation *s)
{
    size_t guessed = s->n_approved - s->draft_from;
    for (size_t i = 0; i < guessed && i < s->drafts.len; i++) {
        if (s->drafts.data[i] != s->seq.data[s->draft_from + i]) {
            drop_draft(s);
            return FR_OK;
        }
    }
    if (s->draft_call)
        return FR_OK; /* right so far: worth waiting for */
    if (s->drafts.len > guessed)
        FR_TRY(put_drafted(s, s->drafts.data + guessed, s->draft_told + guessed,
                           s->drafts.len - guessed));
    s->drafts.len = 0;
    return FR_OK;
}

/* Asks for the tokens of a verification, at most `most`, behind `before` others. */
static fr_status ask_draft(fr_speculation *s, int before, int most, int stream)
{
    int depth = fr_controller_depth(&s->controller, most);
    fr_generate_call call = {.role = FR_ROLE_DRAFT,
                             .ids = s->seq.data,
                             .n_ids = (int)s->seq.len,
                             .chain_base = s->chain->prompt_len,
                             .max_tokens = before + depth,
                             .stop_at_step = s->one_step,
                             .step_from = (int)s->chain->ids.len,
                             .min_joint_logprob = fr_controller_floor(&s->controller, depth),
                             .stream = stream,
                             .rough = 1};
    s->draft_from = s->seq.len;
    s->drafts.len = 0;
    FR_TRY(fr_ask_generate(s->host, &call, &s->draft_call));
    if (!s->draft_call)
        s->lost_at_step = s->chain->n_steps;
    return FR_OK;
}

static fr_status propose(fr_speculation *s)
{
    int want = draft_room(s, 0), match = 0;
    int32_t ids[FR_DRAFT_MAX];
    if (want <= 0)
        return FR_OK;
    s->draft_ended = 0;
    FR_TRY(fr_ngram_sync(&s->ngram, s->seq.data, s->n_approved));
    int n = fr_ngram_draft(&s->ngram, draft_usable(s) ? GOOD_MATCH : FR_NGRAM_MIN,
                           fr_controller_match_len(&s->controller, want), ids, &match);
    if (n > 0)
        return put_drafted(s, ids, NULL, (size_t)n);
    if (!draft_usable(s) || s->proposed_at == s->n_approved)
        return FR_OK;
    s->proposed_at = s->n_approved;
    FR_TRY(ask_draft(s, 0, want, 0));
    return s->draft_call ? FR_OK : propose(s); /* just found missing: shorter matches count now */
}

/* Behind the tokens under verification: first the guess of the bonus token, then drafts for the
 * next verification. The draft's floor leaves out the chance that the tokens under verification are
 * kept: where they are not, none of this is verified. */
static fr_status look_ahead(fr_speculation *s)
{
    int under = (int)(s->seq.len - s->n_approved), want = draft_room(s, under + 1);
    int ended = under > 0 && fr_tokenizer_is_end(s->chain->target, s->seq.data[s->seq.len - 1]);
    if (s->looked_ahead || s->draft_call || s->draft_ended || ended || want <= 0 ||
        !draft_usable(s))
        return FR_OK;
    s->looked_ahead = 1;
    return ask_draft(s, 1, want, 1);
}

/* ---- verifying ---- */

static fr_status verify(fr_speculation *s)
{
    fr_verify_call call = {.ids = s->seq.data,
                           .n_ids = (int)s->seq.len,
                           .chain_base = s->chain->prompt_len,
                           .position = (int)s->n_approved};
    s->looked_ahead = 0;
    return s->host->verify(s->host->ctx, &call, &s->verify_call);
}

fr_status fr_speculate_pump(fr_speculation *s)
{
    if (s->done || (s->draft_call && !s->verify_call))
        return FR_OK;
    if (!s->verify_call) {
        if (s->seq.len == s->n_approved)
            FR_TRY(propose(s));
        if (s->draft_call)
            return FR_OK;
        FR_TRY(verify(s));
    }
    return s->params->overlap ? look_ahead(s) : FR_OK;
}

static fr_status on_verified(fr_speculation *s, const fr_msg_verified *m)
{
    size_t before = s->n_approved;
    int n = (int)(s->seq.len - before), kept = 0;
    s->verify_call = 0;
    if (m->n_own != (size_t)n + 1)
        return fr_fail(FR_EPROTO, "verified: %zu own tokens for %d drafted", m->n_own, n);
    FR_TRY(accept(s, s->seq.data + before, n, m->own, 1, &kept));
    fr_controller_verified(&s->controller, m, (int)(s->n_approved - before));
    if (s->done || !kept)
        drop_draft(s);
    else if (s->draft_call || s->drafts.len)
        FR_TRY(settle_drafts(s));
    fr_writer_show(&s->writer);
    return fr_speculate_pump(s);
}

/* ---- the draft's replies ---- */

static fr_status on_draft_tokens(fr_speculation *s, const fr_msg_tokens *m)
{
    if (m->position < s->draft_from || m->position - s->draft_from > s->drafts.len)
        return FR_OK; /* the complete reply has them all */
    s->drafts.len = m->position - s->draft_from;
    FR_TRY(fr_ids_put(&s->drafts, m->ids, m->n_ids));
    if (s->verify_call)
        return FR_OK;
    FR_TRY(settle_drafts(s));
    return fr_speculate_pump(s);
}

static fr_status on_draft_generated(fr_speculation *s, const fr_msg_generated *m)
{
    s->draft_call = 0;
    s->drafts.len = 0;
    s->draft_ended = strcmp(m->stop, "step") == 0 || strcmp(m->stop, "end") == 0;
    FR_TRY(fr_ids_put(&s->drafts, m->ids, m->n_ids));
    memcpy(s->draft_told, m->logprobs, m->n_logprobs * sizeof *m->logprobs);
    fr_controller_drafted(&s->controller, m);
    if (s->verify_call)
        return FR_OK;
    FR_TRY(settle_drafts(s));
    return fr_speculate_pump(s);
}

static fr_status on_draft_failed(fr_speculation *s)
{
    s->draft_call = 0;
    s->drafts.len = 0;
    s->lost_at_step = s->chain->n_steps;
    return fr_speculate_pump(s);
}

fr_status fr_speculate_advance(fr_speculation *s, const fr_policy_event *e)
{
    if (e->call == 0)
        return FR_OK;
    if (e->call == s->verify_call) {
        if (e->kind == FR_EVENT_VERIFIED)
            return on_verified(s, e->verified);
        s->verify_call = 0;
        if (e->kind == FR_EVENT_FAILED) /* not a rejection: the tokens stay unjudged */
            return fr_fail(e->status, "%s", e->cause);
        return fr_fail(FR_EPROTO, "a verification was answered by event %d", (int)e->kind);
    }
    if (e->call != s->draft_call)
        return FR_OK;
    switch (e->kind) {
    case FR_EVENT_TOKENS:
        return on_draft_tokens(s, e->tokens);
    case FR_EVENT_GENERATED:
        return on_draft_generated(s, e->generated);
    default:
        return on_draft_failed(s);
    }
}
