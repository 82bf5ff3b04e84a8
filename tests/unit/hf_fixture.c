/* hf_fixture.c: see hf_fixture.h. */
#include "hf_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

char hf_folder[] = "/tmp/forerun-hf-XXXXXX";
const hf_model hf_plain = {.family = "qwen2", .dtype = FR_BF16, .n_shards = 1};

fr_model_file *hf_open_path(const char *name)
{
    char path[128];
    fr_model_file *f = NULL;
    snprintf(path, sizeof path, "%s%s", hf_folder, name);
    if (fr_model_file_open(path, &f) != FR_OK)
        fail_msg("%s", fr_cause());
    return f;
}

fr_model_file *hf_open_model(const hf_model *m)
{
    hf_write_folder(hf_folder, m);
    return hf_open_path("");
}

int hf_folder_empty(void **state)
{
    (void)state;
    hf_remove_folder(hf_folder);
    strcpy(hf_folder, "/tmp/forerun-hf-XXXXXX");
    return mkdtemp(hf_folder) ? 0 : -1;
}

void hf_change(const char *file, const char *from, const char *to)
{
    size_t n = 0;
    fr_buf b = {0};
    char *text = hf_read_file(hf_folder, file, &n), *at = memmem(text, n, from, strlen(from));
    if (!at)
        fail_msg("%s has no %s", file, from);
    gguf_bytes(&b, text, (size_t)(at - text));
    gguf_bytes(&b, to, strlen(to));
    gguf_bytes(&b, at + strlen(from), n - (size_t)(at - text) - strlen(from));
    hf_write_file(hf_folder, file, b.data, b.len);
    fr_buf_free(&b);
    free(text);
}

int hf_folder_make(void **state)
{
    (void)state;
    return mkdtemp(hf_folder) ? 0 : -1;
}

int hf_folder_remove(void **state)
{
    (void)state;
    hf_remove_folder(hf_folder);
    return 0;
}
