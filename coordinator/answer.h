/* answer.h: the answer in a chain's text, and whether two answers mean the same. */
#ifndef FR_ANSWER_H
#define FR_ANSWER_H

#include <stddef.h>

#include "buf.h"
#include "status.h"

/* Appends the text's answer as it is written: the contents of its last complete \boxed{...},
 * else its last number. A terminating zero is written behind len, also when there is no answer
 * and nothing is appended. */
fr_status fr_answer_extract(const char *text, size_t n, fr_buf *out);
/* 1: both mean the same: equal in normal form, or equal as numbers (0.5 and 1/2). No answer ("")
 * equals nothing. */
int fr_answer_equal(const char *a, const char *b);

/* Longest answer that is normalised; longer ones are only compared byte by byte. */
#define FR_ANSWER_MAX 1024
/* The normal form: no dollar signs, units, thousands' commas, needless zeros or LaTeX spacing;
 * fractions as a/b; lower case. It is never longer than the answer; `out` holds FR_ANSWER_MAX
 * bytes. An answer that does not fit is cut. */
void fr_answer_normalize(const char *answer, char *out);

#endif
