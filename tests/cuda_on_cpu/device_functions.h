/* device_functions.h: what kernels may call: barriers, warp operations, bit and integer functions.
 * Only what the backend's contract allows is here, so that anything else does not compile. */
#ifndef FAKE_CUDA_DEVICE_FUNCTIONS_H
#define FAKE_CUDA_DEVICE_FUNCTIONS_H

#include "cuda_runtime.h"

/* Waits for all threads of the block that have not returned. */
void __syncthreads();

/* A warp operation: the lanes of mask wait for each other; the last one to arrive calls combine with
 * everybody's argument (args[lane] of the lanes in mask); then all go on. Lanes must agree on mask and
 * combine. */
typedef void (*fake_cuda_combine)(void *const args[32], unsigned mask);
void fake_cuda_warp(unsigned mask, fake_cuda_combine combine, void *arg);
int fake_cuda_lane();

struct fake_cuda_shuffle {
    uint64_t value, result;
    int source;
};
void fake_cuda_combine_shuffle(void *const args[32], unsigned mask);

/* A lane that names a source outside of mask gets 0xFF bytes: CUDA leaves that value undefined. */
template <typename T> static inline T fake_cuda_shuffle_from(unsigned mask, T value, int source)
{
    static_assert(sizeof(T) <= 8, "shuffles move up to 8 bytes");
    fake_cuda_shuffle s = {0, ~uint64_t(0), source};
    memcpy(&s.value, &value, sizeof value);
    fake_cuda_warp(mask, fake_cuda_combine_shuffle, &s);
    memcpy(&value, &s.result, sizeof value);
    return value;
}

/* Lanes form groups of `width`; a source outside of the own group is the own lane. */
template <typename T> T __shfl_sync(unsigned mask, T value, int source, int width = 32)
{
    int lane = fake_cuda_lane();
    return fake_cuda_shuffle_from(mask, value, (lane & ~(width - 1)) | (source & (width - 1)));
}

template <typename T> T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32)
{
    int lane = fake_cuda_lane(), from = lane ^ lane_mask;
    return fake_cuda_shuffle_from(mask, value, from / width > lane / width ? lane : from);
}

template <typename T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32)
{
    int lane = fake_cuda_lane(), from = lane + int(delta);
    return fake_cuda_shuffle_from(mask, value, from / width != lane / width ? lane : from);
}

template <typename T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32)
{
    int lane = fake_cuda_lane(), from = lane - int(delta);
    return fake_cuda_shuffle_from(mask, value, from < (lane & ~(width - 1)) ? lane : from);
}

void __syncwarp(unsigned mask = 0xffffffffu);
unsigned __ballot_sync(unsigned mask, int predicate);

static inline int __any_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) != 0;
}

static inline int __all_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) == mask;
}

/* The PTX instruction mma.sync.aligned.`instruction`, by all lanes of the warp: c += a * b, with the registers of
 * kernels/cuda/mma.cuh. Of m16n8k16 with BF16 or F16 and float sums, and m16n8k32 with signed bytes. */
void fake_cuda_mma(const char *instruction, float c[4], const unsigned a[4], const unsigned b[2]);
void fake_cuda_mma(const char *instruction, int c[4], const unsigned a[4], const unsigned b[2]);
#define FR_MMA(instruction, sums, c, a, b) fake_cuda_mma(instruction, c, a, b)

static inline int atomicAdd(int *at, int value)
{
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

static inline unsigned atomicAdd(unsigned *at, unsigned value)
{
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

template <typename T> static inline T __ldg(const T *at)
{
    return *at;
}

template <typename To, typename From> static inline To fake_cuda_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From), "same size");
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}

static inline unsigned __float_as_uint(float f)
{
    return fake_cuda_bits<unsigned>(f);
}

static inline int __float_as_int(float f)
{
    return fake_cuda_bits<int>(f);
}

static inline float __uint_as_float(unsigned u)
{
    return fake_cuda_bits<float>(u);
}

static inline float __int_as_float(int i)
{
    return fake_cuda_bits<float>(i);
}

/* c + the sum of the four products of bytes; wraps. */
static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 32; i += 8)
        c = int(unsigned(c) + unsigned(int8_t(a >> i) * int8_t(b >> i)));
    return c;
}

static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
    for (int i = 0; i < 32; i += 8)
        c += (a >> i & 255) * (b >> i & 255);
    return c;
}

static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return unsigned(uint64_t(a) * b >> 32);
}

static inline int __clz(int x)
{
    return x ? __builtin_clz(unsigned(x)) : 32;
}

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

#define FAKE_CUDA_MIN_MAX(type)            \
    static inline type min(type a, type b) \
    {                                      \
        return b < a ? b : a;              \
    }                                      \
    static inline type max(type a, type b) \
    {                                      \
        return a < b ? b : a;              \
    }
FAKE_CUDA_MIN_MAX(int)
FAKE_CUDA_MIN_MAX(unsigned)
FAKE_CUDA_MIN_MAX(long)
FAKE_CUDA_MIN_MAX(unsigned long)
FAKE_CUDA_MIN_MAX(long long)
FAKE_CUDA_MIN_MAX(unsigned long long)
#undef FAKE_CUDA_MIN_MAX

static inline float min(float a, float b)
{
    return fminf(a, b);
}

static inline float max(float a, float b)
{
    return fmaxf(a, b);
}

#endif
