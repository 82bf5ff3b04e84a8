/* utf8.h: checking UTF-8, and GPT-2's spelling of bytes as printable characters. */
#ifndef FR_UTF8_H
#define FR_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The offset of the first byte that does not belong to well-formed UTF-8; n when all is well. */
size_t fr_utf8_check(const char *text, size_t n);

/* How many of n bytes to keep when at most `most` can be: what is cut off begins with a character. */
size_t fr_utf8_cut(const char *text, size_t n, size_t most);

/* GGUF spells the bytes of ordinary tokens as GPT-2 does: printable Latin-1 stands for itself, the
 * other 68 bytes for U+0100 and up, in order. Writes the bytes that `text` spells to out [n] and
 * their number to *n_out; 0 when a character spells no byte. (Source: bytes_to_unicode() in GPT-2's
 * encoder.py.) */
int fr_gpt2_bytes(const char *text, size_t n, char *out, size_t *n_out);

#endif
