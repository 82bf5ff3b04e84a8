/* safetensors.c: see safetensors.h.
 *
 *   u64 length of the header, little-endian; the header; the tensors' bytes, to the end of the file
 *   header  {"NAME": {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [begin, end]}, ...}
 *           "__metadata__" holds texts, which say nothing about tensors; spaces may follow
 *
 * Offsets count from the end of the header. In their order the tensors' ranges follow each other
 * without a gap, from 0 to the end of the file: that is what excludes tensors that share bytes and
 * headers that lie about them. */
#include "safetensors.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "hash.h"
#include "model_file_impl.h"

enum { HEADER_MAX = 100 * 1000 * 1000 }; /* the format's own limit */

static const struct {
    const char *name;
    int bytes, readable;
    fr_dtype dtype;
} types[] = {
    {"BF16", 2, 1, FR_BF16}, {"F16", 2, 1, FR_F16}, {"F32", 4, 1, FR_F32}, {"F64", 8, 0, 0},
    {"F8_E4M3", 1, 0, 0},    {"F8_E5M2", 1, 0, 0},  {"I64", 8, 0, 0},      {"I32", 4, 0, 0},
    {"I16", 2, 0, 0},        {"I8", 1, 0, 0},       {"U64", 8, 0, 0},      {"U32", 4, 0, 0},
    {"U16", 2, 0, 0},        {"U8", 1, 0, 0},       {"BOOL", 1, 0, 0},
};

/* A tensor's header entry while it is read. */
typedef struct entry {
    const char *file;
    const cJSON *json;
    char show[FR_SHOW_BYTES]; /* the tensor's name */
} entry;

static fr_status bad(const entry *e, const char *what)
{
    return fr_fail(FR_EFORMAT, "%s: tensor %s: %s", e->file, e->show, what);
}

/* A whole number that a double holds exactly. */
static int as_size(const cJSON *json, int64_t *out)
{
    double v = cJSON_IsNumber(json) ? json->valuedouble : -1;
    if (!(v >= 0 && v <= 0x1p53) || v != floor(v))
        return 0;
    *out = (int64_t)v;
    return 1;
}

static fr_status read_type(const entry *e, fr_safetensor *t, int *value_bytes_out)
{
    char show[FR_SHOW_BYTES];
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e->json, "dtype"));
    if (!name)
        return bad(e, "has no dtype");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (strcmp(types[i].name, name) == 0) {
            t->type = types[i].name;
            t->readable = types[i].readable;
            t->dtype = types[i].dtype;
            *value_bytes_out = types[i].bytes;
            return FR_OK;
        }
    }
    return fr_fail(FR_EUNSUPPORTED, "%s: tensor %s: dtype %s is unknown", e->file, e->show,
                   fr_str_show(fr_str_of(name), show));
}

/* The shape, and the bytes that it takes. */
static fr_status read_shape(const entry *e, fr_safetensor *t, int value_bytes)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(e->json, "shape"), *dim;
    int64_t bytes = value_bytes;
    if (!cJSON_IsArray(shape))
        return bad(e, "has no shape");
    for (int d = 0; d < FR_SAFETENSOR_DIMS; d++)
        t->dims[d] = 1;
    cJSON_ArrayForEach(dim, shape)
    {
        if (t->n_dims == FR_SAFETENSOR_DIMS)
            return bad(e, "has more than 8 dimensions");
        if (!as_size(dim, &t->dims[t->n_dims]))
            return bad(e, "has a shape that is no list of sizes");
        if (__builtin_mul_overflow(bytes, t->dims[t->n_dims++], &bytes))
            return bad(e, "is too large");
    }
    t->bytes = (size_t)bytes;
    return FR_OK;
}

/* Where it lies: begin and end, counted from the end of the header, of data_bytes in all. */
static fr_status read_place(const entry *e, fr_safetensor *t, const uint8_t *data,
                            size_t data_bytes)
{
    const cJSON *range = cJSON_GetObjectItemCaseSensitive(e->json, "data_offsets");
    int64_t begin = 0, end = 0;
    if (!cJSON_IsArray(range) || cJSON_GetArraySize(range) != 2 ||
        !as_size(cJSON_GetArrayItem(range, 0), &begin) ||
        !as_size(cJSON_GetArrayItem(range, 1), &end) || begin > end)
        return bad(e, "data_offsets are no two offsets in order");
    if ((uint64_t)end > data_bytes)
        return fr_fail(FR_EFORMAT,
                       "%s: tensor %s: data ends at %lld, the file has %zu bytes of data "
                       "(truncated?)",
                       e->file, e->show, (long long)end, data_bytes);
    if ((uint64_t)(end - begin) != t->bytes)
        return fr_fail(FR_EFORMAT,
                       "%s: tensor %s: data_offsets span %lld bytes, its shape and dtype take %zu",
                       e->file, e->show, (long long)(end - begin), t->bytes);
    t->data = data + begin;
    return FR_OK;
}

static fr_status read_tensor(const entry *e, const uint8_t *data, size_t data_bytes,
                             fr_safetensor *t)
{
    int value_bytes = 0;
    if (!cJSON_IsObject(e->json))
        return bad(e, "is described by no object");
    t->name = fr_str_of(e->json->string);
    FR_TRY(read_type(e, t, &value_bytes));
    FR_TRY(read_shape(e, t, value_bytes));
    return read_place(e, t, data, data_bytes);
}

static fr_status read_tensors(const char *file, const uint8_t *data, size_t data_bytes,
                              fr_safetensors *s)
{
    size_t n = (size_t)cJSON_GetArraySize(s->header);
    s->tensors = calloc(n + 1, sizeof *s->tensors);
    if (!s->tensors)
        return fr_no_memory();
    FR_TRY(fr_index_init(&s->index, n));
    entry e = {.file = file};
    cJSON_ArrayForEach(e.json, s->header)
    {
        if (strcmp(e.json->string, "__metadata__") == 0)
            continue;
        fr_str name = fr_str_of(e.json->string);
        fr_str_show(name, e.show);
        if (fr_safetensors_find(s, name))
            return bad(&e, "appears twice");
        FR_TRY(read_tensor(&e, data, data_bytes, &s->tensors[s->n]));
        fr_index_put(&s->index, fr_hash(FR_HASH_INIT, name.data, name.len), (uint32_t)s->n++);
    }
    return FR_OK;
}

static int by_place(const void *a, const void *b)
{
    const fr_safetensor *x = *(const fr_safetensor *const *)a,
                        *y = *(const fr_safetensor *const *)b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* the empty ones first */
}

static fr_status check_gaps(const char *file, const fr_safetensor *const *sorted, size_t n,
                            const uint8_t *data, size_t data_bytes)
{
    char show[FR_SHOW_BYTES];
    size_t at = 0; /* where the next tensor must begin */
    for (size_t i = 0; i < n; i++) {
        size_t begin = (size_t)(sorted[i]->data - data);
        if (begin != at)
            return fr_fail(FR_EFORMAT,
                           "%s: tensor %s: begins at %zu, the tensor before ends at %zu", file,
                           fr_str_show(sorted[i]->name, show), begin, at);
        at = begin + sorted[i]->bytes;
    }
    if (at != data_bytes)
        return fr_fail(FR_EFORMAT, "%s: the tensors take %zu bytes, the file has %zu of data", file,
                       at, data_bytes);
    return FR_OK;
}

static fr_status check_layout(const char *file, const fr_safetensors *s, const uint8_t *data,
                              size_t data_bytes)
{
    const fr_safetensor **sorted = malloc((s->n + 1) * sizeof *sorted);
    if (!sorted)
        return fr_no_memory();
    for (size_t i = 0; i < s->n; i++)
        sorted[i] = &s->tensors[i];
    qsort(sorted, s->n, sizeof *sorted, by_place);
    fr_status st = check_gaps(file, sorted, s->n, data, data_bytes);
    free(sorted);
    return st;
}

static fr_status parse_header(const char *file, const char *text, size_t n, cJSON **out)
{
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithLengthOpts(text, n, &end, 0);
    while (json && end < text + n && *end == ' ')
        end++;
    if (!cJSON_IsObject(json) || end != text + n) {
        cJSON_Delete(json);
        return fr_fail(FR_EFORMAT, "%s: the header is no JSON object (at byte %zu of it)", file,
                       end ? (size_t)(end - text) : 0);
    }
    *out = json;
    return FR_OK;
}

static fr_status parse(const char *file, const uint8_t *base, size_t size, fr_safetensors *s)
{
    if (size < 8)
        return fr_fail(FR_EFORMAT, "%s: not a safetensors file: %zu bytes", file, size);
    uint64_t n = fr_le64(base);
    if (n > HEADER_MAX || n < 2 || (size > 8 && base[8] != '{'))
        return fr_fail(FR_EFORMAT, "%s: not a safetensors file", file);
    if (n > size - 8)
        return fr_fail(FR_EFORMAT, "%s: the header has %llu bytes, the file %zu (truncated?)", file,
                       (unsigned long long)n, size);
    const uint8_t *data = base + 8 + n;
    size_t data_bytes = size - 8 - (size_t)n;
    FR_TRY(parse_header(file, (const char *)base + 8, (size_t)n, &s->header));
    FR_TRY(read_tensors(file, data, data_bytes, s));
    return check_layout(file, s, data, data_bytes);
}

fr_status fr_safetensors_parse(const char *file, const uint8_t *base, size_t size,
                               fr_safetensors *out)
{
    fr_safetensors s = {0};
    fr_status st = parse(file, base, size, &s);
    if (st != FR_OK)
        fr_safetensors_free(&s);
    else
        *out = s;
    return st;
}

void fr_safetensors_free(fr_safetensors *s)
{
    fr_index_free(&s->index);
    free(s->tensors);
    cJSON_Delete(s->header);
    *s = (fr_safetensors){0};
}

const fr_safetensor *fr_safetensors_find(const fr_safetensors *s, fr_str name)
{
    FR_INDEX_EACH(&s->index, fr_hash(FR_HASH_INIT, name.data, name.len), i)
    {
        if (fr_str_equal(s->tensors[i].name, name))
            return &s->tensors[i];
    }
    return NULL;
}
