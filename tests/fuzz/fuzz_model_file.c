/* fuzz_model_file.c: any bytes as a GGUF file; when it opens, everything it offers is read. */
#include <stdio.h>

#include "fuzz.h"
#include "model_file.h"

static volatile double sink; /* keeps the reads */

static void read_meta(const fr_model_file *f, const fr_meta *m)
{
    char key[64];
    fr_str_iter it;
    fr_str s;
    uint32_t u;
    float v;
    int flag;
    snprintf(key, sizeof key, "%.*s", (int)(m->key.len < 63 ? m->key.len : 63), m->key.data);
    (void)fr_meta_u32(f, key, &u);
    (void)fr_meta_f32(f, key, &v);
    (void)fr_meta_bool(f, key, &flag);
    if (fr_meta_str(f, key, &s) == FR_OK && s.len)
        sink += s.data[s.len - 1];
    for (uint64_t i = 0; m->element_type != FR_META_STR && i < m->n_elements; i++)
        sink += fr_meta_element(m, i);
    if (fr_meta_str_array(f, key, &it) == FR_OK) {
        while (fr_str_next(&it, &s))
            sink += s.len ? s.data[0] + s.data[s.len - 1] : 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fr_model_file *f = NULL;
    if (fr_model_file_from_memory(data, size, "fuzz", &f) != FR_OK)
        return 0;
    for (size_t i = 0; i < fr_model_file_n_meta(f); i++)
        read_meta(f, fr_model_file_meta_at(f, i));
    for (size_t i = 0; i < fr_model_file_n_tensors(f); i++) {
        const fr_tensor *t = fr_model_file_tensor_at(f, i);
        for (size_t k = 0; k < t->bytes; k++)
            sink += ((const uint8_t *)t->data)[k];
    }
    sink += (double)fr_model_file_digest(f);
    fr_model_file_close(&f);
    return 0;
}
