/* test_attention.c: the paged cache and attention over it. */
#include <stdlib.h>
#include <string.h>

#include "suite.h"

enum { POSITIONS = 75, PAGES = 16, HEADS = 12 };

/* One logical sequence of POSITIONS keys and values, laid out in a cache twice: in trunk pages from
 * position 0 on, and from position `split` on in branch pages of their own. */
typedef struct sequence {
    const fr_ops *ops;
    fr_device *dev;
    fr_kv kv;
    float *k, *v, *q; /* k, v [POSITIONS, kv_heads, head_dim]; q [POSITIONS, HEADS, head_dim] */
    int32_t trunk[PAGES], branch[PAGES];
} sequence;

static void write_positions(sequence *s, const int32_t *pages, int first_position, int first_offset)
{
    int n = POSITIONS - first_position;
    int32_t slots[POSITIONS];
    for (int i = 0; i < n; i++)
        slots[i] = pages[(first_offset + i) / FR_PAGE] * FR_PAGE + (first_offset + i) % FR_PAGE;
    int64_t at = (int64_t)first_position * s->kv.kv_heads * s->kv.head_dim;
    assert_int_equal(s->ops->kv_write(s->dev, &s->kv, s->k + at, s->v + at, slots, n), FR_OK);
}

static void sequence_open(sequence *s, const fr_ops *ops, int threads, int kv_heads, int head_dim,
                          int split)
{
    *s = (sequence){.ops = ops,
                    .dev = suite_open(ops, threads),
                    .kv = {.kv_heads = kv_heads, .head_dim = head_dim}};
    size_t width = (size_t)kv_heads * (size_t)head_dim,
           cache = PAGES * FR_PAGE * width * sizeof *s->kv.k;
    void *k = NULL, *v = NULL;
    assert_int_equal(ops->mem_alloc(s->dev, cache, &k), FR_OK);
    assert_int_equal(ops->mem_alloc(s->dev, cache, &v), FR_OK);
    memset(k, 0x7e, cache); /* NaN wherever nothing is written */
    memset(v, 0x7e, cache);
    s->kv.k = k;
    s->kv.v = v;
    s->k = suite_alloc(POSITIONS * width * sizeof(float));
    s->v = suite_alloc(POSITIONS * width * sizeof(float));
    s->q = suite_alloc((size_t)POSITIONS * HEADS * (size_t)head_dim * sizeof(float));
    suite_random r = {9};
    suite_fill(&r, s->k, (int64_t)(POSITIONS * width));
    suite_fill(&r, s->v, (int64_t)(POSITIONS * width));
    suite_fill(&r, s->q, (int64_t)POSITIONS * HEADS * head_dim);
    for (int i = 0; i < PAGES / 2; i++) { /* pages in no order */
        s->trunk[i] = (i * 7 + 3) % PAGES / 2 * 2;
        s->branch[i] = (i * 5 + 1) % (PAGES / 2) * 2 + 1;
    }
    write_positions(s, s->trunk, 0, 0);
    write_positions(s, s->branch, split, 0);
}

static void sequence_close(sequence *s)
{
    s->ops->mem_free(s->dev, s->kv.k);
    s->ops->mem_free(s->dev, s->kv.v);
    s->ops->close(&s->dev);
    free(s->k);
    free(s->v);
    free(s->q);
}

/* Row i of `out` is the query of position first + i over all positions up to its own; from `split`
 * on as a branch. */
static void attend(const sequence *s, float *out, int first, int n, int split,
                   const int32_t *kv_of_head)
{
    fr_attn_view views[POSITIONS];
    for (int i = 0; i < n; i++) {
        int positions = first + i + 1, trunk = positions < split ? positions : split;
        views[i] = (fr_attn_view){s->trunk, s->branch, trunk, positions - trunk};
    }
    const float *q = s->q + (int64_t)first * HEADS * s->kv.head_dim;
    assert_int_equal(s->ops->attention(s->dev, out, q, &s->kv, views, kv_of_head, n, HEADS, 0.2f),
                     FR_OK);
}

typedef struct shape {
    int head_dim, kv_heads;
    int32_t kv_of_head[HEADS];
} shape;

static const shape shapes[] = {
    {8, 1, {0}},
    {32, 2, {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1}},
    {64, 3, {0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2}},
    {72, 2, {0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1, 1}},
    {80, 1, {0}}, /* twelve heads on one */
    {96, 2, {1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
    {128, 2, {0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1}},
    {256, 1, {0}},
};

static void test_against_reference(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const shape *sh = &shapes[i];
        sequence ref, s;
        sequence_open(&ref, &fr_ops_cpu_ref, 1, sh->kv_heads, sh->head_dim, 0);
        sequence_open(&s, suite_ops, 2, sh->kv_heads, sh->head_dim, 0);
        assert_memory_equal(s.kv.k, ref.kv.k,
                            PAGES * FR_PAGE * (size_t)(sh->kv_heads * sh->head_dim) * 2);
        assert_memory_equal(s.kv.v, ref.kv.v,
                            PAGES * FR_PAGE * (size_t)(sh->kv_heads * sh->head_dim) * 2);
        int64_t values = (int64_t)POSITIONS * HEADS * sh->head_dim;
        float *want = suite_alloc((size_t)values * sizeof *want),
              *got = suite_alloc((size_t)values * sizeof *got);
        attend(&ref, want, 0, POSITIONS, POSITIONS, sh->kv_of_head);
        attend(&s, got, 0, POSITIONS, POSITIONS, sh->kv_of_head);
        suite_assert_close(got, want, values, 2e-5f, "attention");
        free(got);
        free(want);
        sequence_close(&s);
        sequence_close(&ref);
    }
}

/* To the bit: alone or in a batch, with any number of threads, wherever the trunk ends. */
static void test_invariance(void **state)
{
    (void)state;
    const int splits[] = {1, 5, 15, 16, 17, 48, 74};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const shape *sh = &shapes[i];
        int64_t row = HEADS * sh->head_dim;
        float *want = suite_alloc((size_t)(POSITIONS * row) * sizeof *want);
        float *got = suite_alloc((size_t)(POSITIONS * row) * sizeof *got);
        for (size_t k = 0; k < sizeof splits / sizeof splits[0]; k++) {
            sequence s;
            sequence_open(&s, suite_ops, 1 + (int)k % 3, sh->kv_heads, sh->head_dim, splits[k]);
            if (k == 0)
                attend(&s, want, 0, POSITIONS, POSITIONS, sh->kv_of_head);
            attend(&s, got, 0, POSITIONS, splits[k], sh->kv_of_head);
            suite_assert_same(got, want, POSITIONS * row, "attention of a branch");
            for (int first = 0; first < POSITIONS && k % 4 == 0; first += 1 + first % 5) {
                int n = 1 + first % 5 <= POSITIONS - first ? 1 + first % 5 : POSITIONS - first;
                attend(&s, got + first * row, first, n, splits[k], sh->kv_of_head);
            }
            suite_assert_same(got, want, POSITIONS * row, "attention of a row alone");
            sequence_close(&s);
        }
        free(got);
        free(want);
    }
}

static void test_kv_copy(void **state)
{
    (void)state;
    sequence s;
    sequence_open(&s, suite_ops, 1, 2, 24, POSITIONS);
    int64_t width = 48, from = s.trunk[1], to = s.branch[2];
    assert_int_equal(suite_ops->kv_copy(s.dev, &s.kv, (int32_t)from, (int32_t)to, 5), FR_OK);
    const uint16_t *caches[] = {s.kv.k, s.kv.v};
    for (int i = 0; i < 2; i++) {
        const uint16_t *copy = caches[i] + to * FR_PAGE * width;
        assert_memory_equal(copy, caches[i] + from * FR_PAGE * width, 5 * (size_t)width * 2);
        assert_int_equal(copy[5 * width], 0x7e7e); /* untouched */
    }
    sequence_close(&s);
}

/* One layer's heads by the one operation, and by those that it stands for. */
enum { HEAD_ROWS = 5, Q_HEADS = 6, K_HEADS = 2, DIM_MOST = 128 };
typedef struct heads {
    float q[HEAD_ROWS * Q_HEADS * DIM_MOST], k[HEAD_ROWS * K_HEADS * DIM_MOST], v[HEAD_ROWS * K_HEADS * DIM_MOST];
    uint16_t cache_k[PAGES * FR_PAGE * K_HEADS * DIM_MOST], cache_v[PAGES * FR_PAGE * K_HEADS * DIM_MOST];
} heads;

static void by_parts(fr_device *dev, const fr_head_inputs *in)
{
    const fr_ops *o = suite_ops;
    int dim = in->kv->head_dim, n_kv = in->kv->kv_heads;
    if (in->q_bias) {
        assert_int_equal(o->add_bias(dev, in->q, in->q_bias, in->n, in->heads * dim), FR_OK);
        assert_int_equal(o->add_bias(dev, in->k, in->k_bias, in->n, n_kv * dim), FR_OK);
        assert_int_equal(o->add_bias(dev, in->v, in->v_bias, in->n, n_kv * dim), FR_OK);
    }
    if (in->q_norm) {
        assert_int_equal(o->rms_norm(dev, in->q, in->q, in->q_norm, in->n * in->heads, dim, in->eps), FR_OK);
        assert_int_equal(o->rms_norm(dev, in->k, in->k, in->k_norm, in->n * n_kv, dim, in->eps), FR_OK);
    }
    assert_int_equal(o->rope(dev, in->q, in->rope, in->pos, in->n, in->heads, dim), FR_OK);
    assert_int_equal(o->rope(dev, in->k, in->rope, in->pos, in->n, n_kv, dim), FR_OK);
    assert_int_equal(o->kv_write(dev, in->kv, in->k, in->v, in->slots, in->n), FR_OK);
}

static void check_heads(int dim, fr_rope_style style, bool biased, bool normed)
{
    suite_random r = {12};
    heads *one = suite_alloc(sizeof *one), *parts = suite_alloc(sizeof *parts);
    float bias[Q_HEADS * DIM_MOST], norm[DIM_MOST], inv_freq[DIM_MOST / 2];
    const int32_t pos[HEAD_ROWS] = {0, 7, 1000, 3, 70000}, slots[HEAD_ROWS] = {40, 3, 255, 16, 17};
    suite_fill(&r, one->q, HEAD_ROWS * Q_HEADS * DIM_MOST);
    suite_fill(&r, one->k, HEAD_ROWS * K_HEADS * DIM_MOST);
    suite_fill(&r, one->v, HEAD_ROWS * K_HEADS * DIM_MOST);
    suite_fill(&r, bias, Q_HEADS * DIM_MOST);
    suite_fill(&r, norm, DIM_MOST);
    for (int i = 0; i < DIM_MOST / 2; i++)
        inv_freq[i] = 1.0f / (float)(1 + i * i);
    *parts = *one;
    fr_device *dev = suite_open(suite_ops, 1);
    const fr_rope rope = {style, dim == 80 ? 64 : dim, inv_freq, 1.1f};
    heads *both[] = {one, parts};
    for (int i = 0; i < 2; i++) {
        const fr_kv kv = {both[i]->cache_k, both[i]->cache_v, K_HEADS, dim};
        const fr_head_inputs in = {.q = both[i]->q, .k = both[i]->k, .v = both[i]->v,
                                   .q_bias = biased ? bias : NULL, .k_bias = biased ? bias + 1 : NULL,
                                   .v_bias = biased ? bias + 2 : NULL, .q_norm = normed ? norm : NULL,
                                   .k_norm = normed ? norm : NULL, .eps = 1e-6f, .rope = &rope, .kv = &kv,
                                   .pos = pos, .slots = slots, .n = HEAD_ROWS, .heads = Q_HEADS};
        if (i == 0)
            assert_int_equal(suite_ops->head_inputs(dev, &in), FR_OK);
        else
            by_parts(dev, &in);
    }
    suite_assert_same(one->q, parts->q, HEAD_ROWS * Q_HEADS * dim, "q on its way to attention");
    assert_memory_equal(one->cache_k, parts->cache_k, sizeof one->cache_k);
    assert_memory_equal(one->cache_v, parts->cache_v, sizeof one->cache_v);
    suite_ops->close(&dev);
    free(parts);
    free(one);
}

static void test_head_inputs(void **state)
{
    (void)state;
    if (!suite_ops->head_inputs)
        skip();
    for (int i = 0; i < 4; i++) {
        check_heads(64, FR_ROPE_NEOX, i & 1, i & 2);
        check_heads(80, FR_ROPE_NORM, i & 1, i & 2);
        check_heads(128, FR_ROPE_NEOX, i & 1, i & 2);
    }
}

static void test_refuses_odd_heads(void **state)
{
    (void)state;
    fr_device *dev = suite_open(suite_ops, 1);
    fr_kv kv = {.kv_heads = 1, .head_dim = 12};
    float x[12] = {0};
    fr_attn_view view = {0};
    assert_int_equal(suite_ops->attention(dev, x, x, &kv, &view, (const int32_t[]){0}, 1, 1, 1),
                     FR_EUNSUPPORTED);
    suite_ops->close(&dev);
}

int suite_run_attention(void)
{
    const struct CMUnitTest attention_tests[] = {
        cmocka_unit_test(test_against_reference),
        cmocka_unit_test(test_invariance),
        cmocka_unit_test(test_kv_copy),
        cmocka_unit_test(test_head_inputs), cmocka_unit_test(test_refuses_odd_heads),
    };
    return cmocka_run_group_tests(attention_tests, NULL, NULL);
}
