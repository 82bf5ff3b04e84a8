/* buf.h: a growable byte buffer, and a bounds-checked reader over bytes. Zero-initialise a buffer before use. */
#ifndef FR_BUF_H
#define FR_BUF_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct fr_buf {
    uint8_t *data;
    size_t len, cap;
} fr_buf;

/* Frees the memory and leaves an empty buffer that can be used again. NULL is fine. */
void fr_buf_free(fr_buf *b);
/* Makes room for `more` bytes beyond len. */
fr_status fr_buf_reserve(fr_buf *b, size_t more);
fr_status fr_buf_put(fr_buf *b, const void *data, size_t n);
fr_status fr_buf_put_u32(fr_buf *b, uint32_t v); /* little-endian */
fr_status fr_buf_put_u64(fr_buf *b, uint64_t v);
fr_status fr_buf_put_str(fr_buf *b, const void *data, size_t n); /* u32 length, then the bytes */
/* Appends text; the terminating zero is written behind len, so data is a C string. */
fr_status fr_buf_printf(fr_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Reads forward; every call fails with FR_EFORMAT instead of passing `end`. */
typedef struct fr_reader {
    const uint8_t *at, *end;
    const char *what; /* named in errors: "tokenizer blob" */
} fr_reader;

fr_status fr_read_bytes(fr_reader *r, size_t n, const uint8_t **out); /* borrowed */
fr_status fr_read_u32(fr_reader *r, uint32_t *out);
fr_status fr_read_u64(fr_reader *r, uint64_t *out);
fr_status fr_read_str(fr_reader *r, const uint8_t **out, size_t *n_out); /* borrowed, not terminated */

#endif
