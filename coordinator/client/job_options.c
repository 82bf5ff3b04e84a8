/* job_options.c: see job_options.h. */
#include "job_options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "check.h"
#include "draft_weights.h"
#include "gpu_list.h"
#include "policy.h"
#include "ui.h"

/* Far beyond any context; keeps a mistaken `-` from eating the machine. */
#define MAX_PROBLEM (16u << 20)

enum {
    OPT_JUDGE = 0x100,
    OPT_THRESHOLD,
    OPT_DRAFT_TOKENS,
    OPT_LOOKAHEAD,
    OPT_TOP_P,
    OPT_TOP_K,
    OPT_SEED,
    OPT_MAX_TOKENS,
    OPT_STEP_TOKENS,
    OPT_DELIMITER,
    OPT_SYSTEM,
    OPT_SUFFIX,
    OPT_NAME,
    OPT_RAW,
    OPT_CONNECT,
    OPT_TARGET,
    OPT_DRAFT,
    OPT_RANKS,
    OPT_THREADS,
    OPT_CONTEXT,
    OPT_BACKEND,
    OPT_GPUS,
    OPT_DRAFT_GPU,
    OPT_SHARE_GPU,
    OPT_DRAFT_VOCAB,
    OPT_DRAFT_WEIGHTS,
    OPT_OVERLAP
};

static const struct argp_option job_options[] = {
    {.doc = "What to do:", .group = 1},
    {"policy", 'p', "P", 0, "target, draft, token (exact, the default) or step (judged)", 1},
    {"judge", OPT_JUDGE, "J", 0, "of drafted steps: score (default), score-mean or logprob", 1},
    {"threshold", OPT_THRESHOLD, "X", 0,
     "from which the judge keeps a step (default: the judge's own)", 1},
    {"draft-tokens", OPT_DRAFT_TOKENS, "K", 0,
     "most tokens drafted for one exact verification (default 16; fewer where more would not "
     "pay)",
     1},
    {"lookahead", OPT_LOOKAHEAD, "K", 0, "drafted steps judged in one pass (default 3)", 1},
    {"step-tokens", OPT_STEP_TOKENS, "N", 0, "most tokens of one step (default 128)", 1},
    {"delimiter", OPT_DELIMITER, "TEXT", 0, "what ends a step (default: two newlines)", 1},
    {.doc = "Sampling:", .group = 2},
    {"temperature", 't', "T", 0, "0 is greedy (default)", 2},
    {"top-p", OPT_TOP_P, "P", 0, "nucleus (default 1: off)", 2},
    {"top-k", OPT_TOP_K, "K", 0, "most likely tokens (default 0: off)", 2},
    {"seed", OPT_SEED, "S", 0, "of the noise; the same seed gives the same text (default 0)", 2},
    {"max-tokens", OPT_MAX_TOKENS, "N", 0, "most tokens of the chain (default 2048)", 2},
    {.doc = "Prompt:", .group = 3},
    {"system", OPT_SYSTEM, "TEXT", 0,
     "system message; \"\" for none (default: that of a helpful assistant; none for the embedded pair)", 3},
    {"prompt-suffix", OPT_SUFFIX, "TEXT", 0,
     "put behind the problem (default: asks for steps and a boxed answer; nothing for the embedded "
     "pair)",
     3},
    {"raw", OPT_RAW, 0, 0, "the problem is the whole prompt: no chat template, no suffix", 3},
    {"name", OPT_NAME, "TEXT", 0, "label of the job", 3},
    {0}};

static fr_status job_number(int key, char *arg, fr_job_options *o)
{
    switch (key) {
    case OPT_THRESHOLD:
        return fr_arg_double("--threshold", arg, -1e9, 1e9, &o->threshold);
    case OPT_DRAFT_TOKENS:
        return fr_arg_int("--draft-tokens", arg, 1, 64, &o->draft_tokens);
    case OPT_LOOKAHEAD:
        return fr_arg_int("--lookahead", arg, 1, 64, &o->lookahead);
    case OPT_STEP_TOKENS:
        return fr_arg_int("--step-tokens", arg, 1, 65536, &o->step_tokens);
    case 't':
        return fr_arg_double("--temperature", arg, 0, 100, &o->temperature);
    case OPT_TOP_P:
        return fr_arg_double("--top-p", arg, 1e-6, 1, &o->top_p); /* 0 is "not given" on the wire */
    case OPT_TOP_K:
        return fr_arg_int("--top-k", arg, 0, 256, &o->top_k);
    case OPT_SEED:
        return fr_arg_u64("--seed", arg, &o->seed);
    default:
        return fr_arg_int("--max-tokens", arg, 1, 1 << 20, &o->max_tokens);
    }
}

static error_t parse_job(int key, char *arg, struct argp_state *state)
{
    fr_job_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        *o = (fr_job_options){.threshold = NAN, .top_p = 1};
        return 0;
    case 'p':
        o->policy = arg;
        return 0;
    case OPT_JUDGE:
        o->judge = arg;
        return 0;
    case OPT_DELIMITER:
        o->delimiter = arg;
        return 0;
    case OPT_SYSTEM:
        o->system = arg;
        return 0;
    case OPT_SUFFIX:
        o->prompt_suffix = arg;
        return 0;
    case OPT_NAME:
        o->name = arg;
        return 0;
    case OPT_RAW:
        o->raw = 1;
        return 0;
    case OPT_THRESHOLD: case OPT_DRAFT_TOKENS: case OPT_LOOKAHEAD: case OPT_STEP_TOKENS:
    case 't': case OPT_TOP_P: case OPT_TOP_K: case OPT_SEED: case OPT_MAX_TOKENS:
        return fr_arg_error(job_number(key, arg, o));
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp fr_job_argp = {.options = job_options, .parser = parse_job};

static const struct argp_option place_options[] = {
    {.doc = "Where (without --connect: a private cluster on this machine):", .group = 5},
    {"connect", OPT_CONNECT, "EP", 0, "a cluster that runs, as tcp://host:7077", 5},
    {"target", OPT_TARGET, "F", 0, "model file or folder, or the name of one in FORERUN_MODELS", 5},
    {"draft", OPT_DRAFT, "F", 0, "the small model that runs ahead", 5},
    {"ranks", OPT_RANKS, "N", 0, "tensor-parallel ranks of the target (default 1)", 5},
    {"threads", OPT_THREADS, "N", 0, "CPU threads of a rank (default: its share of the cores)", 5},
    {"context", OPT_CONTEXT, "N", 0, "positions of one sequence (default: the model's limit)", 5},
    {"draft-vocab", OPT_DRAFT_VOCAB, "N", 0,
     "tokens that the draft chooses its guesses from; 0: all (default: the 32768 most frequent "
     "where there are more than 65536)",
     5},
    {"draft-weights", OPT_DRAFT_WEIGHTS, "file|q4_0", 0,
     "hold the draft's weights as its file has them (default), or quantised to Q4_0 where that has "
     "fewer bytes",
     5},
    {"overlap", OPT_OVERLAP, "auto|on|off", 0,
     "go on drafting while the target verifies (default auto)", 5},
    {"backend", OPT_BACKEND, "NAME", 0, "compute backend (default: the fastest here)", 5},
    {"gpus", OPT_GPUS, "LIST", 0, "GPUs, such as 0,2, that the target's ranks take in turn (default: all)", 5},
    {"draft-gpu", OPT_DRAFT_GPU, "N", 0, "GPU of the draft, counted from 0 (default: the first)", 5},
    {"share-gpu", OPT_SHARE_GPU, NULL, 0, "ranks may share a GPU, where there are fewer than ranks", 5},
    {0}};

/* What follows goes to the coordinator or the group as it is, since 0 means something; what is wrong with it is told
 * here. */
static fr_status take_draft_vocab(const char *arg, const char **out)
{
    int n = 0;
    FR_TRY(fr_arg_int("--draft-vocab", arg, 0, 1 << 24, &n));
    *out = arg;
    return FR_OK;
}

static fr_status take_draft_gpu(const char *arg, const char **out)
{
    int n = 0;
    FR_TRY(fr_arg_int("--draft-gpu", arg, 0, FR_GPU_HIGHEST, &n));
    *out = arg;
    return FR_OK;
}

static fr_status take_gpus(const char *arg, const char **out)
{
    fr_gpu_list gpus;
    FR_TRY(fr_gpu_list_parse("--gpus", arg, &gpus));
    *out = arg;
    return FR_OK;
}

static fr_status take_draft_weights(const char *arg, const char **out)
{
    fr_draft_weights weights;
    FR_TRY(fr_draft_weights_parse(arg, &weights));
    *out = arg;
    return FR_OK;
}

/* All but --connect say how a private cluster is to be. */
static void note_private(int key, fr_place_options *o)
{
    for (size_t i = 0; i < sizeof place_options / sizeof *place_options; i++)
        if (place_options[i].name && place_options[i].key == key && key != OPT_CONNECT)
            o->private_option = place_options[i].name;
}

static error_t parse_place(int key, char *arg, struct argp_state *state)
{
    fr_place_options *o = state->input;
    note_private(key, o);
    switch (key) {
    case ARGP_KEY_INIT:
        *o = (fr_place_options){.ranks = 1};
        return 0;
    case OPT_CONNECT:
        o->connect = arg;
        return 0;
    case OPT_TARGET:
        o->target = arg;
        return 0;
    case OPT_DRAFT:
        o->draft = arg;
        return 0;
    case OPT_BACKEND:
        o->backend = arg;
        return 0;
    case OPT_GPUS:
        return fr_arg_error(take_gpus(arg, &o->gpus));
    case OPT_DRAFT_GPU:
        return fr_arg_error(take_draft_gpu(arg, &o->draft_gpu));
    case OPT_SHARE_GPU:
        o->share_gpu = 1;
        return 0;
    case OPT_DRAFT_VOCAB:
        return fr_arg_error(take_draft_vocab(arg, &o->draft_vocab));
    case OPT_DRAFT_WEIGHTS:
        return fr_arg_error(take_draft_weights(arg, &o->draft_weights));
    case OPT_OVERLAP:
        o->overlap = arg;
        if (strcmp(arg, "auto") && strcmp(arg, "on") && strcmp(arg, "off"))
            return fr_arg_error(
                fr_fail(FR_EINVAL, "--overlap: '%.64s' is not auto, on or off", arg));
        return 0;
    case OPT_RANKS:
        return fr_arg_error(fr_arg_int("--ranks", arg, 1, 1024, &o->ranks));
    case OPT_THREADS:
        return fr_arg_error(fr_arg_int("--threads", arg, 1, 1024, &o->threads));
    case OPT_CONTEXT:
        return fr_arg_error(fr_arg_int("--context", arg, 16, 1 << 24, &o->context));
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp fr_place_argp = {.options = place_options, .parser = parse_place};

fr_status fr_place_models(const fr_client_config *c, const fr_place_options *o, fr_models *out)
{
    memset(out, 0, sizeof *out);
    out->embedded = !o->target && !o->draft;
    if (out->embedded) {
        FR_TRY(fr_client_config_tiny(c, "target", out->target, sizeof out->target));
        return fr_client_config_tiny(c, "draft", out->draft, sizeof out->draft);
    }
    if (!o->target)
        return fr_fail(FR_EINVAL, "--draft %.200s: needs a --target to run ahead of", o->draft);
    FR_TRY(fr_client_config_model(c, o->target, out->target, sizeof out->target));
    return o->draft ? fr_client_config_model(c, o->draft, out->draft, sizeof out->draft) : FR_OK;
}

const char *fr_default_policy(const fr_place_options *o)
{
    return !o->connect && o->target && !o->draft ? "target" : "token";
}

fr_status fr_place_check_policy(const fr_place_options *o, const char *policy)
{
    const fr_policy_ops *ops = fr_policy_find(policy);
    const int has_draft = o->connect || o->draft || !o->target; /* a cluster's own, the given one, the embedded one */
    if (has_draft || !ops || !ops->needs_draft)
        return FR_OK;
    return fr_fail(FR_EINVAL, "policy %s: needs a --draft to go with the --target", policy);
}

/* A running cluster: is it there, and how large is its target? */
static fr_status connect_to(const fr_place_options *o, fr_place *p)
{
    FR_TRY(fr_call_open(o->connect, &p->connected));
    p->call = &p->connected;
    fr_msg query = {.kind = FR_MSG_STATUS_QUERY}, reply = {0};
    FR_TRY(fr_call_ask(p->call, &query, FR_MSG_STATUS_REPLY, FR_CALL_ANSWER_MS, &reply));
    const fr_msg_status_reply *s = &reply.body.status_reply;
    for (size_t i = 0; i < s->n_groups; i++) {
        if (strcmp(s->groups[i].role, "target") != 0)
            continue;
        p->ranks = (int)s->groups[i].ranks;
        p->threads = (int)s->groups[i].threads;
    }
    fr_msg_free(&reply);
    return FR_OK;
}

fr_status fr_place_open(const fr_client_config *c, const fr_place_options *o, int want_draft,
                        fr_place *out)
{
    memset(out, 0, sizeof *out);
    if (o->connect) {
        if (o->private_option)
            return fr_fail(FR_EINVAL, "--connect: the cluster is as it is; --%s is for a private one",
                           o->private_option);
        fr_status st = connect_to(o, out);
        if (st != FR_OK)
            fr_call_close(&out->connected, 0);
        return st;
    }
    FR_TRY(fr_place_models(c, o, &out->models));
    out->ranks = o->ranks;
    out->threads = o->threads;
    fr_cluster_options options = {.target = out->models.target,
                                  .backend = o->backend,
                                  .gpus = o->gpus,
                                  .draft_gpu = o->draft_gpu,
                                  .draft_vocab = o->draft_vocab,
                                  .draft_weights = o->draft_weights,
                                  .overlap = o->overlap,
                                  .ranks = o->ranks,
                                  .threads = o->threads,
                                  .context = o->context,
                                  .max_running = o->max_running,
                                  .share_gpu = o->share_gpu};
    if (want_draft && out->models.draft[0])
        options.draft = out->models.draft;
    FR_TRY(fr_cluster_start(c, &options, &out->own));
    out->call = fr_cluster_call(out->own);
    return FR_OK;
}

void fr_place_close(fr_place *p)
{
    fr_cluster_stop(&p->own);
    fr_call_close(&p->connected, 500); /* a cancel that was just sent should leave */
}

fr_status fr_place_check(void *ctx)
{
    fr_place *p = ctx;
    return p->own ? fr_cluster_check(p->own) : FR_OK;
}

void fr_place_tell(const fr_place *p)
{
    if (!p->own || !p->models.embedded)
        return;
    fprintf(
        stderr,
        "forerun: no model given, so the embedded tiny pair works: it solves multi-step integer "
        "arithmetic told in English, nothing else.\n"
        "forerun: deploy/models/fetch brings real models; then --target NAME --draft NAME.\n");
}

fr_status fr_job_spec(const fr_job_options *o, const fr_place_options *where, const char *problem, size_t n,
                      fr_buf *text, fr_msg_job_spec *out)
{
    FR_TRY(fr_buf_printf(text, "%.*s%s", (int)n, problem, o->prompt_suffix && !o->raw ? o->prompt_suffix : ""));
    *out = (fr_msg_job_spec){.problem = (const char *)text->data,
                             .system = o->system ? o->system : "",
                             .policy = o->policy ? o->policy : fr_default_policy(where),
                             .judge = o->judge ? o->judge : "",
                             .threshold = o->threshold,
                             .draft_tokens = (uint32_t)o->draft_tokens,
                             .lookahead = (uint32_t)o->lookahead,
                             .max_tokens = (uint32_t)o->max_tokens,
                             .step_tokens = (uint32_t)o->step_tokens,
                             .delimiter = o->delimiter ? o->delimiter : "",
                             .name = o->name ? o->name : "",
                             .raw = o->raw,
                             .default_system = !o->raw && !o->system,
                             .default_suffix = !o->raw && !o->prompt_suffix,
                             .sampling = {.temperature = (float)o->temperature,
                                          .top_p = (float)o->top_p,
                                          .top_k = (uint32_t)o->top_k,
                                          .seed = o->seed}};
    return FR_OK;
}

fr_status fr_arg_problem(const char *arg, const char **problem)
{
    if (*problem)
        return fr_fail(FR_EINVAL, "more than one problem given (quote it as one argument)");
    *problem = arg;
    return FR_OK;
}

static fr_status read_stdin(fr_buf *out)
{
    char block[65536];
    size_t n;
    while ((n = fread(block, 1, sizeof block, stdin)) > 0) {
        FR_TRY(fr_buf_put(out, block, n));
        if (out->len > MAX_PROBLEM)
            return fr_fail(FR_ELIMIT, "standard input: a problem of more than %u bytes",
                           MAX_PROBLEM);
    }
    if (ferror(stdin))
        return fr_fail(FR_EIO, "standard input: %s", strerror(errno));
    while (out->len > 0 && (out->data[out->len - 1] == '\n' || out->data[out->len - 1] == '\r'))
        out->len--; /* the file's last line end is not the problem's */
    return FR_OK;
}

fr_status fr_read_problem(const char *argument, fr_buf *out)
{
    if (!argument)
        return fr_fail(FR_EINVAL, "no problem given: an argument, or - for standard input");
    size_t from = out->len, bad = 0;
    if (strcmp(argument, "-") == 0)
        FR_TRY(read_stdin(out));
    else
        FR_TRY(fr_buf_put(out, argument, strlen(argument)));
    if (out->len == from)
        return fr_fail(FR_EINVAL, "the problem is empty");
    if (!fr_ui_is_utf8(out->data + from, out->len - from, &bad))
        return fr_fail(FR_EFORMAT, "the problem is not UTF-8 text (byte %zu)", bad);
    return FR_OK;
}
