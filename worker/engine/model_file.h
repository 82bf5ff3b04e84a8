/* model_file.h: a model file, mapped and read only: metadata and tensors. GGUF versions 2 and 3 (ggml docs/gguf.md),
 * and model folders as Hugging Face's publishers ship them (hf_folder.c), which come out under GGUF's names.
 * Every length, offset and type in a file is checked against the file's size; files are untrusted input. */
#ifndef FR_MODEL_FILE_H
#define FR_MODEL_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "dtype.h"
#include "status.h"

typedef struct fr_model_file fr_model_file;

/* GGUF's own value type numbers. */
typedef enum {
    FR_META_U8, FR_META_I8, FR_META_U16, FR_META_I16, FR_META_U32, FR_META_I32, FR_META_F32, FR_META_BOOL,
    FR_META_STR, FR_META_ARRAY, FR_META_U64, FR_META_I64, FR_META_F64
} fr_meta_type;

typedef struct fr_str {
    const char *data; /* not terminated */
    size_t len;
} fr_str;

static inline fr_str fr_str_of(const char *text)
{
    return (fr_str){text, strlen(text)};
}
int fr_str_equal(fr_str a, fr_str b); /* 1 when the bytes are the same */
/* A printable copy for messages: other characters as '?', cut at 79 bytes. Returns out. */
#define FR_SHOW_BYTES 80
const char *fr_str_show(fr_str s, char out[FR_SHOW_BYTES]);

typedef struct fr_meta {
    fr_str key;
    fr_meta_type type;         /* FR_META_ARRAY: element_type and n_elements below */
    fr_meta_type element_type;
    uint64_t n_elements;       /* 1 for a plain value */
    const uint8_t *value;      /* in the mapping, unaligned, little-endian */
} fr_meta;

typedef struct fr_tensor {
    fr_str name;
    fr_str source; /* for messages: the name that the file itself has for it */
    fr_dtype dtype;
    int n_dims;
    int64_t dims[4]; /* GGUF order: dims[0] is the row length (columns), dims[1] the number of rows; unused are 1 */
    const void *data;
    size_t bytes;
} fr_tensor;

/* Maps `path`: a GGUF file, or a model folder, its model.safetensors.index.json, or one *.safetensors file of it.
 * FR_ENOTFOUND, FR_EIO, FR_EFORMAT (truncated, corrupt), FR_EUNSUPPORTED (version, tensor type,
 * architecture): the cause names the file and the place. */
fr_status fr_model_file_open(const char *path, fr_model_file **out);
/* The same over memory that outlives the file (fuzzing, embedded models). `name` is used in errors. */
fr_status fr_model_file_from_memory(const void *data, size_t n, const char *name, fr_model_file **out);
void fr_model_file_close(fr_model_file **f); /* NULL is fine */

const char *fr_model_file_name(const fr_model_file *f); /* the path; a folder's without slashes at its end */
size_t fr_model_file_size(const fr_model_file *f);      /* bytes of the file, or of all shards */
/* Tells two files apart: over the header and samples of each tensor. */
uint64_t fr_model_file_digest(const fr_model_file *f);

size_t fr_model_file_n_meta(const fr_model_file *f);
const fr_meta *fr_model_file_meta_at(const fr_model_file *f, size_t i);
const fr_meta *fr_model_file_meta(const fr_model_file *f, const char *key); /* NULL when absent */
size_t fr_model_file_n_tensors(const fr_model_file *f);
const fr_tensor *fr_model_file_tensor_at(const fr_model_file *f, size_t i);
const fr_tensor *fr_model_file_tensor(const fr_model_file *f, const char *name); /* NULL when absent */

/* Typed look-ups: FR_ENOTFOUND when absent (the cause names file and key), FR_EFORMAT when of another kind or out of
 * range. Integers of every width are accepted for u32; f32 and f64 for f32. */
fr_status fr_meta_u32(const fr_model_file *f, const char *key, uint32_t *out);
fr_status fr_meta_f32(const fr_model_file *f, const char *key, float *out);
fr_status fr_meta_bool(const fr_model_file *f, const char *key, int *out);
fr_status fr_meta_str(const fr_model_file *f, const char *key, fr_str *out);

/* Walks the elements of a string array (as a vocabulary): fr_meta_str_array() starts, fr_str_next() goes on. */
typedef struct fr_str_iter {
    const uint8_t *at;
    uint64_t left;
} fr_str_iter;
fr_status fr_meta_str_array(const fr_model_file *f, const char *key, fr_str_iter *out);
int fr_str_next(fr_str_iter *it, fr_str *out); /* 1 and the next element, or 0 at the end */
/* Element i of a numeric array of any integer type, or of floats, as a double. i < n_elements. */
double fr_meta_element(const fr_meta *m, uint64_t i);

/* Tells the kernel that only parts will be read, and which: as file_map.h says. */
void fr_model_file_read_parts(const fr_model_file *f);
void fr_model_file_read_pieces(const fr_model_file *f, const void *data, size_t bytes, size_t stride, size_t n);
/* Tells the kernel that the mapped bytes of this range are no longer needed (they were repacked). */
void fr_model_file_drop(const fr_model_file *f, const void *data, size_t n);

#endif
