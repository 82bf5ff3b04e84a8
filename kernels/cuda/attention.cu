/* attention.cu: paged attention for decode, verification and prefill, one kernel for all.
 *
 * A block takes one task (attention.h) for one run of heads: up to 16 or 64 (row, head) pairs that
 * read one KV head. The arithmetic of a pair, whatever shares its block:
 *   - Positions go in chunks of 256, counted from logical position 0. A chunk's softmax is taken as
 *     one: scores of the whole chunk, their maximum, weights 2^(score - maximum), total, values.
 *   - Chunks are folded in ascending order into (maximum, total, values), from (-inf, 0, 0): in the
 *     block's registers when it sees all chunks of a row, else by `merge` from partial results in
 *     memory, by the same operations.
 *   - Scores and weighted values are products of 16 x 16 matrices on the tensor cores, f32
 *     accumulated. K and V are f16 as they are. A query is scaled by a power of two to at most 2 and,
 *     like a weight, split into two f16, high and low: 22 bits, an error of 2^-22 of the largest.
 *     Row m of a product depends on row m of its left side only, and in it weights of positions that
 *     the pair does not see are 0: they add exactly nothing.
 *
 * Limit (by arithmetic, for an H100: 3.3 TB/s, 132 multiprocessors at 1.75 GHz). One chunk of a KV
 * head of 128 is 128 KB, which takes 9.1k clocks at a multiprocessor's 14 bytes a clock. In that time
 * it can move 128 bytes a clock of shared memory, and do about 1,300 multiply-adds a clock through
 * wmma. What a chunk takes for 16 (narrow) / 32 / 64 pairs (wide):
 *     multiply-adds   16 * 256 * 128 * 2 (scores, values) * 2 (high, low) = 2.1M / 4.2M / 8.4M:
 *                     1.6k / 3.2k / 6.5k clocks
 *     shared memory   tiles in 128 / 128 / 128 KB, queries 128 / 128 / 256, keys 64 / 128 / 256,
 *                     scores 48 / 96 / 192, weights 64 / 64 / 128, values 80 / 160 / 320:
 *                     4.1k / 5.6k / 10.2k clocks
 * By that decode has room to spare (an H200 shows 0.57 of its memory's speed: latencies between the steps of a tile are
 * what is left), 8 rows with groups of 4 heads (32 pairs) stay below the memory's time,
 * and with groups of 8 they are a little above it. Plain f32 multiply-adds (128 a clock) would take
 * 16k clocks for 32 pairs. A partial result costs a pair 0.5 KB a chunk, out and in again, mostly in
 * L2: with 64 pairs that is half of the chunk's bytes.
 *
 * Easy to get wrong: slots that no row has written may hold NaN, and 0 * NaN is NaN, so values beyond
 * the task's positions are zeroed in shared memory (scores there are never looked at). A value that a
 * row has written is multiplied by 0 for rows before it: if it is infinite (f16 overflow), they
 * become NaN. */
#include <mma.h>

#include "attention_block.cuh"

using namespace nvcuda;

enum { MERGE_BATCH = 32 };

#define LOG2_E 1.44269504f
/* The largest weight is 2^8, which keeps the low half of small ones above f16's smallest number. */
#define WEIGHT_SHIFT 8.0f

static __device__ float warp_max(float x)
{
    for (int step = 16; step > 0; step /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
    return x;
}

static __device__ float warp_sum(float x)
{
    for (int step = 16; step > 0; step /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, step);
    return x;
}

template <int DIM, int TILES> static __device__ void open_pairs(const fr_cuda_attention_args *a, const block *b)
{
    for (int i = threadIdx.x; i < b->n_pairs; i += layout<DIM, TILES>::threads) {
        pair *p = &b->pairs[i];
        p->row = b->task.first_row + i / b->run.n_heads;
        p->head = b->run.first_head + i % b->run.n_heads;
        p->n_positions = a->rows[p->row].n_positions;
        p->first_partial = a->rows[p->row].first_partial;
        p->max = -INFINITY;
        p->total = 0.0f;
    }
}

/* Splits the queries into high and low f16, each divided by a power of two so that its largest value
 * is in [1, 2). */
template <int DIM, int TILES>
static __device__ void load_queries(const fr_cuda_attention_args *a, const block *b)
{
    typedef layout<DIM, TILES> L;
    const int lane = threadIdx.x % 32;
    for (int i = threadIdx.x / 32; i < L::pairs; i += L::warps) {
        pair *p = &b->pairs[i];
        const float *q =
            i < b->n_pairs ? a->q + ((int64_t)p->row * a->heads + p->head) * a->head_dim : NULL;
        float x[DIM / 32], highest = 0.0f;
        for (int j = 0; j < DIM / 32; j++) {
            int d = j * 32 + lane;
            x[j] = q && d < a->head_dim ? q[d] : 0.0f;
            highest = fmaxf(highest, fmaxf(x[j], -x[j]));
        }
        int exponent = (int)(__float_as_uint(warp_max(highest)) >> 23);
        exponent = exponent < 1 ? 1 : exponent > 253 ? 253 : exponent;
        float down = __uint_as_float((uint32_t)(254 - exponent) << 23);
        for (int j = 0; j < DIM / 32; j++) {
            float value = x[j] * down;
            __half high = __float2half_rn(value);
            b->q_high[i * L::row + j * 32 + lane] = high;
            b->q_low[i * L::row + j * 32 + lane] = __float2half_rn(value - __half2float(high));
        }
        if (lane == 0 && q)
            p->factor = a->scale * LOG2_E * __uint_as_float((uint32_t)exponent << 23);
    }
}

/* Scores (not yet scaled) of a tile of positions, `first` in their chunk. What the low halves give is
 * summed up apart: added to the large sums one by one, it would be rounded (on tensor cores cut off)
 * as often. */
template <int DIM, int TILES>
static __device__ void score_tile(const block *b, const __half *keys, int first)
{
    typedef layout<DIM, TILES> L;
    const int warp = threadIdx.x / 32, m = warp / L::columns * 16, column = warp % L::columns;
    if (m >= b->n_pairs)
        return;
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> high, low;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::col_major> key;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sums[L::score_tiles], rest[L::score_tiles];
    const int at = column * L::score_tiles * 16; /* position in the tile */
    for (int n = 0; n < L::score_tiles; n++) {
        wmma::fill_fragment(sums[n], 0.0f);
        wmma::fill_fragment(rest[n], 0.0f);
    }
#pragma unroll 2 /* all of it would need many registers more */
    for (int d = 0; d < DIM; d += 16) {
        wmma::load_matrix_sync(high, b->q_high + m * L::row + d, L::row);
        wmma::load_matrix_sync(low, b->q_low + m * L::row + d, L::row);
        for (int n = 0; n < L::score_tiles; n++) {
            wmma::load_matrix_sync(key, keys + (at + n * 16) * L::row + d, L::row);
            wmma::mma_sync(sums[n], high, key, sums[n]);
            wmma::mma_sync(rest[n], low, key, rest[n]);
        }
    }
    for (int n = 0; n < L::score_tiles; n++) {
        for (int i = 0; i < sums[n].num_elements; i++)
            sums[n].x[i] += rest[n].x[i];
        wmma::store_matrix_sync(b->scores + m * SCORE_ROW + first + at + n * 16, sums[n], SCORE_ROW,
                                wmma::mem_row_major);
    }
}

/* Folds (max, total) of a chunk into that of those before: what `merge` does too. */
static __device__ void fold_total(float *max, float *total, float chunk_max, float chunk_total,
                                  float *keep, float *add)
{
    float higher = fmaxf(*max, chunk_max);
    *keep = exp2f(*max - higher);
    *add = exp2f(chunk_max - higher);
    *total = fmaf(chunk_total, *add, *total * *keep);
    *max = higher;
}

/* One pair's scores become weights, in place, by one warp. It sees `seen` positions of the chunk. */
static __device__ void weigh(const fr_cuda_attention_args *a, pair *p, float *scores, int chunk,
                             int seen)
{
    const int lane = threadIdx.x % 32;
    float x[CHUNK / 32], highest = -INFINITY, total = 0.0f;
    for (int j = 0; j < CHUNK / 64; j++) {
        int at = j * 64 + lane * 2;
        float2 s = *(const float2 *)(scores + at);
        x[2 * j] = at < seen ? s.x * p->factor : -INFINITY;
        x[2 * j + 1] = at + 1 < seen ? s.y * p->factor : -INFINITY;
        highest = fmaxf(highest, fmaxf(x[2 * j], x[2 * j + 1]));
    }
    highest = warp_max(highest) - WEIGHT_SHIFT;
    for (int j = 0; j < CHUNK / 32; j++) {
        x[j] = exp2f(x[j] - highest);
        total += x[j];
    }
    total = warp_sum(total);
    __syncwarp(); /* all lanes have read their scores */
    __half2 *high = (__half2 *)scores, *low = high + CHUNK / 2;
    for (int j = 0; j < CHUNK / 64; j++) {
        __half2 h = __floats2half2_rn(x[2 * j], x[2 * j + 1]);
        high[j * 32 + lane] = h;
        low[j * 32 + lane] =
            __floats2half2_rn(x[2 * j] - __low2float(h), x[2 * j + 1] - __high2float(h));
    }
    if (lane == 0) {
        fold_total(&p->max, &p->total, highest, total, &p->keep, &p->add);
        if (p->first_partial >= 0)
            *(float2 *)partial_of(a, p->first_partial, chunk, p->head) =
                make_float2(highest, total);
    }
}

template <int DIM, int TILES>
static __device__ void weigh_chunk(const fr_cuda_attention_args *a, const block *b, int chunk)
{
    for (int i = threadIdx.x / 32; i < b->n_pairs; i += layout<DIM, TILES>::warps) {
        int seen = b->pairs[i].n_positions - chunk_start(b, chunk);
        if (seen > 0) /* else nobody reads this pair's row of weights and values */
            weigh(a, &b->pairs[i], b->scores + i * SCORE_ROW, b->task.first_chunk + chunk, seen);
    }
}

template <int DIM, int TILES> struct value_sums {
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> tiles[layout<DIM, TILES>::value_tiles];
};

/* Adds a tile of weighted values, `first` in their chunk. */
template <int DIM, int TILES>
static __device__ void add_tile(const block *b, value_sums<DIM, TILES> *sums, const __half *values,
                                int first)
{
    typedef layout<DIM, TILES> L;
    const int warp = threadIdx.x / 32, m = warp / L::columns * 16, column = warp % L::columns;
    if (m >= b->n_pairs)
        return;
    wmma::fragment<wmma::matrix_a, 16, 16, 16, __half, wmma::row_major> high, low;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, __half, wmma::row_major> value;
    const __half *weights = (const __half *)(b->scores + m * SCORE_ROW) + first;
    for (int p = 0; p < L::tile; p += 16) {
        wmma::load_matrix_sync(high, weights + p, 2 * SCORE_ROW);
        wmma::load_matrix_sync(low, weights + CHUNK + p, 2 * SCORE_ROW);
        for (int n = 0; n < L::value_tiles; n++) {
            int d = (column + n * L::columns) * 16;
            if (d < DIM) {
                wmma::load_matrix_sync(value, values + p * L::row + d, L::row);
                wmma::mma_sync(sums->tiles[n], low, value, sums->tiles[n]);
                wmma::mma_sync(sums->tiles[n], high, value, sums->tiles[n]);
            }
        }
    }
}

/* Puts the chunk's values where the weights were, [pairs, SCORE_ROW]. */
template <int DIM, int TILES>
static __device__ void put_values(const block *b, const value_sums<DIM, TILES> *sums)
{
    typedef layout<DIM, TILES> L;
    const int warp = threadIdx.x / 32, m = warp / L::columns * 16, column = warp % L::columns;
    if (m >= b->n_pairs)
        return;
    for (int n = 0; n < L::value_tiles; n++) {
        int d = (column + n * L::columns) * 16;
        if (d < DIM)
            wmma::store_matrix_sync(b->scores + m * SCORE_ROW + d, sums->tiles[n], SCORE_ROW,
                                    wmma::mem_row_major);
    }
}

/* Folds the chunk's values into those of the chunks before, or leaves them to `merge`. Thread t has
 * four values of one pair in each of `folded`. */
template <int DIM, int TILES>
static __device__ void fold_values(const fr_cuda_attention_args *a, const block *b, int chunk,
                                   float4 *folded)
{
    typedef layout<DIM, TILES> L;
#pragma unroll
    for (int j = 0; j < L::sums; j++) {
        int at = threadIdx.x + j * L::threads, i = at / (DIM / 4), d = at % (DIM / 4) * 4;
        const pair *p = &b->pairs[i];
        if (i >= b->n_pairs || d >= a->head_dim || p->n_positions <= chunk_start(b, chunk))
            continue;
        float4 v = *(const float4 *)(b->scores + i * SCORE_ROW + d), *f = &folded[j];
        if (p->first_partial >= 0) {
            float *record = partial_of(a, p->first_partial, b->task.first_chunk + chunk, p->head);
            *(float4 *)(record + FR_ATTENTION_RECORD + d) = v;
        } else {
            *f = make_float4(fmaf(v.x, p->add, f->x * p->keep), fmaf(v.y, p->add, f->y * p->keep),
                             fmaf(v.z, p->add, f->z * p->keep), fmaf(v.w, p->add, f->w * p->keep));
        }
    }
}

template <int DIM, int TILES>
static __device__ void write_rows(const fr_cuda_attention_args *a, const block *b,
                                  const float4 *folded)
{
    typedef layout<DIM, TILES> L;
#pragma unroll
    for (int j = 0; j < L::sums; j++) {
        int at = threadIdx.x + j * L::threads, i = at / (DIM / 4), d = at % (DIM / 4) * 4;
        const pair *p = &b->pairs[i];
        if (i >= b->n_pairs || d >= a->head_dim || p->first_partial >= 0)
            continue;
        float4 f = folded[j];
        float *out = a->out + ((int64_t)p->row * a->heads + p->head) * a->head_dim + d;
        *(float4 *)out =
            make_float4(f.x / p->total, f.y / p->total, f.z / p->total, f.w / p->total);
    }
}

/* Goes through the chunks of the block's task. In each, barriers part writers from readers of
 * the scores' memory: scores, weights, values. */
template <int DIM, int TILES>
static __device__ void attend_task(const fr_cuda_attention_args *a, const block *b)
{
    typedef layout<DIM, TILES> L;
    float4 folded[L::sums];
    for (int j = 0; j < L::sums; j++)
        folded[j] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    thread_slots<DIM, TILES> next;
    for (int i = 0; i < L::stages; i++)
        start_tile<DIM, TILES>(a, b, i, &next);
    load_queries<DIM, TILES>(a, b); /* while the tiles are on their way */
    int i = 0;                      /* the ring's oldest tile */
    for (int chunk = 0; chunk < b->task.n_chunks; chunk++) {
        const int tiles = chunk_tiles<L::tile>(b, chunk);
        for (int t = 0; t < tiles; t++, i++) {
            await_tile<DIM, TILES>();
            score_tile<DIM, TILES>(b, b->ring + i % L::stages * (L::tile * L::row), t * L::tile);
            __syncthreads();
            start_tile<DIM, TILES>(a, b, i + L::stages, &next);
        }
        weigh_chunk<DIM, TILES>(a, b, chunk);
        value_sums<DIM, TILES> sums;
        for (int n = 0; n < L::value_tiles; n++)
            wmma::fill_fragment(sums.tiles[n], 0.0f);
        for (int t = 0; t < tiles; t++, i++) {
            await_tile<DIM, TILES>();
            add_tile<DIM, TILES>(b, &sums, b->ring + i % L::stages * (L::tile * L::row), t * L::tile);
            __syncthreads();
            start_tile<DIM, TILES>(a, b, i + L::stages, &next);
        }
        put_values<DIM, TILES>(b, &sums);
        __syncthreads();
        fold_values<DIM, TILES>(a, b, chunk, folded);
    }
    FR_START_NEXT();
    write_rows<DIM, TILES>(a, b, folded);
}

/* Grid: for each task that there may be, the runs of heads. Unused tasks are zero. */
template <int DIM, int TILES>
FR_KERNEL((layout<DIM, TILES>::threads), (layout<DIM, TILES>::blocks))
static void attend(fr_cuda_attention_args a, const fr_cuda_attention_task *tasks)
{
    typedef layout<DIM, TILES> L;
    __shared__ pair pairs[L::pairs];
    __shared__ int32_t slots[2][CHUNK];
    static_assert(L::bytes + sizeof pairs + sizeof slots <= FR_ATTENTION_SHARED, "with what the launch asks for");
    FR_DYNAMIC_SHARED(unsigned char, memory);
    block b;
    b.task = tasks[blockIdx.x / a.n_runs];
    b.run = a.runs[blockIdx.x % a.n_runs];
    if (b.task.n_rows == 0) {
        FR_AWAIT_PREVIOUS();
        return;
    }
    b.n_pairs = b.task.n_rows * b.run.n_heads;
    b.pairs = pairs;
    b.slots = slots;
    b.scores = (float *)memory;
    b.q_high = (__half *)(memory + L::score_bytes);
    b.q_low = b.q_high + L::pairs * L::row;
    b.ring = b.q_low + L::pairs * L::row;
    thread_slots<DIM, TILES> first;
    find_slots<DIM, TILES>(&a, &b, 0, &first);
    open_pairs<DIM, TILES>(&a, &b);
    put_slots<DIM, TILES>(&b, 0, first);
    FR_AWAIT_PREVIOUS(); /* up to here only the plan was read, which was sent before the pass's first kernel */
    __syncthreads();
    attend_task<DIM, TILES>(&a, &b);
}

/* One pair's partial results, n of them. */
struct partials {
    const float *at; /* of chunk 0 */
    int step;        /* floats from chunk to chunk */
    int n;
};

/* The maximum and total of the lane's chunk of a batch. */
static __device__ float2 load_total(const partials &p, int first)
{
    const int chunk = first + (int)(threadIdx.x % 32);
    return chunk < p.n ? *(const float2 *)(p.at + (int64_t)chunk * p.step) : make_float2(-INFINITY, 0.0f);
}

/* The thread's dimension of a batch's values. */
static __device__ void load_values(const partials &p, int first, bool wanted, float values[MERGE_BATCH])
{
#pragma unroll
    for (int c = 0; c < MERGE_BATCH; c++)
        values[c] = wanted && first + c < p.n
                        ? p.at[(int64_t)(first + c) * p.step + FR_ATTENTION_RECORD + (int)threadIdx.x]
                        : 0.0f;
}

/* The factors of a batch of chunks, by one warp. mine: of the lane's chunk; max: of the chunks before. */
static __device__ float merge_factors(float2 mine, float max, float *keep, float *add, float *totals)
{
    const int lane = threadIdx.x;
    float upto = mine.x; /* maximum of this batch up to here */
    for (int step = 1; step < 32; step *= 2) {
        float other = __shfl_up_sync(0xffffffffu, upto, step);
        if (lane >= step)
            upto = fmaxf(upto, other);
    }
    float before = __shfl_up_sync(0xffffffffu, upto, 1);
    before = lane == 0 ? max : fmaxf(max, before);
    float higher = fmaxf(before, mine.x);
    keep[lane] = exp2f(before - higher);
    add[lane] = exp2f(mine.x - higher);
    totals[lane] = mine.y;
    return __shfl_sync(0xffffffffu, higher, 31);
}

/* Folds the partial results of one pair, thread t dimension t. A batch is asked for before the one before it is
 * used. */
FR_KERNEL(256)
static void merge(fr_cuda_attention_args a)
{
    __shared__ float keep[MERGE_BATCH], add[MERGE_BATCH], totals[MERGE_BATCH];
    const int row = blockIdx.x / a.heads, head = blockIdx.x % a.heads, d = threadIdx.x;
    const fr_cuda_attention_row of = a.rows[row]; /* the plan's, as in attend */
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    if (of.first_partial < 0)
        return;
    const partials p = {partial_of(&a, of.first_partial, 0, head), a.heads * (FR_ATTENTION_RECORD + a.head_dim),
                        (of.n_positions + CHUNK - 1) / CHUNK};
    float max = -INFINITY, total = 0.0f, sum = 0.0f, values[MERGE_BATCH], next_values[MERGE_BATCH];
    float2 next_total = load_total(p, 0);
    load_values(p, 0, d < a.head_dim, next_values);
    for (int first = 0; first < p.n; first += MERGE_BATCH) {
        const float2 batch_total = next_total;
#pragma unroll
        for (int c = 0; c < MERGE_BATCH; c++)
            values[c] = next_values[c];
        next_total = load_total(p, first + MERGE_BATCH);
        load_values(p, first + MERGE_BATCH, d < a.head_dim, next_values);
        __syncthreads(); /* the last batch's factors are no longer read */
        if (threadIdx.x < 32)
            max = merge_factors(batch_total, max, keep, add, totals);
        __syncthreads();
#pragma unroll
        for (int c = 0; c < MERGE_BATCH; c++)
            if (first + c < p.n) {
                sum = fmaf(values[c], add[c], sum * keep[c]);
                total = fmaf(totals[c], add[c], total * keep[c]);
            }
    }
    if (d < a.head_dim)
        a.out[((int64_t)row * a.heads + head) * a.head_dim + d] = sum / total;
}

template <int DIM, int TILES>
static void launch_tasks(cudaStream_t stream, const fr_cuda_attention_args *a,
                         const fr_cuda_attention_task *tasks, int most)
{
    typedef layout<DIM, TILES> L;
    auto attend_kernel = attend<DIM, TILES>;
    if (most == 0)
        return;
    cudaFuncSetAttribute(attend_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::bytes);
    FR_LAUNCH(attend_kernel, most * a->n_runs, L::threads, L::bytes, stream, *a, tasks);
}

template <int DIM> static void launch(cudaStream_t stream, const fr_cuda_attention_args *a)
{
    constexpr int most_tiles = DIM > 128 ? 2 : 4; /* as fr_cuda_attention_wide() says */
    launch_tasks<DIM, 1>(stream, a, a->narrow, a->max_narrow);
    if (a->wide_pairs <= 2 * 16)
        launch_tasks<DIM, 2>(stream, a, a->wide, a->max_wide);
    else
        launch_tasks<DIM, most_tiles>(stream, a, a->wide, a->max_wide);
    if (a->merge)
        FR_LAUNCH(merge, a->n * a->heads, (a->head_dim + 31) / 32 * 32, 0, stream, *a);
}

void fr_cuda_attention(cudaStream_t stream, const void *args)
{
    const fr_cuda_attention_args *a = (const fr_cuda_attention_args *)args;
    if (a->head_dim <= 64)
        launch<64>(stream, a);
    else if (a->head_dim <= 96)
        launch<96>(stream, a);
    else if (a->head_dim <= 128)
        launch<128>(stream, a);
    else
        launch<256>(stream, a);
}
