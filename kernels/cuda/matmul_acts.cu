/* matmul_acts.cu: x in 8 bits, once for all quantised matrices that it meets (matmul.h): with a scale for 32
 * columns, or for 256 where super-blocks are. A warp a token and scale; the tokens that fill up the last tile are
 * zeros. Where a norm or SiLU has just made x, its kernel does this along (rows_acts.cu). */
#include "matmul_quantise.cuh"

template <int COLS> static __device__ __forceinline__ void quantise_x(const fr_cuda_prepare_args &args)
{
    const int part = blockIdx.y * WARPS + (int)threadIdx.x / 32;
    if (part < args.stride / COLS)
        quantise_part<COLS>(args, gridDim.x / TILE_TOKENS, blockIdx.x, part);
}

FR_KERNEL(WARPS * 32) void quantise(const fr_cuda_prepare_args args)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    quantise_x<BLOCK>(args);
}

FR_KERNEL(WARPS * 32) void quantise_super(const fr_cuda_prepare_args args)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    quantise_x<SUPER>(args);
}

extern "C" void fr_cuda_matmul_quantise(cudaStream_t stream, const void *args)
{
    const fr_cuda_prepare_args *a = (const fr_cuda_prepare_args *)args;
    FR_LAUNCH(quantise, quantise_grid(*a, BLOCK), WARPS * 32, 0, stream, *a);
}

extern "C" void fr_cuda_matmul_quantise_super(cudaStream_t stream, const void *args)
{
    const fr_cuda_prepare_args *a = (const fr_cuda_prepare_args *)args;
    FR_LAUNCH(quantise_super, quantise_grid(*a, SUPER), WARPS * 32, 0, stream, *a);
}
