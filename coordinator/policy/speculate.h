/* speculate.h: the strict engine. It extends a chain by drafted tokens and Verify until the
 * chain is complete, or until one step is; the text is what the target alone would write. Policy
 * `token` is this engine; policy `step` rewrites with it.
 *
 * Why it is exact: Verify returns the target's own token behind every drafted one, each a pure
 * function of the prefix and the seed. Drafted tokens are kept while they equal the target's
 * own, the first that differs is replaced by it, and when all are kept the own token behind the
 * last is one more. So every token put into the chain is the target's own for the prefix it
 * stands behind, whatever was drafted, by whom, and when.
 *
 * Drafts come from the n-grams of the text, else from the draft model, which is also set to work
 * ahead of a verification under way (params->overlap). How many are worth it the controller says.
 * A draft that is missing or dies costs speed only: n-grams and plain passes remain. */
#ifndef FR_SPECULATE_H
#define FR_SPECULATE_H

#include "controller.h"
#include "ngram.h"
#include "writer.h"

typedef struct fr_speculation {
    const fr_policy_host *host; /* borrowed, as are chain and params */
    fr_chain *chain;
    const fr_policy_params *params;
    fr_writer writer;           /* its stop tells why the chain is complete */
    fr_ngram ngram;
    fr_controller controller;
    fr_ids seq; /* approved tokens (chain, pending step), then those being verified */
    size_t n_approved;
    int from_ngrams;            /* 1: n-grams proposed the latter, all of them; 0: the draft did */
    float told[FR_DRAFT_MAX];   /* then its log-probabilities of them */
    uint64_t verify_call;       /* 0: none, as below */
    uint64_t draft_call;
    fr_ids drafts;              /* what came from the draft model for seq[draft_from] and on */
    size_t draft_from;
    float draft_told[FR_DRAFT_MAX + 1]; /* its log-probabilities, once its reply is complete */
    int draft_ended;            /* its last draft ends a step (one_step) or the chain */
    int looked_ahead;           /* the draft was set to work ahead of this verification already */
    size_t proposed_at;         /* n_approved when the draft model was last asked what follows */
    int lost_at_step;           /* the step at which no draft was there; asked again at the next */
    int one_step;
    int done;                   /* the step, or the chain, is complete */
} fr_speculation;

void fr_speculate_init(fr_speculation *s, const fr_policy_host *host, fr_chain *chain,
                       const fr_policy_params *params);
void fr_speculate_free(fr_speculation *s);
/* Goes to the end of the chain. one_step: done when a step is committed. Sends nothing yet. */
fr_status fr_speculate_begin(fr_speculation *s, fr_origin origin, int one_step);
/* Before the first pump: drafted[n] tokens behind the chain that the target answered with own[n
 * + 1]. */
fr_status fr_speculate_seed(fr_speculation *s, const int32_t *drafted, int n, const int32_t *own);
/* Sends what is to be sent. */
fr_status fr_speculate_pump(fr_speculation *s);
/* A reply to one of its calls; others are ignored. */
fr_status fr_speculate_advance(fr_speculation *s, const fr_policy_event *e);

#endif
