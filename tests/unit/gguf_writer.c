/* gguf_writer.c: see gguf_writer.h. */
#include "gguf_writer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void must(fr_status st)
{
    if (st != FR_OK) {
        fprintf(stderr, "gguf_writer: %s\n", fr_cause());
        abort();
    }
}

void gguf_bytes(fr_buf *b, const void *data, size_t n)
{
    must(fr_buf_put(b, data, n));
}

void gguf_u32(fr_buf *b, uint32_t v)
{
    must(fr_buf_put_u32(b, v));
}

void gguf_u64(fr_buf *b, uint64_t v)
{
    must(fr_buf_put_u64(b, v));
}

void gguf_header(fr_buf *b, uint32_t version, uint64_t n_tensors, uint64_t n_meta)
{
    gguf_bytes(b, "GGUF", 4);
    gguf_u32(b, version);
    gguf_u64(b, n_tensors);
    gguf_u64(b, n_meta);
}

void gguf_str(fr_buf *b, const char *text)
{
    gguf_u64(b, strlen(text));
    gguf_bytes(b, text, strlen(text));
}

void gguf_key(fr_buf *b, const char *key, fr_meta_type type)
{
    gguf_str(b, key);
    gguf_u32(b, type);
}

void gguf_meta_u32(fr_buf *b, const char *key, uint32_t v)
{
    gguf_key(b, key, FR_META_U32);
    gguf_u32(b, v);
}

void gguf_meta_f32(fr_buf *b, const char *key, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    gguf_key(b, key, FR_META_F32);
    gguf_u32(b, bits);
}

void gguf_meta_bool(fr_buf *b, const char *key, int v)
{
    uint8_t byte = (uint8_t)v;
    gguf_key(b, key, FR_META_BOOL);
    gguf_bytes(b, &byte, 1);
}

void gguf_meta_str(fr_buf *b, const char *key, const char *v)
{
    gguf_key(b, key, FR_META_STR);
    gguf_str(b, v);
}

void gguf_array(fr_buf *b, const char *key, fr_meta_type element, uint64_t n)
{
    gguf_key(b, key, FR_META_ARRAY);
    gguf_u32(b, element);
    gguf_u64(b, n);
}

void gguf_tensor(fr_buf *b, const char *name, uint32_t type, int n_dims, const uint64_t *dims,
                 uint64_t offset)
{
    gguf_str(b, name);
    gguf_u32(b, (uint32_t)n_dims);
    for (int i = 0; i < n_dims; i++)
        gguf_u64(b, dims[i]);
    gguf_u32(b, type);
    gguf_u64(b, offset);
}

void gguf_data(fr_buf *b, size_t alignment, size_t n)
{
    while (b->len % alignment)
        gguf_bytes(b, "", 1);
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)(i * 7 + 3);
        gguf_bytes(b, &byte, 1);
    }
}

/* --- a tokenizer --- */

void gguf_spell(int byte, char out[3])
{
    int printable =
        (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    int cp = byte;
    if (!printable) {
        cp = 256;
        for (int i = 0; i < byte; i++)
            cp += !((i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i <= 0xac) || i >= 0xae);
    }
    if (cp < 0x80)
        snprintf(out, 3, "%c", cp);
    else
        snprintf(out, 3, "%c%c", 0xc0 | cp >> 6, 0x80 | (cp & 63));
}

static uint64_t count_merges(const gguf_vocab *v)
{
    uint64_t n = 0;
    while (v->merges[n])
        n++;
    return n;
}

static uint64_t count_specials(const gguf_vocab *v)
{
    uint64_t n = 0;
    while (v->specials[n].text)
        n++;
    return n;
}

static void put_tokens(fr_buf *b, const gguf_vocab *v)
{
    char text[256];
    gguf_array(b, "tokenizer.ggml.tokens", FR_META_STR, 256 + count_merges(v) + count_specials(v));
    for (int i = 0; i < 256; i++) {
        gguf_spell(i, text);
        gguf_str(b, text);
    }
    for (uint64_t i = 0; i < count_merges(v); i++) {
        const char *gap = strchr(v->merges[i] + 1, ' ');
        snprintf(text, sizeof text, "%.*s%s", (int)(gap - v->merges[i]), v->merges[i], gap + 1);
        gguf_str(b, text);
    }
    for (uint64_t i = 0; i < count_specials(v); i++)
        gguf_str(b, v->specials[i].text);
}

uint64_t gguf_tokenizer_n_meta(const gguf_vocab *v)
{
    return 4 + (v->pre != NULL) + (v->chat != NULL) + (v->add_bos >= 0) + (v->bos >= 0) +
           (v->question != NULL);
}

void gguf_tokenizer(fr_buf *b, const gguf_vocab *v)
{
    gguf_header(b, 3, 0, gguf_tokenizer_n_meta(v));
    gguf_tokenizer_meta(b, v);
}

void gguf_tokenizer_meta(fr_buf *b, const gguf_vocab *v)
{
    uint64_t n_merges = count_merges(v), n_specials = count_specials(v);
    gguf_meta_str(b, "tokenizer.ggml.model", "gpt2");
    put_tokens(b, v);
    gguf_array(b, "tokenizer.ggml.token_type", FR_META_I32, 256 + n_merges + n_specials);
    for (uint64_t i = 0; i < 256 + n_merges; i++)
        gguf_u32(b, 1);
    for (uint64_t i = 0; i < n_specials; i++)
        gguf_u32(b, (uint32_t)v->specials[i].type);
    gguf_array(b, "tokenizer.ggml.merges", FR_META_STR, n_merges);
    for (uint64_t i = 0; i < n_merges; i++)
        gguf_str(b, v->merges[i]);
    if (v->pre)
        gguf_meta_str(b, "tokenizer.ggml.pre", v->pre);
    if (v->chat)
        gguf_meta_str(b, "tokenizer.chat_template", v->chat);
    if (v->add_bos >= 0)
        gguf_meta_bool(b, "tokenizer.ggml.add_bos_token", v->add_bos);
    if (v->bos >= 0)
        gguf_meta_u32(b, "tokenizer.ggml.bos_token_id", (uint32_t)v->bos);
    if (v->question)
        gguf_meta_str(b, "forerun.score_question", v->question);
}
