/* model_file_impl.h: the inside of fr_model_file, shared by model_file.c (life), gguf.c (parser),
 * hf_folder.c (model folders) and model_meta.c (typed look-ups). */
#ifndef FR_MODEL_FILE_IMPL_H
#define FR_MODEL_FILE_IMPL_H

#include "buf.h"
#include "file_map.h"
#include "index.h"
#include "model_file.h"
#include "safetensors.h"

/* One safetensors file of a folder. */
typedef struct fr_shard {
    char *path;
    fr_file_map map;
    fr_safetensors header;
} fr_shard;

struct fr_model_file {
    char *name;
    /* What gguf.c parses [size]: the mapping of a GGUF file, the caller's memory, or the header
     * that was made for a folder. */
    const uint8_t *base;
    size_t size;
    fr_file_map map; /* of a GGUF file */
    fr_buf made;     /* a folder's: the header, then what it has in no shard (rope_freqs.weight) */
    fr_shard *shards;
    size_t n_shards;
    fr_meta *meta;
    size_t n_meta;
    fr_tensor *tensors;
    size_t n_tensors;
    fr_index meta_index, tensor_index;
    size_t header_bytes; /* up to the end of the tensor list */
};

/* Fill everything below `shards` from base; on failure what was allocated is left for the file's
 * own clean-up. fr_gguf_parse_header() leaves the tensors' data to its caller: offsets (his to free,
 * also after a failure) are as the list has them. */
fr_status fr_gguf_parse(fr_model_file *f);
fr_status fr_gguf_parse_header(fr_model_file *f, uint64_t **offsets_out);

/* Is the path a model folder, or a file of one? */
int fr_hf_is_folder(const char *path);
/* Fills everything below `name` from the folder that it names; on failure as above. */
fr_status fr_hf_folder_parse(fr_model_file *f);

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
