/* model_inspect.c: `forerun model inspect`: metadata, tensors, sizes, tokenizer and chat style of a
 * model file or folder. */
#include "model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "json_out.h"
#include "model_file.h"
#include "table.h"
#include "ui.h"

#define SHOWN_ELEMENTS 8 /* of an array */
#define SHOWN_BYTES 120  /* of a text, in the table */

static const char *const chat_names[] = {
    [FR_CHAT_NONE] = "none",
    [FR_CHAT_CHATML] = "chatml",
    [FR_CHAT_LLAMA3] = "llama3",
    [FR_CHAT_DEEPSEEK] = "deepseek",
    [FR_CHAT_THINKING] = "chatml-thinking",
};

/* Metadata as JSON; arrays are {"type":"array","n":N,"first":[...]}. */
static fr_status add_value(const fr_model_file *f, const fr_meta *m, const char *key, cJSON *o)
{
    if (m->type == FR_META_STR) {
        fr_str s = {0};
        FR_TRY(fr_meta_str(f, key, &s));
        return fr_json_bytes(o, key, s.data, s.len);
    }
    if (m->type == FR_META_BOOL) {
        int v = 0;
        FR_TRY(fr_meta_bool(f, key, &v));
        return fr_json_bool(o, key, v);
    }
    if (m->type != FR_META_ARRAY)
        return fr_json_number(o, key, fr_meta_element(m, 0));
    cJSON *array = cJSON_AddObjectToObject(o, key),
          *first = array ? cJSON_AddArrayToObject(array, "first") : NULL;
    if (!first)
        return fr_no_memory();
    FR_TRY(fr_json_u64(array, "n", m->n_elements));
    if (m->element_type == FR_META_STR) {
        fr_str_iter it = {0};
        fr_str s = {0};
        FR_TRY(fr_meta_str_array(f, key, &it));
        for (int i = 0; i < SHOWN_ELEMENTS && fr_str_next(&it, &s); i++) {
            fr_buf text = {0};
            fr_status st = fr_ui_utf8(s.data, s.len, &text);
            if (st == FR_OK)
                st = fr_buf_put(&text, "", 1);
            if (st == FR_OK)
                st = fr_json_append(first, cJSON_CreateString((const char *)text.data));
            fr_buf_free(&text);
            FR_TRY(st);
        }
    } else if (m->element_type != FR_META_ARRAY) {
        for (uint64_t i = 0; i < m->n_elements && i < SHOWN_ELEMENTS; i++)
            FR_TRY(fr_json_append(first, cJSON_CreateNumber(fr_meta_element(m, i))));
    }
    return FR_OK;
}

static fr_status fill_metadata(const fr_model_file *f, cJSON *o)
{
    for (size_t i = 0; i < fr_model_file_n_meta(f); i++) {
        const fr_meta *m = fr_model_file_meta_at(f, i);
        char *key = strndup(m->key.data, m->key.len);
        if (!key)
            return fr_no_memory();
        fr_status st = add_value(f, m, key, o);
        free(key);
        FR_TRY(st);
    }
    return FR_OK;
}

static fr_status fill_tensors(const fr_model_file *f, cJSON *array)
{
    for (size_t i = 0; i < fr_model_file_n_tensors(f); i++) {
        const fr_tensor *t = fr_model_file_tensor_at(f, i);
        cJSON *o = cJSON_CreateObject(), *dims = o ? cJSON_AddArrayToObject(o, "dims") : NULL;
        fr_status st = dims ? fr_json_bytes(o, "name", t->name.data, t->name.len) : fr_no_memory();
        for (int d = 0; st == FR_OK && d < t->n_dims; d++)
            st = fr_json_append(dims, cJSON_CreateNumber((double)t->dims[d]));
        if (st == FR_OK)
            st = fr_json_text(o, "type", fr_dtype_find(t->dtype)->name);
        if (st == FR_OK)
            st = fr_json_u64(o, "bytes", t->bytes);
        if (st == FR_OK && cJSON_AddItemToArray(array, o))
            continue;
        cJSON_Delete(o);
        return st == FR_OK ? fr_no_memory() : st;
    }
    return FR_OK;
}

/* A file may be readable and yet have no tokenizer that Forerun knows; then that is what is
 * told. */
static fr_status fill_tokenizer(const fr_model_file *f, cJSON *o)
{
    fr_tokenizer *t = NULL;
    char digest[20];
    fr_status st = fr_tokenizer_from_model(f, &t);
    if (st == FR_ENOMEM)
        return st;
    if (st != FR_OK)
        return fr_json_text(o, "error", fr_cause());
    snprintf(digest, sizeof digest, "%016" PRIx64, fr_tokenizer_digest(t));
    st = fr_json_number(o, "tokens", fr_tokenizer_n_vocab(t));
    if (st == FR_OK)
        st = fr_json_text(o, "digest", digest);
    if (st == FR_OK)
        st = fr_json_text(o, "chat", chat_names[fr_tokenizer_chat_style(t)]);
    int n = 0;
    const int32_t *ends = fr_tokenizer_ends(t, &n);
    cJSON *array = cJSON_AddArrayToObject(o, "ends");
    for (int i = 0; st == FR_OK && i < n; i++)
        st = array ? fr_json_append(array, cJSON_CreateNumber(ends[i])) : fr_no_memory();
    fr_tokenizer_free(&t);
    return st;
}

static fr_status fill(const fr_model_file *f, cJSON *o)
{
    char digest[20];
    snprintf(digest, sizeof digest, "%016" PRIx64, fr_model_file_digest(f));
    FR_TRY(fr_json_text(o, "file", fr_model_file_name(f)));
    FR_TRY(fr_json_u64(o, "bytes", fr_model_file_size(f)));
    FR_TRY(fr_json_text(o, "digest", digest));
    cJSON *tokenizer = cJSON_AddObjectToObject(o, "tokenizer"),
          *meta = cJSON_AddObjectToObject(o, "metadata");
    cJSON *tensors = cJSON_AddArrayToObject(o, "tensors");
    if (!tokenizer || !meta || !tensors)
        return fr_no_memory();
    FR_TRY(fill_tokenizer(f, tokenizer));
    FR_TRY(fill_metadata(f, meta));
    return fill_tensors(f, tensors);
}

static fr_status print_metadata(const cJSON *meta)
{
    fr_table t = {0};
    fr_status st = FR_OK;
    const cJSON *m;
    cJSON_ArrayForEach(m, meta)
    {
        char *text = cJSON_PrintUnformatted(m);
        if (st == FR_OK)
            st = text ? fr_table_row(&t, "  %s\t%.*s%s", m->string, SHOWN_BYTES, text,
                                     strlen(text) > SHOWN_BYTES ? "..." : "")
                      : fr_no_memory();
        free(text);
    }
    if (st == FR_OK)
        st = fr_table_print(&t);
    fr_table_free(&t);
    return st;
}

static fr_status print_tensors(const fr_model_file *f)
{
    fr_table t = {0};
    fr_status st = FR_OK;
    for (size_t i = 0; st == FR_OK && i < fr_model_file_n_tensors(f); i++) {
        const fr_tensor *x = fr_model_file_tensor_at(f, i);
        st = fr_table_row(&t, "  %.*s\t%s\t%" PRId64 " x %" PRId64 "\t%zu", (int)x->name.len,
                          x->name.data, fr_dtype_find(x->dtype)->name, x->dims[1], x->dims[0],
                          x->bytes);
    }
    if (st == FR_OK)
        st = fr_table_print(&t);
    fr_table_free(&t);
    return st;
}

static fr_status print_text(const fr_model_file *f, const cJSON *o)
{
    char *tokenizer = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(o, "tokenizer"));
    if (!tokenizer)
        return fr_no_memory();
    printf("%s: %.1f MB, digest %016" PRIx64 "\ntokenizer: %s\nmetadata:\n", fr_model_file_name(f),
           (double)fr_model_file_size(f) / 1e6, fr_model_file_digest(f), tokenizer);
    free(tokenizer);
    FR_TRY(print_metadata(cJSON_GetObjectItemCaseSensitive(o, "metadata")));
    printf("tensors (name, type, rows x columns, bytes):\n");
    return print_tensors(f);
}

static fr_status inspect(fr_model_options *options, const char *path)
{
    fr_model_file *f = NULL;
    cJSON *o = NULL;
    FR_TRY(fr_model_file_open(path, &f));
    fr_status st = fr_json_object(&o);
    if (st == FR_OK)
        st = fill(f, o);
    if (st == FR_OK)
        st = options->json ? fr_json_print(o) : print_text(f, o);
    cJSON_Delete(o);
    fr_model_file_close(&f);
    return st;
}

const fr_model_command fr_model_inspect = {
    .name = "inspect", .args_doc = "MODEL", .n_args = 1, .run = inspect,
    .doc = "Shows what is in a model file or folder: metadata, tensors, tokenizer, chat style.",
};
