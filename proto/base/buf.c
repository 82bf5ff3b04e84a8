/* buf.c: see buf.h. */
#include "buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

void fr_buf_free(fr_buf *b)
{
    if (!b)
        return;
    free(b->data);
    *b = (fr_buf){0};
}

fr_status fr_buf_reserve(fr_buf *b, size_t more)
{
    if (more > SIZE_MAX / 2 - b->len)
        return fr_no_memory();
    size_t want = b->len + more;
    if (want <= b->cap)
        return FR_OK;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < want)
        cap *= 2;
    uint8_t *data = realloc(b->data, cap);
    if (!data)
        return fr_no_memory();
    b->data = data;
    b->cap = cap;
    return FR_OK;
}

fr_status fr_buf_put(fr_buf *b, const void *data, size_t n)
{
    FR_TRY(fr_buf_reserve(b, n));
    if (n)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    return FR_OK;
}

fr_status fr_buf_put_u32(fr_buf *b, uint32_t v)
{
    uint8_t raw[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    return fr_buf_put(b, raw, sizeof raw);
}

fr_status fr_buf_put_u64(fr_buf *b, uint64_t v)
{
    FR_TRY(fr_buf_put_u32(b, (uint32_t)v));
    return fr_buf_put_u32(b, (uint32_t)(v >> 32));
}

fr_status fr_buf_put_str(fr_buf *b, const void *data, size_t n)
{
    if (n > UINT32_MAX)
        return fr_fail(FR_ELIMIT, "string of %zu bytes is too long", n);
    FR_TRY(fr_buf_put_u32(b, (uint32_t)n));
    return fr_buf_put(b, data, n);
}

fr_status fr_buf_printf(fr_buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        return fr_fail(FR_EINVAL, "cannot format \"%s\"", fmt);
    FR_TRY(fr_buf_reserve(b, (size_t)n + 1));
    va_start(ap, fmt);
    vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
    return FR_OK;
}

fr_status fr_read_bytes(fr_reader *r, size_t n, const uint8_t **out)
{
    if (n > (size_t)(r->end - r->at))
        return fr_fail(FR_EFORMAT, "%s: truncated", r->what);
    *out = r->at;
    r->at += n;
    return FR_OK;
}

fr_status fr_read_u32(fr_reader *r, uint32_t *out)
{
    const uint8_t *p = NULL;
    FR_TRY(fr_read_bytes(r, 4, &p));
    *out = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    return FR_OK;
}

fr_status fr_read_u64(fr_reader *r, uint64_t *out)
{
    uint32_t lo = 0, hi = 0;
    FR_TRY(fr_read_u32(r, &lo));
    FR_TRY(fr_read_u32(r, &hi));
    *out = (uint64_t)hi << 32 | lo;
    return FR_OK;
}

fr_status fr_read_str(fr_reader *r, const uint8_t **out, size_t *n_out)
{
    uint32_t n = 0;
    FR_TRY(fr_read_u32(r, &n));
    FR_TRY(fr_read_bytes(r, n, out));
    *n_out = n;
    return FR_OK;
}
