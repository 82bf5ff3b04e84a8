/* model_file.c: the life of a model file: opening, closing, look-up by name, digest. Each format has
 * its own parser: gguf.c, hf_folder.c. Pointers in metadata and tensors point into the mapping, or
 * into the header that was made for a folder, and stay until close. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "hash.h"
#include "model_file_impl.h"

static int any_path(const char *path)
{
    (void)path;
    return 1;
}

static fr_status open_gguf(fr_model_file *f)
{
    FR_TRY(fr_file_map_open(f->name, &f->map));
    f->base = f->map.base;
    f->size = f->map.size;
    FR_TRY(fr_gguf_parse(f));
    /* Weights are read once, from front to back; the tables read again (embeddings) are few. */
    fr_file_map_read_ahead(&f->map);
    return FR_OK;
}

/* The first that claims a path opens it. */
static const struct {
    int (*claims)(const char *path);
    fr_status (*open)(fr_model_file *f);
} formats[] = {
    {fr_hf_is_folder, fr_hf_folder_parse},
    {any_path, open_gguf},
};

static fr_status new_file(const char *name, fr_model_file **out)
{
    fr_model_file *f = calloc(1, sizeof *f);
    if (!f)
        return fr_no_memory();
    f->name = strdup(name);
    if (!f->name) {
        free(f);
        return fr_no_memory();
    }
    *out = f;
    return FR_OK;
}

fr_status fr_model_file_open(const char *path, fr_model_file **out)
{
    fr_model_file *f = NULL;
    size_t i = 0;
    FR_TRY(new_file(path, &f));
    while (!formats[i].claims(path))
        i++;
    fr_status st = formats[i].open(f);
    if (st != FR_OK)
        fr_model_file_close(&f);
    else
        *out = f;
    return st;
}

fr_status fr_model_file_from_memory(const void *data, size_t n, const char *name,
                                    fr_model_file **out)
{
    fr_model_file *f = NULL;
    FR_TRY(new_file(name, &f));
    f->base = data;
    f->size = n;
    fr_status st = fr_gguf_parse(f);
    if (st != FR_OK)
        fr_model_file_close(&f);
    else
        *out = f;
    return st;
}

void fr_model_file_close(fr_model_file **p)
{
    fr_model_file *f = p ? *p : NULL;
    if (!f)
        return;
    fr_index_free(&f->tensor_index);
    fr_index_free(&f->meta_index);
    free(f->tensors);
    free(f->meta);
    for (size_t i = 0; i < f->n_shards; i++) {
        fr_safetensors_free(&f->shards[i].header);
        fr_file_map_close(&f->shards[i].map);
        free(f->shards[i].path);
    }
    free(f->shards);
    fr_buf_free(&f->made);
    fr_file_map_close(&f->map);
    free(f->name);
    free(f);
    *p = NULL;
}

const char *fr_model_file_name(const fr_model_file *f)
{
    return f->name;
}

size_t fr_model_file_size(const fr_model_file *f)
{
    size_t bytes = f->n_shards ? 0 : f->size;
    for (size_t i = 0; i < f->n_shards; i++)
        bytes += f->shards[i].map.size;
    return bytes;
}

/* The start, the middle and the end of each tensor: two trainings or quantisations of one model differ there. */
enum { SAMPLE = 64, N_SAMPLES = 3 };

static const uint8_t *sample(const fr_tensor *t, size_t i, size_t *n_out)
{
    *n_out = t->bytes < SAMPLE ? t->bytes : SAMPLE;
    return (const uint8_t *)t->data + (t->bytes - *n_out) * i / (N_SAMPLES - 1);
}

/* All samples at once, so that a disk or another host brings them side by side, and nothing but them. */
static void fetch_samples(const fr_model_file *f)
{
    for (size_t i = 0; i < f->n_tensors * N_SAMPLES; i++) {
        size_t n = 0;
        const uint8_t *p = sample(&f->tensors[i / N_SAMPLES], i % N_SAMPLES, &n);
        fr_model_file_read_pieces(f, p, n, n, 1);
    }
}

uint64_t fr_model_file_digest(const fr_model_file *f)
{
    size_t bytes = fr_model_file_size(f);
    uint64_t h = fr_hash(FR_HASH_INIT, &bytes, sizeof bytes);
    h = fr_hash(h, f->base, f->header_bytes);
    fetch_samples(f);
    for (size_t i = 0; i < f->n_tensors * N_SAMPLES; i++) {
        size_t n = 0;
        const uint8_t *p = sample(&f->tensors[i / N_SAMPLES], i % N_SAMPLES, &n);
        h = fr_hash(h, p, n);
    }
    return h;
}

size_t fr_model_file_n_meta(const fr_model_file *f)
{
    return f->n_meta;
}

const fr_meta *fr_model_file_meta_at(const fr_model_file *f, size_t i)
{
    return i < f->n_meta ? &f->meta[i] : NULL;
}

const fr_meta *fr_model_file_meta(const fr_model_file *f, const char *key)
{
    fr_str want = {key, strlen(key)};
    FR_INDEX_EACH(&f->meta_index, fr_hash(FR_HASH_INIT, want.data, want.len), i)
    {
        if (fr_str_equal(f->meta[i].key, want))
            return &f->meta[i];
    }
    return NULL;
}

size_t fr_model_file_n_tensors(const fr_model_file *f)
{
    return f->n_tensors;
}

const fr_tensor *fr_model_file_tensor_at(const fr_model_file *f, size_t i)
{
    return i < f->n_tensors ? &f->tensors[i] : NULL;
}

const fr_tensor *fr_model_file_tensor(const fr_model_file *f, const char *name)
{
    fr_str want = {name, strlen(name)};
    FR_INDEX_EACH(&f->tensor_index, fr_hash(FR_HASH_INIT, want.data, want.len), i)
    {
        if (fr_str_equal(f->tensors[i].name, want))
            return &f->tensors[i];
    }
    return NULL;
}

void fr_model_file_read_parts(const fr_model_file *f)
{
    fr_file_map_read_parts(&f->map);
    for (size_t i = 0; i < f->n_shards; i++)
        fr_file_map_read_parts(&f->shards[i].map);
}

void fr_model_file_read_pieces(const fr_model_file *f, const void *data, size_t bytes, size_t stride, size_t n)
{
    fr_file_map_read_pieces(&f->map, data, bytes, stride, n);
    for (size_t i = 0; i < f->n_shards; i++)
        fr_file_map_read_pieces(&f->shards[i].map, data, bytes, stride, n);
}

void fr_model_file_drop(const fr_model_file *f, const void *data, size_t n)
{
    fr_file_map_drop(&f->map, data, n);
    for (size_t i = 0; i < f->n_shards; i++)
        fr_file_map_drop(&f->shards[i].map, data, n);
}
