/* test_numbers.cu: half and bfloat16 against plain definitions, and wmma against plain loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
extern "C" {
#include <cmocka.h>
}

#include <mma.h>

#include "fake_cuda.h"
#include "launch.cuh"

using namespace nvcuda::wmma;

/* Conversions */

/* Of the two nearest numbers of a type with `bits` bits of mantissa, the nearest, or the even one. */
static double round_to(double f, int bits, int least_exponent)
{
    int exponent;
    frexp(f, &exponent);
    const double unit =
        ldexp(1, (exponent > least_exponent ? exponent : least_exponent) - bits - 1);
    return nearbyint(f / unit) * unit;
}

static void check_rounding(float f)
{
    const double h = round_to(f, 10, -13), b = round_to(f, 7, -125);
    if (fabs(h) < 65520)
        assert_true(__half2float(__float2half_rn(f)) == h);
    else
        assert_int_equal(__half_as_ushort(__float2half_rn(f)) & 0x7fff, 0x7c00);
    if (fabs(b) < 0x1p127 * 1.99)
        assert_true(__bfloat162float(__float2bfloat16_rn(f)) == b);
}

static void test_rounding(void **)
{
    for (uint32_t i = 0; i < 0x7f800000; i += 997) {
        check_rounding(__uint_as_float(i));
        check_rounding(-__uint_as_float(i));
    }
    check_rounding(65519.99f);
    check_rounding(65520);
    check_rounding(1 + 0x1p-11f); /* between two: the even one */
    check_rounding(1 + 0x3p-11f);
    check_rounding(1 + 0x1p-8f);
    check_rounding(0x1p-25f);
    check_rounding(0x1.8p-24f);
}

static void test_every_half_and_bfloat(void **)
{
    for (unsigned i = 0; i < 0x10000; i++) {
        const unsigned short u = (unsigned short)i;
        const float h = __half2float(__ushort_as_half(u));
        const float b = __bfloat162float(__ushort_as_bfloat16(u));
        if ((i & 0x7c00) == 0x7c00 && i & 0x3ff)
            assert_true(isnan(h));
        else
            assert_int_equal(__half_as_ushort(__float2half_rn(h)), i);
        if (isnan(b))
            assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(b)), 0x7fff);
        else
            assert_int_equal(__bfloat16_as_ushort(__float2bfloat16_rn(b)), i);
    }
    assert_int_equal(__half_as_ushort(__float2half_rn(NAN)), 0x7fff);
    const __half2 pair = __floats2half2_rn(1.5f, -2);
    assert_true(__low2float(pair) == 1.5f && __high2float(pair) == -2);
}

/* Products of tiles: d [m, n] = 2 (a [m, 16] * b [16, n] + 3). */

#define WIDE 32 /* rows of m or n values, which may be 8 bytes, are padded to this */

template <int M, int N, typename T, typename Sum, typename LayoutA, typename LayoutB>
FR_KERNEL(64)
void multiply(const T *a, const T *b, Sum *d, bool d_by_rows)
{
    fragment<matrix_a, M, N, 16, T, LayoutA> fa;
    fragment<matrix_b, M, N, 16, T, LayoutB> fb;
    fragment<accumulator, M, N, 16, Sum> fd;
    d += threadIdx.x / 32 * M * N; /* two warps do the same */
    load_matrix_sync(fa, a, std::is_same<LayoutA, row_major>::value ? 16 : WIDE);
    load_matrix_sync(fb, b, std::is_same<LayoutB, row_major>::value ? WIDE : 16);
    fill_fragment(fd, Sum(3));
    mma_sync(fd, fa, fb, fd);
    for (int i = 0; i < fd.num_elements; i++)
        fd.x[i] *= 2;
    store_matrix_sync(d, fd, d_by_rows ? N : M, d_by_rows ? mem_row_major : mem_col_major);
}

static void set(__half *to, int value)
{
    *to = __float2half_rn(float(value) / 4);
}

static void set(__nv_bfloat16 *to, int value)
{
    *to = __float2bfloat16_rn(float(value) / 4);
}

static void set(signed char *to, int value)
{
    *to = (signed char)value;
}

template <int M, int N, typename T, typename Sum, typename LayoutA, typename LayoutB>
static void check_product()
{
    const bool a_by_rows = std::is_same<LayoutA, row_major>::value;
    const bool b_by_rows = std::is_same<LayoutB, row_major>::value;
    T a[WIDE * 16], b[16 * WIDE], *device_a, *device_b;
    Sum d[2 * M * N], *device_d;
    for (int i = 0; i < WIDE * 16; i++)
        set(&a[i], i * 7 % 23 - 11);
    for (int i = 0; i < 16 * WIDE; i++)
        set(&b[i], i * 5 % 19 - 9);
    assert_int_equal(cudaMalloc(&device_a, sizeof a), cudaSuccess);
    assert_int_equal(cudaMalloc(&device_b, sizeof b), cudaSuccess);
    assert_int_equal(cudaMalloc(&device_d, sizeof d), cudaSuccess);
    assert_int_equal(cudaMemcpy(device_a, a, sizeof a, cudaMemcpyHostToDevice), cudaSuccess);
    assert_int_equal(cudaMemcpy(device_b, b, sizeof b, cudaMemcpyHostToDevice), cudaSuccess);
    for (int d_by_rows = 0; d_by_rows < 2; d_by_rows++) {
        auto kernel = multiply<M, N, T, Sum, LayoutA, LayoutB>;
        FR_LAUNCH(kernel, 1, 64, 0, 0, device_a, device_b, device_d, d_by_rows);
        assert_int_equal(cudaMemcpy(d, device_d, sizeof d, cudaMemcpyDeviceToHost), cudaSuccess);
        for (int i = 0; i < 2 * M * N; i++) {
            const int at = i % (M * N), row = d_by_rows ? at / N : at % M,
                      col = d_by_rows ? at % N : at / M;
            Sum sum = 3;
            for (int k = 0; k < 16; k++)
                sum += fake_cuda_widen(a[a_by_rows ? row * 16 + k : k * WIDE + row]) *
                       fake_cuda_widen(b[b_by_rows ? k * WIDE + col : col * 16 + k]);
            assert_true(d[i] == 2 * sum); /* small quarters: exact */
        }
    }
    cudaFree(device_a);
    cudaFree(device_b);
    cudaFree(device_d);
}

template <typename T, typename Sum> static void check_shapes()
{
    check_product<16, 16, T, Sum, row_major, col_major>();
    check_product<16, 16, T, Sum, col_major, row_major>();
    check_product<32, 8, T, Sum, row_major, row_major>();
    check_product<8, 32, T, Sum, col_major, col_major>();
}

static void test_wmma(void **)
{
    check_shapes<__half, float>();
    check_shapes<__nv_bfloat16, float>();
    check_shapes<signed char, int>();
    assert_true(fake_cuda_all_freed());
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_every_half_and_bfloat),
        cmocka_unit_test(test_wmma),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
