/* hf_writer.h: a small model for tests, written as a model folder and, with the same weights, as a
 * GGUF file. */
#ifndef FR_HF_WRITER_H
#define FR_HF_WRITER_H

#include "gguf_writer.h"

/* Sizes of the model: two layers. */
enum {
    HF_HIDDEN = 64,
    HF_HEADS = 4,
    HF_KV_HEADS = 2,
    HF_HEAD = 16,
    HF_FF = 96,
    HF_VOCAB = 272,
    HF_LAYERS = 2,
    HF_TOKENS = 263
};

typedef struct hf_model {
    const char *family;  /* "llama", "qwen2", "qwen3" */
    fr_dtype dtype;      /* of all tensors: F32, F16, BF16 */
    int tied;            /* no head of its own */
    int n_shards;        /* 1: model.safetensors; else an index and so many */
    const char *nan_in;  /* the published name of a tensor that has a NaN; NULL: none */
    int nan_row;         /* where: in the first column of this row */
    const char *scaling; /* config.json's rope_scaling; NULL: null */
    int keep_rows;       /* 1: the GGUF file of llama gets Q and K as they are, which is wrong */
    const float *rope_factors; /* [HF_HEAD / 2] of the GGUF file; NULL: none */
    const char *stray;         /* a tensor [HF_HIDDEN] more that the GGUF file has; NULL: none */
} hf_model;

/* The folder must exist. Failing to write aborts: tests have nothing to do then. */
void hf_write_folder(const char *folder, const hf_model *m);
void hf_write_gguf(const char *path, const hf_model *m);

void hf_write_file(const char *folder, const char *name, const void *data, size_t n);
/* The file's bytes, terminated; the caller's to free. */
char *hf_read_file(const char *folder, const char *name, size_t *n_out);
/* Removes the folder and all files in it. */
void hf_remove_folder(const char *folder);

#endif
