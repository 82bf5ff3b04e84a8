/* model_meta.c: typed look-ups in a model file's metadata (model_file.h). Values lie unaligned and
 * little-endian in the mapping; the parser has checked that they are all there. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "model_file_impl.h"

int fr_str_equal(fr_str a, fr_str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

const char *fr_str_show(fr_str s, char out[FR_SHOW_BYTES])
{
    size_t n = s.len < FR_SHOW_BYTES - 1 ? s.len : FR_SHOW_BYTES - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = s.data[i] >= ' ' && s.data[i] <= '~' ? s.data[i] : '?';
    out[n] = 0;
    if (s.len > n)
        memcpy(out + n - 3, "...", 3);
    return out;
}

static fr_status find(const fr_model_file *f, const char *key, const fr_meta **out)
{
    *out = fr_model_file_meta(f, key);
    if (!*out)
        return fr_fail(FR_ENOTFOUND, "%s: no metadata %s", f->name, key);
    return FR_OK;
}

static fr_status wrong_kind(const fr_model_file *f, const char *key, const char *want)
{
    return fr_fail(FR_EFORMAT, "%s: metadata %s is no %s", f->name, key, want);
}

/* An integer of any width, sign-extended; 0 when it is none. */
static int as_integer(fr_meta_type type, const uint8_t *p, int64_t *out)
{
    switch (type) {
    case FR_META_U8:
        *out = p[0];
        return 1;
    case FR_META_I8:
        *out = (int8_t)p[0];
        return 1;
    case FR_META_U16:
        *out = (uint16_t)(p[0] | p[1] << 8);
        return 1;
    case FR_META_I16:
        *out = (int16_t)(p[0] | p[1] << 8);
        return 1;
    case FR_META_U32:
        *out = fr_le32(p);
        return 1;
    case FR_META_I32:
        *out = (int32_t)fr_le32(p);
        return 1;
    case FR_META_U64: /* above INT64_MAX it comes out negative: out of range for every caller */
    case FR_META_I64:
        *out = (int64_t)fr_le64(p);
        return 1;
    case FR_META_F32:
    case FR_META_BOOL:
    case FR_META_STR:
    case FR_META_ARRAY:
    case FR_META_F64:
        break;
    }
    return 0;
}

static int as_float(fr_meta_type type, const uint8_t *p, double *out)
{
    if (type == FR_META_F32) {
        uint32_t bits = fr_le32(p);
        float v;
        memcpy(&v, &bits, sizeof v);
        *out = (double)v;
        return 1;
    }
    if (type == FR_META_F64) {
        uint64_t bits = fr_le64(p);
        memcpy(out, &bits, sizeof *out);
        return 1;
    }
    return 0;
}

fr_status fr_meta_u32(const fr_model_file *f, const char *key, uint32_t *out)
{
    const fr_meta *m = NULL;
    int64_t v = 0;
    FR_TRY(find(f, key, &m));
    if (!as_integer(m->type, m->value, &v))
        return wrong_kind(f, key, "integer");
    if (v < 0 || v > UINT32_MAX)
        return fr_fail(FR_EFORMAT, "%s: metadata %s is out of range", f->name, key);
    *out = (uint32_t)v;
    return FR_OK;
}

fr_status fr_meta_f32(const fr_model_file *f, const char *key, float *out)
{
    const fr_meta *m = NULL;
    double v = 0;
    FR_TRY(find(f, key, &m));
    if (!as_float(m->type, m->value, &v))
        return wrong_kind(f, key, "floating-point number");
    if (!isfinite((float)v))
        return fr_fail(FR_EFORMAT, "%s: metadata %s is not finite", f->name, key);
    *out = (float)v;
    return FR_OK;
}

fr_status fr_meta_bool(const fr_model_file *f, const char *key, int *out)
{
    const fr_meta *m = NULL;
    FR_TRY(find(f, key, &m));
    if (m->type != FR_META_BOOL || m->value[0] > 1)
        return wrong_kind(f, key, "boolean");
    *out = m->value[0];
    return FR_OK;
}

static fr_str str_at(const uint8_t *p)
{
    return (fr_str){(const char *)p + 8, (size_t)fr_le64(p)};
}

fr_status fr_meta_str(const fr_model_file *f, const char *key, fr_str *out)
{
    const fr_meta *m = NULL;
    FR_TRY(find(f, key, &m));
    if (m->type != FR_META_STR)
        return wrong_kind(f, key, "string");
    *out = str_at(m->value);
    return FR_OK;
}

fr_status fr_meta_str_array(const fr_model_file *f, const char *key, fr_str_iter *out)
{
    const fr_meta *m = NULL;
    FR_TRY(find(f, key, &m));
    if (m->type != FR_META_ARRAY || m->element_type != FR_META_STR)
        return wrong_kind(f, key, "array of strings");
    *out = (fr_str_iter){m->value, m->n_elements};
    return FR_OK;
}

int fr_str_next(fr_str_iter *it, fr_str *out)
{
    if (!it->left)
        return 0;
    *out = str_at(it->at);
    it->at += 8 + out->len;
    it->left--;
    return 1;
}

double fr_meta_element(const fr_meta *m, uint64_t i)
{
    int64_t whole = 0;
    double v = 0;
    if (i >= m->n_elements)
        return 0;
    const uint8_t *p = m->value + i * fr_meta_type_bytes(m->element_type);
    if (m->element_type == FR_META_BOOL)
        return p[0] != 0;
    if (m->element_type == FR_META_U64)
        return (double)fr_le64(p);
    if (as_integer(m->element_type, p, &whole))
        return (double)whole;
    (void)as_float(m->element_type, p, &v);
    return v;
}
