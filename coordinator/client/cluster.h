/* cluster.h: a private cluster for one command: a coordinator (with the draft model in it) and one
 * target group, started on this machine behind a free port, and stopped at the end. Its files lie
 * in a folder of its own under the temporary folder, which goes with it. Nothing is left behind
 * when the client is killed: see process.h. */
#ifndef FR_CLUSTER_H
#define FR_CLUSTER_H

#include "call.h"
#include "config.h"

typedef struct fr_cluster fr_cluster;

typedef struct fr_cluster_options {
    const char *target; /* path of the model */
    const char *draft;  /* NULL: no draft model */
    const char *backend, *draft_vocab, *draft_weights, *overlap;
    const char *gpus, *draft_gpu; /* a list, as gpu_list.h has it, and one number */
    int ranks, threads, context, max_running;
    int share_gpu; /* 1: ranks may share a GPU */
} fr_cluster_options;

/* Starts it and waits until the models serve; either way what its programs warned of is logged. When a program of it
 * ends instead, its own first error line becomes the cause: FR_EINVAL for bad input, else FR_EUNAVAILABLE. FR_ETIMEDOUT
 * when the models take too long. */
fr_status fr_cluster_start(const fr_client_config *config, const fr_cluster_options *options,
                           fr_cluster **out);
fr_call *fr_cluster_call(fr_cluster *c);
/* FR_EPEER when one of its programs has ended. */
fr_status fr_cluster_check(fr_cluster *c);
/* NULL is fine. Asks the coordinator to stop all, then makes sure. */
void fr_cluster_stop(fr_cluster **c);

/* Waits until the cluster behind `call` serves a target (and a draft when want_draft); `check` runs
 * while waiting. */
fr_status fr_cluster_wait_ready(fr_call *call, int want_draft, int timeout_ms,
                                fr_status (*check)(void *ctx), void *ctx);
/* The endpoint in a coordinator's ready file; 0 while it is not there yet. */
int fr_read_endpoint(const char *path, char *out, size_t cap);

#endif
