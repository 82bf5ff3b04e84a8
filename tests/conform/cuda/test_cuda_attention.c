/* test_cuda_attention.c: paged attention on CUDA through its plan and launcher: against the plain
 * backend, and to the bit whatever shares a pass. Contexts are long enough for several chunks, split
 * over tasks and merged, or taken whole by one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attention_plan.h"
#include "check.h"
#include "fake_cuda.h"
#include "fault_alloc.h"
#include "ops_cpu.h"

enum { MAX_ROWS = 160, MAX_HEADS = 64, N_PAGES = 1108 };

/* One logical sequence in a cache that holds NaN wherever nothing was written. Its first `split`
 * positions lie in trunk pages; from there on they lie in trunk pages and, once more, in branch pages. */
typedef struct sequence {
    int heads, kv_heads, head_dim, positions;
    int32_t kv_of_head[MAX_HEADS];
    float *q;                      /* [positions, heads, head_dim] */
    uint16_t *k, *v;               /* [N_PAGES * FR_PAGE, kv_heads, head_dim] */
    uint16_t *k_device, *v_device; /* the same on the device */
    int32_t trunk[N_PAGES], branch[N_PAGES];
    int split;
    int copy_lists; /* every row names its pages in an array of its own */
} sequence;

static float random_value(uint32_t *state) /* about normal */
{
    float sum = 0;
    for (int i = 0; i < 12; i++) {
        *state = *state * 1664525u + 1013904223u;
        sum += (float)(*state >> 8) * 0x1p-24f;
    }
    return sum - 6.0f;
}

static void *make(size_t bytes)
{
    void *mem = malloc(bytes);
    assert_non_null(mem);
    return mem;
}

static void *make_device(const void *from, size_t bytes)
{
    void *mem = NULL;
    assert_int_equal(cudaMalloc(&mem, bytes), cudaSuccess);
    if (from)
        assert_int_equal(cudaMemcpy(mem, from, bytes, cudaMemcpyHostToDevice), cudaSuccess);
    return mem;
}

static size_t cache_bytes(const sequence *s)
{
    return (size_t)N_PAGES * FR_PAGE * (size_t)(s->kv_heads * s->head_dim) * sizeof *s->k;
}

static void write_position(sequence *s, const int32_t *pages, int at, const float *k,
                           const float *v)
{
    int width = s->kv_heads * s->head_dim;
    size_t slot = (size_t)(pages[at / FR_PAGE] * FR_PAGE + at % FR_PAGE);
    for (int i = 0; i < width; i++) {
        s->k[slot * (size_t)width + (size_t)i] = fr_f32_to_f16(k[i]);
        s->v[slot * (size_t)width + (size_t)i] = fr_f32_to_f16(v[i]);
    }
}

/* group: heads that read one KV head, neighbours; -n: n KV heads that they read in turn.
 * `stride`, without a factor of N_PAGES, deals out the pages in an order of its own; the contents depend on neither it
 * nor the split. */
static void sequence_open(sequence *s, int heads, int group, int head_dim, int positions, int split,
                          int stride)
{
    *s = (sequence){.heads = heads,
                    .kv_heads = group > 0 ? (heads + group - 1) / group : -group,
                    .head_dim = head_dim,
                    .positions = positions,
                    .split = split};
    int width = s->kv_heads * head_dim;
    uint32_t state = 5;
    for (int h = 0; h < heads; h++)
        s->kv_of_head[h] = group > 0 ? h / group : h % s->kv_heads;
    for (int i = 0; i < N_PAGES / 2; i++) {
        s->trunk[i] = (i * stride + 3) % (N_PAGES / 2) * 2;
        s->branch[i] = (i * stride + 8) % (N_PAGES / 2) * 2 + 1;
    }
    s->k = make(cache_bytes(s));
    s->v = make(cache_bytes(s));
    memset(s->k, 0x7e, cache_bytes(s));
    memset(s->v, 0x7e, cache_bytes(s));
    s->q = make((size_t)(positions * heads * head_dim) * sizeof *s->q);
    float *k = make((size_t)width * sizeof *k), *v = make((size_t)width * sizeof *v);
    for (int p = 0; p < positions; p++) {
        for (int i = 0; i < width; i++) {
            k[i] = random_value(&state);
            v[i] = random_value(&state);
        }
        for (int i = 0; i < heads * head_dim; i++)
            s->q[p * heads * head_dim + i] = random_value(&state);
        write_position(s, s->trunk, p, k, v);
        if (p >= split)
            write_position(s, s->branch, p - split, k, v);
    }
    free(k);
    free(v);
    s->k_device = make_device(s->k, cache_bytes(s));
    s->v_device = make_device(s->v, cache_bytes(s));
}

static void sequence_close(sequence *s)
{
    assert_int_equal(cudaFree(s->k_device), cudaSuccess);
    assert_int_equal(cudaFree(s->v_device), cudaSuccess);
    free(s->k);
    free(s->v);
    free(s->q);
}

/* The view of position p's row: as a branch when `branch` and p lies there. */
static fr_attn_view view_of(const sequence *s, int p, int branch)
{
    int trunk = branch && p >= s->split ? s->split : p + 1;
    return (fr_attn_view){s->trunk, s->branch, trunk, p + 1 - trunk};
}

/* What no plan knows of them; q and out are device memory. */
static fr_cuda_attention_args arguments(const sequence *s, const float *q, int n, float *out)
{
    return (fr_cuda_attention_args){.out = out,
                                    .q = q,
                                    .k = s->k_device,
                                    .v = s->v_device,
                                    .n = n,
                                    .heads = s->heads,
                                    .kv_heads = s->kv_heads,
                                    .head_dim = s->head_dim,
                                    .scale = 0.2f};
}

/* The plan is within what is reserved for such passes. */
static void check_most(const sequence *s, const fr_attn_view *views, int n, const fr_cuda_attention_plan *plan)
{
    int most = 0;
    for (int i = 0; i < n; i++)
        most = views[i].n_trunk + views[i].n_branch > most ? views[i].n_trunk + views[i].n_branch : most;
    assert_true(fr_cuda_attention_scratch_bytes(plan, s->heads, s->head_dim) <=
                fr_cuda_attention_most_scratch(n, most, s->heads, s->head_dim));
    assert_true((size_t)plan->n_words <= fr_cuda_attention_most_words(n, most, s->heads));
}

/* One pass over n rows. */
static void launch(const sequence *s, const fr_attn_view *views, const float *q, int n, float *out)
{
    size_t bytes = (size_t)(n * s->heads * s->head_dim) * sizeof *out;
    fr_cuda_attention_plan plan = {0};
    assert_int_equal(
        fr_cuda_attention_plan_make(&plan, views, n, s->kv_of_head, s->heads, s->head_dim), FR_OK);
    size_t scratch_bytes = fr_cuda_attention_scratch_bytes(&plan, s->heads, s->head_dim);
    check_most(s, views, n, &plan);
    fr_cuda_attention_args args = arguments(s, make_device(q, bytes), n, make_device(NULL, bytes));
    int32_t *staged = make_device(plan.words, (size_t)plan.n_words * sizeof *staged);
    if (scratch_bytes > 0)
        args.scratch = make_device(NULL, scratch_bytes);
    fr_cuda_attention_plan_bind(&plan, staged, &args);
    fr_cuda_attention(NULL, &args);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaMemcpy(out, args.out, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
    assert_int_equal(cudaFree(args.out), cudaSuccess);
    assert_int_equal(cudaFree((void *)(uintptr_t)args.q), cudaSuccess);
    assert_int_equal(cudaFree(args.scratch), cudaSuccess);
    assert_int_equal(cudaFree(staged), cudaSuccess);
    fr_cuda_attention_plan_free(&plan);
}

/* The rows at these positions, in one pass. */
static void attend(const sequence *s, const int *positions, const int *branches, int n, float *out)
{
    fr_attn_view views[MAX_ROWS];
    int row = s->heads * s->head_dim;
    float *q = make((size_t)(n * row) * sizeof *q);
    int32_t *lists = make((size_t)n * sizeof s->trunk);
    for (int i = 0; i < n; i++) {
        views[i] = view_of(s, positions[i], branches[i]);
        if (s->copy_lists) {
            memcpy(lists + i * N_PAGES, s->trunk, sizeof s->trunk);
            views[i].trunk_pages = lists + i * N_PAGES;
        }
        memcpy(q + i * row, s->q + positions[i] * row, (size_t)row * sizeof *q);
    }
    launch(s, views, q, n, out);
    free(lists);
    free(q);
}

/* Rows first .. first+n-1, `at_a_time` a pass. */
static void attend_rows(const sequence *s, int first, int n, int at_a_time, int branch, float *out)
{
    for (int at = 0; at < n; at += at_a_time) {
        int positions[MAX_ROWS], branches[MAX_ROWS],
            count = at_a_time < n - at ? at_a_time : n - at;
        for (int i = 0; i < count; i++) {
            positions[i] = first + at + i;
            branches[i] = branch;
        }
        attend(s, positions, branches, count, out + at * s->heads * s->head_dim);
    }
}

static void assert_same(const float *a, const float *b, int n, const char *what)
{
    for (int i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0)
            fail_msg("%s: value %d is %a in one and %a in the other", what, i, (double)a[i],
                     (double)b[i]);
}

typedef struct shape {
    int head_dim, heads, group, positions;
} shape;

static const shape shapes[] = {
    {8, 4, 2, 300},    {64, 14, 7, 1100}, {72, 6, -2, 300}, {80, 5, 5, 600},
    {96, 8, 4, 1100},  {128, 8, 4, 1100}, {128, 8, 8, 600}, {256, 4, 2, 1100},
    {32, 40, 20, 300}, {16, 2, 2, 8500}, /* merged in two batches */
};

static void test_against_reference(void **state)
{
    (void)state;
    static const int positions[] = {0,   1,   15,   16,   63,   64,   254,  255, 256,
                                    257, 299, 511,  512,  513,  514,  515,  516, 517,
                                    518, 599, 1023, 1024, 1099, 8191, 8192, 8499};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        sequence s;
        sequence_open(&s, shapes[i].heads, shapes[i].group, shapes[i].head_dim, shapes[i].positions,
                      shapes[i].positions, 7);
        int n = 0, row = s.heads * s.head_dim;
        fr_attn_view views[MAX_ROWS];
        float *q = make(MAX_ROWS * (size_t)row * sizeof *q);
        for (; n < (int)(sizeof positions / sizeof positions[0]) && positions[n] < s.positions;
             n++) {
            views[n] = view_of(&s, positions[n], 0);
            memcpy(q + n * row, s.q + positions[n] * row, (size_t)row * sizeof *q);
        }
        float *want = make((size_t)(n * row) * sizeof *want),
              *got = make((size_t)(n * row) * sizeof *got);
        fr_device *dev = NULL;
        assert_int_equal(fr_ops_cpu_ref.open(&(fr_device_options){.threads = 1}, &dev), FR_OK);
        fr_kv kv = {s.k, s.v, s.kv_heads, s.head_dim};
        assert_int_equal(
            fr_ops_cpu_ref.attention(dev, want, q, &kv, views, s.kv_of_head, n, s.heads, 0.2f),
            FR_OK);
        fr_ops_cpu_ref.close(&dev);
        launch(&s, views, q, n, got);
        for (int k = 0; k < n * row; k++)
            if (!(fabsf(got[k] - want[k]) <= 2e-5f))
                fail_msg("head size %d: value %d of row %d is %.9g, want %.9g", s.head_dim, k % row,
                         k / row, (double)got[k], (double)want[k]);
        free(q);
        free(want);
        free(got);
        sequence_close(&s);
    }
}

/* The last rows of the sequence, all together and in every other way. */
static void check_ways(const shape *sh, int n)
{
    sequence s;
    sequence_open(&s, sh->heads, sh->group, sh->head_dim, sh->positions, sh->positions, 7);
    int row = s.heads * s.head_dim, first = s.positions - n;
    float *want = make((size_t)(n * row) * sizeof *want),
          *got = make((size_t)(n * row) * sizeof *got);
    attend_rows(&s, first, n, n, 0, want);
    static const int at_a_time[] = {1, 3, 8};
    for (size_t i = 0; i < sizeof at_a_time / sizeof at_a_time[0]; i++) {
        attend_rows(&s, first, n, at_a_time[i], 0, got);
        assert_same(got, want, n * row, "fewer rows a pass");
    }
    s.copy_lists = 1;
    attend_rows(&s, first, n, n, 0, got);
    assert_same(got, want, n * row, "page lists in arrays of their own");
    fake_cuda_set_order(FAKE_CUDA_BACKWARD, 0);
    attend_rows(&s, first, n, n, 0, got);
    assert_same(got, want, n * row, "threads backwards");
    fake_cuda_set_order(FAKE_CUDA_SHUFFLED, 11);
    attend_rows(&s, first, n, n, 0, got);
    assert_same(got, want, n * row, "threads in no order");
    fake_cuda_set_order(FAKE_CUDA_FORWARD, 0);
    sequence_close(&s);

    const int splits[] = {1, 255, 256, 257, first, first + n / 2, s.positions - 1};
    for (size_t i = 0; i < sizeof splits / sizeof splits[0]; i++) {
        sequence_open(&s, sh->heads, sh->group, sh->head_dim, sh->positions, splits[i],
                      i % 2 ? 11 : 21);
        attend_rows(&s, first, n, i % 3 == 2 ? 1 : n, 1, got);
        assert_same(got, want, n * row, "a branch, other pages");
        sequence_close(&s);
    }
    free(want);
    free(got);
}

static void test_invariance(void **state)
{
    (void)state;
    check_ways(&(shape){64, 7, 7, 1100}, 20);
    check_ways(&(shape){72, 3, 2, 300}, 40);
    check_ways(&(shape){96, 4, 4, 600}, 20);
    check_ways(&(shape){128, 8, 4, 1100}, 20);
    check_ways(&(shape){256, 2, 2, 600}, 20);
    check_ways(&(shape){64, 1, 1, 8500}, 5);
}

/* Makes the branch another text than the trunk has there. */
static void change_branch(sequence *s)
{
    size_t page = (size_t)(FR_PAGE * s->kv_heads * s->head_dim);
    for (int b = 0; b < N_PAGES / 2; b++)
        for (size_t i = 0; i < page; i++) {
            s->k[(size_t)s->branch[b] * page + i] ^= 0x8000;
            s->v[(size_t)s->branch[b] * page + i] ^= 0x8000;
        }
    assert_int_equal(cudaMemcpy(s->k_device, s->k, cache_bytes(s), cudaMemcpyHostToDevice),
                     cudaSuccess);
    assert_int_equal(cudaMemcpy(s->v_device, s->v, cache_bytes(s), cudaMemcpyHostToDevice),
                     cudaSuccess);
}

/* Decoding, a verification and probes of one sequence, rows in no order: as each row alone. */
static void test_mixed_pass(void **state)
{
    (void)state;
    static const int positions[] = {1090, 1091, 1092, 1093, 1094, 1095, 1096, 1097, 700, 701,
                                    702,  1099, 1098, 3,    4,    5,    699,  1000, 255, 256};
    static const int branches[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 0};
    enum { N = sizeof positions / sizeof positions[0] };
    sequence s;
    sequence_open(&s, 8, 4, 64, 1100, 700, 13);
    change_branch(&s);
    int row = s.heads * s.head_dim;
    float *all = make((size_t)(N * row) * sizeof *all), *alone = make((size_t)row * sizeof *alone);
    attend(&s, positions, branches, N, all);
    for (int i = 0; i < N; i++) {
        attend(&s, positions + i, branches + i, 1, alone);
        assert_same(all + i * row, alone, row, "a mixed pass");
    }
    free(all);
    free(alone);
    sequence_close(&s);
}

/* Enough rows and heads to fill a GPU are not split over chunks; the same rows alone are. */
static void test_whole_as_split(void **state)
{
    (void)state;
    enum { N = 66 };
    sequence s;
    sequence_open(&s, 64, 1, 8, 800, 800, 9);
    int row = s.heads * s.head_dim;
    float *all = make((size_t)(N * row) * sizeof *all),
          *few = make((size_t)(3 * row) * sizeof *few);
    attend_rows(&s, s.positions - N, N, N, 0, all);
    for (int at = 0; at < N; at += 9) {
        attend_rows(&s, s.positions - N + at, 3, 3, 0, few);
        assert_same(all + at * row, few, 3 * row, "whole rows as split ones");
    }
    free(all);
    free(few);
    sequence_close(&s);
}

/* A pass of one row over and over, in the same device memory. */
typedef struct decoder {
    sequence s;
    fr_cuda_attention_plan plan;
    int32_t *staged;
    float *q, *out, *scratch;
} decoder;

enum { STAGED = 4096, SCRATCH = 1 << 20 }; /* bytes */

static void decoder_open(decoder *d)
{
    *d = (decoder){.staged = make_device(NULL, STAGED), .scratch = make_device(NULL, SCRATCH)};
    sequence_open(&d->s, 4, 2, 64, 1100, 1100, 7);
    d->q = make_device(NULL, 4 * 64 * sizeof *d->q);
    d->out = make_device(NULL, 4 * 64 * sizeof *d->out);
}

static void decoder_close(decoder *d)
{
    void *device[] = {d->staged, d->q, d->out, d->scratch};
    for (int i = 0; i < 4; i++)
        assert_int_equal(cudaFree(device[i]), cudaSuccess);
    fr_cuda_attention_plan_free(&d->plan);
    sequence_close(&d->s);
}

static fr_cuda_attention_args stage_position(decoder *d, int position)
{
    const sequence *s = &d->s;
    fr_attn_view view = view_of(s, position, 0);
    assert_int_equal(fr_cuda_attention_plan_make(&d->plan, &view, 1, s->kv_of_head, 4, 64), FR_OK);
    size_t words = (size_t)d->plan.n_words * sizeof *d->staged;
    assert_true(words <= STAGED);
    assert_true(fr_cuda_attention_scratch_bytes(&d->plan, 4, 64) <= SCRATCH);
    assert_int_equal(cudaMemcpy(d->staged, d->plan.words, words, cudaMemcpyHostToDevice),
                     cudaSuccess);
    assert_int_equal(
        cudaMemcpy(d->q, s->q + position * 4 * 64, 4 * 64 * sizeof *d->q, cudaMemcpyHostToDevice),
        cudaSuccess);
    fr_cuda_attention_args args = arguments(s, d->q, 1, d->out);
    args.scratch = d->scratch;
    fr_cuda_attention_plan_bind(&d->plan, d->staged, &args);
    return args;
}

/* One graph serves a growing context: what a plan stages changes, the arguments do not. */
static void test_graph(void **state)
{
    (void)state;
    static const int positions[] = {1030, 1099, 1060};
    float got[4 * 64], want[4 * 64];
    cudaStream_t stream = NULL;
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    decoder d;
    decoder_open(&d);
    fr_cuda_attention_args first = stage_position(&d, positions[0]);
    assert_int_equal(cudaStreamCreate(&stream), cudaSuccess);
    assert_int_equal(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    fr_cuda_attention(stream, &first);
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
    for (int i = 0; i < 3; i++) {
        fr_cuda_attention_args args = stage_position(&d, positions[i]);
        assert_memory_equal(&args, &first, sizeof args);
        assert_int_equal(cudaGraphLaunch(exec, stream), cudaSuccess);
        assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
        assert_int_equal(cudaMemcpy(got, d.out, sizeof got, cudaMemcpyDeviceToHost), cudaSuccess);
        attend_rows(&d.s, positions[i], 1, 1, 0, want);
        assert_same(got, want, 4 * 64, "a graph");
    }
    assert_int_equal(cudaGraphExecDestroy(exec), cudaSuccess);
    assert_int_equal(cudaGraphDestroy(graph), cudaSuccess);
    assert_int_equal(cudaStreamDestroy(stream), cudaSuccess);
    decoder_close(&d);
}

static void make_plan(fr_cuda_attention_plan *p, const fr_attn_view *views, int n)
{
    static const int32_t kv_of_head[] = {0, 0, 0, 0, 1, 1, 1, 1};
    assert_int_equal(fr_cuda_attention_plan_make(p, views, n, kv_of_head, 8, 128), FR_OK);
}

/* Rows that find their positions in the same slots share tasks, chunk by chunk. */
static void test_plan_shares(void **state)
{
    (void)state;
    int32_t pages[128], again[128], probe[] = {200};
    fr_attn_view views[12];
    for (int i = 0; i < 128; i++)
        pages[i] = again[i] = 127 - i;
    for (int i = 0; i < 8; i++)
        views[i] = (fr_attn_view){pages, NULL, 1091 + i, 0};
    for (int i = 0; i < 4; i++) /* hangs off position 1060, in the fifth chunk */
        views[8 + i] = (fr_attn_view){again, probe, 1060, 1 + i};
    fr_cuda_attention_plan p = {0};
    make_plan(&p, views, 1);
    assert_int_equal(p.n_narrow, 5); /* 4 pairs a block */
    assert_int_equal(p.n_wide, 0);
    int before[] = {p.rows_at, p.narrow_at, p.pages_at, p.max_narrow};
    make_plan(&p, views + 7, 1); /* longer, but as many chunks: the arguments stay */
    assert_memory_equal(before, ((int[]){p.rows_at, p.narrow_at, p.pages_at, p.max_narrow}),
                        sizeof before);
    make_plan(&p, views, 8);
    assert_int_equal(p.n_narrow, 0);
    assert_int_equal(p.n_wide, 5);
    make_plan(&p, views, 12);
    assert_int_equal(p.n_narrow, 1); /* the probe's own end */
    assert_int_equal(p.n_wide, 5);
    assert_int_equal(p.n_pages, (1098 + 15) / 16 + 1); /* one list for all, and the probe's page */
    assert_int_equal(p.max_wide, 8);
    fr_cuda_attention_plan_free(&p);
}

/* What `p` says now must be what a plan says that knows of nothing before. */
static void assert_plan_is_of(fr_cuda_attention_plan *p, const fr_attn_view *views, int n, const int32_t *kv_of_head,
                              int heads, int head_dim)
{
    fr_cuda_attention_plan fresh = {0};
    assert_int_equal(fr_cuda_attention_plan_make(p, views, n, kv_of_head, heads, head_dim), FR_OK);
    assert_int_equal(fr_cuda_attention_plan_make(&fresh, views, n, kv_of_head, heads, head_dim), FR_OK);
    assert_int_equal(p->n_words, fresh.n_words);
    assert_memory_equal(p->words, fresh.words, (size_t)fresh.n_words * sizeof *fresh.words);
    assert_int_equal(p->n_partials, fresh.n_partials);
    fr_cuda_attention_plan_free(&fresh);
}

/* The next layer's request is not worked out again, even from lists that lie elsewhere; one that differs anywhere is,
 * whatever lies where the last one did. */
static void test_plan_is_kept(void **state)
{
    (void)state;
    int32_t pages[40], copy[40], probe[2] = {50, 51};
    int32_t kv_of_head[16] = {0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    for (int i = 0; i < 40; i++)
        pages[i] = copy[i] = i;
    fr_attn_view views[3] = {{pages, NULL, 600, 0}, {pages, NULL, 601, 0}, {pages, probe, 590, 20}}, moved[3];
    fr_cuda_attention_plan p = {0};
    assert_plan_is_of(&p, views, 3, kv_of_head, 4, 64);
    memcpy(moved, views, sizeof views);
    moved[1].trunk_pages = copy;
    p.words[0] = -77;
    assert_int_equal(fr_cuda_attention_plan_make(&p, views, 3, kv_of_head, 4, 64), FR_OK);
    assert_int_equal(fr_cuda_attention_plan_make(&p, moved, 3, kv_of_head, 4, 64), FR_OK);
    assert_int_equal(p.words[0], -77);
    copy[37] = 99; /* the second row's last page only: it no longer shares the first one's */
    assert_plan_is_of(&p, moved, 3, kv_of_head, 4, 64);
    pages[37] = 98; /* the first row's last page, and the third row's view does not reach it */
    assert_plan_is_of(&p, views, 3, kv_of_head, 4, 64);
    pages[0] = 97;
    assert_plan_is_of(&p, views, 3, kv_of_head, 4, 64);
    probe[1] = 52;
    assert_plan_is_of(&p, views, 3, kv_of_head, 4, 64);
    views[2].n_branch = 19;
    assert_plan_is_of(&p, views, 3, kv_of_head, 4, 64);
    views[2].n_trunk = 591, views[2].n_branch = 18; /* as many positions */
    assert_plan_is_of(&p, views, 3, kv_of_head, 4, 64);
    kv_of_head[1] = 1;
    assert_plan_is_of(&p, views, 3, kv_of_head, 4, 64);
    assert_plan_is_of(&p, views, 3, kv_of_head, 16, 64);
    assert_plan_is_of(&p, views, 3, kv_of_head, 16, 256);
    assert_plan_is_of(&p, views, 2, kv_of_head, 16, 256);
    fr_cuda_attention_plan_free(&p);
}

static void test_plan_out_of_memory(void **state)
{
    (void)state;
    int32_t pages[128] = {0};
    const int32_t kv_of_head[] = {0, 1};
    fr_attn_view views[40];
    for (int i = 0; i < 40; i++)
        views[i] = (fr_attn_view){pages, NULL, 1000 + i, 0};
    for (long n = 0;; n++) {
        fr_cuda_attention_plan p = {0};
        fr_fault_alloc_arm(n);
        fr_status st = fr_cuda_attention_plan_make(&p, views, 40, kv_of_head, 2, 64);
        bool failed = fr_fault_alloc_disarm();
        fr_cuda_attention_plan_free(&p);
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        if (!failed)
            break;
    }
}

static int check_freed(void **state)
{
    (void)state;
    return fake_cuda_all_freed() ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_against_reference, check_freed),
        cmocka_unit_test_teardown(test_invariance, check_freed),
        cmocka_unit_test_teardown(test_mixed_pass, check_freed),
        cmocka_unit_test_teardown(test_whole_as_split, check_freed),
        cmocka_unit_test_teardown(test_graph, check_freed),
        cmocka_unit_test(test_plan_shares),
        cmocka_unit_test(test_plan_is_kept),
        cmocka_unit_test(test_plan_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
