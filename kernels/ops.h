/* ops.h: the compute table. One backend fills one fr_ops; nothing above kernels/ knows which.
 *
 * Conventions. Activations are f32, row-major, one row a token; "device memory" comes from
 * mem_alloc (plain memory on CPUs). Arrays of int32_t and structs are host memory. Calls run in
 * order on the device's one stream; results in device memory may be read by the host after sync()
 * or download(). A device is used by one thread at a time. Pointers into device memory may be
 * advanced by whole rows.
 *
 * Batch invariance (the promise strict speculation rests on): row r of any output depends only on
 * row r of the inputs and on the data it names, to the bit: not on n, not on the other rows, not on
 * the number of threads. */
#ifndef FR_OPS_H
#define FR_OPS_H

#include <stdbool.h>

#include "candidates.h"
#include "dtype.h"
#include "gpu_list.h"
#include "status.h"

typedef struct fr_device fr_device; /* opaque, each backend has its own */
typedef struct fr_weight fr_weight; /* a matrix prepared (perhaps repacked) by a backend; opaque */

typedef struct fr_device_options {
    int threads; /* CPU threads, the caller's included; 0: one a core (cpu_place.h) */
    int local_rank; /* among its group's on this host: which GPU of these it takes, in turn */
    fr_gpu_list gpus;
    bool batch_dependent; /* GPU: faster products of many rows, at the price of the promise above */
} fr_device_options;

/* A matrix W [rows, cols] in a file mapping, row r at data + r * row_bytes; a slice of columns is a
 * moved `data` with the full matrix's row_bytes. cols is a multiple of the type's block. */
typedef struct fr_matrix {
    fr_dtype dtype;
    const void *data;
    int64_t rows, cols;
    size_t row_bytes;
} fr_matrix;

/* One matrix that activations are multiplied with, and where the results go (fr_ops.matmul). */
typedef struct fr_product {
    float *y;
    const fr_weight *w;
} fr_product;

typedef enum { FR_ROPE_NORM, FR_ROPE_NEOX } fr_rope_style; /* pairs (2i, 2i+1) | (i, i + n_rot/2) */

typedef struct fr_rope {
    fr_rope_style style;
    int n_rot;             /* leading values of a head that rotate; even */
    const float *inv_freq; /* host memory [n_rot/2]: angle = position * inv_freq[i] */
    float scale;           /* multiplies cos and sin; 1 except for YaRN */
} fr_rope;

/* The paged cache of one layer: K and V in f16, [n_pages * FR_PAGE, kv_heads, head_dim] each,
 * device memory. Slot s = page * FR_PAGE + offset holds one position. */
#define FR_PAGE 16
typedef struct fr_kv {
    uint16_t *k, *v;
    int kv_heads, head_dim;
} fr_kv;

/* What one row sees: positions 0 .. n_trunk-1 through trunk_pages, then n_branch more through
 * branch_pages (a probe hanging off its trunk; 0 for trunk rows). Its own key is the last of them.
 * Logical position p < n_trunk lies in slot trunk_pages[p / FR_PAGE] * FR_PAGE + p % FR_PAGE; the
 * branch likewise, counted from 0. Results must depend on the logical positions only, never on
 * where the trunk ends and the branch begins, nor on page numbers. */
typedef struct fr_attn_view {
    const int32_t *trunk_pages, *branch_pages;
    int n_trunk, n_branch;
} fr_attn_view;

/* What lies between the products that give q, k and v and attention. Pointers to floats are device memory, of biases
 * and norms NULL where the model has none. */
typedef struct fr_head_inputs {
    float *q, *k, *v;                      /* [n, heads, head_dim], k and v [n, kv_heads, head_dim] */
    const float *q_bias, *k_bias, *v_bias; /* as wide as a row */
    const float *q_norm, *k_norm;          /* [head_dim]: RMSNorm of each head by itself */
    float eps;
    const fr_rope *rope;
    const fr_kv *kv;
    const int32_t *pos, *slots; /* [n] */
    int n, heads;
} fr_head_inputs;

#define FR_DEVICE_ID 16 /* bytes */

/* Where ranks meet within their devices' calls (enqueue), and so may wait for each other there. */
typedef struct fr_device_peers {
    void *ctx;
    /* Called again and again while the host waits for the device: an error ends the wait with that status. */
    fr_status (*check)(void *ctx);
    /* The least and the greatest of what all ranks' devices say, each value by itself. A collective of the hosts, with
     * which devices find out whether all can replay what they recorded. NULL: there are no others. */
    fr_status (*compare)(void *ctx, const int64_t mine[2], int64_t least[2], int64_t greatest[2]);
} fr_device_peers;

/* The largest passes that a device will be asked for. */
typedef struct fr_pass_bounds {
    int rows, context;         /* of a pass; positions that a row sees */
    int heads, head_dim;
    int head_rows, vocab;      /* rows and columns of the logits that candidates() looks through */
    const fr_matrix *table;    /* of embed() */
    const fr_matrix *matrices; /* [n_matrices] that rows are multiplied with; of these and the table no data are read */
    int n_matrices;
} fr_pass_bounds;

typedef struct fr_ops {
    const char *name; /* "cpu_ref", "cpu_avx2", ... (ops.c) */
    /* Device memory is the host's own: it may be read and written directly after sync(). Else only by upload() and
     * download(). */
    bool host_memory;

    fr_status (*open)(const fr_device_options *options, fr_device **out);
    void (*close)(fr_device **dev); /* NULL is fine */

    /* Zeroed, 64-byte aligned device memory. Freed with mem_free (NULL is fine). */
    fr_status (*mem_alloc)(fr_device *dev, size_t bytes, void **out);
    void (*mem_free)(fr_device *dev, void *mem);
    fr_status (*upload)(fr_device *dev, void *dst, const void *src, size_t bytes);
    fr_status (*download)(fr_device *dev, void *dst, const void *src, size_t bytes);

    /* Prepares a matrix for matmul. The source is not read after the call returns (it may be
     * unmapped). */
    fr_status (*weight_new)(fr_device *dev, const fr_matrix *src, fr_weight **out);
    void (*weight_free)(fr_device *dev, fr_weight **w); /* NULL is fine */

    /* For each product: y [n, w.rows] = x [n, w.cols] * W^T. They share x, and so their columns; no y
     * may alias x. */
    fr_status (*matmul)(fr_device *dev, const fr_product *products, int n_products, const float *x,
                        int n);
    /* x [n, table.cols]: row tokens[i] of the table, widened. The table stays mapped (only touched
     * rows are read). */
    fr_status (*embed)(fr_device *dev, float *x, const fr_matrix *table, const int32_t *tokens,
                       int n);
    /* y [n, dim] = x / sqrt(mean(x^2) + eps) * weight [dim] (device). y may alias x. */
    fr_status (*rms_norm)(fr_device *dev, float *y, const float *x, const float *weight, int n,
                          int dim, float eps);
    /* x [n, dim] += y [n, dim]. */
    fr_status (*add)(fr_device *dev, float *x, const float *y, int n, int dim);
    /* x [n, dim] += bias [dim] (device). */
    fr_status (*add_bias)(fr_device *dev, float *x, const float *bias, int n, int dim);
    /* gate [n, dim] = silu(gate) * up. */
    fr_status (*silu_mul)(fr_device *dev, float *gate, const float *up, int n, int dim);
    /* Rotates x [n, heads, head_dim] in place; pos [n]. */
    fr_status (*rope)(fr_device *dev, float *x, const fr_rope *rope, const int32_t *pos, int n,
                      int heads, int head_dim);
    /* Stores k and v [n, kv_heads, head_dim] into slots [n]. */
    fr_status (*kv_write)(fr_device *dev, const fr_kv *kv, const float *k, const float *v,
                          const int32_t *slots, int n);
    /* Biases, heads' norms, rotation, k and v into the cache, all in one and to the same bits as by the operations
     * above; afterwards q is what attention takes, and k and v are anything. NULL where it would not be faster. */
    fr_status (*head_inputs)(fr_device *dev, const fr_head_inputs *in);
    /* Copies the first `positions` (<= FR_PAGE) positions of page `from` to page `to`. */
    fr_status (*kv_copy)(fr_device *dev, const fr_kv *kv, int32_t from, int32_t to, int positions);
    /* out [n, heads, head_dim] = softmax(q k^T * scale) v over views [n]. Query head h reads KV
     * head kv_of_head[h]. */
    fr_status (*attention)(fr_device *dev, float *out, const float *q, const fr_kv *kv,
                           const fr_attn_view *views, const int32_t *kv_of_head, int n, int heads,
                           float scale);
    /* Answers queries [n] about logits [n, vocab]: column i is token tokens[i] (host memory
     * [vocab], ascending), or first_token + i when tokens is NULL (candidates.h). answers: device
     * memory, of fr_row_answer that are answer_bytes apart (fr_answer_bytes). */
    fr_status (*candidates)(fr_device *dev, const float *logits, int n, int vocab,
                            int32_t first_token, const int32_t *tokens,
                            const fr_row_query *queries, void *answers, size_t answer_bytes);
    fr_status (*sync)(fr_device *dev);

    /* Of devices whose memory is their own; NULL where host_memory. */

    /* Runs launch(stream, args), in which this device meets others, on the device's stream in the order of the calls.
     * args [bytes <= 256] are copied, and may be replayed with later passes: they hold addresses and sizes, never what
     * changes from pass to pass. */
    fr_status (*enqueue)(fr_device *dev, void (*launch)(void *stream, const void *args),
                         const void *args, size_t bytes);
    /* Who they are from now on (copied), NULL: nobody. What was recorded for replay before is forgotten. */
    void (*set_peers)(fr_device *dev, const fr_device_peers *peers);
    /* Tells devices apart, on all hosts. */
    fr_status (*device_id)(fr_device *dev, uint8_t id[FR_DEVICE_ID]);
    /* Bytes of device memory. */
    fr_status (*mem_info)(fr_device *dev, size_t *free_out, size_t *total_out);
    /* Bytes that weight_new() would allocate for this matrix; `data` is not read. */
    size_t (*weight_bytes)(const fr_matrix *src);
    /* Bytes of device memory that an allocation of so many uses up. */
    size_t (*mem_bytes)(size_t bytes);
    /* Allocates now what operations need beside the arrays that they are given: a pass within these bounds then
     * allocates nothing, and cannot fail for want of memory. Without it they allocate as they go. */
    fr_status (*reserve)(fr_device *dev, const fr_pass_bounds *bounds);
    /* For measurements. Milliseconds that the device was at work on what the last wait was for, from its first command
     * to its last; and how fast a kernel reads its memory. */
    fr_status (*device_ms)(fr_device *dev, double *out);
    fr_status (*read_gb_s)(fr_device *dev, double *out);
} fr_ops;

extern const fr_ops fr_ops_cpu_ref;

/* The fastest backend this machine can run, or the one called `name` (FR_ENOTFOUND, or as fr_ops_usable). NULL: the
 * fastest. */
fr_status fr_ops_choose(const char *name, const fr_ops **out);
/* Every backend built in, for the conformance suite; those this machine cannot run included.
 * NULL-terminated. */
const fr_ops *const *fr_ops_all(void);
/* Can this machine run this backend? FR_EUNSUPPORTED: what it lacks, instructions or a GPU. */
fr_status fr_ops_usable(const fr_ops *ops);

#endif
