/* controller.c: see controller.h. */
#include "controller.h"

#include <math.h>

#define KEEP 0.95       /* what a sample of times weighs after the next one */
#define KEEP_TOKEN 0.98 /* the same for tokens compared */
/* A width that was not seen for so long (in weight) counts as never seen: the load has changed. */
#define FORGOTTEN 0.05
/* Before they are known, in verifications of a row; and drafts are mostly right. */
#define DRAFT_AT_FIRST 0.2
#define PRICE_AT_FIRST 0.6
#define KEPT_AT_FIRST 0.8
#define FIRST_WEIGHT 8.0
/* A draft that must read more ids than these first had lost its cache: no measure of a token. */
#define CATCH_UP 2
/* Times beyond so many means are the machine's mood. */
#define OUTLIER 4.0
/* A first sample has no mean to be compared with: nothing takes longer. */
#define SECONDS_MAX 60.0
#define EXPONENT_MIN 0.25
#define EXPONENT_MAX 4.0

void fr_controller_init(fr_controller *c)
{
    const fr_mean hope = {FIRST_WEIGHT * KEPT_AT_FIRST, FIRST_WEIGHT};
    *c = (fr_controller){.kept = hope, .promised = hope, .match_kept = hope};
}

/* ---- learning */

static double mean(const fr_mean *m)
{
    return m->sum / m->weight;
}

static void put(fr_mean *m, double keep, double value)
{
    m->sum = keep * m->sum + value;
    m->weight = keep * m->weight + 1;
}

/* Returns what counted. */
static double put_seconds(fr_mean *m, double seconds)
{
    seconds = fmin(seconds, m->weight > 1 ? OUTLIER * mean(m) : SECONDS_MAX);
    put(m, KEEP, seconds);
    return seconds;
}

void fr_controller_drafted(fr_controller *c, const fr_msg_generated *m)
{
    if (m->passes == 0 || m->seconds <= 0 || m->rows > m->n_ids + CATCH_UP)
        return;
    c->price.sum += m->passes * put_seconds(&c->draft, m->seconds / m->passes);
}

void fr_controller_judged(fr_controller *c, float logprob, int kept)
{
    put(&c->kept, KEEP_TOKEN, kept);
    put(&c->promised, KEEP_TOKEN, exp(logprob));
}

void fr_controller_judged_match(fr_controller *c, int kept)
{
    put(&c->match_kept, KEEP_TOKEN, kept);
}

void fr_controller_verified(fr_controller *c, const fr_msg_verified *m, int gained)
{
    if (m->seconds <= 0 || m->rows != m->n_own || m->rows > FR_DRAFT_MAX + 1)
        return; /* the prefix was computed too, or probes */
    for (int rows = 1; rows <= FR_DRAFT_MAX + 1; rows++) {
        fr_mean *v = &c->verify[rows];
        if (rows != (int)m->rows && v->weight > FORGOTTEN) {
            v->sum *= KEEP;
            v->weight *= KEEP;
        }
    }
    c->price.sum = KEEP * (c->price.sum + put_seconds(&c->verify[m->rows], m->seconds));
    c->price.weight = KEEP * (c->price.weight + gained);
}

/* ---- deciding */

/* The nearest width from `rows` on, in steps of `step`, that was measured; 0: none. */
static int measured(const fr_controller *c, int rows, int step)
{
    while (rows > 0 && rows <= FR_DRAFT_MAX + 1 && c->verify[rows].weight <= FORGOTTEN)
        rows += step;
    return rows > 0 && rows <= FR_DRAFT_MAX + 1 ? rows : 0;
}

/* Seconds of a verification of so many rows: as measured, between two measured widths in
 * proportion. More rows than were ever tried may cost no more: so they are tried. */
static double verify_seconds(const fr_controller *c, int rows)
{
    int low = measured(c, rows, -1), high = measured(c, rows, 1);
    if (!low && !high)
        return c->draft.weight > 0 ? mean(&c->draft) / DRAFT_AT_FIRST : 1;
    if (!low || low == high)
        return mean(&c->verify[high]);
    double below = mean(&c->verify[low]);
    return high ? below + (mean(&c->verify[high]) - below) * (rows - low) / (high - low) : below;
}

/* The number of drafted tokens, 1 to most, with the best rate of tokens a second. */
static int best_number(const fr_controller *c, int most, double kept, double draft_seconds)
{
    double best_rate = 0, tokens = 1, joint = 1;
    int best = 1;
    for (int n = 1; n <= most; n++) {
        joint *= kept;
        tokens += joint;
        double rate = tokens / (n * draft_seconds + verify_seconds(c, n + 1));
        if (rate > best_rate) {
            best_rate = rate;
            best = n;
        }
    }
    return best;
}

static double draft_seconds(const fr_controller *c)
{
    return c->draft.weight > 0 ? mean(&c->draft) : DRAFT_AT_FIRST * verify_seconds(c, 1);
}

/* As long as one of the times is not known, the sum lacks a part. */
static double price(const fr_controller *c)
{
    int whole = c->draft.weight > 0 && c->price.weight > 0;
    return whole ? mean(&c->price) : PRICE_AT_FIRST * verify_seconds(c, 1);
}

int fr_controller_depth(const fr_controller *c, int most)
{
    return best_number(c, most, mean(&c->kept), draft_seconds(c));
}

int fr_controller_match_len(const fr_controller *c, int most)
{
    return best_number(c, most, mean(&c->match_kept), 0);
}

float fr_controller_floor(const fr_controller *c, int depth)
{
    double kept = mean(&c->kept);
    double exponent = log(kept) / log(mean(&c->promised));
    exponent = isnan(exponent) ? 1 : fmin(fmax(exponent, EXPONENT_MIN), EXPONENT_MAX);
    double row = (verify_seconds(c, depth + 1) - verify_seconds(c, 1)) / depth;
    /* The next token is not known yet: it will be kept as often as others. */
    double joint = log((draft_seconds(c) + fmax(row, 0)) / price(c) / kept) / exponent;
    return (float)fmin(fmax(joint, -8), -1e-3);
}
