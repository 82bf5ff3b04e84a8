/* safetensors.h: the header of a safetensors file: which tensors it holds, and where. The file is
 * untrusted input: a header that was accepted describes bytes that are all there and that no two
 * tensors share. (Format: huggingface/safetensors, README, "Format".) */
#ifndef FR_SAFETENSORS_H
#define FR_SAFETENSORS_H

#include "index.h"
#include "model_file.h"

enum { FR_SAFETENSOR_DIMS = 8 };

typedef struct fr_safetensor {
    fr_str name;
    const char *type; /* the format's name of it */
    int readable;     /* 1: dtype below is the same type; 0: one that Forerun does not read */
    fr_dtype dtype;
    int n_dims;                       /* 0: one value */
    int64_t dims[FR_SAFETENSOR_DIMS]; /* the last one is the row length; unused are 1 */
    const uint8_t *data;              /* in the file, perhaps unaligned, little-endian */
    size_t bytes;
} fr_safetensor;

typedef struct fr_safetensors {
    fr_safetensor *tensors;
    size_t n;
    fr_index index;
    struct cJSON *header; /* the names lie in it */
} fr_safetensors;

/* Reads the header of the file at base [size], which outlives *out; `file` is named in errors.
 * FR_EFORMAT, FR_EUNSUPPORTED (a type that the format does not have): the cause names the tensor. */
fr_status fr_safetensors_parse(const char *file, const uint8_t *base, size_t size,
                               fr_safetensors *out);
void fr_safetensors_free(fr_safetensors *s);
const fr_safetensor *fr_safetensors_find(const fr_safetensors *s, fr_str name); /* NULL: none */

#endif
