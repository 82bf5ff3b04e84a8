/* vocab.h: the tokens of a vocabulary as bytes, found by id and by bytes. Part of a tokenizer;
 * immutable once built. */
#ifndef FR_VOCAB_H
#define FR_VOCAB_H

#include "index.h"
#include "status.h"

#define FR_TOKEN_BYTES_MAX 1024 /* no token is longer */

/* What a token is to the text around it; the numbers travel in tokenizer blobs. */
typedef enum {
    FR_TOKEN_NORMAL = 0,  /* reached by merges */
    FR_TOKEN_CONTROL = 1, /* marks turns and ends; in text only where the caller trusts it */
    FR_TOKEN_USER = 2,    /* added by the model's authors; always recognised in text */
    FR_TOKEN_INERT = 3    /* neither (a reserved id): known by id only */
} fr_token_class;

typedef struct fr_vocab {
    int32_t n, cap;
    uint8_t *bytes;  /* all tokens end to end */
    uint32_t *start; /* [n + 1] into bytes */
    uint8_t *klass;  /* [n] fr_token_class */
    size_t bytes_cap;
    fr_index index;
    /* Where a control or user token may begin and which lengths they have: bit (1 << class). */
    uint8_t first_byte[256], lengths[FR_TOKEN_BYTES_MAX + 1];
    size_t longest_special;
} fr_vocab;

/* Room for n tokens of `bytes` bytes in all. Zero-initialise before; fr_vocab_free() also after a
 * failure. */
fr_status fr_vocab_init(fr_vocab *v, size_t n, size_t bytes);
void fr_vocab_free(fr_vocab *v);
/* Takes the next id. FR_EFORMAT for overlong tokens, and for empty ones unless inert; beyond the
 * room given, FR_ELIMIT. */
fr_status fr_vocab_add(fr_vocab *v, const void *bytes, size_t n, fr_token_class klass);
/* After the last add: makes the tokens findable. */
fr_status fr_vocab_index(fr_vocab *v);

static inline const uint8_t *fr_vocab_bytes(const fr_vocab *v, int32_t id, size_t *n_out)
{
    *n_out = v->start[id + 1] - v->start[id];
    return v->bytes + v->start[id];
}

/* The lowest id with these bytes and class; -1 when there is none. */
int32_t fr_vocab_find(const fr_vocab *v, const void *bytes, size_t n, fr_token_class klass);
/* The longest user token, or control token when with_control is not 0, that the text [n] begins
 * with, and its length; -1 when there is none. */
int32_t fr_vocab_match_special(const fr_vocab *v, const char *text, size_t n, int with_control,
                               size_t *len_out);

#endif
