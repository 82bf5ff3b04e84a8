/* candidates.cu: candidates.h's definition on a GPU, to the bit, in the four steps of
 * fast_candidates.h:
 *
 *   1. find_maxima, a block a chunk of FR_CHUNK columns: the chunk's highest logit and the value
 *      (noise included) of its token; the highest logit of each group of 32 columns.
 *   2. set_bars, a block a row: the highest logit; the bar, which is the best of those values; and
 *      the floor, at which at least n_top groups have a logit.
 *   3. weigh_chunks, a block a chunk: its part of sum_exp; its best token that reaches the bar; its
 *      columns at or above the floor are listed, of which there are few more than n_top.
 *   4. finish_rows, a block a row: adds the chunks in order, picks the winner, sorts the list.
 *
 * The limit is memory: the logits are read twice, the second time from the L2 cache (8 rows of
 * 152,000 columns are 4.9 MB), by a block for every 4 KB. Noise costs two logarithms in f64: step 3
 * computes it for very few tokens, by the bound that fast_candidates.h explains.
 *
 * What is easy to get wrong:
 *  - Order. A rank puts columns in the order of `top`, and of the winner: upper half the number, so
 *    that unsigned comparison orders it and -0 equals 0, lower half the inverted column, so that the
 *    first column wins a tie. 0 is below every rank: no column, or a NaN. Where the number itself is
 *    wanted it is read again, for its sign.
 *  - The list is filled in any order, but ranks differ from each other, so what is sorted from it
 *    does not depend on that.
 *  - The list may overflow: many equal logits, or fewer groups than n_top. Then step 4 looks at all
 *    columns; slower, and right for any row.
 *  - sum_exp has a rounding order (candidates_lanes.h): 16 sums a chunk, columns in order, then
 *    these, then the chunks. Exponentials wait in shared memory for that, and what lies behind the
 *    last column adds 0. */
#include "candidates_cuda.h"

#include <math.h>

#include "candidates_inline.h"
#include "launch.cuh"
#include "rng.h"

#define CHUNK_THREADS 256 /* of a block that has a chunk */
#define PER_THREAD (FR_CHUNK / CHUNK_THREADS)
#define ROW_THREADS 1024 /* of a block that has a row */
#define GROUP 32         /* columns that few neighbouring threads have */
#define GROUP_THREADS (GROUP / PER_THREAD)
#define GROUPS (FR_CHUNK / GROUP) /* of a chunk */
#define LIST_MAX 1024             /* columns of a row that may be listed */

typedef uint64_t column_rank;

typedef struct chunk_part {
    column_rank highest; /* by logit */
    column_rank best;    /* by value; 0: none reaches the bar */
    double sum_exp;
    float bar;        /* the value of the highest */
    float best_value; /* of the best */
} chunk_part;

typedef struct row_state {
    column_rank listed[LIST_MAX];
    column_rank highest;
    float bar;
    uint32_t floor; /* a rank's upper half */
    int32_t n_listed;
} row_state;

typedef struct candidates_job {
    fr_cuda_candidates_args args;
    int chunks;        /* of a row */
    row_state *rows;   /* [n] */
    chunk_part *parts; /* [n, chunks] */
    uint32_t *groups;  /* [n, chunks, GROUPS]: upper halves of the highest ranks */
} candidates_job;

/* One row, as the blocks that work on it see it. */
typedef struct row_ref {
    const fr_row_query *query;
    const float *logits;
    int columns;
    row_state *state;
    chunk_part *parts;
    uint32_t *groups;
} row_ref;

static __device__ row_ref row_at(const candidates_job *job, int row)
{
    const fr_cuda_candidates_args *a = &job->args;
    const fr_row_query *q = &a->queries[row];
    row_ref ref = {q,
                   a->logits + (int64_t)row * a->vocab,
                   fr_query_columns(q, a->vocab, a->first_token, a->tokens),
                   &job->rows[row],
                   job->parts + (int64_t)row * job->chunks,
                   job->groups + (int64_t)row * job->chunks * GROUPS};
    return ref;
}

static __device__ int32_t token_of(const candidates_job *job, int column)
{
    return fr_column_token(job->args.first_token, job->args.tokens, column);
}

static __device__ int wanted_top(const fr_row_query *q)
{
    return q->n_top < 0 ? 0 : q->n_top < FR_TOP_MAX ? q->n_top : FR_TOP_MAX;
}

static __device__ column_rank rank_of(float x, int column)
{
    if (!(x == x))
        return 0;
    uint32_t bits = __float_as_uint(x + 0.0f);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (column_rank)bits << 32 | (uint32_t)~column;
}

static __device__ int column_of(column_rank rank)
{
    return ~(int)(uint32_t)rank;
}

static __device__ column_rank higher(column_rank a, column_rank b)
{
    return a > b ? a : b;
}

static __device__ float highest_logit(const row_ref *row)
{
    column_rank highest = row->state->highest;
    return highest ? row->logits[column_of(highest)] : -INFINITY;
}

/* The highest of the block's ranks, for every thread. */
static __device__ column_rank block_highest(column_rank rank)
{
    __shared__ column_rank warps[32];
    for (int lanes = 16; lanes > 0; lanes /= 2)
        rank = higher(rank, __shfl_xor_sync(0xFFFFFFFFu, rank, lanes));
    __syncthreads(); /* the last call's readers are done */
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = rank;
    __syncthreads();
    for (unsigned i = 0; i < blockDim.x / 32; i++)
        rank = higher(rank, warps[i]);
    return rank;
}

static __device__ int block_sum(int x)
{
    __shared__ int warps[32];
    for (int lanes = 16; lanes > 0; lanes /= 2)
        x += __shfl_xor_sync(0xFFFFFFFFu, x, lanes);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        warps[threadIdx.x / 32] = x;
    __syncthreads();
    int sum = 0;
    for (unsigned i = 0; i < blockDim.x / 32; i++)
        sum += warps[i];
    return sum;
}

/* This thread's columns of a chunk are its number and each CHUNK_THREADS further. Loads them all at
 * once; those behind the last column are NaN. */
static __device__ void load_columns(const row_ref *row, int first, float logits[PER_THREAD])
{
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        int column = first + i * CHUNK_THREADS;
        logits[i] = column < row->columns ? row->logits[column] : NAN;
    }
}

FR_KERNEL(CHUNK_THREADS) void find_maxima(candidates_job job)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    const row_ref row = row_at(&job, (int)blockIdx.y);
    const int chunk = (int)blockIdx.x, thread = (int)threadIdx.x, first = chunk * FR_CHUNK + thread;
    float logits[PER_THREAD];
    load_columns(&row, first, logits);
    column_rank highest = 0;
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++)
        highest = higher(highest, rank_of(logits[i], first + i * CHUNK_THREADS));
    for (int lanes = 1; lanes < GROUP_THREADS; lanes *= 2)
        highest = higher(highest, __shfl_xor_sync(0xFFFFFFFFu, highest, lanes));
    if (thread % GROUP_THREADS == 0)
        row.groups[chunk * GROUPS + thread / GROUP_THREADS] = (uint32_t)(highest >> 32);
    highest = block_highest(highest);
    if (thread > 0)
        return;
    float bar = -INFINITY;
    if (highest) {
        int column = column_of(highest);
        bar = fr_query_value_inline(row.query, row.logits[column], token_of(&job, column));
    }
    row.parts[chunk].highest = highest;
    row.parts[chunk].bar = bar;
}

/* A floor that at least n of the groups reach, not far below the highest such; 0 where fewer have a
 * logit. */
static __device__ uint32_t common_floor(const uint32_t *groups, int n_groups, int n)
{
    const int last_bit = 12; /* the bits below would leave out a few more columns, no more */
    uint32_t floor = 0;
    for (int bit = 31; bit >= last_bit; bit--) {
        uint32_t trial = floor | 1u << bit;
        int reach = 0;
        for (int i = (int)threadIdx.x; i < n_groups; i += ROW_THREADS)
            reach += groups[i] >= trial;
        if (block_sum(reach) >= n)
            floor = trial;
    }
    return floor;
}

FR_KERNEL(ROW_THREADS) void set_bars(candidates_job job)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    const row_ref row = row_at(&job, (int)blockIdx.x);
    column_rank highest = 0, bar = 0; /* a column of `bar` is a chunk */
    for (int i = (int)threadIdx.x; i < job.chunks; i += ROW_THREADS) {
        highest = higher(highest, row.parts[i].highest);
        bar = higher(bar, rank_of(row.parts[i].bar, i));
    }
    highest = block_highest(highest);
    bar = block_highest(bar);
    uint32_t floor = 0xFFFFFFFFu; /* no number is there */
    int n_top = wanted_top(row.query);
    if (n_top > 0)
        floor = common_floor(row.groups, job.chunks * GROUPS, n_top);
    if (threadIdx.x > 0)
        return;
    row.state->highest = highest;
    row.state->bar = bar ? row.parts[column_of(bar)].bar : -INFINITY;
    row.state->floor = floor > 0 ? floor : 1;
    row.state->n_listed = 0;
}

/* exp(x), x <= 0 or NaN, as fr_chunk_sum_exp() has it. */
static __device__ float exp_of(float x)
{
    float shifted, y;
    x = x > FR_EXP_LOWEST ? x : FR_EXP_LOWEST;
    FR_EXP_STEPS(float, x, shifted, y);
    return __uint_as_float(__float_as_uint(y) + (__float_as_uint(shifted) << 23));
}

/* Whether a token's value may reach the bar: may_reach() of fast_candidates.h for one token. */
static __device__ bool may_reach(const fr_row_query *q, float logit, int32_t token, float bar)
{
    float value = logit / q->temperature;
    float slack = (fabsf(value) + fabsf(bar)) * 0x1p-22f + 1e-3f;
    float need = bar - value - slack;
    if (need > FR_GUMBEL_MAX)
        return false;
    if (!(need > 0)) /* also where it is undefined */
        return true;
    const uint32_t counter[4] = {(uint32_t)token, q->position, q->sample, 0};
    const uint32_t key[2] = {(uint32_t)q->seed, (uint32_t)(q->seed >> 32)};
    uint32_t bits[4];
    fr_philox_inline(counter, key, bits);
    float distance = (float)(~bits[0] >> 8) * 0x1p-24f; /* 1 - u, rounded down */
    return !(distance > expf(-need));
}

/* Adds up a chunk's exponentials, by the first warp; the result is thread 0's. */
static __device__ double sum_lanes(const float *exps)
{
    if (threadIdx.x >= 32)
        return 0;
    float sum = 0;
    double total = 0;
    const int lane = (int)threadIdx.x % FR_CHUNK_LANES;
#pragma unroll 16
    for (int i = lane; i < FR_CHUNK; i += FR_CHUNK_LANES)
        sum += exps[i];
    for (int i = 0; i < FR_CHUNK_LANES; i++)
        total += (double)__shfl_sync(0xFFFFFFFFu, sum, i);
    return total;
}

static __device__ void list_column(row_state *state, column_rank rank)
{
    int at = atomicAdd(&state->n_listed, 1);
    if (at < LIST_MAX)
        state->listed[at] = rank;
}

FR_KERNEL(CHUNK_THREADS) void weigh_chunks(candidates_job job)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    __shared__ float exps[FR_CHUNK];
    const row_ref row = row_at(&job, (int)blockIdx.y);
    const int chunk = (int)blockIdx.x, thread = (int)threadIdx.x, first = chunk * FR_CHUNK + thread;
    const float max = highest_logit(&row), bar = row.state->bar;
    const uint32_t floor = row.state->floor;
    float logits[PER_THREAD], best_value = -INFINITY;
    column_rank best = 0;
    load_columns(&row, first, logits);
#pragma unroll
    for (int i = 0; i < PER_THREAD; i++) {
        const int column = first + i * CHUNK_THREADS;
        exps[thread + i * CHUNK_THREADS] = column < row.columns ? exp_of(logits[i] - max) : 0;
        if (column >= row.columns)
            continue;
        column_rank rank = rank_of(logits[i], column);
        if (rank >> 32 >= floor)
            list_column(row.state, rank);
        if (row.query->temperature <= 0)
            continue;
        int32_t token = token_of(&job, column);
        if (!may_reach(row.query, logits[i], token, bar))
            continue;
        float value = fr_query_value_inline(row.query, logits[i], token);
        if (value > best_value) { /* columns ascend: the first of equals stays */
            best_value = value;
            best = rank_of(value, column);
        }
    }
    column_rank block_best = block_highest(best); /* a barrier too: the exponentials are there */
    if (best && best == block_best)
        row.parts[chunk].best_value = best_value;
    double sum_exp = sum_lanes(exps);
    if (thread > 0)
        return;
    row.parts[chunk].best = block_best;
    row.parts[chunk].sum_exp = sum_exp;
}

/* Puts the first n_top of the n different ranks in front, in order. Returns how many there are. */
static __device__ int sort_first(column_rank *ranks, int n, int n_top)
{
    __shared__ column_rank sorted[FR_TOP_MAX];
    const int thread = (int)threadIdx.x;
    for (int i = thread; i < n; i += ROW_THREADS) {
        int place = 0;
        for (int j = 0; j < n; j++)
            place += ranks[j] > ranks[i];
        if (place < n_top)
            sorted[place] = ranks[i];
    }
    __syncthreads();
    n = n < n_top ? n : n_top;
    if (thread < n)
        ranks[thread] = sorted[thread];
    __syncthreads();
    return n;
}

/* What the list would have held, had it had room: enough of the row's columns that the first n_top
 * are among them. ranks has room for LIST_MAX and one of each thread. */
static __device__ int scan_columns(const row_ref *row, int n_top, column_rank *ranks)
{
    __shared__ int count;
    column_rank last = 0; /* of n_top that were seen; what is below cannot enter */
    if (threadIdx.x == 0)
        count = 0;
    for (int begin = 0; begin < row->columns; begin += ROW_THREADS) {
        __syncthreads();
        int n = count;
        __syncthreads();
        if (n > LIST_MAX) {
            n = sort_first(ranks, n, n_top);
            last = ranks[n_top - 1];
            if (threadIdx.x == 0)
                count = n;
            __syncthreads();
        }
        int column = begin + (int)threadIdx.x;
        column_rank rank = column < row->columns ? rank_of(row->logits[column], column) : 0;
        if (rank > last && rank >> 32 >= row->state->floor)
            ranks[atomicAdd(&count, 1)] = rank;
    }
    __syncthreads();
    return count;
}

static __device__ void finish_top(const candidates_job *job, const row_ref *row, fr_row_answer *out)
{
    __shared__ column_rank ranks[LIST_MAX + ROW_THREADS];
    const int n_top = wanted_top(row->query), thread = (int)threadIdx.x;
    int n = row->state->n_listed;
    if (n > LIST_MAX)
        n = scan_columns(row, n_top, ranks);
    else if (thread < n)
        ranks[thread] = row->state->listed[thread];
    __syncthreads();
    n = sort_first(ranks, n, n_top);
    if (thread < n) {
        int column = column_of(ranks[thread]);
        out->top[thread].token = token_of(job, column);
        out->top[thread].logit = row->logits[column];
    }
    if (thread == 0)
        out->n_top = n;
}

/* The chunks' sums, added in order; the result is thread 0's. */
static __device__ double sum_chunks(const candidates_job *job, const row_ref *row)
{
    __shared__ double sums[ROW_THREADS];
    double total = 0;
    for (int begin = 0; begin < job->chunks; begin += ROW_THREADS) {
        int chunk = begin + (int)threadIdx.x, n = job->chunks - begin;
        __syncthreads();
        if (chunk < job->chunks)
            sums[threadIdx.x] = row->parts[chunk].sum_exp;
        __syncthreads();
        for (int i = 0; threadIdx.x == 0 && i < n && i < ROW_THREADS; i++)
            total += sums[i];
    }
    return total;
}

static __device__ void finish_winner(const candidates_job *job, const row_ref *row,
                                     column_rank best, fr_row_answer *out)
{
    const bool greedy = row->query->temperature <= 0;
    if (greedy)
        best = out->max > -INFINITY ? row->state->highest : 0;
    out->winner = row->columns > 0 ? token_of(job, 0) : -1;
    out->winner_value = out->winner_logit = -INFINITY;
    if (!best)
        return;
    int column = column_of(best);
    out->winner = token_of(job, column);
    out->winner_logit = row->logits[column];
    out->winner_value = greedy ? row->logits[column] : row->parts[column / FR_CHUNK].best_value;
}

FR_KERNEL(ROW_THREADS) void finish_rows(candidates_job job)
{
    FR_AWAIT_PREVIOUS();
    FR_START_NEXT();
    const fr_cuda_candidates_args *a = &job.args;
    const row_ref row = row_at(&job, (int)blockIdx.x);
    const int thread = (int)threadIdx.x;
    fr_row_answer *out = (fr_row_answer *)(a->answers + blockIdx.x * a->answer_bytes);
    finish_top(&job, &row, out);
    if (thread < row.query->n_wanted && thread < FR_WANTED_MAX) {
        int64_t column =
            fr_token_column(row.query->wanted[thread], row.columns, a->first_token, a->tokens);
        out->wanted_logit[thread] = column >= 0 ? row.logits[column] : -INFINITY;
    }
    column_rank best = 0;
    for (int i = thread; i < job.chunks; i += ROW_THREADS)
        best = higher(best, row.parts[i].best);
    best = block_highest(best);
    double sum_exp = sum_chunks(&job, &row);
    if (thread > 0)
        return;
    out->max = highest_logit(&row);
    out->sum_exp = out->max > -INFINITY ? sum_exp : 0;
    finish_winner(&job, &row, best, out);
}

static int chunks_of(int vocab)
{
    return vocab > 0 ? (vocab + FR_CHUNK - 1) / FR_CHUNK : 1;
}

extern "C" size_t fr_cuda_candidates_scratch_bytes(int n, int vocab)
{
    size_t chunk = sizeof(chunk_part) + GROUPS * sizeof(uint32_t);
    return (size_t)n * (sizeof(row_state) + (size_t)chunks_of(vocab) * chunk);
}

extern "C" void fr_cuda_candidates(cudaStream_t stream, const void *args)
{
    candidates_job job;
    job.args = *(const fr_cuda_candidates_args *)args;
    const int n = job.args.n;
    if (n <= 0)
        return;
    job.chunks = chunks_of(job.args.vocab);
    job.rows = (row_state *)job.args.scratch;
    job.parts = (chunk_part *)(job.rows + n);
    job.groups = (uint32_t *)(job.parts + (int64_t)n * job.chunks);
    const dim3 all_chunks((unsigned)job.chunks, (unsigned)n), all_rows((unsigned)n);
    FR_LAUNCH(find_maxima, all_chunks, CHUNK_THREADS, 0, stream, job);
    FR_LAUNCH(set_bars, all_rows, ROW_THREADS, 0, stream, job);
    FR_LAUNCH(weigh_chunks, all_chunks, CHUNK_THREADS, 0, stream, job);
    FR_LAUNCH(finish_rows, all_rows, ROW_THREADS, 0, stream, job);
}
