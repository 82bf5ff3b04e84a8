/* suite.c: see suite.h. */
#include "suite.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define X(name, number, values, bytes, text) name,
const fr_dtype suite_types[] = {FR_DTYPE_MAP(X)};
#undef X
const int suite_n_types = sizeof suite_types / sizeof suite_types[0];
const fr_ops *suite_ops, *suite_device_ops;

uint32_t suite_next(suite_random *r) /* splitmix64 */
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

float suite_normal(suite_random *r)
{
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += (float)suite_next(r) * 0x1p-32f;
    return sum - 6.0f;
}

void suite_fill(suite_random *r, float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = suite_normal(r);
}

void *suite_alloc(size_t bytes)
{
    void *mem = calloc(1, bytes ? bytes : 1);
    assert_non_null(mem);
    return mem;
}

fr_device *suite_open(const fr_ops *ops, int threads)
{
    fr_device *dev = NULL;
    assert_int_equal(ops->open(&(fr_device_options){.threads = threads}, &dev), FR_OK);
    return dev;
}

static void put_f16(uint8_t *at, float value)
{
    uint16_t h = fr_f32_to_f16(value);
    memcpy(at, &h, sizeof h);
}

/* Sets a block's scales to sane numbers of either sign; its codes are random already. */
static void set_scales(suite_random *r, fr_dtype t, uint8_t *block)
{
    float d = (suite_next(r) & 1 ? 0.01f : -0.01f) * (1.0f + (float)(suite_next(r) % 100) / 100);
    if (t == FR_Q6_K) {
        put_f16(block + 208, d / 60);
        return;
    }
    bool k = t == FR_Q4_K || t == FR_Q5_K;
    put_f16(block, k ? d / 30 : d);
    if (k || t == FR_Q4_1 || t == FR_Q5_1)
        put_f16(block + 2, suite_normal(r) * (k ? 0.002f : 0.05f));
}

fr_matrix suite_matrix(suite_random *r, fr_dtype t, int64_t rows, int64_t cols)
{
    size_t row_bytes = fr_dtype_row_bytes(t, cols), block = (size_t)fr_dtype_find(t)->block_bytes;
    uint8_t *data = suite_alloc((size_t)rows * row_bytes);
    for (size_t at = 0; at < (size_t)rows * row_bytes; at += block) {
        if (t == FR_F32 || t == FR_BF16) {
            float value = suite_normal(r) * 0.1f;
            /* BF16: the upper half. */
            memcpy(data + at, (const uint8_t *)&value + sizeof value - block, block);
        } else if (t == FR_F16) {
            put_f16(data + at, suite_normal(r) * 0.1f);
        } else {
            for (size_t i = 0; i < block; i++)
                data[at + i] = (uint8_t)suite_next(r);
            set_scales(r, t, data + at);
        }
    }
    return (fr_matrix){t, data, rows, cols, row_bytes};
}

void suite_matrix_free(fr_matrix *m)
{
    free((void *)(uintptr_t)m->data);
    m->data = NULL;
}

void suite_set_codes(suite_random *r, fr_matrix *m, uint8_t byte)
{
    size_t bytes = (size_t)m->rows * m->row_bytes;
    uint8_t *data = (uint8_t *)(uintptr_t)m->data;
    memset(data, byte, bytes);
    for (size_t at = 0; at < bytes; at += (size_t)fr_dtype_find(m->dtype)->block_bytes)
        set_scales(r, m->dtype, data + at);
}

void suite_assert_close(const float *a, const float *b, int64_t n, float tolerance,
                        const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= tolerance))
            fail_msg("%s: %s value %lld is %.9g, want %.9g within %g", suite_ops->name, what,
                     (long long)i, (double)a[i], (double)b[i], (double)tolerance);
}

void suite_assert_same(const float *a, const float *b, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof a[i]) != 0)
            fail_msg("%s: %s value %lld is %a in one and %a in the other", suite_ops->name, what,
                     (long long)i, (double)a[i], (double)b[i]);
}
