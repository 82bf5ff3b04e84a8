/* hf_folder.c: a model folder as Hugging Face's publishers ship them, opened as a model file
 * (model_file.h).
 *
 *   config.json                     sizes, rotation (hf_config.h)
 *   model.safetensors               the weights; or, when there are several files,
 *   model.safetensors.index.json    {"weight_map": {"TENSOR": "FILE"}}
 *   tokenizer.json                  and, where they are there, tokenizer_config.json,
 *                                   generation_config.json, chat_template.jinja (hf_tokenizer.h)
 *
 * What the JSON files say is written as a GGUF header in memory, which gguf.c parses as it parses a
 * file's own; the tensors' data stay in the mapped shards, of which nothing but the headers is read
 * here. */
#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "hf_config.h"
#include "hf_json.h"
#include "hf_tensors.h"
#include "hf_tokenizer.h"
#include "meta_writer.h"
#include "model_file_impl.h"

#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"

typedef struct source {
    const char *file;
    const fr_safetensor *tensor;
} source;

typedef struct folder {
    fr_model_file *f;
    char *dir;
    char *single;     /* the one weights file, or */
    fr_hf_json index; /* the list of several */
    source *sources;  /* the tensors; after put_tensors() those of the list, in its order */
    size_t n_sources;
    fr_hf_json config, generation, tokenizer, settings;
    fr_hf_shape shape;
    fr_meta_writer w;
} folder;

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), n_end = strlen(end);
    return n >= n_end && strcmp(text + n - n_end, end) == 0;
}

static int is_directory(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

int fr_hf_is_folder(const char *path)
{
    return ends_with(path, ".safetensors") || ends_with(path, ".safetensors.index.json") ||
           is_directory(path);
}

/* --- which files --- */

/* Is DIR/NAME there? */
static fr_status probe(const char *dir, const char *name, int *there_out)
{
    char *path = NULL;
    FR_TRY(fr_hf_path(dir, name, &path));
    *there_out = access(path, F_OK) == 0;
    free(path);
    return FR_OK;
}

static fr_status locate_in_directory(folder *d)
{
    int config = 0, single = 0, index = 0;
    char *name = d->f->name;
    for (size_t n = strlen(name); n > 1 && name[n - 1] == '/'; n--)
        name[n - 1] = 0;
    d->dir = strdup(name);
    if (!d->dir)
        return fr_no_memory();
    FR_TRY(probe(d->dir, "config.json", &config));
    FR_TRY(probe(d->dir, SINGLE, &single));
    FR_TRY(probe(d->dir, INDEX, &index));
    if (!config)
        return fr_fail(FR_EINVAL, "%s: a folder without config.json is no model", d->dir);
    if (single)
        return fr_hf_path(d->dir, SINGLE, &d->single);
    if (index)
        return fr_hf_json_read(d->dir, INDEX, 0, &d->index);
    return fr_fail(FR_ENOTFOUND, "%s: the folder has neither " SINGLE " nor " INDEX, d->dir);
}

static fr_status rename_file(fr_model_file *f, const char *name)
{
    char *copy = strdup(name);
    if (!copy)
        return fr_no_memory();
    free(f->name);
    f->name = copy;
    return FR_OK;
}

static fr_status locate(folder *d)
{
    const char *path = d->f->name, *slash = strrchr(path, '/');
    if (is_directory(path))
        return locate_in_directory(d);
    d->dir = slash == path ? strdup("/")
             : slash       ? strndup(path, (size_t)(slash - path))
                           : strdup(".");
    if (!d->dir)
        return fr_no_memory();
    if (ends_with(path, ".json")) {
        FR_TRY(fr_hf_json_read(d->dir, slash ? slash + 1 : path, 0, &d->index));
        return rename_file(d->f, d->dir);
    }
    d->single = strdup(path);
    return d->single ? FR_OK : fr_no_memory();
}

/* --- shards --- */

/* Maps a file and reads its header; `path` becomes the shard's. */
static fr_status open_shard(fr_model_file *f, char *path, fr_shard **out)
{
    fr_shard *grown = realloc(f->shards, (f->n_shards + 1) * sizeof *grown);
    if (!grown) {
        free(path);
        return fr_no_memory();
    }
    f->shards = grown;
    fr_shard *s = &grown[f->n_shards++];
    *s = (fr_shard){.path = path};
    *out = s;
    FR_TRY(fr_file_map_open(path, &s->map));
    FR_TRY(fr_safetensors_parse(path, s->map.base, s->map.size, &s->header));
    fr_file_map_read_ahead(&s->map);
    return FR_OK;
}

static fr_status open_single(folder *d)
{
    fr_shard *s = NULL;
    char *path = d->single;
    d->single = NULL;
    FR_TRY(open_shard(d->f, path, &s));
    d->sources = calloc(s->header.n + 1, sizeof *d->sources);
    if (!d->sources)
        return fr_no_memory();
    for (; d->n_sources < s->header.n; d->n_sources++)
        d->sources[d->n_sources] = (source){s->path, &s->header.tensors[d->n_sources]};
    return FR_OK;
}

/* The shard that the index calls `name`, opened when it is the first to ask. */
static fr_status find_shard(folder *d, const char *name, fr_shard **out)
{
    char show[FR_SHOW_BYTES];
    char *path = NULL;
    for (size_t i = 0; i < d->f->n_shards; i++) {
        const char *base = strrchr(d->f->shards[i].path, '/') + 1;
        if (strcmp(base, name) == 0) {
            *out = &d->f->shards[i];
            return FR_OK;
        }
    }
    if (strchr(name, '/') || !ends_with(name, ".safetensors"))
        return fr_fail(FR_EFORMAT, "%s: %s is not the name of a safetensors file beside it",
                       d->index.path, fr_str_show(fr_str_of(name), show));
    FR_TRY(fr_hf_path(d->dir, name, &path));
    if (access(path, F_OK) != 0) {
        free(path);
        return fr_fail(FR_ENOTFOUND, "%s: the file %s that it names: %s", d->index.path,
                       fr_str_show(fr_str_of(name), show), strerror(errno));
    }
    return open_shard(d->f, path, out);
}

static fr_status open_indexed(folder *d)
{
    char show[FR_SHOW_BYTES];
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(d->index.root, "weight_map"), *entry;
    if (!cJSON_IsObject(map))
        return fr_fail(FR_EFORMAT, "%s: has no weight_map", d->index.path);
    d->sources = calloc((size_t)cJSON_GetArraySize(map) + 1, sizeof *d->sources);
    if (!d->sources)
        return fr_no_memory();
    cJSON_ArrayForEach(entry, map)
    {
        const char *name = cJSON_GetStringValue(entry);
        fr_str tensor = fr_str_of(entry->string);
        fr_shard *s = NULL;
        if (!name)
            return fr_fail(FR_EFORMAT, "%s: tensor %s: its file is no text", d->index.path,
                           fr_str_show(tensor, show));
        FR_TRY(find_shard(d, name, &s));
        const fr_safetensor *t = fr_safetensors_find(&s->header, tensor);
        if (!t)
            return fr_fail(FR_EFORMAT, "%s: tensor %s is not in it, as " INDEX " says", s->path,
                           fr_str_show(tensor, show));
        d->sources[d->n_sources++] = (source){s->path, t};
    }
    return FR_OK;
}

/* --- the header --- */

static fr_status put_config(folder *d)
{
    FR_TRY(fr_hf_json_read(d->dir, "config.json", 0, &d->config));
    return fr_hf_config_put(fr_hf_root(&d->config), &d->w, &d->shape);
}

/* The text of an optional file; the map keeps it. */
static fr_status read_chat_template(const folder *d, fr_file_map *map, fr_str *out)
{
    int there = 0;
    char *path = NULL;
    FR_TRY(probe(d->dir, "chat_template.jinja", &there));
    if (!there)
        return FR_OK;
    FR_TRY(fr_hf_path(d->dir, "chat_template.jinja", &path));
    fr_status st = fr_file_map_open(path, map);
    free(path);
    *out = (fr_str){(const char *)map->base, map->size};
    return st;
}

static fr_status put_tokenizer(folder *d)
{
    fr_file_map map = {0};
    FR_TRY(fr_hf_json_read(d->dir, "tokenizer.json", 0, &d->tokenizer));
    FR_TRY(fr_hf_json_read(d->dir, "tokenizer_config.json", 1, &d->settings));
    FR_TRY(fr_hf_json_read(d->dir, "generation_config.json", 1, &d->generation));
    fr_hf_tokenizer_files files = {.tokenizer = fr_hf_root(&d->tokenizer),
                                   .settings = fr_hf_root(&d->settings),
                                   .config = fr_hf_root(&d->config),
                                   .generation = fr_hf_root(&d->generation)};
    fr_status st = read_chat_template(d, &map, &files.chat_template);
    if (st == FR_OK)
        st = fr_hf_tokenizer_put(&files, d->shape.vocab, &d->w);
    fr_file_map_close(&map);
    return st;
}

/* Sources that no list needs fall out of d->sources. */
static fr_status put_tensors(folder *d)
{
    char name[FR_HF_NAME_BYTES];
    size_t n = 0;
    for (size_t i = 0; i < d->n_sources; i++) {
        const fr_safetensor *t = d->sources[i].tensor;
        FR_TRY(fr_hf_tensor_name(&d->shape, d->sources[i].file, t, name));
        if (!name[0])
            continue;
        const int64_t dims[2] = {t->dims[t->n_dims - 1], t->dims[0]}; /* columns, rows */
        FR_TRY(fr_meta_put_tensor(&d->w, name, t->dtype, t->n_dims, dims));
        d->sources[n++] = d->sources[i];
    }
    d->n_sources = n;
    return FR_OK;
}

static fr_status put_rope_factors(folder *d)
{
    int64_t n = d->shape.head / 2;
    return d->shape.rope_factors ? fr_meta_put_tensor(&d->w, "rope_freqs.weight", FR_F32, 1, &n)
                                 : FR_OK;
}

/* Makes the header, and behind it the factors; *factors_out is where they begin. */
static fr_status make_header(folder *d, size_t *factors_out)
{
    fr_buf *made = &d->f->made;
    FR_TRY(fr_meta_writer_finish(&d->w, made));
    while (made->len % sizeof(float))
        FR_TRY(fr_buf_put(made, "", 1));
    *factors_out = made->len;
    size_t n = d->shape.rope_factors ? (size_t)d->shape.head / 2 : 0;
    return fr_buf_put(made, d->shape.rope_factors, n * sizeof(float));
}

static int has_tensor(const void *f, const char *name)
{
    return fr_model_file_tensor(f, name) != NULL;
}

static fr_status parse_made(folder *d)
{
    fr_model_file *f = d->f;
    size_t factors = 0;
    uint64_t *offsets = NULL;
    FR_TRY(make_header(d, &factors));
    f->base = f->made.data;
    f->size = f->made.len;
    fr_status st = fr_gguf_parse_header(f, &offsets);
    free(offsets);
    FR_TRY(st);
    for (size_t i = 0; i < f->n_tensors; i++) {
        int in_shard = i < d->n_sources;
        f->tensors[i].data = in_shard ? d->sources[i].tensor->data : f->base + factors;
        if (in_shard)
            f->tensors[i].source = d->sources[i].tensor->name;
    }
    return fr_hf_tensors_complete(&d->shape, f->name, has_tensor, f);
}

static fr_status parse(folder *d)
{
    FR_TRY(locate(d));
    FR_TRY(d->single ? open_single(d) : open_indexed(d));
    FR_TRY(put_config(d));
    FR_TRY(put_tensors(d)); /* first: the tokenizer is measured by the embedding's rows */
    FR_TRY(put_tokenizer(d));
    FR_TRY(put_rope_factors(d));
    return parse_made(d);
}

fr_status fr_hf_folder_parse(fr_model_file *f)
{
    folder d = {.f = f};
    fr_status st = parse(&d);
    fr_meta_writer_free(&d.w);
    fr_hf_shape_free(&d.shape);
    fr_hf_json_free(&d.settings);
    fr_hf_json_free(&d.tokenizer);
    fr_hf_json_free(&d.generation);
    fr_hf_json_free(&d.config);
    free(d.sources);
    fr_hf_json_free(&d.index);
    free(d.single);
    free(d.dir);
    return st;
}
