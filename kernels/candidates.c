/* candidates.c: the plain definition of candidates.h, spelt out; what "equal to the bit" is
 * measured against.
 *
 * What is easy to get wrong:
 *  - Padding columns (ids at or above n_vocab) are as if the slice ended before them: not in max,
 *    sum_exp, top or wanted.
 *  - Columns of listed tokens ascend as any others do, so the first column wins a tie here too; and
 *    the noise is that of the token, wherever its column lies.
 *  - A NaN logit never wins, is never the maximum and is never in `top`. Where no logit is above
 *    -INFINITY the winner is the first token, its value -INFINITY and sum_exp 0. An empty slice has
 *    winner -1.
 *  - sum_exp adds chunk by chunk (candidates_lanes.h), so that threads can share a row. */
#include "candidates.h"

#include <math.h>

#include "candidates_rows.h"

float fr_query_value(const fr_row_query *q, float logit, int32_t token)
{
    return fr_query_value_inline(q, logit, token);
}

void fr_query_wanted(const float *logits, int columns, int32_t first_token, const int32_t *tokens,
                     const fr_row_query *q, fr_row_answer *out)
{
    for (int i = 0; i < q->n_wanted && i < FR_WANTED_MAX; i++) {
        int64_t column = fr_token_column(q->wanted[i], columns, first_token, tokens);
        out->wanted_logit[i] = column >= 0 ? logits[column] : -INFINITY;
    }
}

size_t fr_answer_bytes(const fr_row_query *queries, int n)
{
    int32_t n_top = 0;
    for (int i = 0; i < n; i++)
        n_top = queries[i].n_top > n_top ? queries[i].n_top : n_top;
    const size_t need = offsetof(fr_row_answer, top) + (size_t)n_top * sizeof(fr_candidate);
    for (size_t bytes = 128; bytes < sizeof(fr_row_answer); bytes *= 2)
        if (bytes >= need)
            return bytes;
    return sizeof(fr_row_answer);
}

/* Is a before b in the order of `top`? */
static int before(fr_candidate a, fr_candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

/* `heap` holds the best seen so far, the worst of them at the root. Moves the entry at `at` down to
 * its place. */
static void sift_down(fr_candidate *heap, int n, int at)
{
    for (;;) {
        int child = 2 * at + 1;
        if (child >= n)
            return;
        if (child + 1 < n && before(heap[child], heap[child + 1]))
            child++;
        if (!before(heap[at], heap[child]))
            return;
        fr_candidate t = heap[at];
        heap[at] = heap[child];
        heap[child] = t;
        at = child;
    }
}

void fr_top_offer(fr_candidate *heap, int *n, int n_max, fr_candidate c)
{
    if (*n < n_max) {
        int at = (*n)++;
        while (at > 0 && before(heap[(at - 1) / 2], c)) {
            heap[at] = heap[(at - 1) / 2];
            at = (at - 1) / 2;
        }
        heap[at] = c;
    } else if (n_max > 0 && before(c, heap[0])) {
        heap[0] = c;
        sift_down(heap, *n, 0);
    }
}

void fr_top_sort(fr_candidate *heap, int n)
{
    for (int end = n - 1; end > 0; end--) { /* the worst goes last, again and again */
        fr_candidate t = heap[0];
        heap[0] = heap[end];
        heap[end] = t;
        sift_down(heap, end, 0);
    }
}

void fr_row_query_answer(const float *logits, int vocab, int32_t first_token, const int32_t *tokens,
                         const fr_row_query *q, fr_row_answer *out)
{
    int columns = fr_query_columns(q, vocab, first_token, tokens);
    int n_top = q->n_top < FR_TOP_MAX ? q->n_top : FR_TOP_MAX;
    out->max = out->winner_value = out->winner_logit = -INFINITY;
    out->sum_exp = 0;
    out->winner = columns > 0 ? fr_column_token(first_token, tokens, 0) : -1;
    out->n_top = 0;
    for (int i = 0; i < columns; i++) {
        int32_t token = fr_column_token(first_token, tokens, i);
        if (logits[i] > out->max)
            out->max = logits[i];
        float value = fr_query_value(q, logits[i], token);
        if (value > out->winner_value) {
            out->winner_value = value;
            out->winner_logit = logits[i];
            out->winner = token;
        }
        if (logits[i] == logits[i])
            fr_top_offer(out->top, &out->n_top, n_top, (fr_candidate){token, logits[i]});
    }
    fr_top_sort(out->top, out->n_top);
    for (int i = 0; i < columns && out->max > -INFINITY; i += FR_CHUNK)
        out->sum_exp +=
            fr_chunk_sum_exp(logits + i, columns - i < FR_CHUNK ? columns - i : FR_CHUNK, out->max);
    fr_query_wanted(logits, columns, first_token, tokens, q, out);
}
