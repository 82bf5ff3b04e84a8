/* step_scan.h: where steps end: the one rule that every policy shares, so that all of them cut a
 * text the same way.
 *
 * A step ends with the token that completes the delimiter, counted since the step began, or with
 * an end token. One that grows to `cap` tokens is cut there, in front of a character that those
 * tokens leave unfinished (unless the step is nothing else). Special tokens have no text here. */
#ifndef FR_STEP_SCAN_H
#define FR_STEP_SCAN_H

#include "policy.h"

typedef struct fr_step_scan {
    const fr_tokenizer *tokenizer; /* borrowed, as is the delimiter */
    const char *delimiter;
    size_t n_delimiter;
    int cap;
    fr_buf text;                   /* of the step under way */
    fr_ids ends;                   /* length of text after each of its tokens */
} fr_step_scan;

/* No memory is taken before the first token. */
void fr_step_scan_init(fr_step_scan *s, const fr_tokenizer *tokenizer,
                       const fr_policy_params *params);
void fr_step_scan_free(fr_step_scan *s);
/* Forgets the step under way. */
void fr_step_scan_reset(fr_step_scan *s);
/* The next token. *length_out: 0 while the step goes on, else its length in tokens; then the
 * scan is reset, and tokens past that length (of an unfinished character) are the first of the
 * next step: feed them again. */
fr_status fr_step_scan_feed(fr_step_scan *s, int32_t id, int *length_out);

#endif
