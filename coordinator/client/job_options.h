/* job_options.h: the options that solve, submit and bench share, as argp children: what to ask for
 * (a job) and where (a cluster that runs, or a private one on given models). */
#ifndef FR_JOB_OPTIONS_H
#define FR_JOB_OPTIONS_H

#include <argp.h>

#include "buf.h"
#include "cluster.h"
#include "codec.h"
#include "config.h"

typedef struct fr_job_options {
    const char *policy, *judge, *delimiter, *system, *prompt_suffix, *name; /* NULL: the default */
    double threshold, temperature, top_p;
    int top_k, draft_tokens, lookahead, max_tokens, step_tokens, raw;
    uint64_t seed;
} fr_job_options;

typedef struct fr_place_options {
    const char *connect; /* NULL: a private cluster */
    const char *target, *draft, *backend, *gpus, *draft_gpu, *draft_vocab, *draft_weights, *overlap;
    int share_gpu; /* 1: ranks may */
    const char *private_option; /* the last given that is for a private cluster only; NULL: none */
    int ranks, threads, context;
    int max_running;     /* jobs at once; 0: the coordinator's default */
} fr_place_options;

/* Inputs: fr_job_options *, fr_place_options *; filled with the defaults when parsing begins. */
extern const struct argp fr_job_argp, fr_place_argp;

/* The models of a private cluster as paths; embedded: the tiny pair, as none were given. */
typedef struct fr_models {
    char target[PATH_MAX], draft[PATH_MAX]; /* draft "": none */
    int embedded;
} fr_models;
fr_status fr_place_models(const fr_client_config *c, const fr_place_options *o, fr_models *out);
/* The policy that holds when none was named: exact speculation where there may be a draft model,
 * else the plain target. */
const char *fr_default_policy(const fr_place_options *o);
/* FR_EINVAL for a policy that cannot begin without a draft model, of a private cluster that will have none: its job
 * would wait for ever. */
fr_status fr_place_check_policy(const fr_place_options *o, const char *policy);

/* A cluster to work with: the named one (checked to be there), or a private one. */
typedef struct fr_place {
    fr_cluster *own;    /* NULL: connected */
    fr_call connected;
    fr_call *call;      /* of the two */
    fr_models models;
    int ranks, threads; /* of the target; threads 0: its share of the cores */
} fr_place;
fr_status fr_place_open(const fr_client_config *c, const fr_place_options *o, int want_draft,
                        fr_place *out);
void fr_place_close(fr_place *p); /* a zeroed one is fine */
/* For fr_follower.idle; ctx is the fr_place. */
fr_status fr_place_check(void *ctx);
/* One line on stderr about the embedded pair; nothing with other models. */
void fr_place_tell(const fr_place *p);

/* The job for a problem; the prompt that was not given is the target model's own, which the coordinator knows. What it
 * borrows lives as long as the options and *text (the problem with a given suffix) do. */
fr_status fr_job_spec(const fr_job_options *o, const fr_place_options *where, const char *problem, size_t n,
                      fr_buf *text, fr_msg_job_spec *out);

/* Takes a command's argument as its problem; FR_EINVAL when it has one. */
fr_status fr_arg_problem(const char *arg, const char **problem);
/* The problem argument: the text itself, or standard input for "-". FR_EINVAL when there is none,
 * FR_EFORMAT when it is not UTF-8. Appends to out. */
fr_status fr_read_problem(const char *argument, fr_buf *out);

#endif
