/* chain.h: the growing reasoning text of one job: the target's token ids, its committed steps, and the same text in the
 * draft's ids when the two tokenizers differ. The coordinator owns it; an engine's KV cache is only a cache of it. */
#ifndef FR_CHAIN_H
#define FR_CHAIN_H

#include "tokenizer.h"

typedef struct fr_chain {
    const fr_tokenizer *target, *draft; /* borrowed; draft may be NULL (no draft group) */
    int same_tokenizer;                 /* by digest: drafted ids are the target's ids */
    fr_ids ids;                         /* the target's: prompt, then the committed chain */
    int prompt_len;                     /* chain position 0 is ids.data[prompt_len] */
    fr_ids draft_ids;                   /* tokenizers differ: the draft's prompt, then each step tokenised by itself */
    int draft_prompt_len;
    fr_buf text;                        /* of the committed chain, special tokens left out */
    int n_steps;
} fr_chain;

/* An empty chain behind its prompt. raw: the problem is the whole prompt. */
fr_status fr_chain_open(fr_chain *c, const fr_tokenizer *target, const fr_tokenizer *draft, const char *system,
                        const char *problem, int raw);
void fr_chain_close(fr_chain *c); /* frees; a zeroed chain is fine */
/* Appends one step's target ids (as committed, or as read from the store). */
fr_status fr_chain_append(fr_chain *c, const int32_t *ids, size_t n);
/* Tokens of the chain, the prompt not counted. */
int fr_chain_len(const fr_chain *c);

#endif
