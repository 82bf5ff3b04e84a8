/* rows.h: launchers of the operations on rows of activations and on the paged cache (ops.h says what each
 * does). Pointers are device memory; arrays of int32_t are read when the kernel runs. */
#ifndef FR_CUDA_ROWS_H
#define FR_CUDA_ROWS_H

#include "command.h"
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

FR_CUDA_ARGS_BEGIN

/* y [n, dim] = x / sqrt(mean(x^2) + eps) * weight; where added is not NULL, x [n, dim] += added first, in place. */
typedef struct fr_cuda_norm_args {
    float *y, *x;
    const float *added, *weight;
    int32_t n, dim;
    double eps;
} fr_cuda_norm_args;
void fr_cuda_norm(cudaStream_t stream, const void *args);

/* x [n, dim] += y [n, dim], or [dim] where `repeat`: a bias. */
typedef struct fr_cuda_add_args {
    float *x;
    const float *y;
    int64_t n;
    int32_t dim, repeat;
} fr_cuda_add_args;
void fr_cuda_add(cudaStream_t stream, const void *args);

/* gate [count] = silu(gate) * up. */
typedef struct fr_cuda_silu_args {
    float *gate;
    const float *up;
    int64_t count;
} fr_cuda_silu_args;
void fr_cuda_silu_mul(cudaStream_t stream, const void *args);

/* Rotates x [n, heads, head_dim]; half = n_rot / 2; neox: the halves of the rotating part pair up, else neighbours. */
typedef struct fr_cuda_rope_args {
    float *x;
    const float *inv_freq; /* [half] */
    const int32_t *pos;    /* [n] */
    int32_t n, heads, head_dim, half, neox;
    float scale;
} fr_cuda_rope_args;
void fr_cuda_rope(cudaStream_t stream, const void *args);

/* x [count] = values [count] of a plain type, widened. */
enum { FR_CUDA_EMBED_F32, FR_CUDA_EMBED_F16, FR_CUDA_EMBED_BF16 };
typedef struct fr_cuda_embed_args {
    float *x;
    const void *rows;
    int64_t dtype, count;
} fr_cuda_embed_args;
void fr_cuda_embed(cudaStream_t stream, const void *args);

/* k, v [n, width] into slots [n] of cache_k, cache_v [slots, width] as f16. */
typedef struct fr_cuda_kv_write_args {
    uint16_t *cache_k, *cache_v;
    const float *k, *v;
    const int32_t *slots;
    int32_t n, width;
} fr_cuda_kv_write_args;
void fr_cuda_kv_write(cudaStream_t stream, const void *args);

/* fr_head_inputs of ops.h: q is left where it is, k and v go into the cache. */
typedef struct fr_cuda_heads_args {
    float *q;
    const float *k, *v, *q_bias, *k_bias, *v_bias, *q_norm, *k_norm;
    const float *inv_freq;
    const int32_t *pos, *slots;
    uint16_t *cache_k, *cache_v;
    int32_t n, heads, kv_heads, head_dim, half, neox;
    float eps, scale;
} fr_cuda_heads_args;
void fr_cuda_heads(cudaStream_t stream, const void *args);

/* A page's first order[2] positions from page order[0] to page order[1]; `page` values a page, `width` a position. */
typedef struct fr_cuda_kv_copy_args {
    uint16_t *cache_k, *cache_v;
    const int32_t *order; /* [3] */
    int64_t page, width;
} fr_cuda_kv_copy_args;
FR_CUDA_ARGS_END
void fr_cuda_kv_copy(cudaStream_t stream, const void *args);

#ifdef __cplusplus
}
#endif

#endif
