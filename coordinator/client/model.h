/* model.h: the parts of `forerun model`, which see the engine, through its public door. */
#ifndef FR_CLIENT_MODEL_H
#define FR_CLIENT_MODEL_H

#include <argp.h>

#include "config.h"
#include "gpu_list.h"
#include "session.h"

#define FR_MODEL_TEXTS 64

typedef struct fr_model_options {
    const char *model, *text, *file, *golden, *draft, *backend; /* as given; NULL: not */
    const char *texts[FR_MODEL_TEXTS]; /* of --text */
    int n_texts;
    int json, ctx, context, ranks, threads, runs, draft_vocab, size;
    fr_draft_weights draft_weights;
    fr_gpu_list gpus, draft_gpu; /* that ranks take in turn; of the draft, one at most */
    int share_gpu; /* ranks may */
    int batch_dependent; /* results on a GPU may depend on their batch */
    int follower; /* set on ranks other than the first: they have nothing to say */
    int argc;     /* the command line, for ranks that are started with it */
    char **argv;
} fr_model_options;

typedef struct fr_model_command {
    const char *name, *args_doc, *doc;
    int n_args;        /* arguments it takes: the model, perhaps a text */
    int takes_session; /* also --ranks, --threads and --backend */
    const struct argp_option *options;
    fr_status (*run)(fr_model_options *o, const char *path);
} fr_model_command;

extern const fr_model_command fr_model_inspect, fr_model_tokenize, fr_model_perplexity,
    fr_model_check, fr_model_perf, fr_model_vocab;

/* Keys of the options that not every one of them has. */
enum {
    FR_MODEL_CTX = 0x200,
    FR_MODEL_GOLDEN,
    FR_MODEL_DRAFT,
    FR_MODEL_DRAFT_GPU,
    FR_MODEL_DRAFT_VOCAB,
    FR_MODEL_DRAFT_WEIGHTS,
    FR_MODEL_CONTEXT,
    FR_MODEL_RUNS,
    FR_MODEL_TEXT,
    FR_MODEL_SIZE
};

/* A model on its ranks. With ranks > 1 this process is replaced by mpirun with as many of its own
 * kind; each of those calls again, and all but the leader stay in here until it closes (*leader_out
 * 0: just end with this status). */
typedef struct fr_model_group {
    fr_comm *comm;
    fr_session *session;
} fr_model_group;
fr_status fr_model_group_open(fr_model_options *o, const char *path, fr_model_group *out,
                              int *leader_out);
void fr_model_group_close(fr_model_group *g); /* a zeroed one is fine */

/* Appends tokens [n] to the sequence in as many passes as it takes. Position i of them is asked
 * about by the query that `ask` fills (it returns 0 to leave a position out), and `take` gets the
 * answer. */
typedef struct fr_scoring {
    void *ctx;
    int (*ask)(void *ctx, int i, fr_row_query *query);
    fr_status (*take)(void *ctx, int i, const fr_row_query *query, const fr_row_answer *answer);
} fr_scoring;
fr_status fr_model_score(fr_session *s, int seq, const int32_t *tokens, int n,
                         const fr_scoring *scoring);

/* A whole file, with a zero behind it. *out is the caller's to free. */
fr_status fr_model_read_file(const char *path, char **out, size_t *n_out);
/* A greedy query over the session's real vocabulary. */
fr_row_query fr_model_greedy_query(const fr_session *s);

#endif
