/* meta_writer.c: see meta_writer.h; the layout is in gguf.c. */
#include "meta_writer.h"

#include <string.h>

#include "check.h"

enum { GGUF_VERSION = 3 };

void fr_meta_writer_free(fr_meta_writer *w)
{
    fr_buf_free(&w->meta);
    fr_buf_free(&w->tensors);
    *w = (fr_meta_writer){0};
}

static fr_status put_str(fr_buf *b, fr_str s)
{
    FR_TRY(fr_buf_put_u64(b, s.len));
    return fr_buf_put(b, s.data, s.len);
}

static fr_status put_key(fr_meta_writer *w, const char *key, fr_meta_type type)
{
    FR_TRY(put_str(&w->meta, fr_str_of(key)));
    FR_TRY(fr_buf_put_u32(&w->meta, type));
    w->n_meta++;
    return FR_OK;
}

fr_status fr_meta_put_u32(fr_meta_writer *w, const char *key, uint32_t v)
{
    FR_TRY(put_key(w, key, FR_META_U32));
    return fr_buf_put_u32(&w->meta, v);
}

fr_status fr_meta_put_f32(fr_meta_writer *w, const char *key, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    FR_TRY(put_key(w, key, FR_META_F32));
    return fr_buf_put_u32(&w->meta, bits);
}

fr_status fr_meta_put_bool(fr_meta_writer *w, const char *key, int v)
{
    uint8_t byte = v != 0;
    FR_TRY(put_key(w, key, FR_META_BOOL));
    return fr_buf_put(&w->meta, &byte, 1);
}

fr_status fr_meta_put_str(fr_meta_writer *w, const char *key, fr_str v)
{
    FR_TRY(put_key(w, key, FR_META_STR));
    return put_str(&w->meta, v);
}

fr_status fr_meta_put_array(fr_meta_writer *w, const char *key, fr_meta_type element, uint64_t n)
{
    FR_TRY(put_key(w, key, FR_META_ARRAY));
    FR_TRY(fr_buf_put_u32(&w->meta, element));
    return fr_buf_put_u64(&w->meta, n);
}

fr_status fr_meta_add_str(fr_meta_writer *w, fr_str v)
{
    return put_str(&w->meta, v);
}

fr_status fr_meta_add_u32(fr_meta_writer *w, uint32_t v)
{
    return fr_buf_put_u32(&w->meta, v);
}

fr_status fr_meta_put_tensor(fr_meta_writer *w, const char *name, fr_dtype dtype, int n_dims,
                             const int64_t *dims)
{
    FR_TRY(put_str(&w->tensors, fr_str_of(name)));
    FR_TRY(fr_buf_put_u32(&w->tensors, (uint32_t)n_dims));
    for (int i = 0; i < n_dims; i++)
        FR_TRY(fr_buf_put_u64(&w->tensors, (uint64_t)dims[i]));
    FR_TRY(fr_buf_put_u32(&w->tensors, dtype));
    FR_TRY(fr_buf_put_u64(&w->tensors, 0));
    w->n_tensors++;
    return FR_OK;
}

fr_status fr_meta_writer_finish(const fr_meta_writer *w, fr_buf *out)
{
    FR_TRY(fr_buf_reserve(out, 24 + w->meta.len + w->tensors.len));
    FR_TRY(fr_buf_put(out, "GGUF", 4));
    FR_TRY(fr_buf_put_u32(out, GGUF_VERSION));
    FR_TRY(fr_buf_put_u64(out, w->n_tensors));
    FR_TRY(fr_buf_put_u64(out, w->n_meta));
    FR_TRY(fr_buf_put(out, w->meta.data, w->meta.len));
    return fr_buf_put(out, w->tensors.data, w->tensors.len);
}
