/* models.c: see models.h. */
#include "models.h"

#include <math.h>
#include <string.h>

#include "check.h"
#include "gguf_writer.h"
#include "hash.h"

static const char *const words[] = {
    "Step (1) Add 5 to 12 gives 17.",
    " the",
    " answer",
    " is",
    "\\boxed{7}",
    "0123456789",
    " half",
    "=",
    "</think>",
    "\xf0\x9f\x98\x80",
    "\xc3\xa9",
    "\xe2\x82\xac",
    " Multiply",
};
static const char *const breaks[] = {".\n\n", "\n\n", "\n", ".\n"};

static fr_status put_words(const fr_tokenizer *t, const char *const *texts, size_t n, fr_ids *out)
{
    for (size_t i = 0; i < n; i++)
        FR_TRY(fr_tokenize(t, texts[i], strlen(texts[i]), 0, out));
    return FR_OK;
}

fr_status models_open(models *m, const fr_tokenizer *target, const fr_tokenizer *draft,
                      uint64_t seed)
{
    size_t n = sizeof words / sizeof *words, k = sizeof breaks / sizeof *breaks;
    *m = (models){
        .target = target, .draft = draft, .seed = seed, .agree = 80, .ends = 10, .accepts = 60};
    FR_TRY(put_words(target, words, n, &m->target_words));
    FR_TRY(put_words(target, breaks, k, &m->target_breaks));
    FR_TRY(put_words(draft, words, n, &m->draft_words));
    return put_words(draft, breaks, k, &m->draft_breaks);
}

void models_close(models *m)
{
    fr_ids_free(&m->target_words);
    fr_ids_free(&m->draft_words);
    fr_ids_free(&m->target_breaks);
    fr_ids_free(&m->draft_breaks);
}

static uint64_t mix(uint64_t h)
{
    h ^= h >> 31;
    h *= 0x7fb5d329728ea185u;
    h ^= h >> 27;
    h *= 0x81dadef4bc2dd44du;
    return h ^ h >> 33;
}

static uint64_t hash_prefix(uint64_t seed, const int32_t *ids, size_t n)
{
    uint64_t h = fr_hash(FR_HASH_INIT, &seed, sizeof seed);
    return mix(fr_hash(h, ids, n * sizeof *ids));
}

static int32_t pick(const fr_ids *from, uint64_t h)
{
    return from->data[h % from->len];
}

/* Words mostly, about one break in ten tokens, seldom an end. */
static int32_t speak(const fr_tokenizer *t, const fr_ids *some_words, const fr_ids *some_breaks,
                     int ends, uint64_t h)
{
    int n_ends = 0;
    const int32_t *end = fr_tokenizer_ends(t, &n_ends);
    uint64_t r = h % 1000;
    if ((int)r < ends)
        return end[0];
    return pick(r % 10 == 9 ? some_breaks : some_words, h / 1000);
}

int32_t models_target_next(const models *m, const int32_t *ids, size_t n, size_t base)
{
    uint64_t h = hash_prefix(m->seed, ids, n);
    if (m->repetitive && n >= base + 12 && h % 100 < 85)
        return ids[n - 12];
    h = mix(h);
    return speak(m->target, &m->target_words, &m->target_breaks, m->ends, h);
}

int32_t models_draft_next(const models *m, const int32_t *ids, size_t n, size_t base)
{
    uint64_t h = hash_prefix(m->seed ^ 0xd1aff, ids, n);
    if (m->loops)
        return m->draft_breaks.data[0];
    if (m->draft == m->target && (int)(h % 100) < m->agree)
        return models_target_next(m, ids, n, base);
    return speak(m->draft, &m->draft_words, &m->draft_breaks, m->ends, mix(h));
}

float models_logprob(const models *m, int draft, const int32_t *ids, size_t n, size_t base,
                     int32_t id)
{
    uint64_t h = mix(hash_prefix(m->seed ^ 0x10f, ids, n) + (uint64_t)id + (uint64_t)draft);
    float noise = (float)(h % 1000) / 1000.0f;
    if (draft && m->sure)
        return -0.05f * noise;
    if (draft)
        return h % 8 ? -0.8f * noise : -3.0f * noise;
    return models_target_next(m, ids, n, base) == id ? -0.3f * noise : -0.4f - 2.0f * noise;
}

int32_t models_probe(const models *m, const int32_t *ids, size_t n, const int32_t *wanted,
                     size_t n_wanted, float *logprobs)
{
    uint64_t h = hash_prefix(m->seed ^ 0x9c0be, ids, n);
    size_t best = (int)(h % 100) < m->accepts ? 7 + h / 100 % 3 : h / 100 % 7;
    int digit = m->never_declines || h / 100000 % 12 != 0;
    for (size_t i = 0; i < n_wanted; i++) {
        float p = i == best ? 0.7f : 0.3f / (float)n_wanted;
        logprobs[i] = logf(digit ? p : p * 0.005f);
    }
    return digit && best < n_wanted ? wanted[best] : m->target_words.data[0];
}

fr_status models_tiny_tokenizer(fr_tokenizer **out)
{
    fr_model_file *file = NULL;
    FR_TRY(fr_model_file_open(FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-target.gguf", &file));
    fr_status st = fr_tokenizer_from_model(file, out);
    fr_model_file_close(&file);
    return st;
}

fr_status models_other_tokenizer(fr_tokenizer **out)
{
    static const char *const merges[] = {"\xc4\x8a \xc4\x8a", "\xc4\xa0 t", "h e",
                                         "\xc4\xa0t he",      "i s",        NULL};
    static const gguf_special specials[] = {{"<|endoftext|>", 3}, {NULL, 0}};
    const gguf_vocab vocab = {.merges = merges, .specials = specials, .add_bos = -1, .bos = -1};
    fr_buf bytes = {0};
    fr_model_file *file = NULL;
    gguf_tokenizer(&bytes, &vocab);
    fr_status st = fr_model_file_from_memory(bytes.data, bytes.len, "other", &file);
    if (st == FR_OK)
        st = fr_tokenizer_from_model(file, out);
    fr_model_file_close(&file);
    fr_buf_free(&bytes);
    return st;
}
