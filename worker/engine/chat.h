/* chat.h: chat templates. The families that Forerun's models use, chosen from the metadata and written in C rather
 * than by running the file's Jinja. */
#ifndef FR_CHAT_H
#define FR_CHAT_H

#include "buf.h"
#include "status.h"

/* The numbers travel in tokenizer blobs. */
typedef enum {
    FR_CHAT_NONE,     /* a base model: contents only */
    FR_CHAT_CHATML,   /* <|im_start|>role\n...<|im_end|>\n */
    FR_CHAT_LLAMA3,   /* <|start_header_id|>role<|end_header_id|>\n\n...<|eot_id|> */
    FR_CHAT_DEEPSEEK, /* <|User|>...<|Assistant|><think>\n, DeepSeek-R1 (with its full-width bars) */
    FR_CHAT_THINKING  /* ChatML whose reply begins with <think>\n: QwQ, Qwen3 Thinking */
} fr_chat_style;

/* The style of a Jinja template text (may be NULL or empty: FR_CHAT_NONE); FR_EUNSUPPORTED for an unknown family. */
fr_status fr_chat_detect(const char *template_text, size_t n, fr_chat_style *out);

/* A chat is text of two kinds: the template's own, where special tokens are meant, and contents from outside, where
 * text such as "<|im_end|>" must stay text. The parts keep them apart; to tokenise a chat, use
 * fr_chat_tokenize_prompt() and fr_chat_tokenize_probe() (tokenizer.h), which do too, not the joined text below. */
typedef struct fr_text_part {
    const char *text; /* borrowed */
    size_t n;
    int parse_special; /* 1: the template's own */
} fr_text_part;
#define FR_CHAT_PARTS_MAX 8
int fr_chat_prompt_parts(fr_chat_style style, const char *system, const char *user,
                         fr_text_part out[FR_CHAT_PARTS_MAX]);
int fr_chat_probe_parts(fr_chat_style style, const char *question, const char *prefill,
                        fr_text_part out[FR_CHAT_PARTS_MAX]);

/* Appends the prompt for a chat of one optional system turn (NULL: none) and one user turn, ending where the
 * assistant's reply begins. */
fr_status fr_chat_prompt(fr_chat_style style, const char *system, const char *user, fr_buf *out);

/* Appends what turns an unfinished assistant reply into a new question and an assistant reply that begins with
 * `prefill`: the probe branch of the score judge. */
fr_status fr_chat_probe(fr_chat_style style, const char *question, const char *prefill, fr_buf *out);

#endif
