/* fuzz_tokenizer.c: the first byte says what the rest is.
 *   'b'  a tokenizer blob without its checksum, which is added here, else no mutation would get
 * past it 'g'  a GGUF file to load a tokenizer from 't'  a text for the tokenizer of the tiny pair
 * Whatever loads must survive a trip through a blob, and text must come back from its ids. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "hash.h"
#include "tokenizer.h"
#include "utf8.h"

#define CHECK(condition)                                                                        \
    do {                                                                                        \
        if (!(condition)) {                                                                     \
            fprintf(stderr, "line %d: %s; last cause: %s\n", __LINE__, #condition, fr_cause()); \
            abort();                                                                            \
        }                                                                                       \
    } while (0)

/* exact: every byte has a token, so that nothing of the text is lost. */
static void use(const fr_tokenizer *t, const char *text, size_t n, int exact)
{
    for (int parse_special = 0; parse_special <= 1; parse_special++) {
        fr_ids ids = {0};
        fr_buf out = {0};
        fr_status st = fr_tokenize(t, text, n, parse_special, &ids);
        CHECK((st == FR_OK) == (fr_utf8_check(text, n) == n));
        CHECK(fr_detokenize(t, ids.data, ids.len, 1, &out) == FR_OK);
        if (exact && st == FR_OK)
            CHECK(out.len == n && (n == 0 || memcmp(out.data, text, n) == 0));
        fr_buf_free(&out);
        fr_ids_free(&ids);
    }
}

static void use_loaded(fr_tokenizer *t)
{
    static const char text[] = "<|im_start|>ab 12 Step\n\n'll \xc3\xa9\xf0\x9f\x99\x82<|im_end|>";
    fr_buf blob = {0};
    fr_tokenizer *again = NULL;
    use(t, text, sizeof text - 1, 0);
    CHECK(fr_tokenizer_pack(t, &blob) == FR_OK);
    CHECK(fr_tokenizer_unpack(blob.data, blob.len, &again) == FR_OK);
    CHECK(fr_tokenizer_digest(t) == fr_tokenizer_digest(again));
    fr_buf_free(&blob);
    fr_tokenizer_free(&again);
}

static void try_blob(const uint8_t *data, size_t n)
{
    fr_buf blob = {0};
    fr_tokenizer *t = NULL;
    CHECK(fr_buf_put(&blob, data, n) == FR_OK);
    CHECK(fr_buf_put_u64(&blob, fr_hash(FR_HASH_INIT, data, n)) == FR_OK);
    if (fr_tokenizer_unpack(blob.data, blob.len, &t) == FR_OK)
        use_loaded(t);
    fr_tokenizer_free(&t);
    fr_buf_free(&blob);
}

static void try_gguf(const uint8_t *data, size_t n)
{
    fr_model_file *f = NULL;
    fr_tokenizer *t = NULL;
    if (fr_model_file_from_memory(data, n, "fuzz", &f) == FR_OK &&
        fr_tokenizer_from_model(f, &t) == FR_OK)
        use_loaded(t);
    fr_tokenizer_free(&t);
    fr_model_file_close(&f);
}

static void try_text(const char *text, size_t n)
{
    static fr_tokenizer *tiny; /* loaded once; libFuzzer calls us in one thread */
    if (!tiny) {
        fr_model_file *f = NULL;
        CHECK(fr_model_file_open(FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-draft.gguf", &f) ==
              FR_OK);
        CHECK(fr_tokenizer_from_model(f, &tiny) == FR_OK);
        fr_model_file_close(&f);
    }
    use(tiny, text, n, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size && data[0] == 'b')
        try_blob(data + 1, size - 1);
    else if (size && data[0] == 'g')
        try_gguf(data + 1, size - 1);
    else if (size && data[0] == 't')
        try_text((const char *)data + 1, size - 1);
    return 0;
}
