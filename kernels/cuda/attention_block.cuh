/* attention_block.cuh: what a block of attention.cu works on: its pairs, its shared memory, and the
 * ring through which tiles of keys and values come into it.
 *
 * The ring holds the next two or three tiles of a stream that goes on across chunks, so that memory
 * is kept busy while the tensor cores, or the softmax between keys and values, work on the oldest. */
#ifndef FR_CUDA_ATTENTION_BLOCK_CUH
#define FR_CUDA_ATTENTION_BLOCK_CUH

#include <cuda_fp16.h>
#include <cuda_pipeline.h>

#include "attention.h"
#include "launch.cuh"

enum {
    CHUNK = FR_ATTENTION_CHUNK,
    PAGE = 16,             /* FR_PAGE of ops.h */
    SCORE_ROW = CHUNK + 4, /* floats; 4 more, so that neighbouring rows start in other banks */
    PIECE = 8              /* f16 of one 16-byte copy */
};

/* One (row, head). */
struct pair {
    int row, head, n_positions, first_partial;
    float factor;     /* of its scores, which then are exponents of 2 */
    float max, total; /* of all chunks so far */
    float keep, add;  /* what the last chunk multiplied the old values by, and its own */
};

/* A kernel for heads of at most DIM (beyond head_dim are zeros), and tasks of TILES * 16 pairs. Each
 * 16 pairs have COLUMNS warps, which share out positions (scores) or dimensions (values). A multiprocessor has 16
 * warps: an H200's instructions do not come fast enough from 8 (5 cycles from one to the next of a warp). */
template <int DIM, int TILES> struct layout {
    static constexpr int pairs = TILES * 16;
    static constexpr int tile = TILES == 1 && DIM <= 128 ? 128 : 64; /* positions that one stage of the ring holds */
    static constexpr int columns = TILES == 1 ? tile / 16 : 8 / TILES;
    static constexpr int warps = TILES * columns;
    static constexpr int threads = warps * 32;
    static constexpr int row = DIM + PIECE; /* f16; 16 bytes more: other banks */
    static constexpr int blocks = TILES == 1 || DIM <= 64 || (TILES == 2 && DIM <= 128) ? 2 : 1; /* an SM's */
    static constexpr int stages = tile == 128 ? (DIM > 96 ? 2 : 3) : DIM > 128 || (DIM <= 64 && TILES > 2) ? 2 : 3;
    static constexpr int score_tiles = tile / 16 / columns;
    static constexpr int value_tiles = (DIM / 16 + columns - 1) / columns;
    static constexpr int sums = (pairs * DIM / 4 + threads - 1) / threads; /* float4 of a thread */
    static constexpr int query_bytes = pairs * row * 2;
    static constexpr int stage_bytes = tile * row * 2;
    static constexpr int score_bytes = pairs * SCORE_ROW * 4;
    static constexpr int bytes = score_bytes + 2 * query_bytes + stages * stage_bytes;
};

/* What all threads of a block know. */
struct block {
    fr_cuda_attention_task task;
    fr_cuda_attention_run run;
    int n_pairs;
    pair *pairs;   /* [n_pairs] */
    float *scores; /* [pairs, SCORE_ROW]; then weights: high [CHUNK], low [CHUNK]; then values */
    __half *q_high, *q_low;  /* [pairs, row] */
    __half *ring;            /* [stages, tile, row] */
    int32_t (*slots)[CHUNK]; /* [2]: of even and odd chunks */
};

/* The partial result of a pair and a chunk, counted from position 0. */
static __device__ float *partial_of(const fr_cuda_attention_args *a, int first_partial, int chunk,
                                    int head)
{
    int64_t record = (int64_t)(first_partial + chunk) * a->heads + head;
    return a->scratch + record * (FR_ATTENTION_RECORD + a->head_dim);
}

static __device__ int chunk_start(const block *b, int chunk)
{
    return (b->task.first_chunk + chunk) * CHUNK;
}

/* Tiles of one chunk (counted from the task's first) that hold positions. */
template <int TILE> static __device__ int chunk_tiles(const block *b, int chunk)
{
    int positions = b->task.n_positions - chunk_start(b, chunk);
    return ((positions < CHUNK ? positions : CHUNK) + TILE - 1) / TILE;
}

/* Of a chunk, the slots of the positions that this thread looks up, on their way to shared memory. */
template <int DIM, int TILES> struct thread_slots {
    static constexpr int mine = (CHUNK + layout<DIM, TILES>::threads - 1) / layout<DIM, TILES>::threads;
    int32_t slots[mine];
};

/* Asks for the slots of a chunk; those beyond the task's positions are 0. */
template <int DIM, int TILES>
static __device__ void find_slots(const fr_cuda_attention_args *a, const block *b, int chunk,
                                  thread_slots<DIM, TILES> *to)
{
#pragma unroll
    for (int k = 0; k < thread_slots<DIM, TILES>::mine; k++) {
        int position = chunk_start(b, chunk) + (int)threadIdx.x + k * layout<DIM, TILES>::threads,
            at = b->task.trunk_at;
        to->slots[k] = 0;
        if (position >= b->task.n_positions)
            continue;
        if (position >= b->task.n_trunk) {
            at = b->task.branch_at;
            position -= b->task.n_trunk;
        }
        to->slots[k] = a->pages[at + position / PAGE] * PAGE + position % PAGE;
    }
}

template <int DIM, int TILES>
static __device__ void put_slots(const block *b, int chunk, const thread_slots<DIM, TILES> &from)
{
#pragma unroll
    for (int k = 0; k < thread_slots<DIM, TILES>::mine; k++) {
        const int p = (int)threadIdx.x + k * layout<DIM, TILES>::threads;
        if (p < CHUNK)
            b->slots[chunk & 1][p] = from.slots[k];
    }
}

/* All but a task's last tile: no position is beyond the task's, no dimension beyond the head. Without branches, and
 * with the slots read first, a thread's copies go out together, for an instruction or two each. */
template <int DIM, int TILES>
static __device__ void copy_whole_tile(const uint16_t *head, const int32_t *slots, uint32_t slot_bytes, __half *stage)
{
    typedef layout<DIM, TILES> L;
    enum { ROW_PIECES = DIM / PIECE, MINE = L::tile * ROW_PIECES / L::threads, EVEN = L::threads % ROW_PIECES == 0 };
    static_assert(L::tile * ROW_PIECES % L::threads == 0, "threads copy equal shares");
    const unsigned first = threadIdx.x, step = L::threads;
    int32_t of[MINE];
#pragma unroll
    for (unsigned k = 0; k < MINE; k++)
        of[k] = slots[EVEN ? first / ROW_PIECES + k * (step / ROW_PIECES) : (first + k * step) / ROW_PIECES];
#pragma unroll
    for (unsigned k = 0; k < MINE; k++) {
        const unsigned p = EVEN ? first / ROW_PIECES + k * (step / ROW_PIECES) : (first + k * step) / ROW_PIECES,
                       d = (EVEN ? first % ROW_PIECES : (first + k * step) % ROW_PIECES) * PIECE;
        const uint8_t *from = (const uint8_t *)(head + d) + (uint64_t)(uint32_t)of[k] * slot_bytes;
        __pipeline_memcpy_async(stage + p * L::row + d, from, PIECE * sizeof *stage);
    }
}

/* Starts copying a tile of positions of the chunk, from `first` on, into one stage of the ring. Zeros
 * stand for what is beyond the task's positions or the head. */
template <int DIM, int TILES>
static __device__ void copy_tile(const fr_cuda_attention_args *a, const block *b,
                                 const uint16_t *cache, int chunk, int first, __half *stage)
{
    typedef layout<DIM, TILES> L;
    const int count = b->task.n_positions - chunk_start(b, chunk) - first, width = a->kv_heads * a->head_dim;
    const uint16_t *head = cache + b->run.kv_head * a->head_dim;
    const int32_t *slots = b->slots[chunk & 1] + first;
    if (count >= L::tile && a->head_dim == DIM) {
        copy_whole_tile<DIM, TILES>(head, slots, (uint32_t)width * 2, stage);
        return;
    }
    for (int i = threadIdx.x; i < L::tile * DIM / PIECE; i += L::threads) {
        int p = i / (DIM / PIECE), d = i % (DIM / PIECE) * PIECE;
        __half *to = stage + p * L::row + d;
        if (p < count && d < a->head_dim)
            __pipeline_memcpy_async(to, head + (int64_t)slots[p] * width + d, PIECE * sizeof *to);
        else
            *(uint4 *)to = make_uint4(0, 0, 0, 0);
    }
}

/* The ring's i-th tile: a chunk's keys, then its values, then the next chunk's. With its first tile a chunk asks for
 * the next one's slots, and puts them down with its second: the next chunk's tiles are started at least one barrier
 * later. */
template <int DIM, int TILES>
static __device__ void start_tile(const fr_cuda_attention_args *a, const block *b, int i,
                                  thread_slots<DIM, TILES> *next)
{
    typedef layout<DIM, TILES> L;
    const int chunk = i / (2 * CHUNK / L::tile), tile = i % (2 * CHUNK / L::tile);
    if (chunk < b->task.n_chunks) {
        int tiles = chunk_tiles<L::tile>(b, chunk);
        if (tile == 0)
            find_slots<DIM, TILES>(a, b, chunk + 1, next);
        if (tile == 1)
            put_slots<DIM, TILES>(b, chunk + 1, *next);
        if (tile < 2 * tiles)
            copy_tile<DIM, TILES>(a, b, tile < tiles ? a->k : a->v, chunk, tile % tiles * L::tile,
                                  b->ring + i % L::stages * (L::tile * L::row));
    }
    __pipeline_commit();
}

/* Waits until everyone's part of the oldest tile is there. */
template <int DIM, int TILES> static __device__ void await_tile()
{
    __pipeline_wait_prior(layout<DIM, TILES>::stages - 1);
    __syncthreads();
}

#endif
