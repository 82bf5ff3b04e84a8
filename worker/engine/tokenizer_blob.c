/* tokenizer_blob.c: a tokenizer as bytes, so that a coordinator on another machine tokenises
 * without the model file.
 *
 *   "FRTK", u32 version
 *   u32 pre, chat style, add_bos, bos + 1; u32 count and u32 each: end tokens
 *   u32 0 for the default, else 1 + length and the bytes: score question, score prefill
 *   u32 tokens, u32 bytes of all; u8 class each; u16 length each; the bytes end to end
 *   u32 merges; u32 left, u32 right each
 *   u64 FNV-1a of all before
 *
 * Little-endian. The blob is untrusted: counts are checked against the bytes left before anything
 * is allocated, ids against the vocabulary, and what a merge makes is looked up, not read. */
#include <string.h>

#include "check.h"
#include "hash.h"
#include "tokenizer_impl.h"

#define MAGIC "FRTK"
enum { VERSION = 1, CHECKSUM_BYTES = 8 };

/* --- to bytes --- */

/* The u32 in front is 0 for the default, else 1 + length. */
static fr_status put_text(fr_buf *out, const char *text)
{
    size_t n = text ? strlen(text) : 0;
    FR_TRY(fr_buf_put_u32(out, text ? (uint32_t)n + 1 : 0));
    return fr_buf_put(out, text, n);
}

static fr_status put_head(const fr_tokenizer *t, fr_buf *out)
{
    FR_TRY(fr_buf_put(out, MAGIC, 4));
    FR_TRY(fr_buf_put_u32(out, VERSION));
    FR_TRY(fr_buf_put_u32(out, t->pre));
    FR_TRY(fr_buf_put_u32(out, t->chat));
    FR_TRY(fr_buf_put_u32(out, (uint32_t)t->add_bos));
    FR_TRY(fr_buf_put_u32(out, (uint32_t)(t->bos + 1)));
    FR_TRY(fr_buf_put_u32(out, (uint32_t)t->n_ends));
    for (int i = 0; i < t->n_ends; i++)
        FR_TRY(fr_buf_put_u32(out, (uint32_t)t->ends[i]));
    FR_TRY(put_text(out, t->score_question));
    return put_text(out, t->score_prefill);
}

static fr_status put_vocab(const fr_vocab *v, fr_buf *out)
{
    FR_TRY(fr_buf_put_u32(out, (uint32_t)v->n));
    FR_TRY(fr_buf_put_u32(out, v->start[v->n]));
    FR_TRY(fr_buf_put(out, v->klass, (size_t)v->n));
    for (int32_t i = 0; i < v->n; i++) {
        uint32_t len = v->start[i + 1] - v->start[i];
        uint8_t raw[2] = {(uint8_t)len, (uint8_t)(len >> 8)};
        FR_TRY(fr_buf_put(out, raw, sizeof raw));
    }
    return fr_buf_put(out, v->bytes, v->start[v->n]);
}

static fr_status put_merges(const fr_bpe *b, fr_buf *out)
{
    FR_TRY(fr_buf_put_u32(out, (uint32_t)b->n));
    for (size_t i = 0; i < b->n; i++) {
        FR_TRY(fr_buf_put_u32(out, (uint32_t)b->merges[i].left));
        FR_TRY(fr_buf_put_u32(out, (uint32_t)b->merges[i].right));
    }
    return FR_OK;
}

static fr_status put_all(const fr_tokenizer *t, fr_buf *out)
{
    size_t start = out->len;
    FR_TRY(fr_buf_reserve(out, 512 + (size_t)t->vocab.n * 3 + t->vocab.start[t->vocab.n] +
                                   t->bpe.n * 8));
    FR_TRY(put_head(t, out));
    FR_TRY(put_vocab(&t->vocab, out));
    FR_TRY(put_merges(&t->bpe, out));
    return fr_buf_put_u64(out, fr_hash(FR_HASH_INIT, out->data + start, out->len - start));
}

fr_status fr_tokenizer_pack(const fr_tokenizer *t, fr_buf *out)
{
    size_t before = out->len;
    fr_status st = put_all(t, out);
    if (st != FR_OK)
        out->len = before;
    return st;
}

/* --- and back --- */

static fr_status bad(const fr_reader *r, const char *what)
{
    return fr_fail(FR_EFORMAT, "%s: bad %s", r->what, what);
}

/* A count of entries of at least min_bytes each: no more than the blob can hold. */
static fr_status read_count(fr_reader *r, const char *what, size_t min_bytes, uint32_t *out)
{
    FR_TRY(fr_read_u32(r, out));
    if (*out > (size_t)(r->end - r->at) / min_bytes)
        return fr_fail(FR_EFORMAT, "%s: %u %s do not fit in it", r->what, *out, what);
    return FR_OK;
}

static fr_status read_text(fr_reader *r, const char *what, char **field)
{
    uint32_t n = 0;
    const uint8_t *bytes = NULL;
    FR_TRY(fr_read_u32(r, &n));
    if (n == 0)
        return FR_OK;
    FR_TRY(fr_read_bytes(r, n - 1, &bytes));
    return fr_tokenizer_set_text(field, what, bytes, n - 1);
}

static fr_status read_start(fr_reader *r)
{
    const uint8_t *magic = NULL, *sum = NULL;
    uint32_t version = 0;
    fr_reader tail = *r;
    FR_TRY(fr_read_bytes(r, 4, &magic));
    if (memcmp(magic, MAGIC, 4))
        return bad(r, "magic");
    FR_TRY(fr_read_u32(r, &version));
    if (version != VERSION)
        return fr_fail(FR_EUNSUPPORTED, "%s: version %u, want %d", r->what, version, VERSION);
    if (r->end - r->at < CHECKSUM_BYTES)
        return fr_read_bytes(r, CHECKSUM_BYTES, &sum); /* says that it is truncated */
    r->end -= CHECKSUM_BYTES;
    uint64_t want = 0, have = fr_hash(FR_HASH_INIT, tail.at, (size_t)(r->end - tail.at));
    tail.at = r->end;
    FR_TRY(fr_read_u64(&tail, &want));
    if (want != have)
        return bad(r, "checksum (truncated?)");
    return FR_OK;
}

/* Ids are kept aside until the vocabulary is there to check them. */
typedef struct head_ids {
    uint32_t bos, n_ends, ends[FR_ENDS_MAX]; /* bos: 1 + id, 0 for none */
} head_ids;

static fr_status read_head(fr_reader *r, fr_tokenizer *t, head_ids *ids)
{
    uint32_t pre = 0, chat = 0, add_bos = 0;
    FR_TRY(fr_read_u32(r, &pre));
    FR_TRY(fr_read_u32(r, &chat));
    FR_TRY(fr_read_u32(r, &add_bos));
    FR_TRY(fr_read_u32(r, &ids->bos));
    FR_TRY(fr_read_u32(r, &ids->n_ends));
    if (pre < FR_PRE_GPT2 || pre > FR_PRE_LLAMA3_MERGED)
        return bad(r, "pre-tokenizer");
    if (chat > FR_CHAT_THINKING)
        return bad(r, "chat style");
    if (add_bos > 1)
        return bad(r, "BOS flag");
    if (ids->n_ends > FR_ENDS_MAX)
        return bad(r, "number of end tokens");
    for (uint32_t i = 0; i < ids->n_ends; i++)
        FR_TRY(fr_read_u32(r, &ids->ends[i]));
    t->pre = (fr_pre)pre;
    t->chat = (fr_chat_style)chat;
    t->add_bos = (int)add_bos;
    FR_TRY(read_text(r, "score question", &t->score_question));
    return read_text(r, "score prefill", &t->score_prefill);
}

static fr_status read_vocab(fr_reader *r, fr_vocab *v)
{
    uint32_t n = 0, total = 0;
    const uint8_t *classes = NULL, *lengths = NULL, *bytes = NULL;
    FR_TRY(read_count(r, "tokens", 3, &n));
    FR_TRY(fr_read_u32(r, &total));
    FR_TRY(fr_read_bytes(r, n, &classes));
    FR_TRY(fr_read_bytes(r, (size_t)n * 2, &lengths));
    FR_TRY(fr_read_bytes(r, total, &bytes));
    if (n == 0)
        return bad(r, "number of tokens");
    FR_TRY(fr_vocab_init(v, n, total));
    size_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        size_t len = (size_t)lengths[2 * i] | (size_t)lengths[2 * i + 1] << 8;
        if (classes[i] > FR_TOKEN_INERT || len > total - at)
            return bad(r, "token");
        FR_TRY(fr_vocab_add(v, bytes + at, len, classes[i]));
        at += len;
    }
    if (at != total)
        return bad(r, "token lengths");
    return fr_vocab_index(v);
}

static fr_status read_merges(fr_reader *r, const fr_vocab *v, fr_bpe *b)
{
    uint32_t n = 0;
    FR_TRY(read_count(r, "merges", 8, &n));
    FR_TRY(fr_bpe_init(b, v, n));
    for (uint32_t i = 0; i < n; i++) {
        uint32_t left = 0, right = 0;
        FR_TRY(fr_read_u32(r, &left));
        FR_TRY(fr_read_u32(r, &right));
        if (left >= (uint32_t)v->n || right >= (uint32_t)v->n)
            return bad(r, "merge");
        FR_TRY(fr_bpe_add(b, v, (int32_t)left, (int32_t)right));
    }
    return FR_OK;
}

static fr_status read_all(fr_reader *r, fr_tokenizer *t)
{
    head_ids ids = {0};
    FR_TRY(read_start(r));
    FR_TRY(read_head(r, t, &ids));
    FR_TRY(read_vocab(r, &t->vocab));
    FR_TRY(read_merges(r, &t->vocab, &t->bpe));
    if (r->at != r->end)
        return bad(r, "length: bytes after the merges");
    if (ids.bos > (uint32_t)t->vocab.n)
        return bad(r, "BOS");
    t->bos = (int32_t)ids.bos - 1;
    for (uint32_t i = 0; i < ids.n_ends; i++)
        FR_TRY(fr_tokenizer_add_end(t, ids.ends[i] > INT32_MAX ? -1 : (int32_t)ids.ends[i]));
    return fr_tokenizer_finish(t);
}

fr_status fr_tokenizer_unpack(const void *data, size_t n, fr_tokenizer **out)
{
    fr_tokenizer *t = NULL;
    FR_TRY(fr_tokenizer_new(&t));
    fr_reader r = {data, (const uint8_t *)data + n, "tokenizer blob"};
    fr_status st = read_all(&r, t);
    if (st != FR_OK)
        fr_tokenizer_free(&t);
    else
        *out = t;
    return st;
}
