/* sampler.c: see sampler.h. Everything here runs on the leader, over a few hundred candidates at most. */
#include "sampler.h"

#include <math.h>
#include <string.h>

#include "rng.h"

/* Without top-k and top-p the winner over the whole vocabulary is the sample; with them the candidates decide. */
static int is_filtered(const fr_sampling *p)
{
    return p->temperature > 0 && (p->top_k > 0 || p->top_p < 1);
}

void fr_sampling_query(const fr_sampling *p, uint32_t position, int32_t n_vocab, fr_row_query *out)
{
    *out = (fr_row_query){.temperature = p->temperature, .seed = p->seed, .sample = p->sample,
                          .position = position, .n_vocab = n_vocab};
    if (is_filtered(p)) {
        out->temperature = 0; /* the noise is added to the candidates here: no need to search the vocabulary */
        out->n_top = p->top_k > 0 && p->top_k < FR_TOP_MAX ? p->top_k : FR_TOP_MAX;
    }
}

/* How many of the sorted candidates the nucleus keeps: the fewest whose share reaches top_p, at least one. */
static int nucleus(const fr_sampling *p, const fr_row_answer *a)
{
    if (p->top_p >= 1)
        return a->n_top;
    double total = 0, sum = 0;
    for (int i = 0; i < a->n_top; i++)
        total += exp(((double)a->top[i].logit - a->top[0].logit) / p->temperature);
    for (int i = 0; i < a->n_top; i++) {
        sum += exp(((double)a->top[i].logit - a->top[0].logit) / p->temperature);
        if (sum >= p->top_p * total)
            return i + 1;
    }
    return a->n_top;
}

int32_t fr_sample(const fr_sampling *p, uint32_t position, const fr_row_answer *a)
{
    if (!is_filtered(p) || a->n_top == 0)
        return a->winner;
    int keep = nucleus(p, a);
    int32_t best = a->top[0].token;
    float best_value = -INFINITY;
    for (int i = 0; i < keep; i++) {
        float noise = fr_gumbel(p->seed, p->sample, position, (uint32_t)a->top[i].token);
        float value = a->top[i].logit / p->temperature + noise;
        if (value > best_value || (value == best_value && a->top[i].token < best)) {
            best_value = value;
            best = a->top[i].token;
        }
    }
    return best;
}

float fr_answer_logprob(const fr_row_answer *a, float logit)
{
    return (float)((double)logit - a->max - log(a->sum_exp));
}

float fr_answer_logit(const fr_row_answer *a, const fr_row_query *q, int32_t token)
{
    if (token == a->winner)
        return a->winner_logit;
    for (int i = 0; i < a->n_top; i++)
        if (a->top[i].token == token)
            return a->top[i].logit;
    for (int i = 0; i < q->n_wanted; i++)
        if (q->wanted[i] == token)
            return a->wanted_logit[i];
    return -INFINITY;
}

/* Merges two sorted candidate lists into at most n of them. */
static int merge_top(const fr_candidate *a, int n_a, const fr_candidate *b, int n_b, fr_candidate *out, int n)
{
    int i = 0, j = 0, k = 0;
    while (k < n && (i < n_a || j < n_b)) {
        /* Slices come in rank order, so a's ids are the lower ones: a goes first on a tie. With recent tokens
         * (forward.c) they do not, and a tie may go to the other: only guesses come from there. */
        int from_a = j >= n_b || (i < n_a && a[i].logit >= b[j].logit);
        out[k++] = from_a ? a[i++] : b[j++];
    }
    return k;
}

void fr_answer_merge(const fr_row_answer *slices, int n_slices, const fr_row_query *q, fr_row_answer *out)
{
    *out = slices[0];
    for (int s = 1; s < n_slices; s++) {
        const fr_row_answer *b = &slices[s];
        fr_candidate top[FR_TOP_MAX];
        int n_top = merge_top(out->top, out->n_top, b->top, b->n_top, top, q->n_top);
        memcpy(out->top, top, (size_t)n_top * sizeof *top);
        out->n_top = n_top;
        float max = out->max > b->max ? out->max : b->max;
        if (max > -INFINITY) /* else both are empty */
            out->sum_exp = out->sum_exp * exp((double)out->max - max) + b->sum_exp * exp((double)b->max - max);
        out->max = max;
        if (b->winner_value > out->winner_value) {
            out->winner = b->winner;
            out->winner_value = b->winner_value;
            out->winner_logit = b->winner_logit;
        }
        for (int i = 0; i < q->n_wanted; i++)
            if (b->wanted_logit[i] > out->wanted_logit[i])
                out->wanted_logit[i] = b->wanted_logit[i];
    }
}
