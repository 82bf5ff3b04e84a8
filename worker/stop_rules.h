/* stop_rules.h: where a generation stops because of its text: the token that completes the step's
 * delimiter, or one of the stop strings. Text is what the ids decode to, special tokens left out,
 * as the coordinator sees it. */
#ifndef FR_STOP_RULES_H
#define FR_STOP_RULES_H

#include "codec.h"
#include "tokenizer.h"

typedef struct fr_stop_rules {
    const fr_tokenizer *tokenizer; /* borrowed, as the strings are */
    const char *delimiter;         /* NULL: not a rule */
    const char *const *stops;
    size_t n_stops;
    fr_buf text; /* the end of what was written so far; as much as a rule can reach into */
    size_t step_at;                /* offset in text from which the delimiter counts */
} fr_stop_rules;

/* The rules of a request whose sequence begins with ids [n]. The delimiter is sought from step_from
 * on, stop strings from the beginning of the chain or the step; both positions are at most n. */
fr_status fr_stop_rules_open(fr_stop_rules *r, const fr_tokenizer *tokenizer,
                             const fr_msg_generate *m, const int32_t *ids, int n);
void fr_stop_rules_close(fr_stop_rules *r);
/* Takes the next token: *stop_out is "step", "stop", or NULL to go on. */
fr_status fr_stop_rules_feed(fr_stop_rules *r, int32_t id, const char **stop_out);

#endif
