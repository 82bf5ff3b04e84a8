/* vocab.c: see vocab.h. */
#include "vocab.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "hash.h"

fr_status fr_vocab_init(fr_vocab *v, size_t n, size_t bytes)
{
    if (n >= INT32_MAX || bytes >= UINT32_MAX)
        return fr_fail(FR_ELIMIT, "a vocabulary of %zu tokens is too large", n);
    v->bytes = malloc(bytes + 1);
    v->start = calloc(n + 1, sizeof *v->start);
    v->klass = calloc(n + 1, sizeof *v->klass);
    if (!v->bytes || !v->start || !v->klass)
        return fr_no_memory();
    v->cap = (int32_t)n;
    v->bytes_cap = bytes;
    return FR_OK;
}

void fr_vocab_free(fr_vocab *v)
{
    fr_index_free(&v->index);
    free(v->klass);
    free(v->start);
    free(v->bytes);
    *v = (fr_vocab){0};
}

fr_status fr_vocab_add(fr_vocab *v, const void *bytes, size_t n, fr_token_class klass)
{
    uint32_t at = v->start[v->n];
    if ((n == 0 && klass != FR_TOKEN_INERT) || n > FR_TOKEN_BYTES_MAX)
        return fr_fail(FR_EFORMAT, "token %d has %zu bytes, want 1 to %d", v->n, n,
                       FR_TOKEN_BYTES_MAX);
    if (v->n >= v->cap || n > v->bytes_cap - at)
        return fr_fail(FR_ELIMIT, "token %d is beyond the vocabulary's room", v->n);
    if (n)
        memcpy(v->bytes + at, bytes, n);
    v->klass[v->n] = (uint8_t)klass;
    v->n++;
    v->start[v->n] = at + (uint32_t)n;
    return FR_OK;
}

/* The class comes last, so that a scan can hash a growing prefix once and try the classes at each
 * length. */
static uint64_t add_class(uint64_t hash, fr_token_class klass)
{
    uint8_t k = (uint8_t)klass;
    return fr_hash(hash, &k, 1);
}

static int32_t find_hashed(const fr_vocab *v, uint64_t hash, const void *bytes, size_t n,
                           fr_token_class klass)
{
    FR_INDEX_EACH(&v->index, add_class(hash, klass), i)
    {
        size_t len;
        const uint8_t *have = fr_vocab_bytes(v, (int32_t)i, &len);
        if (len == n && v->klass[i] == klass && memcmp(have, bytes, n) == 0)
            return (int32_t)i;
    }
    return -1;
}

fr_status fr_vocab_index(fr_vocab *v)
{
    FR_TRY(fr_index_init(&v->index, (size_t)v->n));
    for (int32_t id = 0; id < v->n; id++) {
        size_t n;
        const uint8_t *bytes = fr_vocab_bytes(v, id, &n);
        fr_token_class klass = v->klass[id];
        fr_index_put(&v->index, add_class(fr_hash(FR_HASH_INIT, bytes, n), klass), (uint32_t)id);
        if (klass == FR_TOKEN_CONTROL || klass == FR_TOKEN_USER) {
            v->first_byte[bytes[0]] |= (uint8_t)(1 << klass);
            v->lengths[n] |= (uint8_t)(1 << klass);
            v->longest_special = n > v->longest_special ? n : v->longest_special;
        }
    }
    return FR_OK;
}

int32_t fr_vocab_find(const fr_vocab *v, const void *bytes, size_t n, fr_token_class klass)
{
    return find_hashed(v, fr_hash(FR_HASH_INIT, bytes, n), bytes, n, klass);
}

int32_t fr_vocab_match_special(const fr_vocab *v, const char *text, size_t n, int with_control,
                               size_t *len_out)
{
    int classes = 1 << FR_TOKEN_USER | (with_control ? 1 << FR_TOKEN_CONTROL : 0);
    int32_t found = -1;
    if (n == 0 || !(v->first_byte[(uint8_t)text[0]] & classes))
        return -1;
    uint64_t hash = FR_HASH_INIT;
    for (size_t len = 1; len <= n && len <= v->longest_special; len++) {
        hash = fr_hash(hash, text + len - 1, 1);
        int here = v->lengths[len] & classes;
        int32_t id = -1;
        if (here & 1 << FR_TOKEN_CONTROL)
            id = find_hashed(v, hash, text, len, FR_TOKEN_CONTROL);
        if (id < 0 && (here & 1 << FR_TOKEN_USER))
            id = find_hashed(v, hash, text, len, FR_TOKEN_USER);
        if (id >= 0) {
            found = id;
            *len_out = len;
        }
    }
    return found;
}
