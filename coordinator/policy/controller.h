/* controller.h: how far to draft for one verification. It learns from the engines' replies what a
 * verification of so many rows and a drafted token cost, and how often drafted tokens are kept;
 * from that follows how many are worth their price.
 *
 * Two rules. The most to draft is the K with the best rate of tokens a second,
 *
 *     (1 + p + ... + p^K) / (K * seconds of a drafted token + seconds of K + 1 rows),
 *
 * p the share of drafted tokens that is kept: passes over few rows cost what reading the weights
 * costs, over many what multiplying costs, and the best K is about where the one becomes the other.
 * Within it the draft goes on while it is sure enough: one more token pays while
 *
 *     P(it and all before it are kept) * mean price of a token > seconds of its draft and its row,
 *
 * the marginal value theorem for a ratio (E. Charnov 1976; for speculation a threshold on the same
 * probability: SpecDec++, arXiv 2405.19715). The draft's own probabilities stand for P, with an
 * exponent that makes them as high on average as the share that is kept: at a temperature above 0
 * draft and target agree far more often than the sampled token's probability says, because they
 * share their noise.
 *
 * At least one token is always drafted, so that the draft is never given up for a bad stretch.
 *
 * Times are those that the engines report: a request's share of its passes by rows. Under load that
 * is what it takes from the group's throughput, not how long it waits. They decide what is drafted,
 * never what is kept. */
#ifndef FR_CONTROLLER_H
#define FR_CONTROLLER_H

#include "codec.h"

/* Most tokens of one verification: drafts are never right so long. */
#define FR_DRAFT_MAX 64

typedef struct fr_mean { /* sum / weight; older samples count less and less */
    double sum, weight;
} fr_mean;

typedef struct fr_controller {
    fr_mean verify[FR_DRAFT_MAX + 2]; /* seconds of a verification, by its rows */
    fr_mean draft;                    /* seconds of a drafted token */
    fr_mean price;                    /* seconds of a token of the chain */
    fr_mean kept;                     /* share of the draft's tokens that were compared */
    fr_mean promised;                 /* their probability by the draft itself */
    fr_mean match_kept;               /* share kept of tokens from n-grams */
} fr_controller;

void fr_controller_init(fr_controller *c);

/* The draft's reply. */
void fr_controller_drafted(fr_controller *c, const fr_msg_generated *m);
/* A drafted token was compared with the target's own: kept, or the first that differs. logprob: the
 * draft's. */
void fr_controller_judged(fr_controller *c, float logprob, int kept);
/* The same when n-grams proposed it. */
void fr_controller_judged_match(fr_controller *c, int kept);
/* The target's reply about drafted tokens; it lengthened the chain by `gained` tokens. */
void fr_controller_verified(fr_controller *c, const fr_msg_verified *m, int gained);

/* How many tokens the draft should write for a verification: 1 to most. */
int fr_controller_depth(const fr_controller *c, int most);
/* Asked for `depth` tokens, it should stop sooner once they are less likely than this together: a
 * log-probability below 0. */
float fr_controller_floor(const fr_controller *c, int depth);
/* How many tokens of an n-gram match, which cost nothing to draft, are worth their rows: 1 to
 * most. */
int fr_controller_match_len(const fr_controller *c, int most);

#endif
