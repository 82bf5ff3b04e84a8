/* fuzz_hf_folder.c: any JSON as the files of a model folder: {"config": {}, "tokenizer": {},
 * "settings": {}, "generation": {}}. What is taken makes a model file, which has a tokenizer or says
 * why not. */
#include <cjson/cJSON.h>

#include "fuzz.h"
#include "hf_config.h"
#include "hf_tokenizer.h"
#include "tokenizer.h"

enum { ROWS_MAX = 4096 }; /* of an embedding: the room that a tokenizer gets */

static fr_hf_object part(const cJSON *root, const char *name)
{
    return fr_hf_child((fr_hf_object){name, root}, name);
}

static fr_status put_all(const cJSON *root, fr_meta_writer *w, fr_hf_shape *shape)
{
    const fr_hf_tokenizer_files files = {.tokenizer = part(root, "tokenizer"),
                                         .settings = part(root, "settings"),
                                         .config = part(root, "config"),
                                         .generation = part(root, "generation")};
    fr_status st = fr_hf_config_put(files.config, w, shape);
    if (st != FR_OK)
        return st;
    return fr_hf_tokenizer_put(&files, shape->vocab < ROWS_MAX ? shape->vocab : ROWS_MAX, w);
}

static void open_made(const fr_meta_writer *w)
{
    fr_buf made = {0};
    fr_model_file *f = NULL;
    fr_tokenizer *t = NULL;
    if (fr_meta_writer_finish(w, &made) == FR_OK &&
        fr_model_file_from_memory(made.data, made.len, "fuzz", &f) == FR_OK)
        (void)fr_tokenizer_from_model(f, &t);
    fr_tokenizer_free(&t);
    fr_model_file_close(&f);
    fr_buf_free(&made);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cJSON *root = cJSON_ParseWithLength((const char *)data, size);
    fr_meta_writer w = {0};
    fr_hf_shape shape = {0};
    if (root && put_all(root, &w, &shape) == FR_OK)
        open_made(&w);
    fr_hf_shape_free(&shape);
    fr_meta_writer_free(&w);
    cJSON_Delete(root);
    return 0;
}
