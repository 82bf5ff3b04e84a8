/* rows.cu: the operations on rows of activations and on the paged cache, each bound by memory: a pass over
 * a few rows moves kilobytes, so what counts is that there are few launches (RMSNorm takes the residual
 * sum along), not how they compute.
 *
 * Batch invariance: a row's norm is summed by one block in an order that depends on dim alone. */
#include "rows.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

enum { THREADS = 256 };

/* A block of STEP threads a row. */
template <int STEP> FR_KERNEL(STEP) void norm(fr_cuda_norm_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    norm_row<STEP, STEP>(a, blockIdx.x);
}

/* ---- elementwise */

static __device__ int64_t thread_index(void)
{
    return (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
}

/* A grid has one block at least: one without work where there is nothing to do. */
static unsigned blocks_for(int64_t count)
{
    return count > 0 ? (unsigned)((count + THREADS - 1) / THREADS) : 1;
}

FR_KERNEL(THREADS) void add(fr_cuda_add_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    int64_t i = thread_index();
    if (i < a.n * a.dim)
        a.x[i] += a.y[a.repeat ? i % a.dim : i];
}

FR_KERNEL(THREADS) void silu_mul(fr_cuda_silu_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    int64_t i = thread_index();
    if (i < a.count)
        silu_mul_value(a, i);
}

/* Turns a pair of a head's values, in place. */
static __device__ void turn(float *values, int pair, int half, int neox, float angle, float scale)
{
    float *first = values + (neox ? pair : 2 * pair), *second = first + (neox ? half : 1), s, c;
    sincosf(angle, &s, &c);
    s *= scale;
    c *= scale;
    float x = *first, y = *second;
    *first = x * c - y * s;
    *second = x * s + y * c;
}

/* A thread turns one pair of one head. */
FR_KERNEL(THREADS) void rope(fr_cuda_rope_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    int64_t i = thread_index();
    if (i >= (int64_t)a.n * a.heads * a.half)
        return;
    int pair = (int)(i % a.half);
    int64_t head = i / a.half; /* counted through the rows */
    float angle = (float)a.pos[head / a.heads] * a.inv_freq[pair];
    turn(a.x + head * a.head_dim, pair, a.half, a.neox, angle, a.scale);
}

FR_KERNEL(THREADS) void embed(fr_cuda_embed_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    int64_t i = thread_index();
    if (i >= a.count)
        return;
    if (a.dtype == FR_CUDA_EMBED_F32)
        a.x[i] = ((const float *)a.rows)[i];
    else if (a.dtype == FR_CUDA_EMBED_F16)
        a.x[i] = __half2float(((const __half *)a.rows)[i]);
    else
        a.x[i] = __bfloat162float(((const __nv_bfloat16 *)a.rows)[i]);
}

/* ---- the paged cache */

static __device__ uint16_t to_f16(float x)
{
    return __half_as_ushort(__float2half_rn(x));
}

FR_KERNEL(THREADS) void kv_write(fr_cuda_kv_write_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    int64_t i = thread_index();
    if (i >= (int64_t)a.n * a.width)
        return;
    int64_t at = (int64_t)a.slots[i / a.width] * a.width + i % a.width;
    a.cache_k[at] = to_f16(a.k[i]);
    a.cache_v[at] = to_f16(a.v[i]);
}

FR_KERNEL(THREADS) void kv_copy(fr_cuda_kv_copy_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    int64_t i = thread_index();
    if (i >= a.order[2] * a.width)
        return;
    int64_t from = a.order[0] * a.page + i, to = a.order[1] * a.page + i;
    a.cache_k[to] = a.cache_k[from];
    a.cache_v[to] = a.cache_v[from];
}

/* ---- q, k and v on their way to attention */

enum { HEADS_WARPS = 4, HEAD_MAX = 256 };

/* A warp's head: where it comes from and what is done to it. */
typedef struct head_task {
    const float *from, *bias, *norm; /* NULL: none */
    bool turns;
    float *to;           /* q; else NULL */
    uint16_t *to_cache;  /* k or v */
} head_task;

static __device__ head_task find_task(const fr_cuda_heads_args &a, int64_t row, int head)
{
    const int dim = a.head_dim;
    if (head < a.heads) {
        float *q = a.q + (row * a.heads + head) * dim;
        return {q, a.q_bias ? a.q_bias + head * dim : nullptr, a.q_norm, true, q, nullptr};
    }
    const bool is_k = head < a.heads + a.kv_heads;
    const int own = head - a.heads - (is_k ? 0 : a.kv_heads);
    const float *bias = is_k ? a.k_bias : a.v_bias;
    const int64_t at = (row * a.kv_heads + own) * dim, slot = ((int64_t)a.slots[row] * a.kv_heads + own) * dim;
    return {(is_k ? a.k : a.v) + at, bias ? bias + own * dim : nullptr, is_k ? a.k_norm : nullptr, is_k,
            nullptr, (is_k ? a.cache_k : a.cache_v) + slot};
}

/* Each step as the operation of its own does it (norm, rope, ...), in the same order: the same bits. */
static __device__ void prepare_head(const fr_cuda_heads_args &a, const head_task &task, int32_t pos, float *values)
{
    const int lane = threadIdx.x % WARP, dim = a.head_dim;
    float sum = 0;
    for (int d = lane; d < dim; d += WARP) {
        float value = task.from[d] + (task.bias ? task.bias[d] : 0.0f);
        values[d] = value;
        sum = fmaf(value, value, sum);
    }
    if (task.norm) {
        float scale = 1.0f / sqrtf(warp_sum(sum) / (float)dim + a.eps);
        for (int d = lane; d < dim; d += WARP)
            values[d] = values[d] * scale * task.norm[d];
    }
    __syncwarp();
    for (int pair = lane; task.turns && pair < a.half; pair += WARP)
        turn(values, pair, a.half, a.neox, (float)pos * a.inv_freq[pair], a.scale);
    __syncwarp();
    for (int d = lane; d < dim; d += WARP) {
        if (task.to)
            task.to[d] = values[d];
        else
            task.to_cache[d] = to_f16(values[d]);
    }
}

FR_KERNEL(HEADS_WARPS * WARP) void heads(fr_cuda_heads_args a)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    __shared__ float values[HEADS_WARPS][HEAD_MAX];
    const int warp = threadIdx.x / WARP, per_row = a.heads + 2 * a.kv_heads;
    const int64_t i = (int64_t)blockIdx.x * HEADS_WARPS + warp, row = i / per_row;
    if (row < a.n)
        prepare_head(a, find_task(a, row, (int)(i % per_row)), a.pos[row], values[warp]);
}

/* ---- launchers */

extern "C" void fr_cuda_norm(cudaStream_t stream, const void *args)
{
    const fr_cuda_norm_args *a = (const fr_cuda_norm_args *)args;
    if (norm_threads(a->dim) == NORM_THREADS)
        FR_LAUNCH(norm<NORM_THREADS>, a->n, NORM_THREADS, 0, stream, *a);
    else
        FR_LAUNCH(norm<WARP>, a->n, WARP, 0, stream, *a);
}

extern "C" void fr_cuda_add(cudaStream_t stream, const void *args)
{
    const fr_cuda_add_args *a = (const fr_cuda_add_args *)args;
    FR_LAUNCH(add, blocks_for(a->n * a->dim), THREADS, 0, stream, *a);
}

extern "C" void fr_cuda_silu_mul(cudaStream_t stream, const void *args)
{
    const fr_cuda_silu_args *a = (const fr_cuda_silu_args *)args;
    FR_LAUNCH(silu_mul, blocks_for(a->count), THREADS, 0, stream, *a);
}

extern "C" void fr_cuda_rope(cudaStream_t stream, const void *args)
{
    const fr_cuda_rope_args *a = (const fr_cuda_rope_args *)args;
    FR_LAUNCH(rope, blocks_for((int64_t)a->n * a->heads * a->half), THREADS, 0, stream, *a);
}

extern "C" void fr_cuda_embed(cudaStream_t stream, const void *args)
{
    const fr_cuda_embed_args *a = (const fr_cuda_embed_args *)args;
    FR_LAUNCH(embed, blocks_for(a->count), THREADS, 0, stream, *a);
}

extern "C" void fr_cuda_kv_write(cudaStream_t stream, const void *args)
{
    const fr_cuda_kv_write_args *a = (const fr_cuda_kv_write_args *)args;
    FR_LAUNCH(kv_write, blocks_for((int64_t)a->n * a->width), THREADS, 0, stream, *a);
}

extern "C" void fr_cuda_heads(cudaStream_t stream, const void *args)
{
    const fr_cuda_heads_args *a = (const fr_cuda_heads_args *)args;
    const int64_t tasks = (int64_t)a->n * (a->heads + 2 * a->kv_heads);
    FR_LAUNCH(heads, (unsigned)((tasks + HEADS_WARPS - 1) / HEADS_WARPS), HEADS_WARPS * WARP, 0, stream, *a);
}

extern "C" void fr_cuda_kv_copy(cudaStream_t stream, const void *args)
{
    const fr_cuda_kv_copy_args *a = (const fr_cuda_kv_copy_args *)args;
    FR_LAUNCH(kv_copy, blocks_for(a->page), THREADS, 0, stream, *a);
}
