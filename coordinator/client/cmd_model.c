/* cmd_model.c: `forerun model`: finds the part that was asked for (model_*.c) and reads its
 * options. */
#include "client.h"

#include <stdio.h>
#include <string.h>

#include "args.h"
#include "check.h"
#include "model.h"

static const fr_model_command *const commands[] = {
    &fr_model_inspect, &fr_model_tokenize, &fr_model_perplexity,
    &fr_model_check,   &fr_model_perf,     &fr_model_vocab,
};
#define N_COMMANDS ((int)(sizeof commands / sizeof commands[0]))

enum { OPT_JSON = 0x300, OPT_RANKS, OPT_THREADS, OPT_BACKEND, OPT_GPUS, OPT_SHARE_GPU, OPT_BATCH_INVARIANT };

static const struct argp_option common_options[] = {
    {"json", OPT_JSON, 0, 0, "one JSON object on standard output", 8},
    {0}};
static const struct argp_option session_options[] = {
    {"ranks", OPT_RANKS, "N", 0, "tensor-parallel ranks, under mpirun (default 1)", 5},
    {"threads", OPT_THREADS, "N", 0, "CPU threads of a rank (default: its share of the cores)", 5},
    {"backend", OPT_BACKEND, "NAME", 0, "compute backend (default: the fastest here)", 5},
    {"gpus", OPT_GPUS, "LIST", 0, "GPUs, such as 0,2, that the ranks take in turn (default: all)", 5},
    {"share-gpu", OPT_SHARE_GPU, NULL, 0, "ranks may share a GPU, where there are fewer than ranks", 5},
    {"batch-invariant", OPT_BATCH_INVARIANT, "on|off", 0,
     "off: a result on a GPU may depend on its batch, where that is faster (default on)", 5},
    {0}};

typedef struct parsing {
    const fr_model_command *command;
    fr_model_options *o;
    int n_args;
} parsing;

static error_t take_argument(parsing *p, const char *arg)
{
    if (p->n_args == p->command->n_args)
        return fr_arg_error(fr_fail(FR_EINVAL, "'%.64s': one argument too many", arg));
    *(p->n_args++ == 0 ? &p->o->model : &p->o->text) = arg;
    return 0;
}

static fr_status add_text(fr_model_options *o, const char *path)
{
    if (o->n_texts == FR_MODEL_TEXTS)
        return fr_fail(FR_EINVAL, "--text %.64s: more than %d texts", path, FR_MODEL_TEXTS);
    o->texts[o->n_texts++] = path;
    return FR_OK;
}

static fr_status take_draft_gpu(const char *arg, fr_gpu_list *out)
{
    out->n = 1;
    return fr_arg_int("--draft-gpu", arg, 0, FR_GPU_HIGHEST, &out->numbers[0]);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    parsing *p = state->input;
    fr_model_options *o = p->o;
    switch (key) {
    case ARGP_KEY_INIT:
        for (int i = 0; state->root_argp->children && state->root_argp->children[i].argp; i++)
            state->child_inputs[i] = p;
        return 0;
    case ARGP_KEY_ARG:
        return take_argument(p, arg);
    case ARGP_KEY_END:
        if (p->n_args < p->command->n_args)
            return fr_arg_error(fr_fail(FR_EINVAL, "model %s: %s is needed", p->command->name,
                                        p->command->args_doc));
        return 0;
    case 'f':
        o->file = arg;
        return 0;
    case FR_MODEL_CTX:
        return fr_arg_error(fr_arg_int("--ctx", arg, 4, 1 << 24, &o->ctx));
    case FR_MODEL_GOLDEN:
        o->golden = arg;
        return 0;
    case FR_MODEL_DRAFT:
        o->draft = arg;
        return 0;
    case FR_MODEL_DRAFT_GPU:
        return fr_arg_error(take_draft_gpu(arg, &o->draft_gpu));
    case FR_MODEL_DRAFT_VOCAB:
        return fr_arg_error(fr_arg_int("--draft-vocab", arg, 0, 1 << 24, &o->draft_vocab));
    case FR_MODEL_DRAFT_WEIGHTS:
        return fr_arg_error(fr_draft_weights_parse(arg, &o->draft_weights));
    case FR_MODEL_CONTEXT:
        return fr_arg_error(fr_arg_int("--context", arg, 1, 1 << 24, &o->context));
    case FR_MODEL_RUNS:
        return fr_arg_error(fr_arg_int("--runs", arg, 1, 1000, &o->runs));
    case FR_MODEL_TEXT:
        return fr_arg_error(add_text(o, arg));
    case FR_MODEL_SIZE:
        return fr_arg_error(fr_arg_int("--size", arg, 1, 1 << 24, &o->size));
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static fr_status take_batch_invariant(const char *arg, int *dependent_out)
{
    *dependent_out = strcmp(arg, "off") == 0;
    if (!*dependent_out && strcmp(arg, "on") != 0)
        return fr_fail(FR_EINVAL, "--batch-invariant %.64s: there are on and off", arg);
    return FR_OK;
}

static error_t parse_common(int key, char *arg, struct argp_state *state)
{
    fr_model_options *o = ((parsing *)state->input)->o;
    switch (key) {
    case OPT_JSON:
        o->json = 1;
        return 0;
    case OPT_RANKS:
        return fr_arg_error(fr_arg_int("--ranks", arg, 1, 1024, &o->ranks));
    case OPT_THREADS:
        return fr_arg_error(fr_arg_int("--threads", arg, 1, 1024, &o->threads));
    case OPT_BACKEND:
        o->backend = arg;
        return 0;
    case OPT_GPUS:
        return fr_arg_error(fr_gpu_list_parse("--gpus", arg, &o->gpus));
    case OPT_SHARE_GPU:
        o->share_gpu = 1;
        return 0;
    case OPT_BATCH_INVARIANT:
        return fr_arg_error(take_batch_invariant(arg, &o->batch_dependent));
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp common_argp = {.options = common_options, .parser = parse_common};
static const struct argp session_argp = {.options = session_options, .parser = parse_common};

static fr_status find_and_run(const fr_model_command *command, fr_model_options *o)
{
    fr_client_config config;
    char path[PATH_MAX];
    FR_TRY(fr_client_config_read(&config));
    FR_TRY(fr_client_config_model(&config, o->model, path, sizeof path));
    return command->run(o, path);
}

static int run_command(const fr_model_command *command, int argc, char **argv)
{
    const struct argp_child children[] = {
        {&common_argp, 0, NULL, 0},
        {command->takes_session ? &session_argp : NULL, 0, NULL, 0},
        {0}};
    const struct argp argp = {
        command->options, parse, command->args_doc, command->doc, children, NULL, NULL};
    char title[48];
    snprintf(title, sizeof title, "forerun model %s", command->name);
    argv[0] = title;
    fr_model_options o = {.ctx = 512,
                          .ranks = 1,
                          .context = 64,
                          .runs = 5,
                          .draft_vocab = FR_DRAFT_VOCAB_AUTO,
                          .size = FR_DRAFT_VOCAB,
                          .argc = argc,
                          .argv = argv};
    parsing p = {.command = command, .o = &o};
    fr_status st = fr_args_parse(&argp, argc, argv, &p);
    if (st == FR_OK)
        st = find_and_run(command, &o);
    return o.follower ? fr_exit_of(st) : fr_exit_report(st); /* the leader has the same cause */
}

static void print_help(void)
{
    printf("Usage: forerun model COMMAND [OPTION...] MODEL\nLooks at a model, a file or a "
           "folder, and measures it.\n\nCommands:\n");
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-10s %s\n", commands[i]->name,
               commands[i]->doc + strspn(commands[i]->doc, "\v"));
    printf("\n`forerun model COMMAND --help` tells the options.\n");
}

static int run(int argc, char **argv)
{
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0)) {
        print_help();
        return FR_EXIT_DONE;
    }
    for (int i = 0; argc >= 2 && i < N_COMMANDS; i++)
        if (strcmp(commands[i]->name, argv[1]) == 0)
            return run_command(commands[i], argc - 1, argv + 1);
    if (argc >= 2)
        return fr_exit_report(fr_fail(FR_EINVAL,
                                      "unknown command 'model %.64s'; there are inspect, tokenize, "
                                      "perplexity, check, perf and vocab",
                                      argv[1]));
    return fr_exit_report(
        fr_fail(FR_EINVAL, "model: inspect, tokenize, perplexity, check, perf or vocab is needed"));
}

const fr_command fr_command_model = {
    "model", "look at a model: inspect, tokenize, perplexity, check, perf, vocab", run};
