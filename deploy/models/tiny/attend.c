/* Attention for training rows, heads of 32 numbers, float32, AVX-512.
 *
 * Used by model.py through ctypes; PyTorch's own kernel on a dense mask takes
 * about 2.5 times as long here.  Query i of a row sees the keys [0, lo[i]) and
 * [own[i], i]: a trunk token has lo = own = i + 1, a token of a score branch sees
 * the trunk up to the rated step and its own branch, padding sees nothing.
 *
 * q, out, dout, dq: [batch, heads, T, 32].  k, v, dk, dv: [batch, kv, T, 32].
 * lo, own: [batch, T].  lse: [batch, heads, T].  dk and dv must come zeroed.
 * Queries are taken eight at a time against sixteen keys. */
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { D = 32, NQ = 8, NK = 16 };

typedef struct {
    int first, n;           /* queries first .. first + n - 1 */
    int end_a, begin_b, end_b; /* chunks [0, end_a) and [begin_b, end_b) */
    int free_to;            /* chunks below this need no check */
} group;

int attend_supported(void)
{
    return __builtin_cpu_supports("avx512f");
}

static __m512 exp512(__m512 x)
{
    x = _mm512_max_ps(x, _mm512_set1_ps(-100.0f));
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

/* x [T, 32] as chunks of 16 rows, each chunk stored [32, 16]. */
static void transpose(const float *x, int T, float *out)
{
    memset(out, 0, sizeof(float) * D * NK * ((T + NK - 1) / NK));
    for (int t = 0; t < T; t++)
        for (int d = 0; d < D; d++)
            out[(t / NK) * D * NK + d * NK + t % NK] = x[t * D + d];
}

static group group_at(const int *lo, const int *own, int first, int T)
{
    group g = {first, T - first < NQ ? T - first : NQ, 0, 0, 0, 0};
    int max_lo = 0, min_lo = T, min_own = T, last = -1;
    for (int i = first; i < first + g.n; i++) {
        if (lo[i] == 0) {              /* padding: its result is not used */
            continue;
        }
        max_lo = lo[i] > max_lo ? lo[i] : max_lo;
        min_lo = lo[i] < min_lo ? lo[i] : min_lo;
        if (own[i] <= i) {
            min_own = own[i] < min_own ? own[i] : min_own;
            last = i;
        }
    }
    g.end_a = (max_lo + NK - 1) / NK;
    g.free_to = min_lo / NK;
    g.begin_b = last < 0 ? g.end_a : min_own / NK;
    if (g.begin_b < g.end_a)
        g.begin_b = g.end_a;
    g.end_b = last < 0 ? g.begin_b : last / NK + 1;
    if (g.end_b < g.begin_b)
        g.end_b = g.begin_b;
    return g;
}

static __mmask16 seen(const int *lo, const int *own, int i, int chunk)
{
    __m512i j = _mm512_add_epi32(_mm512_set1_epi32(chunk * NK),
                                 _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __mmask16 a = _mm512_cmplt_epi32_mask(j, _mm512_set1_epi32(lo[i]));
    __mmask16 b = _mm512_cmpge_epi32_mask(j, _mm512_set1_epi32(own[i])) &
                  _mm512_cmple_epi32_mask(j, _mm512_set1_epi32(i));
    return lo[i] ? a | b : 0;
}

/* acc[n] = x[n] . chunk, for NQ rows x of 32 numbers. */
static inline void dots(const float *x, const float *chunk, __m512 *acc)
{
    __m512 a[NQ];
    for (int n = 0; n < NQ; n++)
        a[n] = _mm512_setzero_ps();
#pragma GCC unroll 4
    for (int d = 0; d < D; d++) {
        __m512 c = _mm512_loadu_ps(chunk + d * NK);
#pragma GCC unroll 8
        for (int n = 0; n < NQ; n++)
            a[n] = _mm512_fmadd_ps(_mm512_set1_ps(x[n * D + d]), c, a[n]);
    }
    for (int n = 0; n < NQ; n++)
        acc[n] = a[n];
}

/* y[n] += sum over the chunk's rows j of w[n * stride + j] * x[j]. */
static inline void mix(const float *w, int stride, const float *x, int rows, float *y)
{
    __m512 a[NQ][2];
#pragma GCC unroll 8
    for (int n = 0; n < NQ; n++) {
        a[n][0] = _mm512_loadu_ps(y + n * D);
        a[n][1] = _mm512_loadu_ps(y + n * D + NK);
    }
    for (int j = 0; j < rows; j++) {
        __m512 x0 = _mm512_loadu_ps(x + j * D), x1 = _mm512_loadu_ps(x + j * D + NK);
#pragma GCC unroll 8
        for (int n = 0; n < NQ; n++) {
            __m512 s = _mm512_set1_ps(w[n * stride + j]);
            a[n][0] = _mm512_fmadd_ps(s, x0, a[n][0]);
            a[n][1] = _mm512_fmadd_ps(s, x1, a[n][1]);
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < NQ; n++) {
        _mm512_storeu_ps(y + n * D, a[n][0]);
        _mm512_storeu_ps(y + n * D + NK, a[n][1]);
    }
}

/* y[j] += sum over n of w[n * NK + j] * x[n], for the chunk's rows j. */
static inline void spread(const float *w, const float *x, int rows, float *y)
{
    for (int j = 0; j < rows; j++) {
        __m512 a = _mm512_loadu_ps(y + j * D), b = _mm512_loadu_ps(y + j * D + NK);
#pragma GCC unroll 8
        for (int n = 0; n < NQ; n++) {
            __m512 s = _mm512_set1_ps(w[n * NK + j]);
            a = _mm512_fmadd_ps(s, _mm512_loadu_ps(x + n * D), a);
            b = _mm512_fmadd_ps(s, _mm512_loadu_ps(x + n * D + NK), b);
        }
        _mm512_storeu_ps(y + j * D, a);
        _mm512_storeu_ps(y + j * D + NK, b);
    }
}

static void load_rows(float *to, const float *from, int n, float scale)
{
    for (int t = 0; t < NQ * D; t++)
        to[t] = t < n * D ? from[t] * scale : 0.0f;
}

static void forward_head(const float *q, const float *v, const float *kt, const int *lo,
                         const int *own, int T, float *s, float *out, float *lse)
{
    for (int first = 0; first < T; first += NQ) {
        group g = group_at(lo, own, first, T);
        float x[NQ * D], y[NQ * D] = {0};
        __m512 acc[NQ], top[NQ], sum[NQ];
        int n_chunks = g.end_a + g.end_b - g.begin_b;
        load_rows(x, q + first * D, g.n, 1.0f / sqrtf(D));
        for (int n = 0; n < NQ; n++) {
            top[n] = _mm512_set1_ps(-1e30f);
            sum[n] = _mm512_setzero_ps();
        }
        for (int c = 0; c < n_chunks; c++) {
            int chunk = c < g.end_a ? c : g.begin_b + c - g.end_a;
            dots(x, kt + chunk * D * NK, acc);
            for (int n = 0; n < NQ; n++) {
                if (chunk >= g.free_to)
                    acc[n] = _mm512_mask_mov_ps(_mm512_set1_ps(-1e30f),
                        n < g.n ? seen(lo, own, first + n, chunk) : 0, acc[n]);
                _mm512_storeu_ps(s + (c * NQ + n) * NK, acc[n]);
                top[n] = _mm512_max_ps(top[n], acc[n]);
            }
        }
        float peak[NQ], inv[NQ];
        for (int n = 0; n < NQ; n++)
            peak[n] = _mm512_reduce_max_ps(top[n]);
        for (int c = 0; c < n_chunks; c++) {
            int chunk = c < g.end_a ? c : g.begin_b + c - g.end_a;
            for (int n = 0; n < NQ; n++) {
                float *p = s + (c * NQ + n) * NK;
                __m512 e = exp512(_mm512_sub_ps(_mm512_loadu_ps(p), _mm512_set1_ps(peak[n])));
                sum[n] = _mm512_add_ps(sum[n], e);
                _mm512_storeu_ps(p, e);
            }
            mix(s + c * NQ * NK, NK, v + chunk * NK * D, T - chunk * NK < NK ? T - chunk * NK : NK, y);
        }
        for (int n = 0; n < g.n; n++) {
            float z = _mm512_reduce_add_ps(sum[n]);
            inv[n] = lo[first + n] ? 1.0f / z : 0.0f;
            lse[first + n] = lo[first + n] ? peak[n] + logf(z) : 0.0f;
            for (int d = 0; d < D; d++)
                out[(first + n) * D + d] = y[n * D + d] * inv[n];
        }
    }
}

static void backward_head(const float *q, const float *k, const float *kt, const float *vt,
                          const int *lo, const int *own, int T, const float *out, const float *lse,
                          const float *dout, float *dq, float *dk, float *dv)
{
    const float scale = 1.0f / sqrtf(D);
    for (int first = 0; first < T; first += NQ) {
        group g = group_at(lo, own, first, T);
        float x[NQ * D], dy[NQ * D], dx[NQ * D] = {0}, p[NQ * NK], ds[NQ * NK], delta[NQ] = {0};
        __m512 a[NQ], b[NQ];
        load_rows(x, q + first * D, g.n, scale);
        load_rows(dy, dout + first * D, g.n, 1.0f);
        for (int t = 0; t < g.n * D; t++)
            delta[t / D] += dy[t] * out[first * D + t];
        for (int c = 0; c < g.end_a + g.end_b - g.begin_b; c++) {
            int chunk = c < g.end_a ? c : g.begin_b + c - g.end_a;
            int rows = T - chunk * NK < NK ? T - chunk * NK : NK;
            dots(x, kt + chunk * D * NK, a);
            dots(dy, vt + chunk * D * NK, b);
            for (int n = 0; n < NQ; n++) {
                __mmask16 m = n >= g.n ? 0 : chunk < g.free_to && lo[first + n] ? 0xffff
                            : seen(lo, own, first + n, chunk);
                __m512 e = exp512(_mm512_sub_ps(a[n], _mm512_set1_ps(n < g.n ? lse[first + n] : 0)));
                e = _mm512_maskz_mov_ps(m, e);
                _mm512_storeu_ps(p + n * NK, e);
                _mm512_storeu_ps(ds + n * NK, _mm512_mul_ps(e, _mm512_sub_ps(b[n], _mm512_set1_ps(delta[n]))));
            }
            mix(ds, NK, k + chunk * NK * D, rows, dx);
            spread(ds, x, rows, dk + chunk * NK * D);
            spread(p, dy, rows, dv + chunk * NK * D);
        }
        for (int t = 0; t < g.n * D; t++)
            dq[first * D + t] = dx[t] * scale;
    }
}

void attend_forward(const float *q, const float *k, const float *v, const int *lo, const int *own,
                    int batch, int heads, int kv, int T, float *out, float *lse)
{
    int padded = (T + NK - 1) / NK * NK;
    float *kt = malloc(sizeof(float) * padded * (D + 2 * NQ)), *s = kt + padded * D;
    for (int b = 0; b < batch; b++)
        for (int h = 0; h < heads; h++) {
            long at = (long)(b * kv + h / (heads / kv)) * T * D, row = (long)(b * heads + h) * T;
            if (h % (heads / kv) == 0)
                transpose(k + at, T, kt);
            forward_head(q + row * D, v + at, kt, lo + b * T, own + b * T, T, s, out + row * D, lse + row);
        }
    free(kt);
}

void attend_backward(const float *q, const float *k, const float *v, const int *lo, const int *own,
                     int batch, int heads, int kv, int T, const float *out, const float *lse,
                     const float *dout, float *dq, float *dk, float *dv)
{
    int padded = (T + NK - 1) / NK * NK;
    float *kt = malloc(sizeof(float) * padded * D * 2), *vt = kt + padded * D;
    for (int b = 0; b < batch; b++)
        for (int h = 0; h < heads; h++) {
            long at = (long)(b * kv + h / (heads / kv)) * T * D, row = (long)(b * heads + h) * T;
            if (h % (heads / kv) == 0) {
                transpose(k + at, T, kt);
                transpose(v + at, T, vt);
            }
            backward_head(q + row * D, k + at, kt, vt, lo + b * T, own + b * T, T, out + row * D,
                          lse + row, dout + row * D, dq + row * D, dk + at, dv + at);
        }
    free(kt);
}
