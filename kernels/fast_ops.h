/* fast_ops.h: the operations on rows of activations, a template for one instruction set
 * (fast_backend.h). A row is always worked on by one thread, in one order. */
#ifndef FR_FAST_OPS_H
#define FR_FAST_OPS_H

#include "check.h"
#include "cpu_rope.h"

/* e^x, relative error about 2e-7; x is held to -87 .. 88. (Cody-Waite reduction, Taylor polynomial
 * of degree 6.) */
LANES_INLINE vf vf_exp(vf x)
{
    x = vf_min(vf_max(x, vf_set1(-87.0f)), vf_set1(88.0f));
    /* 1.5 * 2^23: the low bits of the sum are round(x / ln 2) */
    const vf magic = vf_set1(12582912.0f);
    vf shifted = vf_fma(x, vf_set1(1.44269504f), magic);
    vi exponent = vi_shl(vf_bits(shifted), 23);
    vf k = vf_sub(shifted, magic);
    vf r = vf_fma(k, vf_set1(-0.693359375f), x);
    r = vf_fma(k, vf_set1(2.12194440e-4f), r);
    vf y = vf_fma(r, vf_set1(1.38888889e-3f), vf_set1(8.33333333e-3f));
    y = vf_fma(y, r, vf_set1(4.16666667e-2f));
    y = vf_fma(y, r, vf_set1(1.66666667e-1f));
    y = vf_fma(y, r, vf_set1(0.5f));
    y = vf_fma(y, r, vf_set1(1.0f));
    y = vf_fma(y, r, vf_set1(1.0f));
    return vf_from_bits(vi_add(vf_bits(y), exponent));
}

typedef struct rows_job {
    float *y;
    const float *x, *weight;
    int dim;
    float eps;
} rows_job;

/* Rows share threads in pieces of some 16 Ki values: below that, waking anyone costs more than the
 * work. */
static void run_rows(fr_device *dev, fr_pool_fn fn, rows_job *job, int n)
{
    fr_pool_run(dev->pool, n, 16384 / job->dim + 1, fn, job);
}

static void rms_norm_rows(void *ctx, int64_t begin, int64_t end)
{
    const rows_job *job = ctx;
    int dim = job->dim;
    for (int64_t r = begin; r < end; r++) {
        const float *x = job->x + r * dim;
        float *y = job->y + r * dim;
        vf s0 = vf_set1(0), s1 = vf_set1(0);
        int i = 0;
        for (; i + 2 * LANES <= dim; i += 2 * LANES) {
            vf a = vf_load(x + i), b = vf_load(x + i + LANES);
            s0 = vf_fma(a, a, s0);
            s1 = vf_fma(b, b, s1);
        }
        for (; i < dim; i += LANES) {
            vf a = vf_load_n(x + i, dim - i, 0);
            s0 = vf_fma(a, a, s0);
        }
        float mean = vf_sum(vf_add(s0, s1)) / (float)dim;
        vf scale = vf_set1(1.0f / __builtin_sqrtf(mean + job->eps));
        for (i = 0; i < dim; i += LANES) {
            vf a = vf_mul(vf_load_n(x + i, dim - i, 0), scale);
            vf_store_n(y + i, dim - i, vf_mul(a, vf_load_n(job->weight + i, dim - i, 0)));
        }
    }
}

static fr_status fast_rms_norm(fr_device *dev, float *y, const float *x, const float *weight, int n,
                               int dim, float eps)
{
    rows_job job = {y, x, weight, dim, eps};
    run_rows(dev, rms_norm_rows, &job, n);
    return FR_OK;
}

static void add_rows(void *ctx, int64_t begin, int64_t end)
{
    const rows_job *job = ctx;
    int64_t last = end * job->dim;
    for (int64_t i = begin * job->dim; i < last; i += LANES) {
        vf a = vf_load_n(job->y + i, last - i, 0), b = vf_load_n(job->x + i, last - i, 0);
        vf_store_n(job->y + i, last - i, vf_add(a, b));
    }
}

static fr_status fast_add(fr_device *dev, float *x, const float *y, int n, int dim)
{
    rows_job job = {x, y, NULL, dim, 0};
    run_rows(dev, add_rows, &job, n);
    return FR_OK;
}

static fr_status fast_add_bias(fr_device *dev, float *x, const float *bias, int n, int dim)
{
    for (int64_t r = 0; r < n; r++) {
        rows_job job = {x + r * dim, bias, NULL, dim, 0};
        run_rows(dev, add_rows, &job, 1);
    }
    return FR_OK;
}

static void silu_mul_rows(void *ctx, int64_t begin, int64_t end)
{
    const rows_job *job = ctx;
    int64_t last = end * job->dim;
    for (int64_t i = begin * job->dim; i < last; i += LANES) {
        vf gate = vf_load_n(job->y + i, last - i, 0), up = vf_load_n(job->x + i, last - i, 0);
        vf denominator = vf_add(vf_set1(1), vf_exp(vf_sub(vf_set1(0), gate)));
        vf_store_n(job->y + i, last - i, vf_mul(vf_div(gate, denominator), up));
    }
}

static fr_status fast_silu_mul(fr_device *dev, float *gate, const float *up, int n, int dim)
{
    rows_job job = {gate, up, NULL, dim, 0};
    run_rows(dev, silu_mul_rows, &job, n);
    return FR_OK;
}

/* Pairs (i, i + half). */
static void rotate_neox(float *head, const float *cosines, const float *sines, int half)
{
    for (int i = 0; i < half; i += LANES) {
        vf c = vf_load_n(cosines + i, half - i, 0), s = vf_load_n(sines + i, half - i, 0);
        vf a = vf_load_n(head + i, half - i, 0), b = vf_load_n(head + half + i, half - i, 0);
        vf_store_n(head + i, half - i, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        vf_store_n(head + half + i, half - i, vf_fma(a, s, vf_mul(b, c)));
    }
}

/* Pairs (2i, 2i + 1). */
static void rotate_norm(float *head, const float *cosines, const float *sines, int half)
{
    for (int i = 0; i < half; i++) {
        float a = head[2 * i], b = head[2 * i + 1];
        head[2 * i] = a * cosines[i] - b * sines[i];
        head[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
}

static fr_status fast_rope(fr_device *dev, float *x, const fr_rope *rope, const int32_t *pos, int n,
                           int heads, int head_dim)
{
    FR_TRY(fr_rope_table_use(dev, rope));
    int half = rope->n_rot / 2;
    for (int64_t r = 0; r < n; r++) {
        const float *cosines = fr_rope_table_at(dev, pos[r]), *sines = cosines + half;
        for (int h = 0; h < heads; h++) {
            float *head = x + (r * heads + h) * head_dim;
            if (rope->style == FR_ROPE_NEOX)
                rotate_neox(head, cosines, sines, half);
            else
                rotate_norm(head, cosines, sines, half);
        }
    }
    return FR_OK;
}

static fr_status fast_kv_write(fr_device *dev, const fr_kv *kv, const float *k, const float *v,
                               const int32_t *slots, int n)
{
    (void)dev;
    int64_t width = (int64_t)kv->kv_heads * kv->head_dim;
    for (int64_t r = 0; r < n; r++)
        for (int64_t i = 0; i < width; i += LANES) {
            vf_store_f16_n(kv->k + slots[r] * width + i, width - i,
                           vf_load_n(k + r * width + i, width - i, 0));
            vf_store_f16_n(kv->v + slots[r] * width + i, width - i,
                           vf_load_n(v + r * width + i, width - i, 0));
        }
    return FR_OK;
}

#endif
