/* recent_head.h: rows of the vocabulary head for tokens that the rough head (draft_vocab.h) leaves out but that the
 * texts at hand hold: a name that occurred once will soon be written again. With them a small rough head guesses nearly
 * as well as the whole one.
 *
 * Each rank holds those of its own part of the vocabulary, up to FR_RECENT of them. All ranks see the same passes, but
 * more ranks have room for more tokens, so guesses may depend on the degree; and as what is in here depends on what ran
 * before, on that. Texts do not. */
#ifndef FR_RECENT_HEAD_H
#define FR_RECENT_HEAD_H

#include "model.h"

#define FR_RECENT 256 /* most tokens a rank; the oldest makes room */

typedef struct fr_recent_head {
    const fr_model *model;  /* borrowed; NULL: the model has no rough head */
    fr_head head;           /* n is 0 at first */
    uint8_t *known;         /* [n_vocab]: in the rough head, or in here */
    int32_t ids[FR_RECENT]; /* by age, a ring: the oldest is the next to be replaced once all are used */
    int n, next;
    uint8_t *rows;          /* [FR_RECENT] of the file's head, to make the weight of */
} fr_recent_head;

/* Empty. FR_ENOMEM. */
fr_status fr_recent_head_open(fr_recent_head *r, const fr_model *model);
void fr_recent_head_close(fr_recent_head *r); /* a zeroed one is fine */
/* Takes in what is new among the tokens [n] of a pass. When there is no memory for it, it is left empty: a pass must
 * not fail on one rank alone. */
void fr_recent_head_note(fr_recent_head *r, const int32_t *tokens, int n);

#endif
