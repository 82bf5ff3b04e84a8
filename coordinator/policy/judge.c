/* judge.c: see judge.h. */
#include "judge.h"

#include <math.h>
#include <string.h>

#include "check.h"

/* The digits' log-probabilities in the reply to a step's probe. */
static fr_status digits_of(const fr_msg_verified *m, int step, const fr_msg_probe_result **out)
{
    if ((size_t)step >= m->n_probes)
        return fr_fail(FR_EPROTO, "verified: %zu probe results, none for step %d", m->n_probes,
                       step);
    *out = &m->probes[step];
    if ((*out)->n_logprobs != 10)
        return fr_fail(FR_EPROTO, "verified: a probe result of %zu tokens, want 10",
                       (*out)->n_logprobs);
    for (int d = 0; d < 10; d++)
        if (isnan((*out)->logprobs[d]))
            return fr_fail(FR_EPROTO, "verified: the probability of digit %d is not a number", d);
    return FR_OK;
}

static fr_status score_digit(const fr_judge *j, const fr_msg_verified *m, int step, int first,
                             int n, float *out)
{
    const fr_msg_probe_result *r = NULL;
    (void)first, (void)n;
    FR_TRY(digits_of(m, step, &r));
    *out = 0;
    for (int d = 0; d < 10; d++)
        if (j->digits[d] == r->best)
            *out = (float)d;
    return FR_OK;
}

static fr_status score_mean(const fr_judge *j, const fr_msg_verified *m, int step, int first, int n,
                            float *out)
{
    const fr_msg_probe_result *r = NULL;
    double sum = 0, weighted = 0;
    (void)j, (void)first, (void)n;
    FR_TRY(digits_of(m, step, &r));
    for (int d = 0; d < 10; d++) {
        double p = exp((double)r->logprobs[d]);
        sum += p;
        weighted += p * d;
    }
    *out = sum < 0.01 ? 0 : (float)(weighted / sum);
    return FR_OK;
}

static fr_status mean_logprob(const fr_judge *j, const fr_msg_verified *m, int step, int first,
                              int n, float *out)
{
    double sum = 0;
    (void)j, (void)step;
    if (n <= 0 || (size_t)first + (size_t)n > m->n_drafted_logprobs)
        return fr_fail(FR_EPROTO, "verified: %zu log-probabilities, want those of tokens %d to %d",
                       m->n_drafted_logprobs, first, first + n - 1);
    for (int i = first; i < first + n; i++)
        sum += m->drafted_logprobs[i];
    if (isnan(sum))
        return fr_fail(FR_EPROTO, "verified: a log-probability of step %d is not a number", step);
    *out = (float)(sum / n);
    return FR_OK;
}

static const fr_judge_ops judges[] = {
    {.name = "score", .threshold = 7, .probes = 1, .score = score_digit},
    {.name = "score-mean", .threshold = 7, .probes = 1, .score = score_mean},
    /* A perplexity of 1.65 over the step: about one token in five is not what the target would
     * write. */
    {.name = "logprob", .threshold = -0.5, .score = mean_logprob},
};

const fr_judge_ops *fr_judge_find(const char *name)
{
    for (size_t i = 0; i < sizeof judges / sizeof *judges; i++)
        if (strcmp(judges[i].name, name) == 0)
            return &judges[i];
    return NULL;
}

const char *fr_judge_names(void)
{
    return "score, score-mean, logprob";
}

static fr_status prepare_probe(fr_judge *j, const fr_tokenizer *target)
{
    FR_TRY(fr_chat_tokenize_probe(target, fr_tokenizer_chat_style(target),
                                  fr_tokenizer_score_question(target),
                                  fr_tokenizer_score_prefill(target), &j->probe));
    fr_ids one = {0};
    fr_status st = FR_OK;
    for (int d = 0; d < 10 && st == FR_OK; d++) {
        char text = (char)('0' + d);
        one.len = 0;
        st = fr_tokenize(target, &text, 1, 0, &one);
        if (st == FR_OK && one.len != 1)
            st = fr_fail(FR_EUNSUPPORTED, "judge %s: digit %d is %zu tokens of the target",
                         j->ops->name, d, one.len);
        if (st == FR_OK)
            j->digits[d] = one.data[0];
    }
    fr_ids_free(&one);
    return st;
}

fr_status fr_judge_open(fr_judge *j, const char *name, double threshold, const fr_tokenizer *target)
{
    *j = (fr_judge){.ops = fr_judge_find(name ? name : "score")};
    if (!j->ops)
        return fr_fail(FR_EINVAL, "unknown judge \"%s\"; there are: %s", name, fr_judge_names());
    j->threshold = isnan(threshold) ? j->ops->threshold : threshold;
    fr_status st = j->ops->probes ? prepare_probe(j, target) : FR_OK;
    if (st != FR_OK)
        fr_judge_close(j);
    return st;
}

void fr_judge_close(fr_judge *j)
{
    fr_ids_free(&j->probe);
    *j = (fr_judge){0};
}

void fr_judge_probe(const fr_judge *j, int at, fr_msg_probe *out)
{
    *out = (fr_msg_probe){.at = (uint32_t)at, .tokens = j->probe.data, .n_tokens = j->probe.len,
                          .wanted = j->digits, .n_wanted = 10};
}

fr_status fr_judge_score(const fr_judge *j, const fr_msg_verified *m, int step, int first, int n,
                         float *out)
{
    return j->ops->score(j, m, step, first, n, out);
}

int fr_judge_accepts(const fr_judge *j, float score)
{
    return (double)score >= j->threshold;
}
