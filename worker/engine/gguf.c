/* gguf.c: the parser of GGUF versions 2 and 3, little-endian (ggml docs/gguf.md).
 *
 *   header    "GGUF", u32 version, u64 tensor count, u64 metadata count
 *   metadata  string key, u32 type, value
 *   tensors   string name, u32 dims, u64 dim each, u32 type, u64 offset from the start of the data
 *   data      starts at the next multiple of general.alignment (32 when absent)
 *   string    u64 length, bytes
 *   array     u32 type of its elements, u64 count, elements
 *
 * The file is untrusted. Easy to get wrong, hence the rules: a count is believed only after it has
 * been checked against the bytes that are left, since every entry takes some; sizes are compared by
 * subtraction, never by adding to an offset; names go into messages only through fr_str_show(). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "hash.h"
#include "model_file_impl.h"

enum {
    META_MIN_BYTES = 8 + 4 + 1,           /* empty key, type, one byte */
    TENSOR_MIN_BYTES = 8 + 4 + 8 + 4 + 8, /* empty name, one dimension */
    DEFAULT_ALIGNMENT = 32,
    PLACE_BYTES = FR_SHOW_BYTES + 32
};

typedef struct cursor {
    const fr_model_file *f;
    size_t at;
    char place[PLACE_BYTES]; /* named in errors: "tensor 12 (blk.0.ffn_up.weight)" */
} cursor;

static fr_status take(cursor *c, uint64_t n, const uint8_t **out)
{
    if (n > c->f->size - c->at)
        return fr_fail(FR_EFORMAT,
                       "%s: %s: needs %llu bytes at byte %zu, the file has %zu (truncated?)",
                       c->f->name, c->place, (unsigned long long)n, c->at, c->f->size);
    *out = c->f->base + c->at;
    c->at += (size_t)n;
    return FR_OK;
}

static fr_status take_u32(cursor *c, uint32_t *out)
{
    const uint8_t *p = NULL;
    FR_TRY(take(c, 4, &p));
    *out = fr_le32(p);
    return FR_OK;
}

static fr_status take_u64(cursor *c, uint64_t *out)
{
    const uint8_t *p = NULL;
    FR_TRY(take(c, 8, &p));
    *out = fr_le64(p);
    return FR_OK;
}

static fr_status take_str(cursor *c, fr_str *out)
{
    uint64_t n = 0;
    const uint8_t *p = NULL;
    FR_TRY(take_u64(c, &n));
    FR_TRY(take(c, n, &p));
    *out = (fr_str){(const char *)p, (size_t)n};
    return FR_OK;
}

/* Refuses a count of entries that the rest of the file cannot hold. */
static fr_status check_count(const cursor *c, const char *what, uint64_t count, size_t min_bytes)
{
    size_t left = c->f->size - c->at;
    if (count > left / min_bytes || count > UINT32_MAX / 4)
        return fr_fail(FR_EFORMAT, "%s: %s: %llu %s do not fit in the %zu bytes left (truncated?)",
                       c->f->name, c->place, (unsigned long long)count, what, left);
    return FR_OK;
}

/* --- metadata --- */

size_t fr_meta_type_bytes(fr_meta_type type)
{
    switch (type) {
    case FR_META_U8:
    case FR_META_I8:
    case FR_META_BOOL:
        return 1;
    case FR_META_U16:
    case FR_META_I16:
        return 2;
    case FR_META_U32:
    case FR_META_I32:
    case FR_META_F32:
        return 4;
    case FR_META_U64:
    case FR_META_I64:
    case FR_META_F64:
        return 8;
    case FR_META_STR:
    case FR_META_ARRAY:
        break;
    }
    return 0;
}

static fr_status skip_values(cursor *c, fr_meta_type type, uint64_t count)
{
    const uint8_t *p = NULL;
    size_t size = fr_meta_type_bytes(type);
    FR_TRY(check_count(c, "values", count, size ? size : 8));
    if (size)
        return take(c, count * size, &p);
    for (uint64_t i = 0; i < count; i++) {
        fr_str s;
        FR_TRY(take_str(c, &s));
    }
    return FR_OK;
}

static fr_status take_type(cursor *c, fr_meta_type *out)
{
    uint32_t type = 0;
    FR_TRY(take_u32(c, &type));
    if (type > FR_META_F64)
        return fr_fail(FR_EFORMAT, "%s: %s: unknown value type %u", c->f->name, c->place, type);
    *out = (fr_meta_type)type;
    return FR_OK;
}

static fr_status parse_meta(cursor *c, size_t i, fr_meta *m)
{
    char show[FR_SHOW_BYTES];
    snprintf(c->place, sizeof c->place, "metadata %zu", i);
    FR_TRY(take_str(c, &m->key));
    snprintf(c->place, sizeof c->place, "metadata %s", fr_str_show(m->key, show));
    FR_TRY(take_type(c, &m->type));
    m->element_type = m->type;
    m->n_elements = 1;
    if (m->type == FR_META_ARRAY) {
        FR_TRY(take_type(c, &m->element_type));
        if (m->element_type == FR_META_ARRAY)
            return fr_fail(FR_EUNSUPPORTED, "%s: %s: arrays of arrays are not supported",
                           c->f->name, c->place);
        FR_TRY(take_u64(c, &m->n_elements));
    }
    m->value = c->f->base + c->at;
    return skip_values(c, m->element_type, m->n_elements);
}

static fr_status parse_all_meta(cursor *c, fr_model_file *f, uint64_t n)
{
    FR_TRY(check_count(c, "metadata entries", n, META_MIN_BYTES));
    f->meta = calloc((size_t)n + 1, sizeof *f->meta);
    if (!f->meta)
        return fr_no_memory();
    FR_TRY(fr_index_init(&f->meta_index, (size_t)n));
    for (size_t i = 0; i < n; i++) {
        fr_meta *m = &f->meta[i];
        FR_TRY(parse_meta(c, i, m));
        uint64_t h = fr_hash(FR_HASH_INIT, m->key.data, m->key.len);
        FR_INDEX_EACH(&f->meta_index, h, k)
        {
            if (fr_str_equal(f->meta[k].key, m->key))
                return fr_fail(FR_EFORMAT, "%s: %s: the key appears twice", f->name, c->place);
        }
        fr_index_put(&f->meta_index, h, (uint32_t)i);
        f->n_meta = i + 1;
    }
    return FR_OK;
}

/* --- tensors --- */

static fr_status parse_dims(cursor *c, fr_tensor *t)
{
    uint32_t n_dims = 0;
    FR_TRY(take_u32(c, &n_dims));
    if (n_dims < 1 || n_dims > 4)
        return fr_fail(FR_EFORMAT, "%s: %s: %u dimensions, want 1 to 4", c->f->name, c->place,
                       n_dims);
    t->n_dims = (int)n_dims;
    int64_t total = 1;
    for (int d = 0; d < 4; d++) {
        uint64_t dim = 1;
        if (d < t->n_dims)
            FR_TRY(take_u64(c, &dim));
        if (dim < 1 || dim > INT64_MAX || __builtin_mul_overflow(total, (int64_t)dim, &total))
            return fr_fail(FR_EFORMAT, "%s: %s: dimension %d is %llu: empty or too large",
                           c->f->name, c->place, d, (unsigned long long)dim);
        t->dims[d] = (int64_t)dim;
    }
    return FR_OK;
}

static fr_status parse_type(cursor *c, fr_tensor *t)
{
    uint32_t type = 0;
    FR_TRY(take_u32(c, &type));
    const fr_dtype_info *info = fr_dtype_find(type);
    if (!info)
        return fr_fail(FR_EUNSUPPORTED, "%s: %s: tensor type %u is not supported", c->f->name,
                       c->place, type);
    t->dtype = (fr_dtype)type;
    if (t->dims[0] % info->block_values)
        return fr_fail(FR_EFORMAT, "%s: %s: rows of %lld values are no whole blocks of %s (%d)",
                       c->f->name, c->place, (long long)t->dims[0], info->name, info->block_values);
    size_t rows = (size_t)(t->dims[1] * t->dims[2] * t->dims[3]); /* no overflow: parse_dims() */
    size_t row_blocks = (size_t)(t->dims[0] / info->block_values);
    if (__builtin_mul_overflow(row_blocks, (size_t)info->block_bytes, &t->bytes) ||
        __builtin_mul_overflow(t->bytes, rows, &t->bytes))
        return fr_fail(FR_EFORMAT, "%s: %s: too large", c->f->name, c->place);
    return FR_OK;
}

static fr_status parse_tensor(cursor *c, size_t i, fr_tensor *t, uint64_t *offset_out)
{
    char show[FR_SHOW_BYTES];
    snprintf(c->place, sizeof c->place, "tensor %zu", i);
    FR_TRY(take_str(c, &t->name));
    t->source = t->name;
    snprintf(c->place, sizeof c->place, "tensor %s", fr_str_show(t->name, show));
    FR_TRY(parse_dims(c, t));
    FR_TRY(parse_type(c, t));
    return take_u64(c, offset_out);
}

static fr_status find_alignment(const fr_model_file *f, size_t *out)
{
    uint32_t alignment = DEFAULT_ALIGNMENT;
    if (fr_model_file_meta(f, "general.alignment"))
        FR_TRY(fr_meta_u32(f, "general.alignment", &alignment));
    if (alignment < 8 || (alignment & (alignment - 1)))
        return fr_fail(FR_EFORMAT, "%s: general.alignment is %u, want a power of two of at least 8",
                       f->name, alignment);
    *out = alignment;
    return FR_OK;
}

static fr_status place_tensor(const fr_model_file *f, fr_tensor *t, uint64_t offset,
                              size_t data_start, size_t alignment)
{
    char show[FR_SHOW_BYTES];
    if (offset % alignment)
        return fr_fail(FR_EFORMAT, "%s: tensor %s: offset %llu is no multiple of %zu", f->name,
                       fr_str_show(t->name, show), (unsigned long long)offset, alignment);
    uint64_t end = 0;
    if (__builtin_add_overflow(offset, (uint64_t)data_start, &end) ||
        __builtin_add_overflow(end, (uint64_t)t->bytes, &end))
        return fr_fail(FR_EFORMAT, "%s: tensor %s: offset %llu is too large", f->name,
                       fr_str_show(t->name, show), (unsigned long long)offset);
    if (end > f->size)
        return fr_fail(FR_EFORMAT,
                       "%s: tensor %s: data ends at byte %llu, the file has %zu (truncated?)",
                       f->name, fr_str_show(t->name, show), (unsigned long long)end, f->size);
    t->data = f->base + data_start + offset;
    return FR_OK;
}

static fr_status parse_tensor_list(cursor *c, fr_model_file *f, uint64_t n, uint64_t *offsets)
{
    FR_TRY(fr_index_init(&f->tensor_index, (size_t)n));
    for (size_t i = 0; i < n; i++) {
        fr_tensor *t = &f->tensors[i];
        FR_TRY(parse_tensor(c, i, t, &offsets[i]));
        uint64_t h = fr_hash(FR_HASH_INIT, t->name.data, t->name.len);
        FR_INDEX_EACH(&f->tensor_index, h, k)
        {
            if (fr_str_equal(f->tensors[k].name, t->name))
                return fr_fail(FR_EFORMAT, "%s: %s: appears twice", f->name, c->place);
        }
        fr_index_put(&f->tensor_index, h, (uint32_t)i);
        f->n_tensors = i + 1;
    }
    f->header_bytes = c->at;
    return FR_OK;
}

static fr_status parse_header(cursor *c, uint64_t *n_tensors_out, uint64_t *n_meta_out)
{
    const uint8_t *magic = NULL;
    uint32_t version = 0;
    FR_TRY(take(c, 4, &magic));
    if (memcmp(magic, "GGUF", 4))
        return fr_fail(FR_EFORMAT, "%s: not a GGUF file", c->f->name);
    FR_TRY(take_u32(c, &version));
    if (version && !(version & 0xffffff))
        return fr_fail(FR_EUNSUPPORTED, "%s: a big-endian GGUF file", c->f->name);
    if (version != 2 && version != 3)
        return fr_fail(FR_EUNSUPPORTED, "%s: GGUF version %u, want 2 or 3", c->f->name, version);
    FR_TRY(take_u64(c, n_tensors_out));
    return take_u64(c, n_meta_out);
}

fr_status fr_gguf_parse_header(fr_model_file *f, uint64_t **offsets_out)
{
    cursor c = {.f = f, .place = "header"};
    uint64_t n_tensors = 0, n_meta = 0;
    FR_TRY(parse_header(&c, &n_tensors, &n_meta));
    FR_TRY(check_count(&c, "tensors", n_tensors, TENSOR_MIN_BYTES));
    FR_TRY(parse_all_meta(&c, f, n_meta));
    snprintf(c.place, sizeof c.place, "tensor list");
    FR_TRY(check_count(&c, "tensors", n_tensors, TENSOR_MIN_BYTES));
    f->tensors = calloc((size_t)n_tensors + 1, sizeof *f->tensors);
    *offsets_out = calloc((size_t)n_tensors + 1, sizeof **offsets_out);
    if (!f->tensors || !*offsets_out)
        return fr_no_memory();
    return parse_tensor_list(&c, f, n_tensors, *offsets_out);
}

/* After the whole list: only its end tells where the data start. */
static fr_status place_all(fr_model_file *f, const uint64_t *offsets)
{
    size_t alignment = 0;
    FR_TRY(find_alignment(f, &alignment));
    size_t data_start = f->header_bytes + (alignment - f->header_bytes % alignment) % alignment;
    for (size_t i = 0; i < f->n_tensors; i++)
        FR_TRY(place_tensor(f, &f->tensors[i], offsets[i], data_start, alignment));
    return FR_OK;
}

fr_status fr_gguf_parse(fr_model_file *f)
{
    uint64_t *offsets = NULL;
    fr_status st = fr_gguf_parse_header(f, &offsets);
    if (st == FR_OK)
        st = place_all(f, offsets);
    free(offsets);
    return st;
}
