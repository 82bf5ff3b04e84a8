/* vector_types.h: CUDA's short vectors with their alignment (UBSan then sees a misaligned access),
 * and dim3. */
#ifndef FAKE_CUDA_VECTOR_TYPES_H
#define FAKE_CUDA_VECTOR_TYPES_H

#define FAKE_CUDA_VECTORS(name, type)                                    \
    struct alignas(2 * sizeof(type)) name##2                             \
    {                                                                    \
        type x, y;                                                       \
    };                                                                   \
    struct name##3                                                       \
    {                                                                    \
        type x, y, z;                                                    \
    };                                                                   \
    struct alignas(sizeof(type) < 8 ? 4 * sizeof(type) : 16) name##4     \
    {                                                                    \
        type x, y, z, w;                                                 \
    };                                                                   \
    static inline name##2 make_##name##2(type x, type y)                 \
    {                                                                    \
        return {x, y};                                                   \
    }                                                                    \
    static inline name##3 make_##name##3(type x, type y, type z)         \
    {                                                                    \
        return {x, y, z};                                                \
    }                                                                    \
    static inline name##4 make_##name##4(type x, type y, type z, type w) \
    {                                                                    \
        return {x, y, z, w};                                             \
    }

FAKE_CUDA_VECTORS(char, signed char)
FAKE_CUDA_VECTORS(uchar, unsigned char)
FAKE_CUDA_VECTORS(short, short)
FAKE_CUDA_VECTORS(ushort, unsigned short)
FAKE_CUDA_VECTORS(int, int)
FAKE_CUDA_VECTORS(uint, unsigned int)
FAKE_CUDA_VECTORS(longlong, long long)
FAKE_CUDA_VECTORS(ulonglong, unsigned long long)
FAKE_CUDA_VECTORS(float, float)
FAKE_CUDA_VECTORS(double, double)
#undef FAKE_CUDA_VECTORS

struct dim3 {
    unsigned int x, y, z;
    constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1)
        : x(x_), y(y_), z(z_)
    {
    }
};

#endif
