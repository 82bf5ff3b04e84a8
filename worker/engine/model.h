/* model.h: one rank's slices of a model, bound to a device: loaded once, then immutable. */
#ifndef FR_MODEL_H
#define FR_MODEL_H

#include "config.h"
#include "ops.h"

typedef struct fr_layer {
    float *attn_norm, *ffn_norm;   /* [dim] */
    fr_weight *q, *k, *v;          /* [local heads * head_dim, dim], k and v by local KV heads */
    float *q_bias, *k_bias, *v_bias; /* NULL without */
    float *q_norm, *k_norm;        /* [head_dim], NULL without */
    fr_weight *out;                /* [dim, local heads * head_dim] */
    fr_weight *gate, *up;          /* [local ff, dim] */
    fr_weight *down;               /* [dim, local ff] */
} fr_layer;

typedef struct fr_model {
    const fr_ops *ops;
    fr_device *dev;                /* borrowed */
    fr_model_file *file;           /* borrowed; stays mapped for the embedding rows */
    fr_config config;
    fr_slice slice;
    int32_t *kv_of_head;           /* [local heads]: index of the local KV head */
    float *inv_freq;               /* [n_rot / 2] */
    fr_matrix embedding;           /* the whole table: only the rows of the tokens at hand are read */
    fr_layer *layers;
    float *out_norm;               /* [dim] */
    fr_weight *head;               /* [local vocabulary, dim] */
    int64_t weight_bytes;          /* of the file, in this rank's slices of the matrices */
} fr_model;

/* file and dev stay the caller's and outlive the model. */
fr_status fr_model_load(fr_model_file *file, const fr_ops *ops, fr_device *dev, int rank, int n_ranks,
                        fr_model **out);
void fr_model_free(fr_model **m);

#endif
