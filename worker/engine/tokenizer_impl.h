/* tokenizer_impl.h: the inside of fr_tokenizer, shared by tokenizer.c (use), tokenizer_load.c (from
 * a model file) and tokenizer_blob.c (to bytes and back).
 *
 * Building, in this order: fr_tokenizer_new(); fr_vocab_init() and its tokens, fr_vocab_index();
 * fr_bpe_init() and its merges; the plain fields; fr_tokenizer_finish(). fr_tokenizer_free() takes
 * it at any stage. */
#ifndef FR_TOKENIZER_IMPL_H
#define FR_TOKENIZER_IMPL_H

#include "bpe.h"
#include "pretokenize.h"
#include "tokenizer.h"
#include "vocab.h"

#define FR_ENDS_MAX 16

struct fr_tokenizer {
    fr_vocab vocab;
    fr_bpe bpe;
    fr_pre pre;
    fr_splitter *splitter;
    fr_chat_style chat;
    int32_t bos; /* -1: none */
    int add_bos; /* put it in front of prompts */
    int32_t ends[FR_ENDS_MAX];
    int n_ends;
    char *score_question, *score_prefill;
    uint64_t digest;
};

fr_status fr_tokenizer_new(fr_tokenizer **out);
/* Adds an end token; FR_EFORMAT when the vocabulary lacks it, FR_ELIMIT when there are too many.
 * Twice is fine. */
fr_status fr_tokenizer_add_end(fr_tokenizer *t, int32_t id);
/* Sets a text field (owned) from bytes; FR_EFORMAT unless UTF-8 without zero bytes. */
fr_status fr_tokenizer_set_text(char **field, const char *what, const void *bytes, size_t n);
/* Compiles the splitter and takes the digest. */
fr_status fr_tokenizer_finish(fr_tokenizer *t);

#endif
