/* models.h: two deterministic stand-ins for language models, over real tokenizers: the target is
 * a hash of the prefix, the draft agrees with it at a chosen rate. Answers are pure functions of
 * the prefix, as the engine's are. */
#ifndef FR_TEST_MODELS_H
#define FR_TEST_MODELS_H

#include "tokenizer.h"

typedef struct models {
    const fr_tokenizer *target, *draft; /* draft: the same pointer, or another tokenizer */
    fr_ids target_words, draft_words;   /* what the models speak */
    fr_ids target_breaks, draft_breaks; /* tokens that hold or build delimiters */
    uint64_t seed;
    int agree;       /* share of the draft's tokens that are the target's, in per cent */
    int repetitive;  /* 1: the target mostly repeats what it wrote twelve tokens ago (n-grams) */
    int ends;        /* how often the target ends the chain, per mille of tokens */
    int accepts;     /* share of probes answered with 7 to 9, in per cent */
    int loops;       /* 1: the draft writes one step again and again */
    int sure;        /* 1: the draft gives its tokens high probabilities */
    int never_declines; /* 1: every probe is answered by a digit */
} models;

fr_status models_open(models *m, const fr_tokenizer *target, const fr_tokenizer *draft,
                      uint64_t seed);
void models_close(models *m);

/* The next token behind ids[n], whose chain begins at base. */
int32_t models_target_next(const models *m, const int32_t *ids, size_t n, size_t base);
int32_t models_draft_next(const models *m, const int32_t *ids, size_t n, size_t base);
/* Log-probability of `id` behind ids[n], under the target or the draft. */
float models_logprob(const models *m, int draft, const int32_t *ids, size_t n, size_t base,
                     int32_t id);
/* The target's answer to a probe behind ids[n]: log-probabilities of the wanted ids, and its own
 * next token. */
int32_t models_probe(const models *m, const int32_t *ids, size_t n, const int32_t *wanted,
                     size_t n_wanted, float *logprobs);

/* The tokenizer of the embedded pair; a byte-level one that shares nothing with it, with another
 * end token. */
fr_status models_tiny_tokenizer(fr_tokenizer **out);
fr_status models_other_tokenizer(fr_tokenizer **out);

#endif
