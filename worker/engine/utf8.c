/* utf8.c: see utf8.h and fr_utf8_unfinished() in tokenizer.h. */
#include "utf8.h"

#include <utf8proc.h>

#include "tokenizer.h"

/* The length of the character at p, or below 1. No character has more than four bytes, and the
 * library's count is signed, so it is told of no more. */
static utf8proc_ssize_t next_character(const uint8_t *p, size_t n, utf8proc_int32_t *cp_out)
{
    return utf8proc_iterate(p, n < 4 ? (utf8proc_ssize_t)n : 4, cp_out);
}

size_t fr_utf8_check(const char *text, size_t n)
{
    const uint8_t *p = (const uint8_t *)text;
    for (size_t i = 0; i < n;) {
        if (p[i] < 0x80) {
            i++;
            continue;
        }
        utf8proc_int32_t cp;
        utf8proc_ssize_t len = next_character(p + i, n - i, &cp);
        if (len < 1)
            return i;
        i += (size_t)len;
    }
    return n;
}

size_t fr_utf8_cut(const char *text, size_t n, size_t most)
{
    return n <= most ? n : most - fr_utf8_unfinished(text, most);
}

/* The byte that a character spells, or -1. */
static int gpt2_byte(utf8proc_int32_t cp)
{
    if ((cp >= 0x21 && cp <= 0x7e) || (cp >= 0xa1 && cp <= 0xac) || (cp >= 0xae && cp <= 0xff))
        return (int)cp;
    if (cp >= 0x100 && cp <= 0x120) /* 00 .. 20 */
        return (int)cp - 0x100;
    if (cp >= 0x121 && cp <= 0x142) /* 7f .. a0 */
        return (int)cp - 0x121 + 0x7f;
    return cp == 0x143 ? 0xad : -1;
}

int fr_gpt2_bytes(const char *text, size_t n, char *out, size_t *n_out)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t used = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t cp = p[i];
        utf8proc_ssize_t len = 1;
        if (p[i] >= 0x80)
            len = next_character(p + i, n - i, &cp);
        int byte = len < 1 ? -1 : gpt2_byte(cp);
        if (byte < 0)
            return 0;
        out[used++] = (char)byte;
        i += (size_t)len;
    }
    *n_out = used;
    return 1;
}

size_t fr_utf8_unfinished(const void *data, size_t n)
{
    const uint8_t *p = data;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        uint8_t c = p[n - back];
        if ((c & 0xc0) == 0x80)
            continue; /* a continuation byte: its lead is further left */
        size_t want = 1;
        if (c >= 0xc2 && c <= 0xf4)
            want = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
        return want > back ? back : 0;
    }
    return 0;
}
