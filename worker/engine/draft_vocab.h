/* draft_vocab.h: the tokens that a draft's rough head covers (model.h): a part of the vocabulary that
 * holds nearly all that a model writes; recent_head.h adds what the texts at hand hold beyond it. What
 * it lacks costs a guess now and then, never a wrong token, since the target verifies every guess.
 *
 * The order is by frequency. It is taken from MODEL.vocab beside the model file, or from model.vocab
 * in a model folder, when there is one: text, one token id a line, the most frequent first; `forerun
 * model vocab` writes it. The rest, or all without that file, comes by id: BPE numbers its tokens in
 * the order of its merges, which is by frequency in the text that the tokenizer was made from.
 * Special tokens (those that end a chain among them) and single bytes are always in, so any text can
 * be written and ended. */
#ifndef FR_DRAFT_VOCAB_H
#define FR_DRAFT_VOCAB_H

#include "tokenizer.h"

#define FR_DRAFT_VOCAB 32768     /* the size unless told */
#define FR_DRAFT_VOCAB_AUTO (-1) /* as a size: fr_draft_vocab_size() decides */

/* The size to use: `wanted`; when that is FR_DRAFT_VOCAB_AUTO, FR_DRAFT_VOCAB for vocabularies of
 * more than 65536 tokens. 0: the head is small enough as it is. */
int fr_draft_vocab_size(const fr_tokenizer *t, int wanted);

/* The ids, ascending: `size` of them, more only when the tokens that are always in are more, fewer
 * only when there are no more. FR_EFORMAT and FR_EIO name file and line. */
fr_status fr_draft_vocab_read(const char *model_path, const fr_tokenizer *t, int size, fr_ids *out);

/* Writes that file: the first `size` ids by counts [vocabulary], the lower id first among equals.
 * *path_out (the caller's to free) receives its name. */
fr_status fr_draft_vocab_write(const char *model_path, const fr_tokenizer *t, const int64_t *counts,
                               int size, char **path_out);

#endif
