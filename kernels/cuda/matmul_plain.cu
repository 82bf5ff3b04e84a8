/* matmul_plain.cu: F32, and BF16 and F16 for up to 32 tokens (matmul.h): decoding and verification.
 *
 * A block owns 32 (few rows: 16) rows, its 8 warps take every eighth chunk of 256 columns. A warp
 * walks its chunks by steps of 64 columns: the next two (four) steps, 8 KiB, are on their way into
 * its ring of shared memory while it multiplies, also over the barrier where the partial results of
 * eight chunks are added up. Copies can be awaited by number. Loads into registers cannot: those of
 * a warp share few counters, and whoever waits for its activations waits for all weights too.
 *
 * The limit is memory: 2 bytes a weight. 3.35 TB/s over 132 multiprocessors at 1.7 GHz are 15 bytes
 * a cycle, and 0.7 us of latency want 18 KiB under way on each (4.8 TB/s: 28 KiB). A block has 64
 * KiB, and two fit. Measured on an H200 (tests/bench/README.md): 0.6 to 0.94 of the memory's speed,
 * least where a matrix gives a multiprocessor one or two blocks in all. In the 34 cycles of a tile of
 * 16 x 16 weights, 8 tokens take 3 instructions of 2 cycles on the tensor cores, and some 30 other
 * instructions (22 of them split activations, half of that with two tiles of rows) of a quarter
 * cycle. Activations come from the second cache, 4 n bytes for every 2 * 32 of weights: at 8 tokens
 * half as much as the weights, less where blocks on the same multiprocessor follow each other, since
 * weights pass by the first cache. 32 tokens take twice the weights' bytes: beyond, matmul_wide.cu is
 * better.
 *
 * F16 holds no more than 65504, and activations can be larger: x is multiplied with a power of two
 * a row, and y with its inverse. */
#include <cuda_pipeline.h>

#include "matmul_terms.cuh"
#include "silu.cuh"

enum { STEP = 64, BLOCKS = STEP / 32 }; /* columns of a step */

/* A lane's 16 bytes of each piece are copied and read by that lane. */
template <int M> struct step_weights {
    uint4 rows[M][BLOCKS][2][32]; /* [..][0]: row lane / 4 of the tile, [..][1]: row lane / 4 + 8 */
};

/* A warp's step s lies at s % STEPS. */
template <int M> struct weights_ring {
    enum { STEPS = 4 / M };
    step_weights<M> at[STEPS];
};

/* The columns of the step that comes `ahead` after step `step` of a warp's chunk. */
static __device__ __forceinline__ int column_of(int chunk, int step, int ahead)
{
    const int s = step + ahead, per_chunk = CHUNK / STEP;
    return (chunk + s / per_chunk * WARPS) * CHUNK + s % per_chunk * STEP;
}

/* 16 bytes past the first cache. A row gives a warp 64 at a time; the other half of their line comes along into the
 * second cache, where it is asked for next: matrices of many rows are up to a tenth faster on an H200. */
static __device__ __forceinline__ void copy_16(uint4 *to, const uint16_t *from)
{
#if defined(__CUDA_ARCH__) && defined(FR_TRY_EVICT)
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    asm volatile("cp.async.cg.shared.global.L2::cache_hint.L2::128B [%0], [%1], 16, %2;"
                 :
                 : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from), "l"(policy)
                 : "memory");
#elif defined(__CUDA_ARCH__)
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;"
                 :
                 : "r"((uint32_t)__cvta_generic_to_shared(to)), "l"(from)
                 : "memory");
#else
    __pipeline_memcpy_async(to, from, 16);
#endif
}

/* Begins to copy a step, if there is one: a group of copies, maybe empty. */
template <int M>
static __device__ __forceinline__ void copy_step(const uint16_t *const at[M][2], int col,
                                                 int stride, step_weights<M> *to)
{
    const int lane = threadIdx.x % 32;
    if (col < stride) {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int b = 0; b < BLOCKS; b++)
#pragma unroll
                for (int side = 0; side < 2; side++)
                    copy_16(&to->rows[m][b][side][lane], at[m][side] + col + 32 * b);
    }
    __pipeline_commit();
}

/* The lane's activations of a step: instruction s of block b at [..][2 * b + s]. */
template <int N> struct step_acts {
    float4 x[N][BLOCKS * 2];
};

template <bool VECTORS, int N>
static __device__ __forceinline__ void load_acts_by(const fr_cuda_matmul_args &args, int first,
                                                    step_acts<N> *to)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < N * BLOCKS * 2; i++) {
        const int tile = i / (BLOCKS * 2), step = i % (BLOCKS * 2);
        const int token = tile * TILE_TOKENS + lane / 4,
                  col = first + step / 2 * 32 + lane % 4 * 8 + step % 2 * 4;
        to->x[tile][step] = VECTORS ? load_vector(args.x, token, col, args.n, args.cols)
                                    : load_values(args.x, token, col, args.n, args.cols);
    }
}

/* One branch for all of them, so that the loads go out together. */
template <int N>
static __device__ __forceinline__ step_acts<N> load_acts(const fr_cuda_matmul_args &args, int first)
{
    step_acts<N> acts;
    if (args.cols % 4 == 0)
        load_acts_by<true, N>(args, first, &acts);
    else
        load_acts_by<false, N>(args, first, &acts);
    return acts;
}

/* Multiplies a step's weights with the activations of N tiles of tokens. */
template <int TYPE, int M, int N>
static __device__ __forceinline__ void multiply_step(const step_acts<N> &acts, const float up[N],
                                                     const step_weights<M> &w, float c[M][N][4])
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < BLOCKS * 2; i++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
            weights_of(w.rows[m][i / 2][0][lane], w.rows[m][i / 2][1][lane], i % 2, a[m]);
#pragma unroll
        for (int tile = 0; tile < N; tile++) {
            float4 part = acts.x[tile][i];
            uint32_t b[terms<TYPE>::COUNT][2];
            split_terms<TYPE>(TYPE == MMA_F16 ? scale_x(part, up[tile]) : part, b);
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int term = 0; term < terms<TYPE>::COUNT; term++)
                    mma_16<TYPE>(c[m][tile], a[m], b[term]);
        }
    }
}

#ifndef FR_TRY_X
#define FR_TRY_X 1
#endif

/* The sums of one chunk. A step that has been multiplied makes room for the one that follows those in the ring. */
template <int TYPE, int M, int N>
static __device__ __forceinline__ void multiply_chunk(const fr_cuda_matmul_args &args,
                                                      const uint16_t *const at[M][2], int chunk,
                                                      const float up[N], weights_ring<M> *ring,
                                                      step_acts<N> *acts, float c[M][N][4])
{
    const int ahead = weights_ring<M>::STEPS;
#pragma unroll
    for (int step = 0; step < CHUNK / STEP; step++) {
        const int col = column_of(chunk, step, 0);
        if (col >= args.stride)
            return;
        step_weights<M> *w = &ring->at[step % ahead];
        const step_acts<N> now = FR_TRY_X && N <= 2 ? *acts : load_acts<N>(args, col);
        if (FR_TRY_X && N <= 2)
            *acts = load_acts<N>(args, column_of(chunk, step, 1));
        __pipeline_wait_prior(ahead - 1); /* this step's copies have arrived */
        __syncwarp();                     /* and are read after that */
        multiply_step<TYPE, M, N>(now, up, *w, c);
        copy_step<M>(at, column_of(chunk, step, ahead), args.stride, w);
    }
}

/* The block's M tiles of rows, which the lanes read from `at` on, with N tiles of tokens: each thread's share of y.
 * ring: the warp's. */
template <int TYPE, int M, int N>
static __device__ __forceinline__ void sum_products(const fr_cuda_matmul_args &args,
                                                    const uint16_t *const at[M][2],
                                                    weights_ring<M> *ring,
                                                    float sums[N][elements<M>::MINE])
{
    __shared__ partial_tile<M> partials[2][WARPS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int chunks = (args.stride + CHUNK - 1) / CHUNK;
    for (int step = 0; step < weights_ring<M>::STEPS; step++)
        copy_step<M>(at, column_of(warp, 0, step), args.stride, &ring->at[step]);
    FR_AWAIT_PREVIOUS(); /* before x is read */
    float up[N];
    for (int tile = 0; tile < N; tile++)
        up[tile] =
            args.scales ? args.scales[2 * min(tile * TILE_TOKENS + lane / 4, args.n - 1)] : 1;
    int buffer = 0;
    step_acts<N> acts;
    if (FR_TRY_X && N <= 2)
        acts = load_acts<N>(args, column_of(warp, 0, 0));
    for (int first = 0; first < chunks; first += WARPS) {
        float c[M][N][4] = {};
#ifdef FR_TRY_EARLY
        if (first + WARPS >= chunks)
            fetch_ahead(args);
#endif
        if (first + warp < chunks)
            multiply_chunk<TYPE, M, N>(args, at, first + warp, up, ring, &acts, c);
#pragma unroll
        for (int tile = 0; tile < N; tile++, buffer ^= 1) { /* two buffers: one barrier a tile */
#pragma unroll
            for (int m = 0; m < M; m++)
                put_partial<M>(&partials[buffer][warp], m, c[m][tile]);
            __syncthreads();
            add_partials<M>(partials[buffer], min(WARPS, chunks - first), sums[tile]);
        }
    }
#ifndef FR_TRY_EARLY
    fetch_ahead(args);
#endif
    FR_START_NEXT();
}

template <int TYPE, int M, int N>
FR_KERNEL(WARPS * 32, M * N <= 4 ? 2 : 1)
void matmul_narrow(const fr_cuda_matmul_args args)
{
    FR_DYNAMIC_SHARED(weights_ring<M>, rings);
    int first_row;
    const fr_cuda_matrix matrix = find_rows(args, blockIdx.x, M * TILE_ROWS, &first_row);
    const uint16_t *at[M][2];
    for (int m = 0; m < M; m++)
        for (int side = 0; side < 2; side++)
            at[m][side] = lane_row(matrix, args.stride, first_row + m * TILE_ROWS, side);
    float sums[N][elements<M>::MINE] = {};
    sum_products<TYPE, M, N>(args, at, &rings[threadIdx.x / 32], sums);
#pragma unroll
    for (int tile = 0; tile < N; tile++)
        write_sums<M>(args, matrix, first_row, tile * TILE_TOKENS, sums[tile]);
}

template <int TYPE, int M>
static void launch_narrow(cudaStream_t stream, const fr_cuda_matmul_args *args)
{
    const int blocks = row_blocks(args, M * TILE_ROWS), ring_bytes = WARPS * (int)sizeof(weights_ring<M>);
    auto matmul_narrow_kernel = matmul_narrow<TYPE, M, 4>;
    if (args->n <= TILE_TOKENS)
        matmul_narrow_kernel = matmul_narrow<TYPE, M, 1>;
    else if (args->n <= 2 * TILE_TOKENS)
        matmul_narrow_kernel = matmul_narrow<TYPE, M, 2>;
    cudaFuncSetAttribute(matmul_narrow_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, ring_bytes);
    FR_LAUNCH(matmul_narrow_kernel, blocks, WARPS * 32, ring_bytes, stream, *args);
}

enum { GATED = 2 }; /* tiles of rows */

/* A tile of the gate's rows over one of the same rows of `up`: lane r of a warp has row r of the gate for a token, lane
 * r + 16 that of up. */
template <int TYPE, int N>
FR_KERNEL(WARPS * 32, GATED * N <= 4 ? 2 : 1)
void matmul_gated(const fr_cuda_matmul_args args)
{
    enum { M = GATED };
    FR_DYNAMIC_SHARED(weights_ring<M>, rings);
    static_assert(M * TILE_ROWS == 32 && elements<M>::MINE == 1, "a warp has the rows of a token");
    const int first_row = blockIdx.x * TILE_ROWS, lane = threadIdx.x % 32, row = first_row + lane % TILE_ROWS;
    const uint16_t *at[M][2];
    for (int m = 0; m < M; m++)
        for (int side = 0; side < 2; side++)
            at[m][side] = lane_row(args.matrices[m], args.stride, first_row, side);
    float sums[N][elements<M>::MINE] = {};
    sum_products<TYPE, M, N>(args, at, &rings[threadIdx.x / 32], sums);
    const fr_cuda_matrix mine = lane < TILE_ROWS ? args.matrices[0] : args.matrices[1];
#pragma unroll
    for (int tile = 0; tile < N; tile++) {
        const int token = tile * TILE_TOKENS + (int)threadIdx.x / 32;
        float value = sums[tile][0];
        if (args.scales && token < args.n)
            value *= args.scales[2 * token + 1];
        const float other = __shfl_xor_sync(0xffffffffu, value, TILE_ROWS);
        if (lane < TILE_ROWS)
            value = silu_mul_of(value, other);
        if (row < mine.rows && token < args.n)
            mine.y[(int64_t)token * mine.rows + row] = value;
    }
}

template <int TYPE> static void launch_gated(cudaStream_t stream, const fr_cuda_matmul_args *args)
{
    const int blocks = blocks_of(args->matrices[0].rows, TILE_ROWS);
    const int ring_bytes = WARPS * (int)sizeof(weights_ring<GATED>);
    auto matmul_gated_kernel = matmul_gated<TYPE, 4>;
    if (args->n <= TILE_TOKENS)
        matmul_gated_kernel = matmul_gated<TYPE, 1>;
    else if (args->n <= 2 * TILE_TOKENS)
        matmul_gated_kernel = matmul_gated<TYPE, 2>;
    cudaFuncSetAttribute(matmul_gated_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, ring_bytes);
    FR_LAUNCH(matmul_gated_kernel, blocks, WARPS * 32, ring_bytes, stream, *args);
}

extern "C" void fr_cuda_matmul_gated_bf16(cudaStream_t stream, const void *args)
{
    launch_gated<MMA_BF16>(stream, (const fr_cuda_matmul_args *)args);
}

extern "C" void fr_cuda_matmul_gated_f16(cudaStream_t stream, const void *args)
{
    launch_gated<MMA_F16>(stream, (const fr_cuda_matmul_args *)args);
}

/* With few rows, half as many a block: or multiprocessors would have none. */
template <int TYPE> static void launch(cudaStream_t stream, const fr_cuda_matmul_args *args)
{
    if (row_blocks(args, 2 * TILE_ROWS) < FEW_BLOCKS)
        launch_narrow<TYPE, 1>(stream, args);
    else
        launch_narrow<TYPE, 2>(stream, args);
}

extern "C" void fr_cuda_matmul_bf16(cudaStream_t stream, const void *args)
{
    launch<MMA_BF16>(stream, (const fr_cuda_matmul_args *)args);
}

extern "C" void fr_cuda_matmul_f16(cudaStream_t stream, const void *args)
{
    launch<MMA_F16>(stream, (const fr_cuda_matmul_args *)args);
}

/* F32: a warp a row, for F32_TOKENS tokens; a lane sums every 32nd column, and the lanes' sums are
 * added by halves. For test models: exact rather than fast. */
enum { F32_TOKENS = 4 };

FR_KERNEL(WARPS * 32)
void matmul_f32(const fr_cuda_matmul_args args)
{
    FR_AWAIT_PREVIOUS();
    int first_row;
    const fr_cuda_matrix matrix = find_rows(args, blockIdx.x, WARPS, &first_row);
    const int lane = threadIdx.x % 32, row = first_row + (int)threadIdx.x / 32;
    const int first = blockIdx.y * F32_TOKENS;
    if (row >= matrix.rows)
        return;
    const float *w = (const float *)matrix.data + (int64_t)row * args.cols;
    float sums[F32_TOKENS] = {};
    for (int col = lane; col < args.cols; col += 32)
#pragma unroll
        for (int i = 0; i < F32_TOKENS; i++)
            if (first + i < args.n)
                sums[i] = fmaf(w[col], args.x[(int64_t)(first + i) * args.cols + col], sums[i]);
#pragma unroll
    for (int i = 0; i < F32_TOKENS; i++) {
        for (int step = 16; step > 0; step /= 2)
            sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], step);
        if (lane == 0 && first + i < args.n)
            matrix.y[(int64_t)(first + i) * matrix.rows + row] = sums[i];
    }
}

extern "C" void fr_cuda_matmul_f32(cudaStream_t stream, const void *p)
{
    const fr_cuda_matmul_args *args = (const fr_cuda_matmul_args *)p;
    dim3 grid(row_blocks(args, WARPS), blocks_of(args->n, F32_TOKENS));
    FR_LAUNCH(matmul_f32, grid, WARPS * 32, 0, stream, *args);
}
