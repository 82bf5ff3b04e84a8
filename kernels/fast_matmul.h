/* fast_matmul.h: y = x W^T over tiles (cpu_tiles.h), a template for one instruction set
 * (fast_backend.h).
 *
 * Quantised types: activations are quantised to 8 bits by blocks of 32. A tile goes through its
 * blocks once for up to DOT_TOKENS tokens: unpack eight vectors of codes, then per token an integer
 * dot product, scaled and added up in f32. F32, F16 and BF16 multiply in f32, even columns and odd
 * columns in two sums.
 *
 * Batch invariance: a token's sum is built by the same operations in the same order whatever
 * DOT_TOKENS group it is in, since every group size is the same code with another constant; threads
 * share whole tiles only. */
#ifndef FR_FAST_MATMUL_H
#define FR_FAST_MATMUL_H

#include "cpu_tiles.h"

/* One tile for tokens acts[m * blocks ..], of K types acts_k[s * DOT_TOKENS + m], or x[m * cols ..]
 * of plain types; y [tokens, rows] at the tile's first row. */
typedef struct tile_task {
    const fr_weight *w;
    int64_t tile;
    const fr_act *acts;
    const fr_act_k *acts_k;
    const float *x;
    float *y;
} tile_task;

LANES_INLINE int code_bits(fr_dtype t)
{
    return t == FR_Q8_0 ? 8 : t == FR_Q5_0 || t == FR_Q5_1 ? 5 : 4;
}

/* Bytes ahead of the block in work that are asked for: while a wide pass computes, the next blocks
 * come in. Into the second cache: the first one cannot wait for enough lines at a time. */
#define AHEAD 8192

LANES_INLINE void prefetch_block(const uint8_t *quants, int bytes)
{
    for (int at = 0; at < bytes; at += 64)
        _mm_prefetch((const char *)quants + AHEAD + at, _MM_HINT_T1);
}

LANES_INLINE void unpack(fr_dtype t, const uint8_t *quants, vi q[8])
{
    const int vector = LANES * 4, bits = code_bits(t);
    prefetch_block(quants, bits * vector);
    if (bits == 8) {
        for (int g = 0; g < 8; g++)
            q[g] = vi_load(quants + g * vector);
        return;
    }
    const vi nibble = vi_set1_8(15), bit4 = vi_set1_8(0x10);
    for (int v = 0; v < 4; v++) {
        vi pair = vi_load(quants + v * vector);
        q[2 * v] = vi_and(pair, nibble);
        q[2 * v + 1] = vi_and(vi_shr(pair, 4), nibble);
    }
    if (bits == 5) {
        vi high = vi_load(quants + 4 * vector);
        for (int g = 0; g < 8; g++)
            q[g] = vi_or_and(q[g], g < 4 ? vi_shl(high, 4 - g) : vi_shr(high, g - 4), bit4);
    }
}

/* Adds one block to the tokens' sums: codes * scale + shift, one scale for 32 columns. */
LANES_INLINE void add_block(const vi q[8], int bits, vf scale, vf shift, const fr_act *acts,
                            int64_t blocks, int tokens, vf *sums)
{
    for (int m = 0; m < tokens; m++) {
        const fr_act *a = acts + m * blocks;
        vf dot = vf_from_i32(vi_dot(q, a->q, 8, bits));
        sums[m] = vf_fma(dot, vf_mul(scale, vf_set1(a->scale)), sums[m]);
        sums[m] = vf_fma(shift, vf_set1(a->sum), sums[m]);
    }
}

LANES_INLINE void store_sums(const tile_task *task, int tokens, const vf *sums)
{
    int64_t rows = task->w->rows - task->tile * LANES;
    for (int m = 0; m < tokens; m++)
        vf_store_n(task->y + m * task->w->rows, rows, sums[m]);
}

/* Types whose blocks are 32 values: f16 scale, and an f16 shift or a fixed offset. */
LANES_INLINE void tile_32(const tile_task *task, fr_dtype t, int tokens)
{
    const fr_weight *w = task->w;
    const uint8_t *quants = w->quants + (size_t)task->tile * w->tile_quants;
    const uint8_t *scales = w->scales + (size_t)task->tile * w->tile_scales;
    const int bits = code_bits(t), has_shift = t == FR_Q4_1 || t == FR_Q5_1;
    const float offset = t == FR_Q4_0 ? 8 : t == FR_Q5_0 ? 16 : DOT_OFFSET_8BIT;
    int64_t blocks = w->cols / 32;
    vf sums[DOT_TOKENS];
    for (int m = 0; m < tokens; m++)
        sums[m] = vf_set1(0);
    for (int64_t b = 0; b < blocks; b++) {
        vi q[8];
        unpack(t, quants, q);
        vf scale = vf_load_f16(scales);
        vf shift = has_shift ? vf_load_f16(scales + 2 * LANES) : vf_mul(scale, vf_set1(-offset));
        add_block(q, bits, scale, shift, task->acts + b, blocks, tokens, sums);
        quants += bits * 4 * LANES;
        scales += (has_shift ? 4 : 2) * LANES;
    }
    store_sums(task, tokens, sums);
}

#include "fast_tiles_k.h"

LANES_INLINE vf load_plain(fr_dtype t, const uint8_t *p)
{
    return t == FR_F32 ? vf_load((const float *)p) : t == FR_F16 ? vf_load_f16(p) : vf_load_bf16(p);
}

LANES_INLINE void tile_plain(const tile_task *task, fr_dtype t, int tokens)
{
    const fr_weight *w = task->w;
    const uint8_t *at = w->quants + (size_t)task->tile * w->tile_quants;
    const int step = (t == FR_F32 ? 4 : 2) * LANES;
    int64_t cols = w->cols;
    vf even[DOT_TOKENS], odd[DOT_TOKENS];
    for (int m = 0; m < tokens; m++)
        even[m] = odd[m] = vf_set1(0);
    int64_t c = 0;
    for (; c + 2 <= cols; c += 2, at += 2 * step) {
        vf w0 = load_plain(t, at), w1 = load_plain(t, at + step);
        for (int m = 0; m < tokens; m++) {
            even[m] = vf_fma(w0, vf_set1(task->x[m * cols + c]), even[m]);
            odd[m] = vf_fma(w1, vf_set1(task->x[m * cols + c + 1]), odd[m]);
        }
    }
    if (c < cols) {
        vf last = load_plain(t, at);
        for (int m = 0; m < tokens; m++)
            even[m] = vf_fma(last, vf_set1(task->x[m * cols + c]), even[m]);
    }
    for (int m = 0; m < tokens; m++)
        even[m] = vf_add(even[m], odd[m]);
    store_sums(task, tokens, even);
}

/* One function for each type and number of tokens, so that both are constants in it. */
typedef void (*tile_fn)(const tile_task *task);

#define TILE_FN(type, tokens, call)                           \
    static void tile_##type##_##tokens(const tile_task *task) \
    {                                                         \
        call;                                                 \
    }
#if DOT_TOKENS == 8
#define TILE_FNS(type, CALL)        \
    TILE_FN(type, 1, CALL(type, 1)) \
    TILE_FN(type, 2, CALL(type, 2)) \
    TILE_FN(type, 3, CALL(type, 3)) \
    TILE_FN(type, 4, CALL(type, 4)) \
    TILE_FN(type, 5, CALL(type, 5)) \
    TILE_FN(type, 6, CALL(type, 6)) \
    TILE_FN(type, 7, CALL(type, 7)) \
    TILE_FN(type, 8, CALL(type, 8))
#define TILE_ROW(type)                                                            \
    [type] = {tile_##type##_1, tile_##type##_2, tile_##type##_3, tile_##type##_4, \
              tile_##type##_5, tile_##type##_6, tile_##type##_7, tile_##type##_8}
#else
#define TILE_FNS(type, CALL)        \
    TILE_FN(type, 1, CALL(type, 1)) \
    TILE_FN(type, 2, CALL(type, 2)) \
    TILE_FN(type, 3, CALL(type, 3)) \
    TILE_FN(type, 4, CALL(type, 4))
#define TILE_ROW(type) [type] = {tile_##type##_1, tile_##type##_2, tile_##type##_3, tile_##type##_4}
#endif

#define CALL_32(type, tokens) tile_32(task, type, tokens)
#define CALL_K(type, tokens) tile_k(task, type, tokens)
#define CALL_PLAIN(type, tokens) tile_plain(task, type, tokens)

TILE_FNS(FR_F32, CALL_PLAIN)
TILE_FNS(FR_F16, CALL_PLAIN)
TILE_FNS(FR_BF16, CALL_PLAIN)
TILE_FNS(FR_Q4_0, CALL_32)
TILE_FNS(FR_Q4_1, CALL_32)
TILE_FNS(FR_Q5_0, CALL_32)
TILE_FNS(FR_Q5_1, CALL_32)
TILE_FNS(FR_Q8_0, CALL_32)
TILE_FNS(FR_Q4_K, CALL_K)
TILE_FNS(FR_Q5_K, CALL_K)
TILE_FNS(FR_Q6_K, CALL_K)

static const tile_fn tile_fns[][DOT_TOKENS] = {
    TILE_ROW(FR_F32),  TILE_ROW(FR_F16),  TILE_ROW(FR_BF16), TILE_ROW(FR_Q4_0),
    TILE_ROW(FR_Q4_1), TILE_ROW(FR_Q5_0), TILE_ROW(FR_Q5_1), TILE_ROW(FR_Q8_0),
    TILE_ROW(FR_Q4_K), TILE_ROW(FR_Q5_K), TILE_ROW(FR_Q6_K),
};

/* x [32] -> one block of activations. */
LANES_INLINE void quantise_block(const float *x, fr_act *out)
{
    enum { VECTORS = FR_TILE_BLOCK / LANES };
    vf high = vf_set1(0);
    for (int v = 0; v < VECTORS; v++)
        high = vf_max(vf_abs(vf_load(x + v * LANES)), high);
    float largest = vf_highest(high);
    float inverse = largest > 0 ? 127.0f / largest : 0;
    for (int v = 0; v < VECTORS; v++)
        vf_store_i8(out->q + v * LANES, vf_mul(vf_load(x + v * LANES), vf_set1(inverse)));
    out->scale = largest / 127.0f;
    out->half[0] = out->half[1] = 0;
    for (int i = 0; i < 16; i++) {
        out->half[0] += out->q[i];
        out->half[1] += out->q[16 + i];
    }
    out->sum = out->scale * (float)(out->half[0] + out->half[1]);
}

/* x [256] -> one super-block of activations. */
LANES_INLINE void quantise_super(const float *x, fr_act_k *out)
{
    vf high = vf_set1(0);
    for (int i = 0; i < FR_TILE_SUPER; i += LANES)
        high = vf_max(vf_abs(vf_load(x + i)), high);
    float largest = vf_highest(high);
    vf inverse = vf_set1(largest > 0 ? 127.0f / largest : 0);
    for (int i = 0; i < FR_TILE_SUPER; i += LANES)
        vf_store_i8(out->q + i, vf_mul(vf_load(x + i), inverse));
    out->scale = largest / 127.0f;
    int16_t sums16[16], sums32[8];
    for (int run = 0; run < 16; run++) {
        int sum = 0;
        for (int i = 0; i < 16; i++)
            sum += out->q[run * 16 + i];
        sums16[run] = (int16_t)sum;
    }
    for (int block = 0; block < 8; block++)
        sums32[block] = (int16_t)(sums16[2 * block] + sums16[2 * block + 1]);
    memcpy(out->sums16, sums16, sizeof sums16);
    memcpy(out->sums32, sums32, sizeof sums32);
}

/* Activations of up to FR_TILE_TOKENS tokens and all that they are multiplied with. */
typedef struct matmul_job {
    const fr_product *products;
    int first; /* token: row of every y */
    const float *x;
    int64_t cols;
    fr_act *acts; /* NULL when no product needs them, as below */
    fr_act_k *acts_k;
    int tokens;
} matmul_job;

static void quantise_rows(void *ctx, int64_t begin, int64_t end)
{
    const matmul_job *job = ctx;
    const int64_t blocks = job->cols / FR_TILE_BLOCK, supers = job->cols / FR_TILE_SUPER;
    for (int64_t m = begin; m < end; m++) {
        const float *x = job->x + m * job->cols;
        for (int64_t b = 0; job->acts && b < blocks; b++)
            quantise_block(x + b * FR_TILE_BLOCK, job->acts + m * blocks + b);
        int64_t group = m / DOT_TOKENS * DOT_TOKENS;
        for (int64_t s = 0; job->acts_k && s < supers; s++)
            quantise_super(x + s * FR_TILE_SUPER,
                           job->acts_k + group * supers + s * DOT_TOKENS + (m - group));
    }
}

static void matmul_tile(const matmul_job *job, const fr_product *product, int64_t tile)
{
    const fr_weight *w = product->w;
    float *y = product->y + job->first * w->rows + tile * LANES;
    for (int m = 0; m < job->tokens; m += DOT_TOKENS) {
        int tokens = job->tokens - m < DOT_TOKENS ? job->tokens - m : DOT_TOKENS;
        tile_task task = {.w = w, .tile = tile, .x = job->x + m * w->cols, .y = y + m * w->rows};
        if (job->acts)
            task.acts = job->acts + m * (w->cols / FR_TILE_BLOCK);
        if (job->acts_k)
            task.acts_k = job->acts_k + m * (w->cols / FR_TILE_SUPER);
        tile_fns[w->dtype][tokens - 1](&task);
    }
}

/* Tiles begin .. end-1, counted through all products. */
static void matmul_tiles(void *ctx, int64_t begin, int64_t end)
{
    const matmul_job *job = ctx;
    const fr_product *product = job->products;
    int64_t before = 0;
    for (int64_t t = begin; t < end; t++) {
        while (t - before >= product->w->tiles)
            before += product++->w->tiles;
        matmul_tile(job, product, t - before);
    }
}

/* Pieces of at least 64 KiB, so that memory is streamed, and up to 64 a thread, so that none waits
 * long for the last one. */
static int64_t tile_grain(const fr_device *dev, const fr_weight *w, int64_t tiles)
{
    int64_t streamed = (int64_t)(65536 / (w->tile_quants + w->tile_scales)) + 1;
    int64_t shared = tiles / (fr_pool_threads(dev->pool) * 64);
    return streamed > shared ? streamed : shared;
}

static fr_status fast_matmul(fr_device *dev, const fr_product *products, int n_products,
                             const float *x, int n)
{
    const int64_t cols = products[0].w->cols;
    matmul_job job = {.products = products, .cols = cols};
    int64_t tiles = 0;
    for (int i = 0; i < n_products; i++) {
        const fr_weight *w = products[i].w;
        tiles += w->tiles;
        if (fr_tiles_super(w->dtype))
            job.acts_k = dev->scratch;
        else if (w->tile_scales > 0)
            job.acts = (fr_act *)((char *)dev->scratch + fr_tiles_acts_k_bytes(cols));
    }
    for (int first = 0; first < n; first += FR_TILE_TOKENS) {
        job.first = first;
        job.x = x + first * cols;
        job.tokens = n - first < FR_TILE_TOKENS ? n - first : FR_TILE_TOKENS;
        if (job.acts || job.acts_k)
            fr_pool_run(dev->pool, job.tokens, 4, quantise_rows, &job);
        fr_pool_run(dev->pool, tiles, tile_grain(dev, products[0].w, tiles), matmul_tiles, &job);
    }
    return FR_OK;
}

static fr_status fast_weight_new(fr_device *dev, const fr_matrix *src, fr_weight **out)
{
    return fr_tiles_new(dev, src, LANES, out);
}

#endif
