/* fast_attention.h: attention over the paged cache, a template for one instruction set
 * (fast_backend.h).
 *
 * A task is a few rows of one sequence and a run of query heads that read the same KV head. It goes
 * through their logical positions by chunks of 16, counted from 0: widen the chunk's keys and values
 * once, then for each row and head the online softmax (running maximum, total and weighted sum,
 * rescaled when the maximum grows). Where the trunk ends, which pages are used and which rows and
 * heads share a task change nothing in the arithmetic of a (row, head). */
#ifndef FR_FAST_ATTENTION_H
#define FR_FAST_ATTENTION_H

#include <math.h>

#include "check.h"
#include "cpu_device.h"
#include "fast_ops.h"

enum { CHUNK = 16, RUN_MAX = 8, ROWS_MAX = 8 };

typedef struct attention_job {
    float *out;
    const float *q;
    const fr_kv *kv;
    const fr_attn_view *views;
    const int32_t *kv_of_head;
    const int32_t *runs;   /* [n_runs + 1]: first heads of the runs, then `heads` */
    const int32_t *groups; /* [n_groups + 1]: first rows of those that share tasks, then n */
    int n_runs, heads;
    float scale;
} attention_job;

/* One head's softmax so far. `sum` is [padded head_dim], the values weighted by e^(score - max). */
typedef struct softmax_state {
    float max, total;
    float q[FR_HEAD_MAX] __attribute__((aligned(64)));
    float sum[FR_HEAD_MAX] __attribute__((aligned(64)));
} softmax_state;

/* Widens one head's part of `count` positions into CHUNK rows of `padded` floats, zero beyond
 * head_dim and count. */
static void widen_chunk(const uint16_t *cache, const int64_t *slots, int count, const fr_kv *kv,
                        int kv_head, int padded, float *rows)
{
    for (int p = 0; p < count; p++) {
        const uint16_t *src = cache + (slots[p] * kv->kv_heads + kv_head) * kv->head_dim;
        for (int i = 0; i < padded; i += LANES)
            vf_store(rows + p * padded + i, vf_load_f16_n(src + i, kv->head_dim - i));
    }
    for (int i = count * padded; i < CHUNK * padded; i += LANES)
        vf_store(rows + i, vf_set1(0));
}

/* Asks for what widen_chunk() will read. Pages lie anywhere, so the hardware cannot know; into the second cache, since
 * the first holds the chunk at hand. */
static void prefetch_chunk(const uint16_t *cache, const int64_t *slots, int count, const fr_kv *kv,
                           int kv_head)
{
    for (int p = 0; p < count; p++) {
        const char *row = (const char *)(cache + (slots[p] * kv->kv_heads + kv_head) * kv->head_dim);
        for (int at = 0; at < kv->head_dim * 2; at += 64)
            _mm_prefetch(row + at, _MM_HINT_T1);
    }
}

static void score_chunk(const softmax_state *s, const float *keys, int count, int padded,
                        float scale, float *scores)
{
    for (int first = 0; first < CHUNK; first += LANES) {
        vf dots[LANES];
        for (int p = 0; p < LANES; p++)
            dots[p] = vf_set1(0);
        for (int i = 0; i < padded; i += LANES) {
            vf q = vf_load(s->q + i);
            for (int p = 0; p < LANES; p++)
                dots[p] = vf_fma(q, vf_load(keys + (first + p) * padded + i), dots[p]);
        }
        vf_store(scores + first, vf_mul(vf_sum_each(dots), vf_set1(scale)));
    }
    for (int p = count; p < CHUNK; p++)
        scores[p] = -INFINITY;
}

/* sum [vectors * LANES] = sum * factor + the weighted values, position by position. */
LANES_INLINE void add_values(float *sum, float factor, const float *weights, const float *values,
                             int count, int padded, int vectors)
{
    vf sums[4];
    for (int v = 0; v < vectors; v++)
        sums[v] = vf_mul(vf_load(sum + v * LANES), vf_set1(factor));
    for (int p = 0; p < count; p++) {
        vf weight = vf_set1(weights[p]);
        for (int v = 0; v < vectors; v++)
            sums[v] = vf_fma(weight, vf_load(values + p * padded + v * LANES), sums[v]);
    }
    for (int v = 0; v < vectors; v++)
        vf_store(sum + v * LANES, sums[v]);
}

static void add_chunk(softmax_state *s, float *scores, const float *values, int count, int padded)
{
    vf high = vf_set1(-INFINITY);
    for (int p = 0; p < CHUNK; p += LANES)
        high = vf_max(vf_load(scores + p), high);
    float highest = vf_highest(high), max = highest > s->max ? highest : s->max, rescale[LANES];
    vf_store(rescale, vf_exp(vf_set1(s->max - max)));
    vf total = vf_set1(0);
    for (int p = 0; p < CHUNK; p += LANES) {
        vf weight = vf_exp(vf_sub(vf_load(scores + p), vf_set1(max)));
        /* Absent positions weigh e^-87: nothing, and the same nothing every time. */
        vf_store(scores + p, weight);
        total = vf_add(total, weight);
    }
    s->total = s->total * rescale[0] + vf_sum(total);
    s->max = max;
    int i = 0;
    for (; i + 4 * LANES <= padded; i += 4 * LANES)
        add_values(s->sum + i, rescale[0], scores, values + i, count, padded, 4);
    for (; i < padded; i += LANES)
        add_values(s->sum + i, rescale[0], scores, values + i, count, padded, 1);
}

/* One head of one row over one chunk, of which the row sees the first `count` positions. */
static void attend_chunk(softmax_state *s, const float *keys, const float *values, int count,
                         int padded, float scale)
{
    float scores[CHUNK];
    score_chunk(s, keys, count, padded, scale, scores);
    add_chunk(s, scores, values, count, padded);
}

static int view_positions(const fr_attn_view *view)
{
    return view->n_trunk + view->n_branch;
}

static void open_state(softmax_state *s, const float *q, int dim, int padded)
{
    s->max = -INFINITY;
    s->total = 0;
    for (int i = 0; i < padded; i += LANES) {
        vf_store(s->q + i, vf_load_n(q + i, dim - i, 0));
        vf_store(s->sum + i, vf_set1(0));
    }
}

static void close_state(const softmax_state *s, float *out, int dim, int padded)
{
    vf total = vf_set1(s->total);
    for (int i = 0; i < padded; i += LANES)
        vf_store_n(out + i, dim - i, vf_div(vf_load(s->sum + i), total));
}

/* The slots of the positions of a chunk, as far as there are any. */
static int find_slots(const fr_attn_view *view, int at, int64_t slots[CHUNK])
{
    int left = view_positions(view) - at, count = left < 0 ? 0 : left < CHUNK ? left : CHUNK;
    for (int p = 0; p < count; p++)
        slots[p] = fr_view_slot(view, at + p);
    return count;
}

/* Rows [n_rows] from `row` on, whose views differ in their lengths only, and heads [n_heads] from
 * `head` on. */
static void attend_group(const attention_job *job, int64_t row, int n_rows, int head, int n_heads)
{
    const fr_kv *kv = job->kv;
    const int dim = kv->head_dim, padded = (dim + LANES - 1) / LANES * LANES;
    softmax_state states[ROWS_MAX * RUN_MAX];
    float keys[CHUNK * FR_HEAD_MAX] __attribute__((aligned(64)));
    float values[CHUNK * FR_HEAD_MAX] __attribute__((aligned(64)));
    const fr_attn_view *longest = &job->views[row];
    for (int r = 0; r < n_rows; r++) {
        if (view_positions(&job->views[row + r]) > view_positions(longest))
            longest = &job->views[row + r];
        for (int h = 0; h < n_heads; h++)
            open_state(&states[r * n_heads + h], job->q + ((row + r) * job->heads + head + h) * dim,
                       dim, padded);
    }
    int64_t slots[CHUNK];
    int count = find_slots(longest, 0, slots);
    for (int at = 0; count > 0; at += CHUNK) {
        widen_chunk(kv->k, slots, count, kv, job->kv_of_head[head], padded, keys);
        widen_chunk(kv->v, slots, count, kv, job->kv_of_head[head], padded, values);
        count = find_slots(longest, at + CHUNK, slots);
        prefetch_chunk(kv->k, slots, count, kv, job->kv_of_head[head]);
        prefetch_chunk(kv->v, slots, count, kv, job->kv_of_head[head]);
        for (int r = 0; r < n_rows; r++) {
            int seen = view_positions(&job->views[row + r]) - at;
            for (int h = 0; h < n_heads && seen > 0; h++)
                attend_chunk(&states[r * n_heads + h], keys, values, seen < CHUNK ? seen : CHUNK,
                             padded, job->scale);
        }
    }
    for (int r = 0; r < n_rows; r++)
        for (int h = 0; h < n_heads; h++)
            close_state(&states[r * n_heads + h],
                        job->out + ((row + r) * job->heads + head + h) * dim, dim, padded);
}

static void attend_tasks(void *ctx, int64_t begin, int64_t end)
{
    const attention_job *job = ctx;
    for (int64_t i = begin; i < end; i++) {
        const int32_t *run = job->runs + i % job->n_runs, *group = job->groups + i / job->n_runs;
        attend_group(job, group[0], group[1] - group[0], run[0], run[1] - run[0]);
    }
}

/* Splits the rows into groups of neighbours of one sequence, at most `most` long: rows of one append
 * share their list of pages. A probe's rows see a branch of their own, and go alone. */
static int find_groups(const fr_attn_view *views, int n, int most, int32_t *groups)
{
    int n_groups = 0;
    for (int r = 0; r < n; r++)
        if (r == 0 || views[r].trunk_pages != views[r - 1].trunk_pages || views[r].n_branch > 0 ||
            views[r - 1].n_branch > 0 || r - groups[n_groups - 1] == most)
            groups[n_groups++] = r;
    groups[n_groups] = n;
    return n_groups;
}

/* Splits the heads into runs of neighbours with one KV head, at most RUN_MAX long. */
static int find_runs(const int32_t *kv_of_head, int heads, int32_t *runs)
{
    int n = 0;
    for (int h = 0; h < heads; h++)
        if (h == 0 || kv_of_head[h] != kv_of_head[h - 1] || h - runs[n - 1] == RUN_MAX)
            runs[n++] = h;
    runs[n] = heads;
    return n;
}

static fr_status fast_attention(fr_device *dev, float *out, const float *q, const fr_kv *kv,
                                const fr_attn_view *views, const int32_t *kv_of_head, int n,
                                int heads, float scale)
{
    FR_TRY(fr_cpu_check_head(kv->head_dim));
    void *scratch = NULL;
    FR_TRY(fr_cpu_scratch(dev, ((size_t)heads + (size_t)n + 2) * sizeof(int32_t), &scratch));
    int32_t *runs = scratch, *groups = runs + heads + 1;
    int n_runs = find_runs(kv_of_head, heads, runs);
    int most = n * n_runs / (2 * fr_pool_threads(dev->pool)); /* two tasks a thread, if it goes */
    int n_groups = find_groups(views, n, most < 1 ? 1 : most > ROWS_MAX ? ROWS_MAX : most, groups);
    attention_job job = {out, q, kv, views, kv_of_head, runs, groups, n_runs, heads, scale};
    fr_pool_run(dev->pool, (int64_t)n_groups * n_runs, 1, attend_tasks, &job);
    return FR_OK;
}

#endif
