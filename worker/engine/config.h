/* config.h: the shape of a model, read from its file's metadata, and how its matrices split over ranks.
 *
 * Splits (DESIGN.md, Tensor parallelism): query heads and feed-forward columns in units that keep whole quantisation
 * blocks in the row-parallel matrices, the vocabulary in units of 16 rows. Rank r of n takes units
 * ceil(r * U / n) .. ceil((r + 1) * U / n). A KV head is held by every rank whose query heads read it. */
#ifndef FR_CONFIG_H
#define FR_CONFIG_H

#include "model_file.h"
#include "ops.h"

typedef enum { FR_ARCH_LLAMA, FR_ARCH_QWEN2, FR_ARCH_QWEN3 } fr_arch;

typedef struct fr_config {
    fr_arch arch;
    char name[64];
    int n_layers, dim, n_heads, n_kv_heads, head_dim, n_ff, n_vocab, context;
    float eps;                /* of every RMSNorm */
    fr_rope_style rope_style; /* GGUF files of llama hold Q and K permuted for adjacent pairs; others do not */
    int n_rot;
    float rope_base, rope_scale; /* position / rope_scale, the linear scaling */
    float rope_magnitude;     /* of the rotated values: 1 except for YaRN */
    int head_unit, ff_unit;   /* heads and feed-forward columns that a rank takes at a time */
} fr_config;

typedef struct fr_range {
    int lo, hi;
} fr_range;

typedef struct fr_slice {
    fr_range heads, kv_heads, ff, vocab;
} fr_slice;

/* Reads and checks the metadata and the shape of every tensor that the architecture needs. FR_EUNSUPPORTED,
 * FR_EFORMAT, FR_ENOTFOUND: the cause names file and key or tensor. */
fr_status fr_config_read(const fr_model_file *file, fr_config *out);
/* Rank's share; FR_EINVAL for a degree that cannot work, naming those that can. */
fr_status fr_config_split(const fr_config *c, const char *file_name, int rank, int n_ranks, fr_slice *out);
/* Rank's share of n vocabulary rows, in units of 16; what fr_config_split() gives for the whole vocabulary. With fewer
 * units than ranks some get nothing, the last rank among them. */
fr_range fr_config_vocab_share(int n, int rank, int n_ranks);
/* The tensor of a layer ("attn_q.weight") with its shape checked: cols 0 means a vector of `rows`.
 * NULL in *out and FR_OK when it is absent and optional. */
fr_status fr_config_tensor(const fr_model_file *file, int layer, const char *name, int64_t rows, int64_t cols,
                           int optional, const fr_tensor **out);

#endif
