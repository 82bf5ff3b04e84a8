/* model_tokenize.c: `forerun model tokenize`: the ids of a text, special tokens recognised, no BOS
 * added. */
#include "model.h"

#include <stdio.h>
#include <string.h>

#include "check.h"
#include "json_out.h"
#include "model_file.h"
#include "ui.h"

static fr_status print_json(const fr_ids *ids)
{
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    cJSON *array = cJSON_AddArrayToObject(o, "ids");
    fr_status st = array ? FR_OK : fr_no_memory();
    for (size_t i = 0; st == FR_OK && i < ids->len; i++)
        st = fr_json_append(array, cJSON_CreateNumber(ids->data[i]));
    if (st == FR_OK)
        st = fr_json_number(o, "n", (double)ids->len);
    if (st == FR_OK)
        st = fr_json_print(o);
    cJSON_Delete(o);
    return st;
}

static fr_status print_text(const fr_tokenizer *t, const fr_ids *ids)
{
    for (size_t i = 0; i < ids->len; i++) {
        size_t n = 0;
        const char *bytes = fr_token_bytes(t, ids->data[i], &n);
        fr_buf text = {0};
        fr_status st = fr_ui_escape(bytes ? bytes : "", n, FR_UI_ONE_LINE, &text);
        if (st == FR_OK)
            printf("%7d  '%.*s'\n", (int)ids->data[i], (int)text.len,
                   text.data ? (const char *)text.data : "");
        fr_buf_free(&text);
        FR_TRY(st);
    }
    return FR_OK;
}

static fr_status tokenize(fr_model_options *o, const char *path)
{
    fr_model_file *f = NULL;
    fr_tokenizer *t = NULL;
    fr_ids ids = {0};
    FR_TRY(fr_model_file_open(path, &f));
    fr_status st = fr_tokenizer_from_model(f, &t);
    if (st == FR_OK)
        st = fr_tokenize(t, o->text, strlen(o->text), 1, &ids);
    if (st == FR_OK)
        st = o->json ? print_json(&ids) : print_text(t, &ids);
    fr_ids_free(&ids);
    fr_tokenizer_free(&t);
    fr_model_file_close(&f);
    return st;
}

const fr_model_command fr_model_tokenize = {
    .name = "tokenize", .args_doc = "MODEL TEXT", .n_args = 2, .run = tokenize,
    .doc = "Shows the token ids of a text.",
};
