/* controller.c: see controller.h. */
#include "controller.h"

#include <math.h>

#define KEEP 0.95       /* what a sample of times weighs after the next one */
#define KEEP_TOKEN 0.98 /* the same for tokens compared */
/* Before anything is known: one more drafted token and its row for the price of a token, a row for
 * that of a verification. */
#define COST_AT_FIRST 0.3
#define ROW_SHARE 0.04
#define KEPT_AT_FIRST 0.8
#define FIRST_WEIGHT 8.0
/* A draft that must read more ids than these first had lost its cache: no measure of a token. */
#define CATCH_UP 2
/* Times beyond so many means are the machine's mood. */
#define OUTLIER 4.0
#define EXPONENT_MIN 0.25
#define EXPONENT_MAX 4.0

void fr_controller_init(fr_controller *c)
{
    *c = (fr_controller){
        .judged = FIRST_WEIGHT,
        .kept = FIRST_WEIGHT * KEPT_AT_FIRST,
        .promised = FIRST_WEIGHT * KEPT_AT_FIRST,
        .matched = FIRST_WEIGHT,
        .match_kept = FIRST_WEIGHT * KEPT_AT_FIRST,
    };
}

/* ---- learning */

static double without_outlier(double seconds, double sum, double weight)
{
    double limit = weight > 2 ? OUTLIER * sum / weight : INFINITY;
    return seconds < limit ? seconds : limit;
}

void fr_controller_drafted(fr_controller *c, const fr_msg_generated *m)
{
    if (m->passes == 0 || m->seconds <= 0 || m->rows > m->n_ids + CATCH_UP)
        return;
    double token = without_outlier(m->seconds / m->passes, c->draft_seconds, c->draft_weight);
    c->draft_seconds = KEEP * c->draft_seconds + token;
    c->draft_weight = KEEP * c->draft_weight + 1;
    c->spent += token * m->passes;
}

void fr_controller_judged(fr_controller *c, float logprob, int kept)
{
    if (isnan(logprob)) {
        c->matched = KEEP_TOKEN * c->matched + 1;
        c->match_kept = KEEP_TOKEN * c->match_kept + kept;
        return;
    }
    c->judged = KEEP_TOKEN * c->judged + 1;
    c->kept = KEEP_TOKEN * c->kept + kept;
    c->promised = KEEP_TOKEN * c->promised + exp(logprob);
}

void fr_controller_verified(fr_controller *c, const fr_msg_verified *m, int gained)
{
    if (m->seconds <= 0 || m->rows != m->n_own) /* the prefix was computed too, or probes */
        return;
    double n = m->rows, s = without_outlier(m->seconds, c->seconds, c->weight);
    c->weight = KEEP * c->weight + 1;
    c->rows = KEEP * c->rows + n;
    c->rows2 = KEEP * c->rows2 + n * n;
    c->seconds = KEEP * c->seconds + s;
    c->rows_seconds = KEEP * c->rows_seconds + n * s;
    c->spent = KEEP * (c->spent + s);
    c->gained = KEEP * (c->gained + gained);
}

/* ---- deciding */

static int knows_times(const fr_controller *c)
{
    return c->weight > 2 && c->draft_weight > 0 && c->gained > 0;
}

/* Seconds of one more row: the slope of time over rows, drawn towards ROW_SHARE of a verification
 * while the rows hardly vary. */
static double row_seconds(const fr_controller *c)
{
    double n = c->rows / c->weight, s = c->seconds / c->weight;
    double variance = c->rows2 / c->weight - n * n;
    double covariance = c->rows_seconds / c->weight - n * s;
    double slope = (covariance + ROW_SHARE * s) / (variance + 1);
    return fmin(fmax(slope, 0), s / n);
}

static double price(const fr_controller *c)
{
    return c->spent / c->gained;
}

float fr_controller_floor(const fr_controller *c)
{
    double cost = COST_AT_FIRST, kept = c->kept / c->judged;
    double exponent = log(kept) / log(c->promised / c->judged);
    exponent = isnan(exponent) ? 1 : fmin(fmax(exponent, EXPONENT_MIN), EXPONENT_MAX);
    if (knows_times(c))
        cost = (c->draft_seconds / c->draft_weight + row_seconds(c)) / price(c);
    /* The next token is not known yet: it will be kept as often as others. */
    double joint = log(cost / kept) / exponent;
    return (float)fmin(fmax(joint, -8), -1e-3);
}

int fr_controller_match_len(const fr_controller *c, int most)
{
    double kept = c->match_kept / c->matched, joint = kept;
    double worth = knows_times(c) ? row_seconds(c) / price(c) : ROW_SHARE * 3;
    int n = 1;
    while (n < most && joint * kept > worth) {
        joint *= kept;
        n++;
    }
    return n;
}
