/* plan.h: one pass, as every rank carries it out: rows, where their keys go, what they see, and which rows are asked
 * about. The leader builds it; followers receive it as bytes, and check it before they write where it says. Ranks run
 * the same build, so it travels as it lies in memory. */
#ifndef FR_PLAN_H
#define FR_PLAN_H

#include <stdbool.h>

#include "buf.h"
#include "candidates.h"
#include "kv_cache.h"
#include "status.h"

typedef struct fr_plan_row {
    int32_t token, pos, slot;    /* slot: where this row's key and value go */
    int32_t trunk_at, n_trunk;   /* its view (ops.h): page lists are ranges of fr_plan.pages */
    int32_t branch_at, n_branch;
} fr_plan_row;

typedef struct fr_plan_query {
    int32_t row;
    int32_t rough; /* 1: answered by the model's rough head */
    fr_row_query query;
} fr_plan_query;

typedef struct fr_plan {
    int n_rows, n_pages, n_queries, n_copies;
    int cap_rows, cap_pages, cap_queries, cap_copies;
    fr_plan_row *rows;
    int32_t *pages;
    fr_plan_query *queries;
    fr_page_copy *copies;
} fr_plan;

/* What a rank has: pages of its KV cache, positions of a sequence, token ids. How many rows it takes is fr_forward's to
 * check. */
typedef struct fr_plan_bounds {
    int n_pages, context, n_vocab;
    bool has_rough_head;
} fr_plan_bounds;

typedef enum { FR_COMMAND_PASS = 1, FR_COMMAND_CLOSE = 2 } fr_command;

void fr_plan_free(fr_plan *p);
/* Empties it; the memory stays. */
void fr_plan_clear(fr_plan *p);
/* Makes room for that many more of each. */
fr_status fr_plan_reserve(fr_plan *p, int rows, int pages, int queries, int copies);

/* Replaces out's contents by the command, with the plan behind FR_COMMAND_PASS. plan may be NULL for others. */
fr_status fr_plan_encode(fr_command command, const fr_plan *p, fr_buf *out);
/* FR_EFORMAT: data [n] are no command of this build. */
fr_status fr_plan_decode(const void *data, size_t n, fr_command *command_out, fr_plan *out);
/* FR_EFORMAT: some number in it is outside the bounds, or outside the plan; the cause says which. */
fr_status fr_plan_check(const fr_plan *p, const fr_plan_bounds *b);

#endif
