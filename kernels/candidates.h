/* candidates.h: what is asked of one row of logits, and the answer. A full row of logits never
 * leaves its rank: each rank answers for its slice of the vocabulary, and the leader merges the
 * answers (worker/engine/sampler). */
#ifndef FR_CANDIDATES_H
#define FR_CANDIDATES_H

#include <stddef.h>
#include <stdint.h>

#define FR_TOP_MAX 256   /* most candidates one answer carries; a nucleus is cut there */
#define FR_WANTED_MAX 16 /* most token ids asked for by name in one row */
#define FR_TEMPERATURE_MIN 1e-6f /* logits over less overflow, or leave no room for the noise */

typedef struct fr_row_query {
    float temperature;         /* 0: greedy; else FR_TEMPERATURE_MIN or more */
    uint64_t seed;             /* of the Gumbel noise (rng.h) */
    uint32_t sample, position; /* position: the chain position the sampled token would take */
    int32_t n_top;             /* how many top candidates to return, 0 .. FR_TOP_MAX */
    int32_t n_wanted;
    int32_t wanted[FR_WANTED_MAX]; /* ids whose logits are wanted, anywhere in the vocabulary */
    int32_t n_vocab; /* ids at or above this are padding of the matrix; <= 0: none are */
} fr_row_query;

typedef struct fr_candidate {
    int32_t token;
    float logit;
} fr_candidate;

/* About one slice, which ends before the first padding id, or about a list of ids. `max` and
 * `sum_exp` give the log-sum-exp: max + log(sum_exp). The winner maximises logit / temperature + fr_gumbel(seed,
 * sample, position, token), or the logit when temperature is 0; ties go to the lowest id. `top` is
 * sorted by logit descending, then id ascending. wanted_logit[i] is -INFINITY when the id is not
 * among the columns. A NaN logit counts nowhere. An empty slice has winner -1, max and winner_value
 * -INFINITY, sum_exp 0. */
typedef struct fr_row_answer {
    float max;
    double sum_exp;
    int32_t winner;
    float winner_value; /* what was maximised */
    float winner_logit;
    int32_t n_top;
    float wanted_logit[FR_WANTED_MAX];
    fr_candidate top[FR_TOP_MAX]; /* last: an answer has memory for those that its query asks for, perhaps no more */
} fr_row_answer;

/* The i-th of an array of answers that are `bytes` apart. */
static inline fr_row_answer *fr_answer_at(void *answers, size_t bytes, int64_t i)
{
    return (fr_row_answer *)(void *)((char *)answers + (size_t)i * bytes);
}

/* So far apart, answers have room for what any of queries [n] asks for. It is one of few sizes, so that most passes
 * have the same; sizeof(fr_row_answer) is the largest. */
size_t fr_answer_bytes(const fr_row_query *queries, int n);

/* The plain definition, which every backend must equal to the bit: logits [vocab], column i is
 * token tokens[i] (ascending), or first_token + i when tokens is NULL. */
void fr_row_query_answer(const float *logits, int vocab, int32_t first_token, const int32_t *tokens,
                         const fr_row_query *q, fr_row_answer *out);

#endif
