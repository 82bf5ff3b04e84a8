/* controller.h: how far to draft for one verification. It learns from the engines' replies what a
 * verification, a row of it and a drafted token cost, and how often drafted tokens are kept; from
 * that follows when one more is no longer worth its price.
 *
 * The rule. Drafts and verifications yield tokens at a mean price of so many seconds each. One more
 * drafted token pays while
 *
 *     P(it and all before it are kept) * price > seconds to draft it + seconds of its row,
 *
 * the marginal value theorem for a ratio (E. Charnov 1976; for speculation a threshold on the same
 * probability: SpecDec++, arXiv 2405.19715). The draft's own probabilities stand for P, with an
 * exponent that makes them as high on average as the share that is kept: at a temperature above 0
 * draft and target agree far more often than the sampled token's probability says, because they
 * share their noise.
 *
 * Times are those that the engines report: a request's share of its passes, so they are right under
 * load too. They decide what is drafted, never what is kept. */
#ifndef FR_CONTROLLER_H
#define FR_CONTROLLER_H

#include "codec.h"

/* Sums in which older samples count less and less. */
typedef struct fr_controller {
    double weight, rows, rows2, seconds, rows_seconds; /* verifications: seconds over rows */
    double draft_weight, draft_seconds;                /* one drafted token */
    double spent, gained;                              /* seconds, tokens of the chain */
    double judged, kept, promised;  /* drafted tokens, and the sum of the draft's probabilities */
    double matched, match_kept;     /* tokens from n-grams */
} fr_controller;

void fr_controller_init(fr_controller *c);

/* The draft's reply. */
void fr_controller_drafted(fr_controller *c, const fr_msg_generated *m);
/* A drafted token was compared with the target's own: kept, or the first that differs. logprob: the
 * draft's; NaN when n-grams proposed it. */
void fr_controller_judged(fr_controller *c, float logprob, int kept);
/* The target's reply about drafted tokens; it lengthened the chain by `gained` tokens. */
void fr_controller_verified(fr_controller *c, const fr_msg_verified *m, int gained);

/* The draft should stop once its tokens are less likely than this together: a log-probability below
 * 0. */
float fr_controller_floor(const fr_controller *c);
/* How many tokens of an n-gram match are worth their rows: 1 to most. */
int fr_controller_match_len(const fr_controller *c, int most);

#endif
