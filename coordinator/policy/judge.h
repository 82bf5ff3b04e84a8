/* judge.h: how the target decides on a drafted step, from what one Verify says about it.
 *
 * score: behind each drafted step hangs a probe: a question that asks the target to rate the
 * last step, and the beginning of its answer, so that the next token should be a digit. The
 * score is that digit; a target that wants to say anything else rates it 0. score-mean: the
 * expectation over the ten digits' renormalised probabilities; 0 when the target gives all
 * digits together less than 1%. logprob: the mean log-probability of the step's tokens under the
 * target, free with the trunk. A judge is of one target: scores of different models are not
 * comparable.
 *
 * A reply that does not fit the question is an error of the verifier (FR_EPROTO), never a
 * rejection. */
#ifndef FR_JUDGE_H
#define FR_JUDGE_H

#include "codec.h"
#include "tokenizer.h"

typedef struct fr_judge_ops fr_judge_ops;

typedef struct fr_judge {
    const fr_judge_ops *ops;
    double threshold;   /* a step with at least this score is accepted */
    fr_ids probe;       /* empty: the judge needs none */
    int32_t digits[10]; /* token ids */
} fr_judge;

struct fr_judge_ops {
    const char *name;
    double threshold; /* default */
    int probes;       /* 1: one probe behind each step */
    fr_status (*score)(const fr_judge *j, const fr_msg_verified *m, int step, int first, int n,
                       float *out);
};

/* NULL when there is none of that name. */
const fr_judge_ops *fr_judge_find(const char *name);
/* "score, score-mean, logprob", for error texts. */
const char *fr_judge_names(void);

/* name NULL: score. threshold NaN: the judge's own. FR_EINVAL for an unknown name;
 * FR_EUNSUPPORTED for a target that cannot answer in digits. */
fr_status fr_judge_open(fr_judge *j, const char *name, double threshold,
                        const fr_tokenizer *target);
void fr_judge_close(fr_judge *j); /* a zeroed one is fine */
/* The probe that sees the trunk's first `at` positions; it borrows from the judge. */
void fr_judge_probe(const fr_judge *j, int at, fr_msg_probe *out);
/* Rates step number `step` of the verification, which is drafted tokens [first, first + n). */
fr_status fr_judge_score(const fr_judge *j, const fr_msg_verified *m, int step, int first, int n,
                         float *out);
int fr_judge_accepts(const fr_judge *j, float score);

#endif
