/* silu.cuh: the gate of an MLP, the same bits wherever it is computed. */
#ifndef FR_CUDA_SILU_CUH
#define FR_CUDA_SILU_CUH

static __device__ __forceinline__ float silu_mul_of(float gate, float up)
{
    return gate / (1.0f + expf(-gate)) * up;
}

#endif
