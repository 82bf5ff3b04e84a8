/* gguf_writer.h: writes small GGUF files in memory for tests: right ones, and wrong ones by hand.
 */
#ifndef FR_GGUF_WRITER_H
#define FR_GGUF_WRITER_H

#include "buf.h"
#include "model_file.h"

/* Failing to write (no memory) aborts: tests have nothing to do then. */
void gguf_header(fr_buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_meta);
void gguf_str(fr_buf *b, const char *text); /* u64 length, then the bytes */
void gguf_key(fr_buf *b, const char *key, fr_meta_type type);
void gguf_meta_u32(fr_buf *b, const char *key, uint32_t v);
void gguf_meta_f32(fr_buf *b, const char *key, float v);
void gguf_meta_bool(fr_buf *b, const char *key, int v);
void gguf_meta_str(fr_buf *b, const char *key, const char *v);
void gguf_array(fr_buf *b, const char *key, fr_meta_type element,
                uint64_t n); /* the elements follow */
void gguf_tensor(fr_buf *b, const char *name, uint32_t type, int n_dims, const uint64_t *dims,
                 uint64_t offset);
/* Zeroes up to the next multiple of `alignment`, then n bytes of a pattern. */
void gguf_data(fr_buf *b, size_t alignment, size_t n);
void gguf_bytes(fr_buf *b, const void *data, size_t n);
void gguf_u32(fr_buf *b, uint32_t v);
void gguf_u64(fr_buf *b, uint64_t v);

/* A tokenizer's vocabulary for byte-level tests: the 256 bytes in GPT-2's spelling, the merges'
 * results, then the specials, as a model file without tensors. */
typedef struct gguf_special {
    const char *text;
    int type; /* GGUF's: 1 normal, 3 control, 4 user-defined, 5 unused */
} gguf_special;
typedef struct gguf_vocab {
    const char *pre;              /* NULL: none */
    const char *const *merges;    /* "a b", in GPT-2's spelling; NULL-terminated */
    const gguf_special *specials; /* terminated by a NULL text */
    const char *chat;             /* NULL: none */
    int add_bos;                  /* -1: not said */
    int bos;                      /* -1: none */
    const char *question;         /* forerun.score_question; NULL: none */
} gguf_vocab;
void gguf_tokenizer(fr_buf *b, const gguf_vocab *v);
/* Its metadata alone, for a file that has more; and their number, for its header. */
void gguf_tokenizer_meta(fr_buf *b, const gguf_vocab *v);
uint64_t gguf_tokenizer_n_meta(const gguf_vocab *v);
/* GPT-2's character for a byte, as UTF-8. */
void gguf_spell(int byte, char out[3]);

#endif
