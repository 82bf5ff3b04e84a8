/* fake_engine.h: an engine group for tests: a thread that speaks the engine protocol over a link,
 * with a model that is a pure function of the prefix, so that every way to the text must give the
 * same one. A draft differs from the target in every fifth word. */
#ifndef FR_FAKE_ENGINE_H
#define FR_FAKE_ENGINE_H

#include <stdatomic.h>

#include "link.h"
#include "tokenizer.h"

typedef struct fake_engine fake_engine;

typedef struct fake_options {
    const char *endpoint, *role, *name;
    uint64_t model_digest;
    const fr_tokenizer *tokenizer;
    int token_ms;   /* time for a token, and for a verification */
    int dies_after; /* falls silent, unread, after so many tokens or verifications; 0: never */
    uint64_t dies_of_seed; /* falls silent with the first request that has this seed; 0: of none */
    int batch_dependent; /* says that it is; its text stays the same */
    int forgets;    /* never holds a prefix: asks for the whole one every time */
    uint32_t max_context;
    int near_tie; /* at this position of a chain it generates another word than others; 0: at none */
    fr_status refuses; /* answers every request with this error */
} fake_options;

typedef struct fake_counts {
    atomic_int generates, verifies, need_prefix, registered, refused, released;
    atomic_int struck; /* 1: its dies_of_seed came */
    atomic_llong prefix_tokens; /* received */
} fake_counts;

fake_engine *fake_engine_start(const fake_options *o);
const fake_counts *fake_engine_counts(const fake_engine *e);
/* With a goodbye. */
void fake_engine_stop(fake_engine **e);
/* Without: as kill -9 would. */
void fake_engine_kill(fake_engine **e);

/* The model: the token that follows ids [n] of a chain that begins at base. */
int32_t fake_next(const fr_tokenizer *t, const int32_t *ids, int n, int base, int is_draft);
/* The target's whole text for a problem, at most max_tokens tokens. */
void fake_text(const fr_tokenizer *t, const char *problem, int max_tokens, fr_buf *out);
/* The same of a target with that near_tie. */
void fake_text_otherwise(const fr_tokenizer *t, const char *problem, int max_tokens, int near_tie, fr_buf *out);

/* The embedded target's tokenizer; and as the blob that engines send. Fail the test when they
 * cannot. */
fr_tokenizer *fake_tokenizer(void);

#endif
