/* test_dtype.c: tensor types. Dequantisation is checked against a second account of every layout,
 * which walks the bytes as ggml's own loops do; half floats against the definition of the format.
 * */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "finite.h"
#include "suite.h"

static float half(const uint8_t *at)
{
    uint16_t h = (uint16_t)(at[0] | at[1] << 8);
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    float value = exponent == 0    ? ldexpf((float)mantissa, -24)
                  : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                   : ldexpf((float)(1024 + mantissa), exponent - 25);
    return h & 0x8000 ? -value : value;
}

static void test_f16_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        uint8_t raw[2] = {(uint8_t)h, (uint8_t)(h >> 8)};
        float f = fr_f16_to_f32((uint16_t)h), want = half(raw);
        if (isnan(want))
            assert_true(isnan(f));
        else
            assert_memory_equal(&f, &want, sizeof f);
        assert_int_equal(fr_f32_to_f16(f), h);
    }
}

/* Between two neighbours a and b of the format: below the middle goes to a, above to b, the middle
 * to the even one. */
static void test_f16_rounds_to_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float a = fr_f16_to_f32((uint16_t)h), b = fr_f16_to_f32((uint16_t)(h + 1)),
              middle = a + (b - a) / 2;
        assert_int_equal(fr_f32_to_f16(middle), h + (h & 1));
        assert_int_equal(fr_f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(fr_f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
        assert_int_equal(fr_f32_to_f16(-middle), (h + (h & 1)) | 0x8000);
    }
    assert_int_equal(fr_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(fr_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(fr_f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(fr_f32_to_f16(-1e-30f), 0x8000);
}

static void widen_q4(const uint8_t *b, float *y, bool with_min)
{
    const uint8_t *qs = b + (with_min ? 4 : 2);
    for (int j = 0; j < 16; j++) {
        y[j] = with_min ? (float)(qs[j] & 0xf) * half(b) + half(b + 2)
                        : (float)((qs[j] & 0xf) - 8) * half(b);
        y[j + 16] = with_min ? (float)(qs[j] >> 4) * half(b) + half(b + 2)
                             : (float)((qs[j] >> 4) - 8) * half(b);
    }
}

static void widen_q5(const uint8_t *b, float *y, bool with_min)
{
    const uint8_t *raw = b + (with_min ? 4 : 2), *qs = raw + 4;
    uint32_t qh =
        (uint32_t)raw[0] | (uint32_t)raw[1] << 8 | (uint32_t)raw[2] << 16 | (uint32_t)raw[3] << 24;
    for (int j = 0; j < 16; j++) {
        int x0 = (qs[j] & 0xf) | (int)((qh >> j << 4) & 0x10),
            x1 = (qs[j] >> 4) | (int)(qh >> (j + 12) & 0x10);
        y[j] = with_min ? (float)x0 * half(b) + half(b + 2) : (float)(x0 - 16) * half(b);
        y[j + 16] = with_min ? (float)x1 * half(b) + half(b + 2) : (float)(x1 - 16) * half(b);
    }
}

static void scale_min_k4(int j, const uint8_t *q, int *d, int *m)
{
    if (j < 4) {
        *d = q[j] & 63;
        *m = q[j + 4] & 63;
    } else {
        *d = (q[j + 4] & 0xf) | (q[j - 4] >> 6) << 4;
        *m = (q[j + 4] >> 4) | (q[j] >> 6) << 4;
    }
}

static void widen_q45_k(const uint8_t *b, float *y, bool five)
{
    const uint8_t *qh = b + 16, *ql = b + (five ? 48 : 16);
    int u1 = 1, u2 = 2;
    for (int j = 0, is = 0; j < 256; j += 64, is += 2) {
        int sc = 0, m = 0;
        scale_min_k4(is, b + 4, &sc, &m);
        float d1 = half(b) * (float)sc, m1 = half(b + 2) * (float)m;
        scale_min_k4(is + 1, b + 4, &sc, &m);
        float d2 = half(b) * (float)sc, m2 = half(b + 2) * (float)m;
        for (int l = 0; l < 32; l++)
            *y++ = d1 * (float)((ql[l] & 0xf) + (five && qh[l] & u1 ? 16 : 0)) - m1;
        for (int l = 0; l < 32; l++)
            *y++ = d2 * (float)((ql[l] >> 4) + (five && qh[l] & u2 ? 16 : 0)) - m2;
        ql += 32;
        u1 <<= 2;
        u2 <<= 2;
    }
}

static void widen_q6_k(const uint8_t *b, float *y)
{
    const uint8_t *ql = b, *qh = b + 128;
    const int8_t *sc = (const int8_t *)(b + 192);
    float d = half(b + 208);
    for (int n = 0; n < 256; n += 128) {
        for (int l = 0; l < 32; l++) {
            int is = l / 16;
            int q1 = ((ql[l] & 0xf) | (qh[l] & 3) << 4) - 32;
            int q2 = ((ql[l + 32] & 0xf) | (qh[l] >> 2 & 3) << 4) - 32;
            int q3 = ((ql[l] >> 4) | (qh[l] >> 4 & 3) << 4) - 32;
            int q4 = ((ql[l + 32] >> 4) | (qh[l] >> 6 & 3) << 4) - 32;
            y[l] = d * (float)sc[is] * (float)q1;
            y[l + 32] = d * (float)sc[is + 2] * (float)q2;
            y[l + 64] = d * (float)sc[is + 4] * (float)q3;
            y[l + 96] = d * (float)sc[is + 6] * (float)q4;
        }
        y += 128;
        ql += 64;
        qh += 32;
        sc += 8;
    }
}

static void widen(fr_dtype t, const uint8_t *b, float *y)
{
    uint32_t bits = (uint32_t)b[0] | (uint32_t)b[1] << 8;
    switch (t) {
    case FR_F32:
        memcpy(y, b, 4);
        break;
    case FR_F16:
        *y = half(b);
        break;
    case FR_BF16:
        bits <<= 16;
        memcpy(y, &bits, 4);
        break;
    case FR_Q8_0:
        for (int i = 0; i < 32; i++)
            y[i] = (float)(int8_t)b[2 + i] * half(b);
        break;
    case FR_Q4_0:
    case FR_Q4_1:
        widen_q4(b, y, t == FR_Q4_1);
        break;
    case FR_Q5_0:
    case FR_Q5_1:
        widen_q5(b, y, t == FR_Q5_1);
        break;
    case FR_Q4_K:
    case FR_Q5_K:
        widen_q45_k(b, y, t == FR_Q5_K);
        break;
    case FR_Q6_K:
        widen_q6_k(b, y);
        break;
    }
}

static void test_dequantise(void **state)
{
    (void)state;
    suite_random r = {1};
    for (int i = 0; i < suite_n_types; i++) {
        const fr_dtype_info *info = fr_dtype_find(suite_types[i]);
        enum { BLOCKS = 50 };
        fr_matrix m = suite_matrix(&r, suite_types[i], 1, BLOCKS * info->block_values);
        float *got = suite_alloc((size_t)m.cols * sizeof *got), want[256];
        fr_dtype_to_f32(m.dtype, m.data, got, m.cols);
        for (int b = 0; b < BLOCKS; b++) {
            widen(m.dtype, (const uint8_t *)m.data + b * info->block_bytes, want);
            for (int j = 0; j < info->block_values; j++)
                if (got[b * info->block_values + j] != want[j])
                    fail_msg("%s block %d value %d is %g, want %g", info->name, b, j,
                             (double)got[b * info->block_values + j], (double)want[j]);
        }
        free(got);
        suite_matrix_free(&m);
    }
}

/* The first of n values that is no number, by widening all of them; of a quantised type, the first
 * of its block. */
static int64_t first_not_finite(fr_dtype t, const void *data, int64_t n, float *widened)
{
    int block = fr_dtype_find(t)->block_values;
    fr_dtype_to_f32(t, data, widened, n);
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(widened[i]))
            return i / block * block;
    }
    return -1;
}

/* Bytes that are a NaN, or an infinity, where they fall on a number or a scale, at every place of
 * two blocks. */
static void test_first_not_finite(void **state)
{
    (void)state;
    static const uint8_t bad[][2] = {{0x01, 0x7c}, {0x00, 0xfc}, {0xc0, 0x7f}, {0x80, 0xff}};
    suite_random r = {7};
    for (int i = 0; i < suite_n_types; i++) {
        const fr_dtype_info *info = fr_dtype_find(suite_types[i]);
        int64_t n = info->block_values == 1 ? 1100 : 3 * info->block_values;
        fr_matrix m = suite_matrix(&r, suite_types[i], 1, n);
        float *widened = suite_alloc((size_t)n * sizeof *widened);
        uint8_t *data = (uint8_t *)m.data;
        int found = 0;
        assert_int_equal(fr_first_not_finite(suite_types[i], data, n), -1);
        for (size_t at = 0; at + 2 <= m.row_bytes; at += 2) {
            for (int k = 0; k < 4; k++) {
                const uint8_t was[2] = {data[at], data[at + 1]};
                memcpy(data + at, bad[k], 2);
                int64_t want = first_not_finite(suite_types[i], data, n, widened);
                assert_int_equal(fr_first_not_finite(suite_types[i], data, n), want);
                found += want >= 0;
                memcpy(data + at, was, 2);
            }
        }
        assert_true(found > 0);
        free(widened);
        suite_matrix_free(&m);
    }
}

static void test_find(void **state)
{
    (void)state;
    assert_string_equal(fr_dtype_find(12)->name, "Q4_K");
    assert_int_equal(fr_dtype_row_bytes(FR_Q6_K, 512), 420);
    const uint32_t unknown[] = {4, 5, 7 + 8 * 256, 9, 10, 11, 15, 29, 31, UINT32_MAX};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        assert_null(fr_dtype_find(unknown[i]));
}

static void test_choose(void **state)
{
    (void)state;
    const fr_ops *ops = NULL;
    assert_int_equal(fr_ops_choose(NULL, &ops), FR_OK);
    assert_int_equal(fr_ops_usable(ops), FR_OK);
    assert_int_equal(fr_ops_choose("cpu_ref", &ops), FR_OK);
    assert_ptr_equal(ops, &fr_ops_cpu_ref);
    assert_int_equal(fr_ops_choose("abacus", &ops), FR_ENOTFOUND);
    bool has_cuda = false;
    for (const fr_ops *const *o = fr_ops_all(); *o; o++)
        has_cuda |= strcmp((*o)->name, "cuda") == 0;
    if (!has_cuda) {
        assert_int_equal(fr_ops_choose("cuda", &ops), FR_EUNSUPPORTED);
        assert_non_null(strstr(fr_cause(), "built without backend cuda"));
    }
}

int suite_run_dtype(void)
{
    const struct CMUnitTest dtype_tests[] = {
        cmocka_unit_test(test_f16_round_trip), cmocka_unit_test(test_f16_rounds_to_even),
        cmocka_unit_test(test_dequantise),     cmocka_unit_test(test_first_not_finite),
        cmocka_unit_test(test_find),           cmocka_unit_test(test_choose),
    };
    return cmocka_run_group_tests(dtype_tests, NULL, NULL);
}
