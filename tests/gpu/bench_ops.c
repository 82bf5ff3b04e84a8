/* bench_ops.c: what each operation of a layer takes on a GPU, by itself, and a whole layer: microseconds on the device
 * in a replayed graph of many, and how much of its weights, keys or values that is a second. One JSON object a line.
 * Weights and layers of the cache take turns, so that the L2 cache holds none of what is read next. A step of
 * tests/gpu/run; exits 77 without a GPU.
 *
 *     bench_ops [BACKEND [WHAT]]   only operations whose names begin with WHAT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "ops.h"

enum {
    CALLS = 48,          /* of an operation in one graph */
    RUNS = 4,            /* the first two are launched one by one and captured */
    TURN_BYTES = 256 << 20,
    TURNS_MAX = 64,
    WEIGHTS_MAX = 7,
    MOST_ROWS = 256, /* of a prompt's pass */
    LONG = 32704,        /* positions */
    SHORT = 64,
    SKIPPED = 77
};

typedef struct shape {
    const char *name;
    int dim, heads, kv_heads, head_dim, ff, vocab;
} shape;

/* An operation with all that it needs, taken in turns. */
typedef struct bench {
    const fr_ops *ops;
    fr_device *dev;
    shape s;
    int rows;
    float *x, *y, *z, *norm; /* [MOST_ROWS, the widest]; norm [dim] */
    fr_weight *weights[TURNS_MAX][WEIGHTS_MAX];
    int n_weights, turns;
    int64_t out[WEIGHTS_MAX]; /* rows of the weights */
    fr_kv kv[TURNS_MAX];
    int positions;
    int32_t *pages, *kv_of_head, *at; /* at [MOST_ROWS]: positions and slots */
    float *inv_freq;
    size_t bytes;            /* that one call reads */
    const char *only;        /* what the operations' names begin with; NULL: all */
} bench;

typedef fr_status (*operation)(bench *b, int turn);

/* The best of the replayed runs. */
static fr_status measure(bench *b, const char *name, operation call)
{
    double best = 1e9, ms = 0;
    if (b->only && strncmp(name, b->only, strlen(b->only)) != 0)
        return FR_OK;
    for (int run = 0; run < RUNS; run++) {
        for (int i = 0; i < CALLS; i++)
            FR_TRY(call(b, i % b->turns));
        FR_TRY(b->ops->sync(b->dev));
        FR_TRY(b->ops->device_ms(b->dev, &ms));
        if (run >= 2 && ms < best)
            best = ms;
    }
    const double us = best * 1e3 / CALLS;
    printf("{\"shape\":\"%s\",\"op\":\"%s\",\"rows\":%d,\"us\":%.2f,\"gb_s\":%.0f}\n", b->s.name, name, b->rows, us,
           (double)b->bytes / us / 1e3);
    fflush(stdout);
    return FR_OK;
}

/* ---- memory */

static fr_status make_floats(bench *b, size_t n, float **out)
{
    void *mem = NULL;
    FR_TRY(b->ops->mem_alloc(b->dev, n * sizeof(float), &mem));
    *out = mem;
    return FR_OK;
}

/* Values of both signs around 2^-4 in every two bytes, which is well-behaved data for BF16; of other types the bits are
 * as good as any, since only the time counts. */
static void fill(uint16_t *data, size_t n)
{
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        data[i] = (uint16_t)(0x3d80 ^ (state >> 16 & 0x80ff));
    }
}

/* Weights [n], each out[i] by cols[i], as often as turns want it. */
static fr_status make_weights(bench *b, fr_dtype type, const int64_t *out, const int64_t *cols, int n)
{
    size_t bytes = 0, largest = 0;
    for (int i = 0; i < n; i++) {
        const size_t all = (size_t)out[i] * fr_dtype_row_bytes(type, cols[i]);
        bytes += all;
        largest = all > largest ? all : largest;
        b->out[i] = out[i];
    }
    b->n_weights = n;
    b->bytes = bytes;
    b->turns = (int)(TURN_BYTES / bytes) + 2;
    b->turns = b->turns > TURNS_MAX ? TURNS_MAX : b->turns;
    uint16_t *data = malloc(largest);
    if (!data)
        return fr_no_memory();
    fill(data, largest / 2);
    fr_status st = FR_OK;
    for (int t = 0; t < b->turns; t++)
        for (int i = 0; i < n && st == FR_OK; i++) {
            const fr_matrix m = {type, data, out[i], cols[i], fr_dtype_row_bytes(type, cols[i])};
            st = b->ops->weight_new(b->dev, &m, &b->weights[t][i]);
        }
    free(data);
    return st;
}

static void free_weights(bench *b)
{
    for (int t = 0; t < b->turns; t++)
        for (int i = 0; i < b->n_weights; i++)
            b->ops->weight_free(b->dev, &b->weights[t][i]);
}

static fr_status make_caches(bench *b, int positions)
{
    const size_t position_bytes = (size_t)b->s.kv_heads * (size_t)b->s.head_dim * 2;
    const size_t bytes = ((size_t)(positions + MOST_ROWS) / FR_PAGE + 1) * FR_PAGE * position_bytes;
    b->positions = positions;
    b->bytes = 2 * (size_t)positions * position_bytes;
    b->turns = (int)(TURN_BYTES / b->bytes) + 2;
    b->turns = b->turns > TURNS_MAX ? TURNS_MAX : b->turns;
    for (int t = 0; t < b->turns; t++) {
        void *k = NULL, *v = NULL;
        FR_TRY(b->ops->mem_alloc(b->dev, bytes, &k));
        b->kv[t] = (fr_kv){k, NULL, b->s.kv_heads, b->s.head_dim};
        FR_TRY(b->ops->mem_alloc(b->dev, bytes, &v));
        b->kv[t].v = v;
    }
    return FR_OK;
}

static void free_caches(bench *b)
{
    for (int t = 0; t < TURNS_MAX; t++) {
        b->ops->mem_free(b->dev, b->kv[t].k);
        b->ops->mem_free(b->dev, b->kv[t].v);
        b->kv[t] = (fr_kv){0};
    }
}

/* ---- operations */

static fr_status norm(bench *b, int turn)
{
    (void)turn;
    FR_TRY(b->ops->add(b->dev, b->x, b->z, b->rows, b->s.dim));
    return b->ops->rms_norm(b->dev, b->y, b->x, b->norm, b->rows, b->s.dim, 1e-6f);
}

/* y_i = x * weight^T for n weights from `first` on; y_i [MOST_ROWS, rows of the weight] one behind the other. */
static fr_status multiply(bench *b, int turn, int first, int n, float *y, const float *x)
{
    fr_product products[WEIGHTS_MAX];
    for (int i = 0; i < n; i++) {
        products[i] = (fr_product){y, b->weights[turn][first + i]};
        y += (size_t)MOST_ROWS * (size_t)b->out[first + i];
    }
    return b->ops->matmul(b->dev, products, n, x, b->rows);
}

static fr_status matmul(bench *b, int turn)
{
    return multiply(b, turn, 0, b->n_weights, b->y, b->x);
}

static fr_status silu(bench *b, int turn)
{
    (void)turn;
    return b->ops->silu_mul(b->dev, b->x, b->z, b->rows, b->s.ff);
}

static fr_status prepare_heads(bench *b, int turn, float *q, float *k, float *v)
{
    const fr_rope rope = {FR_ROPE_NEOX, b->s.head_dim, b->inv_freq, 1};
    const fr_head_inputs in = {.q = q, .k = k, .v = v, .q_norm = b->norm, .k_norm = b->norm, .eps = 1e-6f,
                               .rope = &rope, .kv = &b->kv[turn], .pos = b->at, .slots = b->at, .n = b->rows,
                               .heads = b->s.heads};
    return b->ops->head_inputs ? b->ops->head_inputs(b->dev, &in) : FR_OK;
}

static fr_status heads(bench *b, int turn)
{
    return prepare_heads(b, turn, b->x, b->y, b->z);
}

static fr_status attend(bench *b, int turn, float *out, const float *q)
{
    fr_attn_view views[MOST_ROWS];
    for (int i = 0; i < b->rows; i++)
        views[i] = (fr_attn_view){.trunk_pages = b->pages, .n_trunk = b->positions + i};
    return b->ops->attention(b->dev, out, q, &b->kv[turn], views, b->kv_of_head, b->rows, b->s.heads, 0.1f);
}

static fr_status attention(bench *b, int turn)
{
    return attend(b, turn, b->y, b->x);
}

/* x += h, and h its norm: where a half of a layer ends and the next begins. */
static fr_status next_half(bench *b, float *x, float *h)
{
    FR_TRY(b->ops->add(b->dev, x, h, b->rows, b->s.dim));
    return b->ops->rms_norm(b->dev, h, x, b->norm, b->rows, b->s.dim, 1e-6f);
}

/* A whole layer, whose weights are q, k, v, out, gate, up and down. */
static fr_status layer(bench *b, int turn)
{
    const size_t rows = MOST_ROWS;
    float *x = b->x, *h = x + rows * (size_t)b->s.dim, *attn = h + rows * (size_t)b->s.dim, *q = b->y,
          *k = q + rows * (size_t)b->out[0], *v = k + rows * (size_t)b->out[1], *gate = b->z,
          *up = gate + rows * (size_t)b->out[4];
    FR_TRY(next_half(b, x, h));
    FR_TRY(multiply(b, turn, 0, 3, q, h));
    FR_TRY(prepare_heads(b, turn, q, k, v));
    FR_TRY(attend(b, turn, attn, q));
    FR_TRY(multiply(b, turn, 3, 1, h, attn));
    FR_TRY(next_half(b, x, h));
    FR_TRY(multiply(b, turn, 4, 2, gate, h));
    FR_TRY(b->ops->silu_mul(b->dev, gate, up, b->rows, b->s.ff));
    return multiply(b, turn, 6, 1, h, gate);
}

/* ---- all of them */

static fr_status measure_weights(bench *b, const char *name, operation call)
{
    static const int widths[] = {1, 8, 16, MOST_ROWS};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        b->rows = widths[i];
        FR_TRY(measure(b, name, call));
    }
    return FR_OK;
}

static fr_status measure_product(bench *b, const char *name, fr_dtype type, const int64_t *out, int n, int64_t cols)
{
    fr_status st = make_weights(b, type, out, (int64_t[]){cols, cols, cols}, n);
    if (st == FR_OK)
        st = measure_weights(b, name, matmul);
    free_weights(b);
    return st;
}

static fr_status measure_layer(bench *b, const char *name, fr_dtype type)
{
    const shape *s = &b->s;
    const int64_t q = (int64_t)s->heads * s->head_dim, kv = (int64_t)s->kv_heads * s->head_dim, dim = s->dim,
                  ff = s->ff, out[WEIGHTS_MAX] = {q, kv, kv, dim, ff, ff, dim},
                  cols[WEIGHTS_MAX] = {dim, dim, dim, q, dim, dim, ff};
    fr_status st = make_caches(b, SHORT);
    if (st == FR_OK)
        st = make_weights(b, type, out, cols, WEIGHTS_MAX);
    if (st == FR_OK)
        st = measure_weights(b, name, layer);
    free_weights(b);
    free_caches(b);
    return st;
}

static fr_status measure_products(bench *b)
{
    const shape *s = &b->s;
    const int64_t q = (int64_t)s->heads * s->head_dim, kv = (int64_t)s->kv_heads * s->head_dim;
    FR_TRY(measure_product(b, "qkv bf16", FR_BF16, (int64_t[]){q, kv, kv}, 3, s->dim));
    FR_TRY(measure_product(b, "out bf16", FR_BF16, (int64_t[]){s->dim}, 1, q));
    FR_TRY(measure_product(b, "gate_up bf16", FR_BF16, (int64_t[]){s->ff, s->ff}, 2, s->dim));
    FR_TRY(measure_product(b, "down bf16", FR_BF16, (int64_t[]){s->dim}, 1, s->ff));
    FR_TRY(measure_product(b, "head bf16", FR_BF16, (int64_t[]){s->vocab}, 1, s->dim));
    if (s->dim % 256 != 0)
        return FR_OK;
    FR_TRY(measure_product(b, "gate_up q4_k", FR_Q4_K, (int64_t[]){s->ff, s->ff}, 2, s->dim));
    FR_TRY(measure_product(b, "down q4_k", FR_Q4_K, (int64_t[]){s->dim}, 1, s->ff));
    return measure_product(b, "gate_up q8_0", FR_Q8_0, (int64_t[]){s->ff, s->ff}, 2, s->dim);
}

static fr_status measure_caches(bench *b, int positions, const char *attention_name, const char *heads_name)
{
    fr_status st = make_caches(b, positions);
    static const int widths[] = {1, 8, MOST_ROWS};
    for (size_t i = 0; i < sizeof widths / sizeof *widths && st == FR_OK; i++) {
        b->rows = widths[i];
        st = measure(b, attention_name, attention);
        if (st == FR_OK && heads_name)
            st = measure(b, heads_name, heads);
    }
    free_caches(b);
    return st;
}

static fr_status measure_rows(bench *b)
{
    static const int widths[] = {1, 8, MOST_ROWS};
    b->turns = 1;
    b->bytes = 0;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        b->rows = widths[i];
        FR_TRY(measure(b, "add + norm", norm));
        FR_TRY(measure(b, "silu", silu));
    }
    return FR_OK;
}

static fr_status make_arrays(bench *b)
{
    const shape *s = &b->s;
    const size_t widest = (size_t)(s->vocab > 2 * s->ff ? s->vocab : 2 * s->ff) * MOST_ROWS;
    FR_TRY(make_floats(b, widest, &b->x));
    FR_TRY(make_floats(b, widest, &b->y));
    FR_TRY(make_floats(b, widest, &b->z));
    FR_TRY(make_floats(b, (size_t)s->dim, &b->norm));
    b->pages = calloc((LONG + MOST_ROWS) / FR_PAGE + 1, sizeof *b->pages);
    b->kv_of_head = calloc((size_t)s->heads, sizeof *b->kv_of_head);
    b->at = calloc(MOST_ROWS, sizeof *b->at);
    b->inv_freq = calloc((size_t)s->head_dim / 2, sizeof *b->inv_freq);
    if (!b->pages || !b->kv_of_head || !b->at || !b->inv_freq)
        return fr_no_memory();
    for (int i = 0; i < (LONG + MOST_ROWS) / FR_PAGE + 1; i++)
        b->pages[i] = i;
    for (int i = 0; i < s->heads; i++)
        b->kv_of_head[i] = i / (s->heads / s->kv_heads);
    for (int i = 0; i < MOST_ROWS; i++)
        b->at[i] = i;
    return FR_OK;
}

static void free_arrays(bench *b)
{
    float *const floats[] = {b->x, b->y, b->z, b->norm};
    for (int i = 0; i < 4; i++)
        b->ops->mem_free(b->dev, floats[i]);
    free(b->pages);
    free(b->kv_of_head);
    free(b->at);
    free(b->inv_freq);
}

static fr_status measure_shape(const fr_ops *ops, fr_device *dev, const shape *s, const char *only)
{
    bench b = {.ops = ops, .dev = dev, .s = *s, .only = only};
    fr_status st = make_arrays(&b);
    if (st == FR_OK)
        st = measure_rows(&b);
    if (st == FR_OK)
        st = measure_caches(&b, SHORT, "attention 64", "heads");
    if (st == FR_OK)
        st = measure_caches(&b, LONG, "attention 32k", NULL);
    if (st == FR_OK)
        st = measure_products(&b);
    if (st == FR_OK)
        st = measure_layer(&b, "layer bf16", FR_BF16);
    if (st == FR_OK && s->dim % 256 == 0)
        st = measure_layer(&b, "layer q4_k", FR_Q4_K);
    free_arrays(&b);
    return st;
}

int main(int argc, char **argv)
{
    static const shape shapes[] = {{"qwen3-8b", 4096, 32, 8, 128, 12288, 151936},
                                   {"qwen2.5-0.5b", 896, 14, 2, 64, 4864, 151936}};
    const fr_ops *ops = NULL;
    fr_device *dev = NULL;
    fr_status st = fr_ops_choose(argc > 1 ? argv[1] : "cuda", &ops);
    if (st == FR_EUNSUPPORTED)
        return SKIPPED;
    if (st == FR_OK && ops->host_memory)
        st = fr_fail(FR_EINVAL, "backend %s has no device whose time could be taken", ops->name);
    if (st == FR_OK)
        st = ops->open(&(fr_device_options){0}, &dev);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes && st == FR_OK; i++)
        st = measure_shape(ops, dev, &shapes[i], argc > 2 ? argv[2] : NULL);
    if (st != FR_OK)
        fprintf(stderr, "bench_ops: %s\n", fr_cause());
    if (dev)
        ops->close(&dev);
    return st == FR_OK ? 0 : 1;
}
