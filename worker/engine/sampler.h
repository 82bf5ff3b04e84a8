/* sampler.h: from an answer about a row to the target's own token: Gumbel-max with counter-based noise, so the token is
 * a pure function of the prefix and the seed. (Daliri, Musco, Suresh, arXiv 2408.07978.) */
#ifndef FR_SAMPLER_H
#define FR_SAMPLER_H

#include "candidates.h"

typedef struct fr_sampling {
    float temperature; /* 0: greedy */
    float top_p;       /* 1: off. A nucleus is taken among the FR_TOP_MAX likeliest tokens */
    int32_t top_k;     /* 0: off; at most FR_TOP_MAX */
    uint64_t seed;
    uint32_t sample;   /* tells several chains of one seed apart */
} fr_sampling;

/* The query that fr_sample() needs for the token at this chain position; n_wanted is left 0 for the caller to fill. */
void fr_sampling_query(const fr_sampling *p, uint32_t position, int32_t n_vocab, fr_row_query *out);
/* The sampled token. */
int32_t fr_sample(const fr_sampling *p, uint32_t position, const fr_row_answer *answer);
/* Natural log-probability of a logit under the untempered softmax. */
float fr_answer_logprob(const fr_row_answer *answer, float logit);
/* The logit of the sampled or any token when the answer carries it (winner, top, wanted of query); -INFINITY else. */
float fr_answer_logit(const fr_row_answer *answer, const fr_row_query *query, int32_t token);
/* Merges the answers of the vocabulary's slices, in rank order, into one. */
void fr_answer_merge(const fr_row_answer *slices, int n_slices, const fr_row_query *query, fr_row_answer *out);

#endif
