/* hf_rope.h: how a folder's config.json wants positions rotated. */
#ifndef FR_HF_ROPE_H
#define FR_HF_ROPE_H

#include "hf_json.h"

typedef struct fr_hf_rope {
    float base;
    float linear;    /* positions are divided by it; 1: as they are */
    float magnitude; /* of the rotated values; 1 except for YaRN */
    float *factors;  /* [head / 2], what frequencies are divided by, the caller's to free; NULL */
} fr_hf_rope;

/* Frequencies of a head of n_rot values; `context` is the model's max_position_embeddings.
 * FR_EUNSUPPORTED names a scaling that is not known. */
fr_status fr_hf_rope_read(fr_hf_object config, int n_rot, uint32_t context, fr_hf_rope *out);

#endif
