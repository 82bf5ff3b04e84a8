/* mma.h: nvcuda::wmma with plain loops.
 *
 * A lane holds every 32nd element of a tile (x[i] is element i * 32 + lane, row by row), which is not
 * what a GPU does: kernels must not know which elements they hold. Loads and stores are each lane's
 * own, so that a missing barrier around them shows; the last lane to reach mma_sync multiplies for
 * the warp. Sums go up in k, in the accumulator's type. */
#ifndef FAKE_CUDA_MMA_H
#define FAKE_CUDA_MMA_H

#include <cstdio>
#include <cstdlib>
#include <type_traits>

#include "cuda_bf16.h"
#include "cuda_fp16.h"

static inline float fake_cuda_widen(__half h)
{
    return __half2float(h);
}

static inline float fake_cuda_widen(__nv_bfloat16 b)
{
    return __bfloat162float(b);
}

static inline int fake_cuda_widen(signed char c)
{
    return c;
}

namespace nvcuda
{
namespace wmma
{

struct row_major;
struct col_major;
struct matrix_a;
struct matrix_b;
struct accumulator;
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int m, int n, int k, typename T, typename Layout = void> struct fragment {
    static_assert((m == 16 && n == 16 && k == 16) || (m == 32 && n == 8 && k == 16) ||
                      (m == 8 && n == 32 && k == 16),
                  "a shape of wmma");
    static constexpr int rows = std::is_same<Use, matrix_b>::value ? k : m;
    static constexpr int cols = std::is_same<Use, matrix_a>::value ? k : n;
    static constexpr int num_elements = rows * cols / 32;
    static constexpr int num_storage_elements = num_elements;
    typedef T element_type;
    typedef T storage_element_type;
    T x[num_elements];
};

/* Where element i of a lane lies in memory. */
template <typename Fragment>
static inline size_t fake_cuda_offset(int i, int lane, unsigned ldm, bool by_rows)
{
    const unsigned at = unsigned(i * 32 + lane);
    const unsigned row = at / Fragment::cols, col = at % Fragment::cols;
    return by_rows ? size_t(row) * ldm + col : size_t(col) * ldm + row;
}

/* CUDA asks for 32-byte aligned tiles with rows of a multiple of 16 bytes. */
static inline void fake_cuda_check_tile(const void *p, unsigned ldm, size_t size)
{
    if (reinterpret_cast<uintptr_t>(p) % 32 == 0 && ldm * size % 16 == 0)
        return;
    fprintf(stderr, "cuda_on_cpu: wmma tile at %p with rows of %zu bytes is not aligned\n", p,
            ldm * size);
    abort();
}

template <typename Use, int m, int n, int k, typename T, typename Layout>
void fill_fragment(fragment<Use, m, n, k, T, Layout> &f, const T &value)
{
    for (T &x : f.x)
        x = value;
}

template <typename Use, int m, int n, int k, typename T, typename Layout>
void load_matrix_sync(fragment<Use, m, n, k, T, Layout> &f, const T *from, unsigned ldm)
{
    static_assert(!std::is_same<Layout, void>::value, "an accumulator is loaded with its layout");
    typedef fragment<Use, m, n, k, T, Layout> type;
    fake_cuda_check_tile(from, ldm, sizeof(T));
    const int lane = fake_cuda_lane();
    for (int i = 0; i < type::num_elements; i++)
        f.x[i] = from[fake_cuda_offset<type>(i, lane, ldm, std::is_same<Layout, row_major>::value)];
}

template <int m, int n, int k, typename T>
void load_matrix_sync(fragment<accumulator, m, n, k, T> &f, const T *from, unsigned ldm,
                      layout_t layout)
{
    typedef fragment<accumulator, m, n, k, T> type;
    fake_cuda_check_tile(from, ldm, sizeof(T));
    const int lane = fake_cuda_lane();
    for (int i = 0; i < type::num_elements; i++)
        f.x[i] = from[fake_cuda_offset<type>(i, lane, ldm, layout == mem_row_major)];
}

template <int m, int n, int k, typename T>
void store_matrix_sync(T *to, const fragment<accumulator, m, n, k, T> &f, unsigned ldm,
                       layout_t layout)
{
    typedef fragment<accumulator, m, n, k, T> type;
    fake_cuda_check_tile(to, ldm, sizeof(T));
    const int lane = fake_cuda_lane();
    for (int i = 0; i < type::num_elements; i++)
        to[fake_cuda_offset<type>(i, lane, ldm, layout == mem_row_major)] = f.x[i];
}

/* What one lane brings to a multiplication. */
template <typename D, typename A, typename B> struct fake_cuda_product {
    D *d;
    const A *a;
    const B *b;
    const D *c;
};

template <typename D, typename A, typename B>
void fake_cuda_multiply(void *const lanes[32], unsigned)
{
    typedef fake_cuda_product<D, A, B> product;
    typedef decltype(D().x[0] + D().x[0]) sum_type;
    sum_type a[A::rows][A::cols], b[B::rows][B::cols], d[D::rows][D::cols];
    for (int lane = 0; lane < 32; lane++) {
        const product *p = static_cast<const product *>(lanes[lane]);
        for (int i = 0; i < A::num_elements; i++)
            (&a[0][0])[i * 32 + lane] = fake_cuda_widen(p->a->x[i]);
        for (int i = 0; i < B::num_elements; i++)
            (&b[0][0])[i * 32 + lane] = fake_cuda_widen(p->b->x[i]);
        for (int i = 0; i < D::num_elements; i++)
            (&d[0][0])[i * 32 + lane] = p->c->x[i];
    }
    for (int row = 0; row < A::rows; row++)
        for (int k = 0; k < A::cols; k++)
            for (int col = 0; col < B::cols; col++)
                d[row][col] += a[row][k] * b[k][col];
    for (int lane = 0; lane < 32; lane++)
        for (int i = 0; i < D::num_elements; i++)
            static_cast<const product *>(lanes[lane])->d->x[i] = (&d[0][0])[i * 32 + lane];
}

template <int m, int n, int k, typename T, typename LayoutA, typename LayoutB, typename TD>
void mma_sync(fragment<accumulator, m, n, k, TD> &d,
              const fragment<matrix_a, m, n, k, T, LayoutA> &a,
              const fragment<matrix_b, m, n, k, T, LayoutB> &b,
              const fragment<accumulator, m, n, k, TD> &c)
{
    static_assert(std::is_same<TD, float>::value != std::is_same<T, signed char>::value,
                  "floats into float, signed char into int");
    typedef fragment<accumulator, m, n, k, TD> D;
    typedef fragment<matrix_a, m, n, k, T, LayoutA> A;
    typedef fragment<matrix_b, m, n, k, T, LayoutB> B;
    fake_cuda_product<D, A, B> product = {&d, &a, &b, &c};
    fake_cuda_warp(0xffffffffu, fake_cuda_multiply<D, A, B>, &product);
}

} // namespace wmma
} // namespace nvcuda

#endif
