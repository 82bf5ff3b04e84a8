/* model.h: one rank's slices of a model, bound to a device: loaded once, then immutable. */
#ifndef FR_MODEL_H
#define FR_MODEL_H

#include "config.h"
#include "draft_weights.h"
#include "ops.h"
#include "tokenizer.h"

typedef struct fr_layer {
    float *attn_norm, *ffn_norm;   /* [dim] */
    fr_weight *q, *k, *v;          /* [local heads * head_dim, dim], k and v by local KV heads */
    float *q_bias, *k_bias, *v_bias; /* NULL without */
    float *q_norm, *k_norm;        /* [head_dim], NULL without */
    fr_weight *out;                /* [dim, local heads * head_dim] */
    fr_weight *gate, *up;          /* [local ff, dim] */
    fr_weight *down;               /* [dim, local ff] */
} fr_layer;

/* This rank's part of a vocabulary head. Row i is token tokens[i] (ascending), or first_token + i if tokens is NULL. */
typedef struct fr_head {
    fr_weight *weight;             /* [n, dim] */
    int n;
    int32_t first_token;
    int32_t *tokens;
} fr_head;

typedef struct fr_model {
    const fr_ops *ops;
    fr_device *dev;                /* borrowed */
    fr_model_file *file;           /* borrowed; stays mapped for the embedding rows */
    fr_config config;
    fr_slice slice;
    int n_ranks;
    fr_draft_weights weights;      /* of the layers and the rough head; the whole head is as in the file */
    int32_t *kv_of_head;           /* [local heads]: index of the local KV head */
    float *inv_freq;               /* [n_rot / 2] */
    fr_matrix embedding;           /* the whole table: only the rows of the tokens at hand are read */
    fr_layer *layers;
    uint8_t *known;                /* [tensors of the file]: one that was asked for; while loading only */
    float *out_norm;               /* [dim] */
    fr_head head;                  /* over the whole vocabulary */
    fr_head rough_head;            /* over a part of it, for guesses (draft_vocab.h) */
    int rough_vocab;               /* its tokens on all ranks together; 0: there is none */
    uint8_t *in_rough_head;        /* [n_vocab]: is the token one of them? NULL without */
    fr_matrix head_table;          /* the whole head in the file */
    int64_t weight_bytes;          /* of this rank's slices of the matrices, before a backend repacks them; without the
                                    * rough head */
} fr_model;

typedef struct fr_model_load_options {
    int rank, n_ranks;
    const fr_ids *rough_tokens;    /* ids of the rough head, ascending, the same on all ranks; empty: none is made */
    fr_draft_weights weights;
} fr_model_load_options;

/* The type in which rows of `cols` values of a type are held. */
fr_dtype fr_model_held_type(fr_dtype t, int64_t cols, fr_draft_weights weights);
/* One of several ranks reads no more of the file than its slices. file and dev stay the caller's and outlive the model.
 * FR_EINVAL when the rough tokens are too few for the ranks. */
fr_status fr_model_load(fr_model_file *file, const fr_ops *ops, fr_device *dev,
                        const fr_model_load_options *options, fr_model **out);
void fr_model_free(fr_model **m);

#endif
