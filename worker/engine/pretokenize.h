/* pretokenize.h: cuts text into the pieces that byte-pair merges stay within. Immutable, shared by
 * threads. */
#ifndef FR_PRETOKENIZE_H
#define FR_PRETOKENIZE_H

#include <stddef.h>

#include "model_file.h"
#include "status.h"

/* The rule families; the numbers travel in tokenizer blobs. */
typedef enum {
    FR_PRE_GPT2 = 1,   /* runs of letters, of digits, of the rest; case-sensitive contractions */
    FR_PRE_DIGITS = 2, /* every digit alone, then GPT-2's rule on what lies between (smollm) */
    FR_PRE_LLAMA3 = 3, /* up to three digits together; newlines end runs of punctuation and space */
    FR_PRE_QWEN2 = 4,  /* the same with every digit alone */
    FR_PRE_LLAMA3_MERGED = 5 /* llama3's pieces; one that is a token goes through the merges nevertheless */
} fr_pre;

/* No GGUF converter has a name for it: Forerun's own, for a model folder (hf_tokenizer.h). */
#define FR_PRE_LLAMA3_MERGED_NAME "forerun-llama-bpe-merged"

/* The family that GGUF's tokenizer.ggml.pre names; FR_EUNSUPPORTED for others. */
fr_status fr_pre_find(fr_str name, fr_pre *out);

typedef struct fr_splitter fr_splitter;
fr_status fr_splitter_new(fr_pre pre, fr_splitter **out);
void fr_splitter_free(fr_splitter **s); /* NULL is fine */

/* Calls piece(arg, ...) for the pieces of well-formed UTF-8, which together are the text, in order;
 * stops at the first that fails and returns its status. */
typedef fr_status fr_piece_fn(void *arg, const char *piece, size_t n);
fr_status fr_splitter_each(const fr_splitter *s, const char *text, size_t n, fr_piece_fn *piece,
                           void *arg);

#endif
