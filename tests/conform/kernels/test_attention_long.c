/* test_attention_long.c: attention over as many positions as conversations have, where a backend may deal them out to
 * several blocks and merge what those found: decoding, and verification of chains that hang off one trunk. */
#include <stdlib.h>

#include "suite.h"

enum { ROWS = 8, HEADS = 12 }; /* the last rows of the context are the queries */

typedef struct shape {
    int context, head_dim, kv_heads; /* query heads are dealt out to the KV heads in order, evenly */
} shape;

/* A cache with keys and values of `context` positions in trunk pages, and those of the last ROWS - 1 once more in pages
 * of a branch. */
typedef struct memory {
    const fr_ops *ops;
    fr_device *dev;
    fr_kv kv;
    int context, n_pages;
    int32_t *trunk, *branch;
    int32_t kv_of_head[HEADS];
    float *q; /* [ROWS, HEADS, head_dim] */
} memory;

static void write_positions(const memory *m, const float *k, const float *v, int first, const int32_t *pages)
{
    const int n = m->context - first;
    const int64_t at = (int64_t)first * m->kv.kv_heads * m->kv.head_dim;
    int32_t *slots = suite_alloc((size_t)n * sizeof *slots);
    for (int i = 0; i < n; i++)
        slots[i] = pages[i / FR_PAGE] * FR_PAGE + i % FR_PAGE;
    assert_int_equal(m->ops->kv_write(m->dev, &m->kv, k + at, v + at, slots, n), FR_OK);
    free(slots);
}

static void fill_memory(memory *m)
{
    const int64_t values = (int64_t)m->context * m->kv.kv_heads * m->kv.head_dim;
    float *k = suite_alloc((size_t)values * sizeof *k), *v = suite_alloc((size_t)values * sizeof *v);
    suite_random r = {14};
    suite_fill(&r, k, values);
    suite_fill(&r, v, values);
    suite_fill(&r, m->q, (int64_t)ROWS * HEADS * m->kv.head_dim);
    write_positions(m, k, v, 0, m->trunk);
    write_positions(m, k, v, m->context - (ROWS - 1), m->branch);
    free(v);
    free(k);
}

static void memory_open(memory *m, const fr_ops *ops, const shape *s)
{
    void *k = NULL, *v = NULL;
    *m = (memory){.ops = ops, .dev = suite_open(ops, 2), .context = s->context};
    const int in_trunk = (s->context + FR_PAGE - 1) / FR_PAGE;
    m->n_pages = in_trunk + 1;
    m->trunk = suite_alloc((size_t)in_trunk * sizeof *m->trunk);
    m->branch = suite_alloc(sizeof *m->branch);
    for (int i = 0; i < in_trunk; i++) /* from the last one down; the first one is the branch's */
        m->trunk[i] = in_trunk - i;
    const size_t bytes = (size_t)(m->n_pages * FR_PAGE * s->kv_heads * s->head_dim) * sizeof *m->kv.k;
    assert_int_equal(ops->mem_alloc(m->dev, bytes, &k), FR_OK);
    assert_int_equal(ops->mem_alloc(m->dev, bytes, &v), FR_OK);
    m->kv = (fr_kv){k, v, s->kv_heads, s->head_dim};
    for (int h = 0; h < HEADS; h++)
        m->kv_of_head[h] = h * s->kv_heads / HEADS;
    m->q = suite_alloc((size_t)(ROWS * HEADS * s->head_dim) * sizeof *m->q);
    fill_memory(m);
}

static void memory_close(memory *m)
{
    m->ops->mem_free(m->dev, m->kv.k);
    m->ops->mem_free(m->dev, m->kv.v);
    m->ops->close(&m->dev);
    free(m->trunk);
    free(m->branch);
    free(m->q);
}

/* The queries of `n` rows from `first` on, of which the first `in_trunk` of all find their position in the trunk. */
static void attend(const memory *m, int first, int n, int in_trunk, float *out)
{
    fr_attn_view views[ROWS];
    for (int i = 0; i < n; i++) {
        const int seen = m->context - ROWS + first + i + 1, trunk = m->context - ROWS + in_trunk;
        views[i] = (fr_attn_view){m->trunk, m->branch, seen < trunk ? seen : trunk, seen < trunk ? 0 : seen - trunk};
    }
    const int64_t row = (int64_t)HEADS * m->kv.head_dim;
    assert_int_equal(m->ops->attention(m->dev, out + first * row, m->q + first * row, &m->kv, views, m->kv_of_head, n,
                                       HEADS, 0.1f), FR_OK);
}

static void check(const shape *s)
{
    const int64_t row = (int64_t)HEADS * s->head_dim, values = ROWS * row;
    float *want = suite_alloc((size_t)values * sizeof *want), *chain = suite_alloc((size_t)values * sizeof *chain),
          *got = suite_alloc((size_t)values * sizeof *got);
    memory ref, m;
    memory_open(&ref, &fr_ops_cpu_ref, s);
    memory_open(&m, suite_ops, s);
    attend(&ref, 0, ROWS, ROWS, want);
    attend(&m, 0, ROWS, ROWS, chain);
    suite_assert_close(chain, want, values, 2e-5f, "attention over a long context");
    attend(&m, 0, ROWS, 1, got);
    suite_assert_same(got, chain, values, "attention of a chain that hangs off its trunk");
    for (int first = 0, n = 1; first < ROWS; first += n, n *= 2) { /* 1, 2, 4 and 1 */
        n = n <= ROWS - first ? n : ROWS - first;
        attend(&m, first, n, 1, got);
        suite_assert_same(got + first * row, chain + first * row, n * row, "attention of some rows by themselves");
    }
    memory_close(&m);
    memory_close(&ref);
    free(got);
    free(chain);
    free(want);
}

static void test_long_context(void **state)
{
    (void)state;
    const shape shapes[] = {{1100, 64, 2}, {1100, 96, 3}, {1100, 128, 2}, {1100, 256, 2}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check(&shapes[i]);
}

/* More partial results of a row than a GPU's warp has lanes. */
static void test_very_long_context(void **state)
{
    (void)state;
    check(&(shape){33 * 256 + 5, 64, 1});
}

int suite_run_attention_long(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_long_context), cmocka_unit_test(test_very_long_context)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
