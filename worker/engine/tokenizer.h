/* tokenizer.h: text to token ids and back, byte-level BPE. Immutable after loading, so shared by threads.
 *
 * Built from a model file's metadata, or from the blob an engine sends to the coordinator, which never needs the
 * model file itself. Sources: GPT-2 byte-level BPE (Radford et al. 2019); the pre-tokeniser expressions that GGUF
 * names gpt-2/smollm, llama-bpe and qwen2; special tokens are matched before pre-tokenising, longest first. */
#ifndef FR_TOKENIZER_H
#define FR_TOKENIZER_H

#include "buf.h"
#include "chat.h"
#include "model_file.h"
#include "status.h"

typedef struct fr_tokenizer fr_tokenizer;

fr_status fr_tokenizer_from_model(const fr_model_file *file, fr_tokenizer **out);
/* The whole tokenizer, chat style included, as bytes; and back. The blob is untrusted input. */
fr_status fr_tokenizer_pack(const fr_tokenizer *t, fr_buf *out);
fr_status fr_tokenizer_unpack(const void *data, size_t n, fr_tokenizer **out);
void fr_tokenizer_free(fr_tokenizer **t);

/* Equal for tokenizers that give the same ids to every text; vocabulary padding does not count. */
uint64_t fr_tokenizer_digest(const fr_tokenizer *t);
int32_t fr_tokenizer_n_vocab(const fr_tokenizer *t); /* real tokens: padding at the end left out */
fr_chat_style fr_tokenizer_chat_style(const fr_tokenizer *t);
int fr_tokenizer_is_end(const fr_tokenizer *t, int32_t id); /* 1: ends a turn or the text */
int fr_tokenizer_is_special(const fr_tokenizer *t, int32_t id); /* 1: a control token, or one its authors added */
/* What the score judge asks this model, and how the model's reply begins: the model file's forerun.score_question and
 * forerun.score_prefill, or the defaults. Borrowed. */
const char *fr_tokenizer_score_question(const fr_tokenizer *t);
const char *fr_tokenizer_score_prefill(const fr_tokenizer *t);
#define FR_SCORE_QUESTION "Rate the last step from 0 to 9."
#define FR_SCORE_PREFILL "Score: "
/* End tokens; borrowed. */
const int32_t *fr_tokenizer_ends(const fr_tokenizer *t, int *n_out);

/* Appends the ids of n bytes of UTF-8 to *ids. Control tokens in the text are recognised when parse_special is not 0;
 * tokens that the model's authors marked as user-defined always are, as everywhere. FR_EFORMAT names the offset of
 * invalid UTF-8. No BOS is added. Bytes that the vocabulary has no token for (a few control characters in small ones)
 * give none. On failure *ids is as before. */
typedef struct fr_ids {
    int32_t *data;
    size_t len, cap;
} fr_ids;
void fr_ids_free(fr_ids *ids);
fr_status fr_ids_put(fr_ids *ids, const int32_t *more, size_t n);
fr_status fr_tokenize(const fr_tokenizer *t, const char *text, size_t n, int parse_special, fr_ids *ids);
/* Like fr_tokenize with special tokens, with the model's BOS in front when its metadata asks for it and the text does
 * not begin with it. */
fr_status fr_tokenize_prompt(const fr_tokenizer *t, const char *text, size_t n, fr_ids *ids);
/* The ids of the parts joined: each part decides whether its control tokens count, and a token recognised as such never
 * spans two parts; ordinary text is split and merged across parts as if it were one. */
fr_status fr_tokenize_parts(const fr_tokenizer *t, const fr_text_part *parts, int n_parts, fr_ids *ids);
/* Chats whose contents (system, user, question) are not trusted: control tokens written in them stay text. The prompt
 * gets the model's BOS like fr_tokenize_prompt(). See chat.h for the arguments. */
fr_status fr_chat_tokenize_prompt(const fr_tokenizer *t, fr_chat_style style, const char *system,
                                  const char *user, fr_ids *ids);
fr_status fr_chat_tokenize_probe(const fr_tokenizer *t, fr_chat_style style, const char *question,
                                 const char *prefill, fr_ids *ids);

/* The bytes of one token (borrowed; not terminated; perhaps part of a UTF-8 character). Special tokens give their text.
 * NULL and 0 for an unknown id. */
const char *fr_token_bytes(const fr_tokenizer *t, int32_t id, size_t *n_out);
/* Appends the bytes of ids; control tokens are left out unless keep_special. FR_EINVAL for an unknown id; then *out is
 * as before. */
fr_status fr_detokenize(const fr_tokenizer *t, const int32_t *ids, size_t n, int keep_special, fr_buf *out);

/* Bytes at the end of data that begin a UTF-8 character not yet complete (0..3): hold these back when streaming. */
size_t fr_utf8_unfinished(const void *data, size_t n);

#endif
