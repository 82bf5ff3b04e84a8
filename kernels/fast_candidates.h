/* fast_candidates.h: candidates.h's definition, to the bit but without its cost; a template for one
 * instruction set (fast_backend.h).
 *
 *   1. Each chunk of FR_CHUNK columns: its maximum.
 *   2. Each row: the maximum, and the value (noise included) of the first token that has it: the
 *      bar.
 *   3. Each chunk: its part of sum_exp; and, unless greedy, its best token that reaches the bar.
 *   4. Each row: the chunks in order, `top` from the chunks whose maximum can still enter it.
 *
 * Step 3 computes the noise of very few tokens. With bits the token's random number and u = (bits +
 * 1/2) / 2^32, the noise is -log(-log u) <= -log(1 - u), since -log u >= 1 - u. So a token whose
 * logit / T is `need` below the bar can reach it only if 1 - u <= e^-need. That is tested on whole
 * vectors, the random numbers included, on the safe side: `need` is lowered by more than all the
 * roundings, and 1 - u is rounded down. What passes is decided by the definition itself. */
#ifndef FR_FAST_CANDIDATES_H
#define FR_FAST_CANDIDATES_H

#include <math.h>
#include <string.h>

#include "candidates_rows.h"
#include "check.h"
#include "fast_ops.h"
#include "rng.h"

typedef struct chunk_part {
    float max;
    float best, best_logit; /* the chunk's best token: value and logit */
    int32_t token;          /* -1: none reaches the bar */
    double sum_exp;
} chunk_part;

typedef struct candidates_job {
    const float *logits;
    int vocab, chunks; /* chunks of a row */
    int32_t first_token;
    const int32_t *tokens;
    const fr_row_query *queries;
    void *answers;
    size_t answer_bytes;
    chunk_part *parts; /* [rows, chunks] */
} candidates_job;

/* One chunk of one row. */
typedef struct chunk_ref {
    const fr_row_query *query;
    fr_row_answer *answer;
    chunk_part *part;
    const float *logits;
    int columns; /* 0: beyond the slice's real tokens */
    int32_t first_token;
    const int32_t *tokens; /* [columns]; NULL: first_token + column */
} chunk_ref;

static fr_row_answer *answer_of(const candidates_job *job, int64_t row)
{
    return fr_answer_at(job->answers, job->answer_bytes, row);
}

static chunk_ref chunk_at(const candidates_job *job, int64_t i)
{
    int64_t row = i / job->chunks, start = i % job->chunks * FR_CHUNK;
    const fr_row_query *q = &job->queries[row];
    int64_t columns = fr_query_columns(q, job->vocab, job->first_token, job->tokens) - start;
    columns = columns < 0 ? 0 : columns > FR_CHUNK ? FR_CHUNK : columns;
    return (chunk_ref){q,
                       answer_of(job, row),
                       &job->parts[i],
                       job->logits + row * job->vocab + start,
                       (int)columns,
                       (int32_t)(job->first_token + start),
                       job->tokens ? job->tokens + start : NULL};
}

static void find_maxima(void *ctx, int64_t begin, int64_t end)
{
    for (int64_t c = begin; c < end; c++) {
        chunk_ref ref = chunk_at(ctx, c);
        vf high = vf_set1(-INFINITY); /* a NaN leaves it as it is */
        for (int i = 0; i < ref.columns; i += LANES)
            high = vf_max(vf_load_n(ref.logits + i, ref.columns - i, -INFINITY), high);
        *ref.part = (chunk_part){.max = vf_highest(high), .token = -1};
    }
}

static void set_bar(const candidates_job *job, int64_t row)
{
    const fr_row_query *q = &job->queries[row];
    fr_row_answer *a = answer_of(job, row);
    const chunk_part *parts = job->parts + row * job->chunks, *top = parts;
    a->max = a->winner_value = a->winner_logit = -INFINITY;
    a->sum_exp = 0;
    int columns = fr_query_columns(q, job->vocab, job->first_token, job->tokens);
    a->winner = columns > 0 ? fr_column_token(job->first_token, job->tokens, 0) : -1;
    a->n_top = 0;
    for (int c = 1; c < job->chunks; c++)
        if (parts[c].max > top->max)
            top = parts + c;
    if (job->chunks == 0 || !(top->max > -INFINITY))
        return;
    const float *logits = job->logits + row * job->vocab;
    int64_t at = (top - parts) * FR_CHUNK;
    while (logits[at] != top->max)
        at++;
    a->max = logits[at];
    int32_t token = fr_column_token(job->first_token, job->tokens, at);
    float value = fr_query_value(q, logits[at], token);
    if (!(value > -INFINITY)) /* too cold: no column wins, as the definition has it */
        return;
    a->winner = token;
    a->winner_logit = logits[at];
    a->winner_value = value;
}

/* The tokens of the columns from `at` on; lanes behind the last column hold anything. */
LANES_INLINE vi tokens_from(const chunk_ref *ref, int at)
{
    if (!ref->tokens)
        return vi_count_from(ref->first_token + at);
    if (ref->columns - at >= LANES)
        return vi_load(ref->tokens + at);
    int32_t last[LANES] = {0};
    memcpy(last, ref->tokens + at, (size_t)(ref->columns - at) * sizeof *last);
    return vi_load(last);
}

/* First output of Philox 4x32-10 for the counters {token, position, sample, 0}, as fr_gumbel() uses
 * it. */
LANES_INLINE vi philox_bits(const fr_row_query *q, vi tokens)
{
    vi c0 = tokens, c1 = vi_set1((int32_t)q->position), c2 = vi_set1((int32_t)q->sample),
       c3 = vi_set1(0);
    uint32_t k0 = (uint32_t)q->seed, k1 = (uint32_t)(q->seed >> 32);
    for (int round = 0; round < 10; round++) {
        vi low0, high0, low1, high1;
        vi_mul_wide(c0, 0xD2511F53u, &low0, &high0);
        vi_mul_wide(c2, 0xCD9E8D57u, &low1, &high1);
        c0 = vi_xor(vi_xor(high1, c1), vi_set1((int32_t)k0));
        c2 = vi_xor(vi_xor(high0, c3), vi_set1((int32_t)k1));
        c1 = low1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c0;
}

/* Bit i: column at + i may reach `bar`. */
LANES_INLINE uint32_t may_reach(const chunk_ref *ref, int at, float bar)
{
    const fr_row_query *q = ref->query;
    const int n = ref->columns - at;
    vf value = vf_div(vf_load_n(ref->logits + at, n, -INFINITY), vf_set1(q->temperature));
    vf slack = vf_add(vf_abs(value), vf_abs(vf_set1(bar)));
    slack = vf_fma(slack, vf_set1(0x1p-22f), vf_set1(1e-3f));
    vf need = vf_sub(vf_sub(vf_set1(bar), value), slack);
    const uint32_t all = n >= LANES ? (1u << LANES) - 1 : (1u << n) - 1;
    uint32_t passes = all & ~vf_gt(need, vf_set1(FR_GUMBEL_MAX)); /* an undefined need passes */
    if (!passes)
        return 0;
    /* 1 - u is (this + 1/2) / 2^32 */
    vi inverted = vi_xor(philox_bits(q, tokens_from(ref, at)), vi_set1(-1));
    vf distance = vf_mul(vf_from_i32(vi_shr(inverted, 8)), vf_set1(0x1p-24f));
    uint32_t far_off = vf_gt(distance, vf_exp(vf_sub(vf_set1(0), need)));
    return passes & ~(far_off & vf_gt(need, vf_set1(0)));
}

static void find_winner(chunk_ref ref)
{
    float bar = ref.answer->winner_value;
    for (int i = 0; i < ref.columns; i += LANES) {
        uint32_t passes = may_reach(&ref, i, bar);
        for (; passes; passes &= passes - 1) {
            int at = i + __builtin_ctz(passes);
            int32_t token = fr_column_token(ref.first_token, ref.tokens, at);
            float value = fr_query_value(ref.query, ref.logits[at], token);
            if (value > -INFINITY && (ref.part->token < 0 ? value >= bar : value > bar)) {
                bar = value;
                *ref.part = (chunk_part){ref.part->max, value, ref.logits[at], token, 0};
            }
        }
    }
}

static void weigh_chunks(void *ctx, int64_t begin, int64_t end)
{
    for (int64_t c = begin; c < end; c++) {
        chunk_ref ref = chunk_at(ctx, c);
        if (ref.columns == 0 || !(ref.answer->max > -INFINITY))
            continue;
        if (ref.query->temperature > 0)
            find_winner(ref);
        ref.part->sum_exp = fr_chunk_sum_exp(ref.logits, ref.columns, ref.answer->max);
    }
}

static void offer_chunk(chunk_ref ref, int n_top)
{
    fr_row_answer *a = ref.answer;
    for (int i = 0; i < ref.columns; i++) {
        float x = ref.logits[i];
        if (a->n_top < n_top ? x == x : x > a->top[0].logit)
            fr_top_offer(a->top, &a->n_top, n_top,
                         (fr_candidate){fr_column_token(ref.first_token, ref.tokens, i), x});
    }
}

static void finish_rows(void *ctx, int64_t begin, int64_t end)
{
    const candidates_job *job = ctx;
    for (int64_t row = begin; row < end; row++) {
        const fr_row_query *q = &job->queries[row];
        fr_row_answer *a = answer_of(job, row);
        int n_top = q->n_top < FR_TOP_MAX ? q->n_top : FR_TOP_MAX;
        bool found = false;
        for (int c = 0; c < job->chunks; c++) {
            chunk_ref ref = chunk_at(job, row * job->chunks + c);
            a->sum_exp += ref.part->sum_exp;
            if (n_top > 0 && (a->n_top < n_top || ref.part->max > a->top[0].logit))
                offer_chunk(ref, n_top);
            if (ref.part->token < 0 || ref.part->best < a->winner_value ||
                (found && ref.part->best == a->winner_value))
                continue;
            found = true; /* the first of equals: the lowest token */
            a->winner_value = ref.part->best;
            a->winner_logit = ref.part->best_logit;
            a->winner = ref.part->token;
        }
        fr_top_sort(a->top, a->n_top);
        int columns = fr_query_columns(q, job->vocab, job->first_token, job->tokens);
        fr_query_wanted(job->logits + row * job->vocab, columns, job->first_token, job->tokens, q,
                        a);
    }
}

static fr_status fast_candidates(fr_device *dev, const float *logits, int n, int vocab,
                                 int32_t first_token, const int32_t *tokens,
                                 const fr_row_query *queries, void *answers, size_t answer_bytes)
{
    enum { ROWS = 32 };
    int chunks = (vocab + FR_CHUNK - 1) / FR_CHUNK;
    void *parts = NULL;
    FR_TRY(fr_cpu_scratch(dev, (size_t)ROWS * (size_t)chunks * sizeof(chunk_part), &parts));
    for (int first = 0; first < n; first += ROWS) {
        int rows = n - first < ROWS ? n - first : ROWS;
        candidates_job job = {logits + (int64_t)first * vocab,
                              vocab,
                              chunks,
                              first_token,
                              tokens,
                              queries + first,
                              fr_answer_at(answers, answer_bytes, first),
                              answer_bytes,
                              parts};
        fr_pool_run(dev->pool, (int64_t)rows * chunks, 16, find_maxima, &job);
        for (int r = 0; r < rows; r++)
            set_bar(&job, r);
        fr_pool_run(dev->pool, (int64_t)rows * chunks, 4, weigh_chunks, &job);
        fr_pool_run(dev->pool, rows, 1, finish_rows, &job);
    }
    return FR_OK;
}

#endif
