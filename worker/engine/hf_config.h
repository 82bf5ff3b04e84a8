/* hf_config.h: a model folder's config.json as GGUF metadata (config.h reads that), and as the
 * shapes that its tensors must have. Families: llama, qwen2, qwen3. What Forerun does not compute
 * is refused by name, never left out. */
#ifndef FR_HF_CONFIG_H
#define FR_HF_CONFIG_H

#include "hf_json.h"
#include "meta_writer.h"

typedef enum { FR_HF_LLAMA = 1, FR_HF_QWEN2 = 2, FR_HF_QWEN3 = 4 } fr_hf_family; /* bits */

typedef struct fr_hf_shape {
    fr_hf_family family;
    int64_t n_layers, hidden, q, kv, head, ff, vocab; /* q, kv: heads times head size */
    int tied;            /* the head is the embedding: 1, 0, or -1 when config.json does not say */
    float *rope_factors; /* [head / 2], what rotation frequencies are divided by; NULL: nothing */
} fr_hf_shape;

/* Zero-initialise *out; fr_hf_shape_free() also after a failure. */
fr_status fr_hf_config_put(fr_hf_object config, fr_meta_writer *w, fr_hf_shape *out);
void fr_hf_shape_free(fr_hf_shape *s);

#endif
