/* conf.h: the configuration file of `forerun up`, an INI file read with inih. Unknown sections and
 * keys, values that do not fit and keys given twice are errors that name the line. Example:
 * deploy/conf/local.ini. */
#ifndef FR_CONF_H
#define FR_CONF_H

#include "status.h"

typedef struct fr_conf_group {
    char *name;                    /* from the section's title: [group NAME] */
    char *role;                    /* "target" or "draft" */
    char *model;                   /* as fr_client_config_model() takes it, or "embedded" */
    char *backend, *hosts, *launcher, *draft_vocab, *draft_weights; /* NULL: the default */
    char *placement;               /* "auto" or "off"; NULL: the default */
    char *gpus;                    /* numbers with commas between them (gpu_list.h); NULL: all */
    char *share_gpu, *batch_invariant; /* "on" or "off"; NULL: the default */
    int ranks, threads, context;   /* 0: the default */
    int kv_positions;
} fr_conf_group;

typedef struct fr_conf {
    /* [cluster] */
    char *bind;    /* endpoint; NULL: the default one */
    char *run_dir; /* of pid file, logs and store; NULL: the default one */
    char *store;   /* file of the jobs; NULL: jobs.db in run_dir */
    int heartbeat_ms, dead_after_ms;
    /* [coordinator] */
    char *draft;   /* a drafter in the coordinator; NULL: none */
    char *draft_gpu; /* its number; NULL: the first */
    char *draft_backend, *draft_vocab, *draft_weights, *overlap;
    int draft_threads, draft_context, max_running;
    /* [group NAME] ... */
    fr_conf_group *groups;
    int n_groups;
} fr_conf;

/* FR_ENOTFOUND or FR_EIO for the file, FR_EINVAL "FILE:LINE: ..." for its contents. At least one
 * target group is required. *out needs fr_conf_free() after success only. */
fr_status fr_conf_read(const char *path, fr_conf *out);
void fr_conf_free(fr_conf *c); /* a zeroed one is fine */

#endif
