/* matmul_super.cu: Q4_K, Q5_K and Q6_K (matmul.h): super-blocks of 256 columns with integer scales
 * of 32 (Q6_K: 16) columns. The same operations in the same order as the CPU backends
 * (fast_tiles_k.h), and so the same bits for the same activations: a super-block gives `part`, its
 * scaled integer sums added up in f32, and `offset`, an exact integer, what the codes' offsets take
 * off; an element of y is the sum over super-blocks, in order, of part * (d * scale) + offset *
 * (shift * scale), each by a fused multiply-add. Only that chain is sequential; warps compute parts
 * and offsets of eight super-blocks at a time.
 *
 * offset = sum of mins (Q6_K: scales) times sums of activations: a product of matrices too, with
 * sums in two digits of 7 bits.
 *
 * The limit is memory: 4.6 bits a weight of Q4_K, 8.6 of the others. In the 150 cycles in which 16
 * rows of a Q4_K super-block come in (matmul_plain.cu), 8 tokens take some 200 instructions of a
 * quarter cycle and 10 of the tensor cores. */
#include "matmul_acts.cuh"

enum { Q4_K, Q5_K, Q6_K };

template <int TYPE> struct layout {
    enum {
        BITS = TYPE == Q4_K ? 4 : 8,
        SCALES = TYPE == Q6_K ? 16 : 8, /* a row and super-block */
        CODES = BITS * PAIR_BYTES,
        AT_SCALES = CODES + TILE_ROWS * 4,
        BYTES = TYPE == Q4_K ? FR_CUDA_Q4_K_BYTES : FR_CUDA_Q8_K_BYTES,
        PIECES = BYTES / LANE_BYTES
    };
};

template <int TYPE> using super_ring = record_ring<layout<TYPE>::BYTES>;

/* What a lane needs of a record beside the codes: of rows lane / 4 and lane / 4 + 8. */
template <int TYPE> struct super_scales {
    uint32_t scales[2][layout<TYPE>::SCALES / 4]; /* bytes */
    uint32_t offsets[2]; /* mins (Q6_K: scales) as operand a: bytes 4t .. 4t + 3 of 16 */
    uint32_t d[2];       /* f16 d and dmin */
};

template <int TYPE>
static __device__ __forceinline__ record super_record(const fr_cuda_matrix &matrix, int tile,
                                                      int super, int supers)
{
    return find_record(matrix, tile, super, supers, layout<TYPE>::BYTES);
}

template <int TYPE> static __device__ __forceinline__ super_scales<TYPE> read_scales(const uint4 *from)
{
    const int lane = threadIdx.x % 32, t = lane % 4;
    const uint8_t *bytes = (const uint8_t *)from;
    super_scales<TYPE> w;
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const int row = lane / 4 + 8 * side;
        const uint32_t *scales =
            (const uint32_t *)(bytes + layout<TYPE>::AT_SCALES + row * layout<TYPE>::SCALES);
        w.d[side] = *(const uint32_t *)(bytes + layout<TYPE>::CODES + row * 4);
#pragma unroll
        for (int i = 0; i < layout<TYPE>::SCALES / 4; i++)
            w.scales[side][i] = scales[i];
        if (TYPE == Q6_K)
            w.offsets[side] = scales[t];
        else /* mins lie behind the scales of all rows */
            w.offsets[side] = t < 2 ? scales[TILE_ROWS * 2 + t] : 0;
    }
    return w;
}

/* Scale s of row lane / 4 + 8 * side. */
template <int TYPE>
static __device__ __forceinline__ float scale_of(const super_scales<TYPE> &w, int side, int s)
{
    uint32_t byte = w.scales[side][s / 4] >> s % 4 * 8 & 255;
    return TYPE == Q6_K ? (float)(int8_t)byte : (float)byte;
}

/* parts: of one tile of rows and one of tokens. */
template <int TYPE>
static __device__ __forceinline__ void multiply_super(const uint4 *codes, const super_scales<TYPE> &w,
                                                      const chunk_acts &acts, float parts[4])
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        parts[i] = 0;
#pragma unroll
    for (int block = 0; block < SUPER_BLOCKS; block++) {
        uint32_t a[4], b[2];
        block_codes<layout<TYPE>::BITS>(codes, block, a);
        block_acts(acts, block, b);
#pragma unroll
        for (int run = 0; run < (TYPE == Q6_K ? 2 : 1); run++) {
            /* A run of 16 columns is half of an instruction, the other half zeros. */
            const uint32_t a_run[4] = {a[2 * run], a[2 * run + 1], TYPE == Q6_K ? 0 : a[2],
                                       TYPE == Q6_K ? 0 : a[3]};
            const uint32_t b_run[2] = {b[run], TYPE == Q6_K ? 0 : b[1]};
            int dots[4] = {};
            mma_32(dots, a_run, b_run);
#pragma unroll
            for (int i = 0; i < 4; i++)
                parts[i] =
                    fmaf((float)dots[i],
                         scale_of(w, i / 2, TYPE == Q6_K ? 2 * block + run : block), parts[i]);
        }
    }
}

/* The sums of activations in digits, as operand b. */
struct super_sums {
    uint32_t low, high;
};

template <int TYPE>
static __device__ __forceinline__ void multiply_offsets(const super_scales<TYPE> &w, super_sums sums,
                                                        float offsets[4])
{
    const uint32_t a[4] = {w.offsets[0], w.offsets[1], 0, 0};
    const uint32_t b_low[2] = {sums.low, 0}, b_high[2] = {sums.high, 0};
    int low[4] = {}, high[4] = {};
    mma_32(low, a, b_low);
    mma_32(high, a, b_high);
#pragma unroll
    for (int i = 0; i < 4; i++)
        offsets[i] = (float)(low[i] + 128 * high[i]);
}

/* d, and what the offset is multiplied with. */
template <int TYPE> static __device__ __forceinline__ float2 factors_of(uint32_t d)
{
    float scale = low_value(MMA_F16, d);
    return make_float2(scale, TYPE == Q6_K ? scale * -32.0f : 0.0f - high_value(MMA_F16, d));
}

/* A step of the chain. */
static __device__ __forceinline__ float add_super(float sum, float part, float offset,
                                                  float2 factors, float act_scale)
{
    sum = fmaf(part, factors.x * act_scale, sum);
    return fmaf(offset, factors.y * act_scale, sum);
}

/* Where the activations of a tile of tokens and a super-block are. */
struct super_acts {
    const uint8_t *digits;
    const float *scales; /* [8 tokens] */
};

static __device__ __forceinline__ super_acts find_acts(const fr_cuda_matmul_args &args, int tile,
                                                       int super)
{
    const int tiles = token_tiles(args);
    const int64_t at = (int64_t)tile * (args.cols / SUPER) + super;
    const uint8_t *digits = (const uint8_t *)args.acts + FR_CUDA_ACTS_CODES(tiles, args.cols);
    const uint8_t *scales = digits + FR_CUDA_ACTS_DIGITS(tiles, args.cols);
    return {digits + at * 512, (const float *)scales + at * TILE_TOKENS};
}

template <int TYPE> static __device__ __forceinline__ super_sums load_sums(const super_acts &acts)
{
    const uint8_t *digits =
        acts.digits + (TYPE == Q6_K ? 0 : 256) + threadIdx.x % 32 * sizeof(uint32_t);
    return {*(const uint32_t *)digits, *(const uint32_t *)(digits + 128)};
}

/* What a warp gives to the chain: of M tiles of rows by 8 tokens. Two rows more for the banks. */
template <int M> struct super_partial {
    float2 at[TILE_TOKENS][M * TILE_ROWS + 2]; /* part, offset */
    float2 factors[M * TILE_ROWS];
    float act_scales[TILE_TOKENS];
};

/* Whose turn it is: a tile of tokens and a super-block; is it the first tile, which awaits the records, or the
 * last, which replaces them by those of super-block `next`? */
struct super_turn {
    int row_tile, tile, super, next;
    bool first, last;
};

template <int TYPE>
static __device__ __forceinline__ void replace_super(const fr_cuda_matmul_args &args, const fr_cuda_matrix &matrix,
                                                     const super_turn &turn, int m, uint4 *place)
{
    if (turn.last)
        replace_record<layout<TYPE>::BYTES>(
            super_record<TYPE>(matrix, turn.row_tile + m, turn.next, args.cols / SUPER), layout<TYPE>::BYTES, place);
}

/* records: of M tiles of rows. */
template <int TYPE, int M>
static __device__ __forceinline__ void put_super(const fr_cuda_matmul_args &args, const fr_cuda_matrix &matrix,
                                                 const super_turn &turn,
                                                 uint4 (*records)[layout<TYPE>::PIECES], super_partial<M> *to)
{
    const int lane = threadIdx.x % 32;
    const chunk_acts codes = load_acts(args, turn.tile, turn.super);
    const super_acts acts = find_acts(args, turn.tile, turn.super);
    const super_sums sums = load_sums<TYPE>(acts);
    if (lane < TILE_TOKENS)
        to->act_scales[lane] = acts.scales[lane];
#pragma unroll
    for (int m = 0; m < M; m++) {
        float parts[4], offsets[4];
        if (turn.first)
            await_record<M>(turn.last);
        const super_scales<TYPE> w = read_scales<TYPE>(records[m]);
        multiply_super(records[m], w, codes, parts);
        multiply_offsets(w, sums, offsets);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = m * TILE_ROWS + lane / 4 + i / 2 * 8;
            to->at[lane % 4 * 2 + i % 2][row] = make_float2(parts[i], offsets[i]);
            if (lane % 4 == 0 && i % 2 == 0)
                to->factors[row] = factors_of<TYPE>(w.d[i / 2]);
        }
        replace_super<TYPE>(args, matrix, turn, m, records[m]);
    }
}

template <int M>
static __device__ __forceinline__ void add_supers(const super_partial<M> *of_warps, int live,
                                                  float *sums)
{
#pragma unroll
    for (int e = 0; e < elements<M>::MINE; e++) {
        int i = (int)threadIdx.x + e * WARPS * 32;
        const int row = element_row<M>(i), token = element_token<M>(i);
        if (i < elements<M>::ALL)
            for (int w = 0; w < live; w++) {
                const float2 both = of_warps[w].at[token][row];
                sums[e] = add_super(sums[e], both.x, both.y, of_warps[w].factors[row],
                                    of_warps[w].act_scales[token]);
            }
    }
}

template <int TYPE, int M, int N>
FR_KERNEL(WARPS * 32, 2)
void super_narrow(const fr_cuda_matmul_args args)
{
    __shared__ super_partial<M> partials[2][WARPS];
    FR_DYNAMIC_SHARED(super_ring<TYPE>, rings);
    int first_row;
    const fr_cuda_matrix matrix = find_rows(args, blockIdx.x, M * TILE_ROWS, &first_row);
    const int warp = threadIdx.x / 32, supers = args.cols / SUPER, row_tile = first_row / TILE_ROWS;
    const int tiles = token_tiles(args);
    super_ring<TYPE> *ring = &rings[warp];
    copy_first<M>(matrix, row_tile, warp, supers, layout<TYPE>::BYTES, ring);
    FR_AWAIT_PREVIOUS();
    float sums[N][elements<M>::MINE] = {};
    int buffer = 0;
    for (int first = 0; first < supers; first += WARPS) {
        const int super = first + warp;
#pragma unroll
        for (int tile = 0; tile < N; tile++, buffer ^= 1) {
            if (tile >= tiles)
                break;
            const super_turn turn = {row_tile, tile, super, super + RECORDS / M * WARPS, tile == 0, tile + 1 == tiles};
            if (super < supers)
                put_super<TYPE, M>(args, matrix, turn, &ring->at[super / WARPS * M % RECORDS],
                                   &partials[buffer][warp]);
            __syncthreads();
            add_supers<M>(partials[buffer], min(WARPS, supers - first), sums[tile]);
        }
    }
    fetch_ahead(args);
    FR_START_NEXT();
#pragma unroll
    for (int tile = 0; tile < N; tile++)
        write_sums<M>(args, matrix, first_row, tile * TILE_TOKENS, sums[tile]);
}

template <int TYPE, int M>
static void launch_narrow(cudaStream_t stream, const fr_cuda_matmul_args *args)
{
    const int bytes = WARPS * (int)sizeof(super_ring<TYPE>);
    auto super_narrow_kernel =
        choose_narrow(args, bytes, super_narrow<TYPE, M, 1>, super_narrow<TYPE, M, 2>, super_narrow<TYPE, M, 4>);
    FR_LAUNCH(super_narrow_kernel, row_blocks(args, M * TILE_ROWS), WARPS * 32, bytes, stream, *args);
}

template <int TYPE> static void launch(cudaStream_t stream, const void *p)
{
    const fr_cuda_matmul_args *args = (const fr_cuda_matmul_args *)p;
    if (row_blocks(args, 2 * TILE_ROWS) < FEW_BLOCKS)
        launch_narrow<TYPE, 1>(stream, args);
    else
        launch_narrow<TYPE, 2>(stream, args);
}

/* One tile of tokens of a warp of a wide kernel: the chain goes on in registers. */
template <int TYPE>
static __device__ __forceinline__ void add_wide(const fr_cuda_matmul_args &args, const fr_cuda_matrix &matrix,
                                                const super_turn &turn,
                                                uint4 (*records)[layout<TYPE>::PIECES], float sums[WIDE_M][4])
{
    const chunk_acts codes = load_acts(args, turn.tile, turn.super);
    const super_acts acts = find_acts(args, turn.tile, turn.super);
    const super_sums act_sums = load_sums<TYPE>(acts);
    const float2 act_scales = *(const float2 *)(acts.scales + threadIdx.x % 4 * 2);
#pragma unroll
    for (int m = 0; m < WIDE_M; m++) {
        float parts[4], offsets[4];
        if (turn.first)
            await_record<WIDE_M>(turn.last);
        const super_scales<TYPE> w = read_scales<TYPE>(records[m]);
        multiply_super(records[m], w, codes, parts);
        multiply_offsets(w, act_sums, offsets);
#pragma unroll
        for (int i = 0; i < 4; i++)
            sums[m][i] =
                add_super(sums[m][i], parts[i], offsets[i], factors_of<TYPE>(w.d[i / 2]),
                          i % 2 ? act_scales.y : act_scales.x);
        replace_super<TYPE>(args, matrix, turn, m, records[m]);
    }
}

/* 64 rows by 64 tokens a block, 32 by 32 a warp; activations come through the first cache. */
template <int TYPE> FR_KERNEL(WIDE_WARPS * 32) void super_wide(const fr_cuda_matmul_args args)
{
    FR_AWAIT_PREVIOUS();
    static_assert((int)WIDE_M == (int)RECORDS, "a warp has one super-block");
    __shared__ super_ring<TYPE> rings[WIDE_WARPS];
    int first_row;
    const fr_cuda_matrix matrix = find_rows(args, blockIdx.y, WIDE_ROWS, &first_row);
    const int warp = threadIdx.x / 32, supers = args.cols / SUPER;
    const int first_tile = (int)blockIdx.x * WIDE_TILES + warp / 2 * WIDE_N;
    const int tiles = token_tiles(args);
    first_row += warp % 2 * WIDE_M * TILE_ROWS;
    if (first_tile >= tiles)
        return;
    const int row_tile = first_row / TILE_ROWS, last = min(first_tile + WIDE_N, tiles) - 1;
    super_ring<TYPE> *ring = &rings[warp];
    copy_first<WIDE_M>(matrix, row_tile, 0, supers, layout<TYPE>::BYTES, ring);
    float sums[WIDE_N][WIDE_M][4] = {};
    for (int super = 0; super < supers; super++)
#pragma unroll
        for (int tile = 0; tile < WIDE_N; tile++) {
            if (first_tile + tile > last)
                break;
            const super_turn turn = {row_tile, first_tile + tile, super, super + 1,
                                     tile == 0, first_tile + tile == last};
            add_wide<TYPE>(args, matrix, turn, ring->at, sums[tile]);
        }
#pragma unroll
    for (int i = 0; i < WIDE_M * WIDE_N; i++)
        write_tile(args, matrix, first_row + i / WIDE_N * TILE_ROWS,
                   (first_tile + i % WIDE_N) * TILE_TOKENS, sums[i % WIDE_N][i / WIDE_N]);
}

template <int TYPE> static void launch_wide(cudaStream_t stream, const void *p)
{
    const fr_cuda_matmul_args *args = (const fr_cuda_matmul_args *)p;
    dim3 grid(blocks_of(args->n, WIDE_TOKENS), row_blocks(args, WIDE_ROWS));
    FR_LAUNCH(super_wide<TYPE>, grid, WIDE_WARPS * 32, 0, stream, *args);
}

extern "C" void fr_cuda_matmul_q4_k(cudaStream_t stream, const void *args)
{
    launch<Q4_K>(stream, args);
}

extern "C" void fr_cuda_matmul_q5_k(cudaStream_t stream, const void *args)
{
    launch<Q5_K>(stream, args);
}

extern "C" void fr_cuda_matmul_q6_k(cudaStream_t stream, const void *args)
{
    launch<Q6_K>(stream, args);
}

extern "C" void fr_cuda_matmul_wide_q4_k(cudaStream_t stream, const void *args)
{
    launch_wide<Q4_K>(stream, args);
}

extern "C" void fr_cuda_matmul_wide_q5_k(cudaStream_t stream, const void *args)
{
    launch_wide<Q5_K>(stream, args);
}

extern "C" void fr_cuda_matmul_wide_q6_k(cudaStream_t stream, const void *args)
{
    launch_wide<Q6_K>(stream, args);
}
