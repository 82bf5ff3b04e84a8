/* chain.h: the growing reasoning text of one job: the target's token ids, its committed steps,
 * and the same text in the draft's ids when the two tokenizers differ. The coordinator owns it;
 * an engine's KV cache is only a cache of it.
 *
 * A chain is a pure function of its prompt and of the target ids of its steps, the draft's ids
 * included: so a chain that was read back from the store, and one that a policy builds ahead of
 * the committed one, come out the same. */
#ifndef FR_CHAIN_H
#define FR_CHAIN_H

#include "tokenizer.h"

/* How much there was of everything before a step. */
typedef struct fr_chain_mark {
    size_t ids, draft_ids, text;
} fr_chain_mark;

typedef struct fr_chain {
    const fr_tokenizer *target, *draft; /* borrowed; draft may be NULL (no drafts) */
    int same_tokenizer;                 /* by digest: drafted ids are the target's ids */
    fr_ids ids;                         /* the target's: prompt, then the committed chain */
    int prompt_len;                     /* chain position 0 is ids.data[prompt_len] */
    fr_ids draft_ids; /* tokenizers differ: prompt, then each step tokenised by itself */
    int draft_prompt_len;
    fr_buf text;                        /* of the committed chain, special tokens left out */
    int n_steps;
    fr_chain_mark *marks;               /* [n_steps] where each step begins */
    int cap_marks;
} fr_chain;

/* An empty chain behind its prompt. raw: the problem is the whole prompt. FR_EFORMAT names the
 * field and the offset of invalid UTF-8; FR_EINVAL for a prompt without a single token. */
fr_status fr_chain_open(fr_chain *c, const fr_tokenizer *target, const fr_tokenizer *draft,
                        const char *system, const char *problem, int raw);
void fr_chain_close(fr_chain *c); /* frees; a zeroed chain is fine */
/* Appends one step's target ids (as committed, or as read from the store). On failure the chain
 * is as before. */
fr_status fr_chain_append(fr_chain *c, const int32_t *ids, size_t n);
/* Tokens of the chain, the prompt not counted. */
int fr_chain_len(const fr_chain *c);

/* Makes `to` (open or zeroed) a copy of `from`. On failure `to` can only be closed or copied to
 * again. */
fr_status fr_chain_copy(fr_chain *to, const fr_chain *from);
/* Drops all steps from number n_steps on. */
void fr_chain_truncate(fr_chain *c, int n_steps);
/* The target ids of step i; borrowed until the chain changes. */
const int32_t *fr_chain_step(const fr_chain *c, int i, int *n_out);
/* 1: the last `times` steps are all the same, and there are so many. */
int fr_chain_repeats(const fr_chain *c, int times);

/* Appends n bytes of text with U+FFFD for each byte that belongs to no UTF-8 character. */
fr_status fr_utf8_clean(const void *data, size_t n, fr_buf *out);

#endif
