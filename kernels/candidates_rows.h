/* candidates_rows.h: the pieces of candidates.h's definition that the fast backends share with it.
 * Internal to kernels/. */
#ifndef FR_CANDIDATES_ROWS_H
#define FR_CANDIDATES_ROWS_H

#include "candidates.h"
#include "candidates_lanes.h"

/* What the winner maximises. */
float fr_query_value(const fr_row_query *q, float logit, int32_t token);
/* Fills out->wanted_logit. */
void fr_query_wanted(const float *logits, int columns, int32_t first_token, const int32_t *tokens,
                     const fr_row_query *q, fr_row_answer *out);
/* A bounded heap of the best n_max candidates: offer all, then sort once. */
void fr_top_offer(fr_candidate *heap, int *n, int n_max, fr_candidate c);
void fr_top_sort(fr_candidate *heap, int n);

#endif
