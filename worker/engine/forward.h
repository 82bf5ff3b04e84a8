/* forward.h: one transformer pass over the rows of a plan, on one rank. All ranks of a group run it with the same plan;
 * it meets the others twice a layer (after attention and after the MLP) and to gather the answers; where devices meet
 * on their streams, also for a prompt's embedded rows. */
#ifndef FR_FORWARD_H
#define FR_FORWARD_H

#include "comm.h"
#include "model.h"
#include "plan.h"
#include "recent_head.h"

/* Rows asked about are put through the vocabulary head so many at a time, which bounds the logits' memory. */
#define FR_HEAD_ROWS 32
#define FR_FORWARD_ARRAYS 12 /* of floats in device memory */
#define FR_FORWARD_ANSWERS (2 * FR_HEAD_ROWS * sizeof(fr_row_answer)) /* bytes: the most that a rank answers at once */

typedef struct fr_forward {
    fr_model *model;   /* borrowed */
    fr_comm *comm;     /* borrowed */
    int max_rows;
    fr_kv *kv;         /* [n_layers] pages */
    float *x, *h;      /* [max_rows, dim] */
    float *q, *attn;   /* [max_rows, local heads * head_dim] */
    float *k, *v;      /* [max_rows, local KV heads * head_dim] */
    float *gate, *up;  /* [max_rows, local ff] */
    float *head_x;     /* [FR_HEAD_ROWS, dim] */
    float *logits;     /* [FR_HEAD_ROWS, the larger head's rows on this rank] */
    int32_t *tokens, *pos, *slots; /* [max_rows] */
    fr_attn_view *views;           /* [max_rows] */
    fr_row_query *queries;         /* [FR_HEAD_ROWS] */
    float *answers;                /* [2, FR_HEAD_ROWS] fr_row_answer, device memory: about this rank's slice of a head,
                                    * and about its recent tokens */
    fr_recent_head recent;         /* beside the rough head */
    float *recent_logits;          /* [FR_HEAD_ROWS, FR_RECENT] */
    fr_buf gathered;               /* leader: all ranks' answers; its length stays 0 */
    fr_row_answer *slices;         /* [n_ranks, 2], leader: of one query */
    void (*progress)(void *ctx);   /* called after every layer; NULL: not */
    void *progress_ctx;
} fr_forward;

/* Sizes of the device memory that is allocated for a rank's slice: bytes of the pages of a layer's keys, or of its
 * values; floats of every array, where the larger head has `head_rows` rows on this rank. */
size_t fr_forward_pages_bytes(const fr_config *c, const fr_slice *s, int n_pages);
void fr_forward_floats(const fr_config *c, const fr_slice *s, int head_rows, int max_rows,
                       size_t out[FR_FORWARD_ARRAYS]);

/* Allocates the scratch and n_pages cache pages a layer. */
fr_status fr_forward_open(fr_forward *f, fr_model *model, fr_comm *comm, int max_rows, int n_pages);
void fr_forward_close(fr_forward *f); /* a zeroed one is fine */
/* Runs the plan. On the leader answers_out [plan->n_queries] receives the merged answers; NULL on the others. */
fr_status fr_forward_run(fr_forward *f, const fr_plan *plan, fr_row_answer *answers_out);

#endif
