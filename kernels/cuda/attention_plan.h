/* attention_plan.h: from the views of a pass to the tasks of attention.h, on the host.
 *
 * The plan is one array of words, which the caller copies to the device as it is; what lies where in it depends on
 * n, on the heads and on bounds rounded up to powers of two, so that most passes of one shape have the same
 * arguments (and one CUDA graph serves them). The page lists come last. A plan depends on the views, their pages and
 * the heads only: all layers of a pass ask for the same, which is noticed. */
#ifndef FR_CUDA_ATTENTION_PLAN_H
#define FR_CUDA_ATTENTION_PLAN_H

#include "attention.h"
#include "ops.h"

/* Zero-initialise before the first fr_cuda_attention_plan_make(); memory is kept from one to the
 * next. */
typedef struct fr_cuda_attention_plan {
    int32_t *words; /* [n_words]: what to stage */
    int n_words;
    int n_partials;                   /* bound of (row, chunk) pairs with partial results */
    int n_runs, max_narrow, max_wide, wide_pairs; /* as in fr_cuda_attention_args */
    int runs_at, rows_at, narrow_at, wide_at, pages_at; /* places in words */

    /* While a plan is made, and to tell whether the next one asked for is the same. */
    bool made;
    int n, heads, head_dim;
    int cap_kv_of_head;
    int32_t *kv_of_head; /* [heads] */
    int cap_words, cap_pages, cap_narrow, cap_wide, cap_rows, cap_runs, cap_spans, cap_families;
    int n_families, n_pages, n_narrow, n_wide;
    int32_t *pages;
    fr_cuda_attention_task *narrow, *wide;
    fr_cuda_attention_row *rows;
    fr_cuda_attention_run *runs;
    struct fr_cuda_attention_span *spans;
    struct fr_cuda_attention_family *families;
} fr_cuda_attention_plan;

/* head_dim has been checked: a multiple of 8, at most 256. */
fr_status fr_cuda_attention_plan_make(fr_cuda_attention_plan *p, const fr_attn_view *views, int n,
                                      const int32_t *kv_of_head, int heads, int head_dim);
void fr_cuda_attention_plan_free(fr_cuda_attention_plan *p); /* its memory; NULL is fine */

/* Fills what a plan knows of the arguments; `staged` is where p->words went on the device. */
void fr_cuda_attention_plan_bind(const fr_cuda_attention_plan *p, const int32_t *staged,
                                 fr_cuda_attention_args *args);
size_t fr_cuda_attention_scratch_bytes(const fr_cuda_attention_plan *p, int heads, int head_dim);

/* The most that plans for up to n rows, each of which sees up to n_positions, come to: of scratch, and of words. */
size_t fr_cuda_attention_most_scratch(int n, int n_positions, int heads, int head_dim);
size_t fr_cuda_attention_most_words(int n, int n_positions, int heads);

#endif
