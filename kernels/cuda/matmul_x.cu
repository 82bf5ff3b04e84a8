/* matmul_x.cu: what BF16 and F16 matrices need of x, made once for all that it meets (matmul.h). */
#include "matmul_terms.cuh"

/* scales[row]: 2^k that brings the largest |x| of the row to 2^14 .. 2^15, and 2^-k. Rows below
 * 2^-99 are as if their largest were that. One block a row. */
FR_KERNEL(WARPS * 32)
void scale_rows(const fr_cuda_prepare_args args)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    __shared__ float highest[WARPS];
    const float *x = args.x + (int64_t)blockIdx.x * args.cols;
    float high = 0;
    for (int col = threadIdx.x; col < args.cols; col += WARPS * 32)
        high = fmaxf(high, fabsf(x[col]));
    for (int step = 16; step > 0; step /= 2)
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, step));
    if (threadIdx.x % 32 == 0)
        highest[threadIdx.x / 32] = high;
    __syncthreads();
    if (threadIdx.x > 0)
        return;
    for (int w = 1; w < WARPS; w++)
        high = fmaxf(high, highest[w]);
    int exponent = max((int)(__float_as_uint(high) >> 23), 28); /* with f32's bias of 127 */
    float *out = (float *)args.out + 2 * blockIdx.x;
    out[0] = __uint_as_float((uint32_t)(127 + 14 + 127 - exponent) << 23);
    out[1] = __uint_as_float((uint32_t)(exponent - 14) << 23);
}

extern "C" void fr_cuda_matmul_scale_rows(cudaStream_t stream, const void *p)
{
    const fr_cuda_prepare_args *args = (const fr_cuda_prepare_args *)p;
    FR_LAUNCH(scale_rows, args->n, WARPS * 32, 0, stream, *args);
}

/* x -> wide_terms [ceil(n / 64)][stride / 16]; zeros past n and past cols. A block each. */
template <int TYPE> FR_KERNEL(WIDE_TILES * 32) void split_x(const fr_cuda_prepare_args args)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    const int lane = threadIdx.x % 32, tile = threadIdx.x / 32, step = blockIdx.x;
    const int token = blockIdx.y * WIDE_TOKENS + tile * TILE_TOKENS + lane / 4;
    const int col = step / 2 * 32 + lane % 4 * 8 + step % 2 * 4;
    float4 x = load_x(args.x, token, col, args.n, args.cols);
    if (TYPE == MMA_F16 && token < args.n)
        x = scale_x(x, args.scales[2 * token]);
    uint32_t b[terms<TYPE>::COUNT][2];
    split_terms<TYPE>(x, b);
    wide_terms<TYPE> *out = (wide_terms<TYPE> *)args.out + (int64_t)blockIdx.y * gridDim.x + step;
#pragma unroll
    for (int term = 0; term < terms<TYPE>::COUNT; term++)
        out->at[tile][term][lane] = make_uint2(b[term][0], b[term][1]);
}

template <int TYPE> static void launch_split(cudaStream_t stream, const fr_cuda_prepare_args *args)
{
    dim3 grid(args->stride / 16, blocks_of(args->n, WIDE_TOKENS));
    FR_LAUNCH(split_x<TYPE>, grid, WIDE_TILES * 32, 0, stream, *args);
}

extern "C" void fr_cuda_matmul_split_bf16(cudaStream_t stream, const void *args)
{
    launch_split<MMA_BF16>(stream, (const fr_cuda_prepare_args *)args);
}

extern "C" void fr_cuda_matmul_split_f16(cudaStream_t stream, const void *args)
{
    launch_split<MMA_F16>(stream, (const fr_cuda_prepare_args *)args);
}

/* x -> rows of the type, for cuBLASLt: 4 values a thread. Tokens are the grid's first dimension: the second one ends at
 * 65,535. */
template <int TYPE> FR_KERNEL(WARPS * 32) void round_x(const fr_cuda_prepare_args args)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    const int token = blockIdx.x, col = (int)(blockIdx.y * blockDim.x + threadIdx.x) * 4;
    if (col >= args.stride)
        return;
    float4 x = load_x(args.x, token, col, args.n, args.cols);
    if (TYPE == MMA_F16)
        x = scale_x(x, args.scales[2 * token]);
    *(uint2 *)((uint16_t *)args.out + (int64_t)token * args.stride + col) =
        make_uint2(round_pair(TYPE, x.x, x.y), round_pair(TYPE, x.z, x.w));
}

template <int TYPE> static void launch_round(cudaStream_t stream, const fr_cuda_prepare_args *args)
{
    dim3 grid(args->n, blocks_of(args->stride / 4, WARPS * 32));
    FR_LAUNCH(round_x<TYPE>, grid, WARPS * 32, 0, stream, *args);
}

extern "C" void fr_cuda_matmul_round_bf16(cudaStream_t stream, const void *args)
{
    launch_round<MMA_BF16>(stream, (const fr_cuda_prepare_args *)args);
}

extern "C" void fr_cuda_matmul_round_f16(cudaStream_t stream, const void *args)
{
    launch_round<MMA_F16>(stream, (const fr_cuda_prepare_args *)args);
}

FR_KERNEL(WARPS * 32)
void unscale(const fr_cuda_prepare_args args)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    const int token = blockIdx.x, col = (int)(blockIdx.y * blockDim.x + threadIdx.x);
    if (col < args.cols)
        ((float *)args.out)[(int64_t)token * args.cols + col] *= args.scales[2 * token + 1];
}

extern "C" void fr_cuda_matmul_unscale(cudaStream_t stream, const void *p)
{
    const fr_cuda_prepare_args *args = (const fr_cuda_prepare_args *)p;
    dim3 grid(args->n, blocks_of(args->cols, WARPS * 32));
    FR_LAUNCH(unscale, grid, WARPS * 32, 0, stream, *args);
}
