/* attention.h: paged attention on CUDA, as launcher and plan see it (C and C++).
 *
 * Work comes as tasks: some neighbouring rows that find the same positions in the same slots, and
 * which chunks of the positions. A block takes one task for one run of heads, so that keys and
 * values are read once for all (row, head) pairs that need them. Tasks of up to 16 pairs are
 * narrow, larger ones wide. How rows are dealt out changes nothing in any result (attention.cu). */
#ifndef FR_CUDA_ATTENTION_H
#define FR_CUDA_ATTENTION_H

#include <stdint.h>

#include "command.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    FR_ATTENTION_CHUNK = 256, /* positions, counted from 0, whose softmax is taken as one */
    FR_ATTENTION_NARROW = 16, /* pairs; also the most heads of a run */
    FR_ATTENTION_RECORD = 4,  /* floats before a partial result's values: maximum, total, -, - */
    FR_ATTENTION_SHARED = 158 << 10, /* bytes of shared memory that a block takes at most */
};

/* Pairs of a wide task: what the shared memory of a multiprocessor holds. */
static inline int fr_cuda_attention_wide(int head_dim)
{
    return head_dim > 128 ? 32 : 64;
}

FR_CUDA_ARGS_BEGIN

/* Neighbouring query heads that read one KV head. */
typedef struct fr_cuda_attention_run {
    int32_t first_head, n_heads, kv_head;
} fr_cuda_attention_run;

/* first_partial: where this row's partial results begin, one a chunk; -1: one task sees all its
 * chunks and writes the result. */
typedef struct fr_cuda_attention_row {
    int32_t n_positions, first_partial;
} fr_cuda_attention_row;

/* The view is that of the row that sees most. The other rows see less of the same slots. */
typedef struct fr_cuda_attention_task {
    int32_t first_row, n_rows, first_chunk, n_chunks;
    int32_t trunk_at, n_trunk, branch_at, n_positions; /* *_at: places in the page lists */
} fr_cuda_attention_task;

/* Everything from `runs` to `merge` comes from a plan (attention_plan.h). All pointers are device
 * memory. */
typedef struct fr_cuda_attention_args {
    float *out;                           /* [n, heads, head_dim] */
    const float *q;                       /* [n, heads, head_dim] */
    const uint16_t *k;                    /* [slots, kv_heads, head_dim] f16 */
    const uint16_t *v;                    /* the same */
    float *scratch;                       /* fr_cuda_attention_scratch_bytes(), 16-byte aligned */
    const fr_cuda_attention_run *runs;    /* [n_runs] */
    const fr_cuda_attention_row *rows;    /* [n] */
    const fr_cuda_attention_task *narrow; /* [max_narrow]; zero beyond those that there are */
    const fr_cuda_attention_task *wide;   /* [max_wide] */
    const int32_t *pages;
    int32_t n, heads, kv_heads, head_dim;
    int32_t n_runs, max_narrow, max_wide;
    int32_t merge; /* some row has partial results */
    float scale;
    int32_t wide_pairs; /* most pairs of a wide task, a power of two */
} fr_cuda_attention_args;
FR_CUDA_ARGS_END

/* args: fr_cuda_attention_args. head_dim is a multiple of 8, at most 256. */
void fr_cuda_attention(cudaStream_t stream, const void *args);

#ifdef __cplusplus
}
#endif

#endif
