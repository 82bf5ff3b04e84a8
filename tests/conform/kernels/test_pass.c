/* test_pass.c: operations as a pass calls them: one after another, on arrays in the backend's own memory, nothing read
 * in between. A backend may then do two in one; the bits are those of each by itself. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "suite.h"

enum { ROWS = 20, TOKENS = 33, ARRAYS = 4 };

/* Of the backend itself: suite_ops may copy each operation's arrays back and forth. */
typedef struct pass {
    fr_device *dev;
    float *arrays[ARRAYS];
    fr_weight *weights[2];
} pass;

static float *new_array(pass *p, int at, const float *values, int64_t n)
{
    void *mem = NULL;
    const size_t bytes = (size_t)n * sizeof *values;
    assert_int_equal(suite_device_ops->mem_alloc(p->dev, bytes, &mem), FR_OK);
    assert_int_equal(suite_device_ops->upload(p->dev, mem, values, bytes), FR_OK);
    return p->arrays[at] = mem;
}

static const fr_weight *new_weight(pass *p, int at, const fr_matrix *m)
{
    assert_int_equal(suite_device_ops->weight_new(p->dev, m, &p->weights[at]), FR_OK);
    return p->weights[at];
}

static void pass_close(pass *p)
{
    for (int i = 0; i < 2; i++)
        suite_device_ops->weight_free(p->dev, &p->weights[i]);
    for (int i = 0; i < ARRAYS; i++)
        suite_device_ops->mem_free(p->dev, p->arrays[i]);
    suite_device_ops->close(&p->dev);
}

/* Between two operations that are not to be done in one. */
static void part(const pass *p, bool apart)
{
    if (apart)
        assert_int_equal(suite_device_ops->sync(p->dev), FR_OK);
}

static void download(const pass *p, float *out, const float *array, int64_t n)
{
    assert_int_equal(suite_device_ops->download(p->dev, out, array, (size_t)n * sizeof *out), FR_OK);
}

/* What comes before a product of x [n, cols]. */
typedef struct producer {
    bool silu; /* else a sum and its norm */
    int n;
    int cols;
} producer;

/* x [n, cols], of a and b. */
static void produce(const pass *p, const producer *of, float *x, float *a, const float *b, bool apart)
{
    const fr_ops *o = suite_device_ops;
    if (of->silu) {
        assert_int_equal(o->silu_mul(p->dev, x, a, of->n, of->cols), FR_OK);
    } else {
        assert_int_equal(o->add(p->dev, a, b, of->n, of->cols), FR_OK);
        part(p, apart);
        assert_int_equal(o->rms_norm(p->dev, x, a, b, of->n, of->cols, 1e-6f), FR_OK);
    }
    part(p, apart);
}

/* values [TOKENS, cols]; y [n, ROWS]: the product, the same whether the operations are parted or not. */
static void multiply_produced(const producer *of, const fr_matrix *m, const float *values, float *y)
{
    const int64_t n_values = (int64_t)TOKENS * of->cols, n_x = (int64_t)of->n * of->cols, n_y = of->n * ROWS;
    float *x = suite_alloc((size_t)n_x * sizeof *x), *want_x = suite_alloc((size_t)n_x * sizeof *x);
    float want[TOKENS * ROWS];
    for (int apart = 1; apart >= 0; apart--) {
        pass p = {.dev = suite_open(suite_device_ops, 1)};
        float *a = new_array(&p, 0, values, n_values), *b = new_array(&p, 1, values, n_values),
              *made = new_array(&p, 2, values, n_values), *out = new_array(&p, 3, y, n_y);
        const fr_product product = {out, new_weight(&p, 0, m)};
        if (!apart) /* there is scratch memory then, for which a device may have to wait */
            assert_int_equal(suite_device_ops->matmul(p.dev, &product, 1, a, of->n), FR_OK);
        produce(&p, of, made, a, b, apart);
        assert_int_equal(suite_device_ops->matmul(p.dev, &product, 1, made, of->n), FR_OK);
        download(&p, apart ? want : y, out, n_y);
        download(&p, apart ? want_x : x, made, n_x);
        pass_close(&p);
    }
    suite_assert_same(x, want_x, n_x, "what a product takes");
    suite_assert_same(y, want, n_y, "product of what was just made");
    free(want_x);
    free(x);
}

static void check_produced(suite_random *r, fr_dtype t, int cols)
{
    fr_matrix m = suite_matrix(r, t, ROWS, cols);
    float *values = suite_alloc((size_t)(TOKENS * cols) * sizeof *values), y[TOKENS * ROWS] = {0}, many[TOKENS * ROWS];
    const int tokens[] = {TOKENS, 1, 9};
    suite_fill(r, values, TOKENS * cols);
    for (int silu = 0; silu < 2; silu++)
        for (int i = 0; i < 3; i++) {
            multiply_produced(&(producer){silu, tokens[i], cols}, &m, values, y);
            if (i == 0)
                memcpy(many, y, sizeof many);
            suite_assert_same(y, many, tokens[i] * ROWS, "product of some of the tokens");
            assert_true(isfinite(y[0]) && y[0] != y[1]);
        }
    free(values);
    suite_matrix_free(&m);
}

static void test_product_of_what_was_just_made(void **state)
{
    (void)state;
    suite_random r = {15};
    check_produced(&r, FR_Q8_0, 1280);
    check_produced(&r, FR_Q4_K, 2304);
    check_produced(&r, FR_BF16, 300);
}

/* gate and up [n, ROWS] of x [n, cols], then SiLU: twice, first parted. gate, up: what the second time gives. */
static void multiply_gated(int n, const fr_matrix m[2], const float *x, float *gate, float *up)
{
    const fr_ops *o = suite_device_ops;
    float want_gate[TOKENS * ROWS], want_up[TOKENS * ROWS];
    pass p = {.dev = suite_open(o, 1)};
    float *there = new_array(&p, 0, x, TOKENS * m[0].cols), *gate_there = new_array(&p, 1, gate, TOKENS * ROWS),
          *up_there = new_array(&p, 2, up, TOKENS * ROWS);
    const fr_product products[] = {{gate_there, new_weight(&p, 0, &m[0])}, {up_there, new_weight(&p, 1, &m[1])}};
    for (int apart = 1; apart >= 0; apart--) {
        assert_int_equal(o->matmul(p.dev, products, 2, there, n), FR_OK);
        part(&p, apart);
        assert_int_equal(o->silu_mul(p.dev, gate_there, up_there, n, ROWS), FR_OK);
        download(&p, apart ? want_gate : gate, gate_there, n * ROWS);
        download(&p, apart ? want_up : up, up_there, n * ROWS);
    }
    pass_close(&p);
    suite_assert_same(gate, want_gate, n * ROWS, "SiLU of gates that were just multiplied");
    suite_assert_same(up, want_up, n * ROWS, "what gates were multiplied with");
}

static void check_gated(suite_random *r, fr_dtype t)
{
    enum { COLS = 2376 }; /* some warps of a GPU have a second chunk, the last one not filled */
    fr_matrix m[] = {suite_matrix(r, t, ROWS, COLS), suite_matrix(r, t, ROWS, COLS)};
    float *x = suite_alloc(TOKENS * COLS * sizeof *x), gate[TOKENS * ROWS] = {0}, up[TOKENS * ROWS] = {0},
          many[TOKENS * ROWS];
    const int tokens[] = {TOKENS, 1, 13, 32};
    suite_fill(r, x, TOKENS * COLS);
    for (int i = 0; i < 4; i++) {
        multiply_gated(tokens[i], m, x, gate, up);
        if (i == 0)
            memcpy(many, gate, sizeof many);
        suite_assert_same(gate, many, tokens[i] * ROWS, "gates of some of the tokens");
        assert_true(isfinite(gate[0]) && gate[0] != gate[1]);
    }
    free(x);
    for (int i = 0; i < 2; i++)
        suite_matrix_free(&m[i]);
}

static void test_gates_that_were_just_multiplied(void **state)
{
    (void)state;
    suite_random r = {16};
    check_gated(&r, FR_BF16);
    check_gated(&r, FR_F16);
}

int suite_run_pass(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_product_of_what_was_just_made), cmocka_unit_test(test_gates_that_were_just_multiplied),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
