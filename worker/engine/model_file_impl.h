/* model_file_impl.h: the inside of fr_model_file, shared by model_file.c (life), gguf.c (parser)
 * and model_meta.c (typed look-ups). */
#ifndef FR_MODEL_FILE_IMPL_H
#define FR_MODEL_FILE_IMPL_H

#include "index.h"
#include "model_file.h"

struct fr_model_file {
    char *name;
    const uint8_t *base; /* [size]: the mapping, or the caller's memory */
    size_t size;
    int mapped;
    fr_meta *meta;
    size_t n_meta;
    fr_tensor *tensors;
    size_t n_tensors;
    fr_index meta_index, tensor_index;
    size_t header_bytes; /* up to the end of the tensor list */
};

/* Fills everything below `mapped` from base; on failure what was allocated is left for the file's
 * own clean-up. */
fr_status fr_gguf_parse(fr_model_file *f);

/* Bytes of one value of a fixed-size type; 0 for strings, arrays and unknown types. */
size_t fr_meta_type_bytes(fr_meta_type type);

static inline uint32_t fr_le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t fr_le64(const uint8_t *p)
{
    return (uint64_t)fr_le32(p + 4) << 32 | fr_le32(p);
}

#endif
