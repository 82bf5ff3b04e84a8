/* test_cuda_awaits.c: does each kernel await the one before it in time (launch.cuh)? Every operation of the GPU backend
 * comes behind kernels that made what it takes and used what it writes, with nothing between that waits for them.
 * Watched for races (races.h), which end the program; what comes out is the matter of other tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "device_arrays.h"
#include "ops_cuda.h"

static const fr_ops *const ops = &fr_ops_cuda;

enum {
    TOKENS = 64, /* cuBLASLt takes so many, if it may */
    HEADS = 4,
    HEAD = 64,
    WIDTH = HEADS * HEAD,
    ROWS = 32,   /* of matrices */
    PAGES = TOKENS / FR_PAGE + 1,
    LONG = 640, /* positions, of which attention merges partial results */
};

typedef struct pass {
    fr_device *dev;
    float *a, *b, *c, *bias; /* [TOKENS, WIDTH], bias [2 * WIDTH] */
    fr_kv kv;
    void *answers; /* [TOKENS] */
    fr_dtype dtype;
    fr_weight *weights[2]; /* [ROWS, WIDTH] of dtype */
    int n;                 /* tokens */
} pass;
typedef void (*operation)(const pass *p);

static const float zeros[WIDTH * WIDTH];
static const fr_rope rope = {FR_ROPE_NEOX, HEAD, zeros, 1};

static int set_up(void **state)
{
    static pass p;
    p.dev = open_device(&(fr_device_options){.batch_dependent = true});
    float **const arrays[] = {&p.a, &p.b, &p.c};
    for (int i = 0; i < 3; i++)
        *arrays[i] = new_memory(p.dev, TOKENS * WIDTH * sizeof(float));
    p.bias = new_memory(p.dev, 2 * WIDTH * sizeof(float));
    p.kv = (fr_kv){new_memory(p.dev, PAGES * FR_PAGE * WIDTH * sizeof(uint16_t)),
                   new_memory(p.dev, PAGES * FR_PAGE * WIDTH * sizeof(uint16_t)), HEADS, HEAD};
    p.answers = new_memory(p.dev, TOKENS * sizeof(fr_row_answer));
    p.n = TOKENS;
    *state = &p;
    return 0;
}

static int tear_down(void **state)
{
    pass *p = *state;
    close_device(&p->dev);
    return 0;
}

#define MUST(call) assert_int_equal(call, FR_OK)

/* The first time there may be a wait for scratch memory within. */
static void run_behind_others(const pass *p, operation op)
{
    float *const arrays[] = {p->a, p->b, p->c};
    op(p);
    for (int i = 0; i < 3; i++)
        MUST(ops->add_bias(p->dev, arrays[i], p->bias, TOKENS, WIDTH));
    op(p);
    MUST(ops->sync(p->dev));
}

/* ---- rows */

static void embed(const pass *p)
{
    const int32_t tokens[TOKENS] = {0};
    const fr_matrix table = {p->dtype, zeros, WIDTH / 2, WIDTH, WIDTH * (size_t)fr_dtype_find(p->dtype)->block_bytes};
    MUST(ops->embed(p->dev, p->a, &table, tokens, TOKENS));
}

static void norm(const pass *p)
{
    MUST(ops->rms_norm(p->dev, p->b, p->a, p->bias, TOKENS, WIDTH, 1e-6f));
}

/* Where a block shares a row. */
static void wide_norm(const pass *p)
{
    MUST(ops->rms_norm(p->dev, p->b, p->a, p->bias, TOKENS / 2, 2 * WIDTH, 1e-6f));
}

static void sum_and_norm(const pass *p)
{
    MUST(ops->add(p->dev, p->a, p->c, TOKENS, WIDTH));
    norm(p);
}

static void add(const pass *p)
{
    MUST(ops->add(p->dev, p->a, p->b, TOKENS, WIDTH));
}

static void silu(const pass *p)
{
    MUST(ops->silu_mul(p->dev, p->a, p->b, TOKENS, WIDTH));
}

static void rotate(const pass *p)
{
    const int32_t pos[TOKENS] = {0};
    MUST(ops->rope(p->dev, p->a, &rope, pos, TOKENS, HEADS, HEAD));
}

static void test_rows(void **state)
{
    pass *p = *state;
    static const fr_dtype plain[] = {FR_F32, FR_F16, FR_BF16};
    static const operation all[] = {norm, wide_norm, sum_and_norm, add, silu, rotate};
    for (int i = 0; i < 3; i++) {
        p->dtype = plain[i];
        run_behind_others(p, embed);
    }
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        run_behind_others(p, all[i]);
}

/* ---- the cache and attention */

static void write_cache(const pass *p)
{
    int32_t slots[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        slots[i] = i;
    MUST(ops->kv_write(p->dev, &p->kv, p->a, p->b, slots, TOKENS));
}

static void write_and_copy_page(const pass *p)
{
    write_cache(p);
    MUST(ops->kv_copy(p->dev, &p->kv, 0, PAGES - 1, FR_PAGE));
}

static void prepare_heads(const pass *p)
{
    int32_t slots[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        slots[i] = i;
    const fr_head_inputs in = {.q = p->a, .k = p->b, .v = p->c, .q_bias = p->bias, .k_norm = p->bias, .eps = 1e-6f,
                               .rope = &rope, .kv = &p->kv, .pos = slots, .slots = slots, .n = TOKENS,
                               .heads = HEADS};
    MUST(ops->head_inputs(p->dev, &in));
}

/* n rows that see so many positions each, all in the same few pages. */
static void attend_to(const pass *p, int n, int positions)
{
    static const int32_t kv_of_head[HEADS] = {0, 1, 2, 3};
    int32_t pages[LONG / FR_PAGE];
    fr_attn_view views[TOKENS];
    for (int i = 0; i < LONG / FR_PAGE; i++)
        pages[i] = i % (PAGES - 1);
    for (int i = 0; i < n; i++)
        views[i] = (fr_attn_view){.trunk_pages = pages, .n_trunk = positions};
    write_cache(p);
    MUST(ops->attention(p->dev, p->c, p->a, &p->kv, views, kv_of_head, n, HEADS, 1));
}

static void attend(const pass *p)
{
    attend_to(p, TOKENS, TOKENS);
}

static void attend_in_parts(const pass *p)
{
    attend_to(p, 2, LONG);
}

static void test_cache(void **state)
{
    static const operation all[] = {write_cache, write_and_copy_page, prepare_heads, attend, attend_in_parts};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        run_behind_others(*state, all[i]);
}

/* ---- products */

static void multiply(const pass *p)
{
    MUST(ops->matmul(p->dev, &(fr_product){p->b, p->weights[0]}, 1, p->a, p->n));
}

static void norm_and_multiply(const pass *p)
{
    MUST(ops->rms_norm(p->dev, p->a, p->c, p->bias, p->n, WIDTH, 1e-6f));
    multiply(p);
}

static void silu_and_multiply(const pass *p)
{
    MUST(ops->silu_mul(p->dev, p->a, p->c, p->n, WIDTH));
    multiply(p);
}

static void multiply_and_silu(const pass *p)
{
    const fr_product products[] = {{p->b, p->weights[0]}, {p->c, p->weights[1]}};
    MUST(ops->matmul(p->dev, products, 2, p->a, p->n));
    MUST(ops->silu_mul(p->dev, p->b, p->c, p->n, ROWS));
}

static void test_products(void **state)
{
    pass *p = *state;
    static const fr_dtype types[] = {FR_F32, FR_BF16, FR_F16, FR_Q8_0, FR_Q4_K, FR_Q5_K, FR_Q6_K};
    static const int tokens[] = {1, 33, TOKENS}; /* for each its kernels */
    static const operation all[] = {multiply, norm_and_multiply, silu_and_multiply, multiply_and_silu};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        const fr_dtype_info *info = fr_dtype_find(types[t]);
        const fr_matrix m = {types[t], zeros, ROWS, WIDTH, (size_t)(WIDTH / info->block_values * info->block_bytes)};
        for (int i = 0; i < 2; i++)
            MUST(ops->weight_new(p->dev, &m, &p->weights[i]));
        for (int i = 0; i < 3; i++)
            for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
                p->n = tokens[i];
                run_behind_others(p, all[k]);
            }
        for (int i = 0; i < 2; i++)
            ops->weight_free(p->dev, &p->weights[i]);
    }
}

/* ---- candidates */

static void find_candidates(const pass *p)
{
    static const fr_row_query queries[TOKENS] = {{.n_top = 4}, {.temperature = 1}};
    MUST(ops->candidates(p->dev, p->a, TOKENS, WIDTH, 0, NULL, queries, p->answers, sizeof(fr_row_answer)));
}

static void test_candidates(void **state)
{
    run_behind_others(*state, find_candidates);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {TEST(test_rows), TEST(test_cache), TEST(test_products), TEST(test_candidates)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
