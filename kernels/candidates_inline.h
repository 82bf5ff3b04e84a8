/* candidates_inline.h: what CPUs and GPUs share of candidates.h's definition, so that it is written
 * once. Internal to kernels/. As in rng_inline.h, every step is a correctly rounded operation. */
#ifndef FR_CANDIDATES_INLINE_H
#define FR_CANDIDATES_INLINE_H

#include "candidates.h"
#include "rng_inline.h"

#define FR_CHUNK 1024 /* columns that share partial sums; counted from the slice's first column */
#define FR_CHUNK_LANES 16 /* column i of a chunk goes to partial sum i % 16 */

/* exp(x), FR_EXP_LOWEST <= x <= 0, in steps for T, which is float or a vector of floats: the result
 * is y with (the bits of shifted) << 23 added to its bits. (Cody-Waite reduction, where 1.5 * 2^23
 * makes the low bits of `shifted` round(x / ln 2), and a polynomial of degree 6, coefficients 1/k!,
 * |r| <= ln(2)/2.) Relative error about 2e-7. */
#define FR_EXP_LOWEST (-87.0f)
/* clang-format off */
#define FR_EXP_STEPS(T, x, shifted, y)                                                             \
    do {                                                                                           \
        (shifted) = (x) * 1.44269504f + 12582912.0f;                                               \
        const T k_ = (shifted) - 12582912.0f;                                                      \
        const T r_ = (x) - k_ * 0.693359375f + k_ * 2.12194440e-4f;                                \
        (y) = r_ * 1.38888889e-3f + 8.33333333e-3f;                                                \
        (y) = (y) * r_ + 4.16666667e-2f;                                                           \
        (y) = (y) * r_ + 1.66666667e-1f;                                                           \
        (y) = (y) * r_ + 0.5f;                                                                     \
        (y) = (y) * r_ + 1.0f;                                                                     \
        (y) = (y) * r_ + 1.0f;                                                                     \
    } while (0)
/* clang-format on */

/* The token of a column. */
static inline FR_ANYWHERE int32_t fr_column_token(int32_t first_token, const int32_t *tokens,
                                                  int64_t column)
{
    return tokens ? tokens[column] : (int32_t)(first_token + column);
}

/* How many of the ascending tokens [n] lie below `token`. */
static inline FR_ANYWHERE int fr_tokens_below(const int32_t *tokens, int n, int32_t token)
{
    int low = 0;
    if (n > 0 && tokens[n - 1] < token)
        return n;
    while (low < n) {
        int middle = low + (n - low) / 2;
        if (tokens[middle] < token)
            low = middle + 1;
        else
            n = middle;
    }
    return low;
}

/* How many of the columns, which come first, are real tokens. */
static inline FR_ANYWHERE int fr_query_columns(const fr_row_query *q, int vocab,
                                               int32_t first_token, const int32_t *tokens)
{
    if (q->n_vocab <= 0)
        return vocab;
    if (tokens)
        return fr_tokens_below(tokens, vocab, q->n_vocab);
    if ((int64_t)first_token + vocab <= q->n_vocab)
        return vocab;
    return first_token < q->n_vocab ? q->n_vocab - first_token : 0;
}

/* The column of a token; -1: it has none. */
static inline FR_ANYWHERE int64_t fr_token_column(int32_t token, int columns, int32_t first_token,
                                                  const int32_t *tokens)
{
    int64_t column =
        tokens ? fr_tokens_below(tokens, columns, token) : (int64_t)token - first_token;
    if (column < 0 || column >= columns || fr_column_token(first_token, tokens, column) != token)
        return -1;
    return column;
}

/* What the winner maximises. */
static inline FR_ANYWHERE float fr_query_value_inline(const fr_row_query *q, float logit,
                                                      int32_t token)
{
    if (q->temperature <= 0)
        return logit;
    return logit / q->temperature +
           fr_gumbel_inline(q->seed, q->sample, q->position, (uint32_t)token);
}

#endif
