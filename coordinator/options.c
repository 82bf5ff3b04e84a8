/* options.c: see options.h. */
#include "options.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "draft_vocab.h"
#include "version.h"

enum { BAD_USAGE = 2 }; /* exit status */

enum {
    BIND = 1000,
    STORE,
    DRAFT,
    DRAFT_THREADS,
    DRAFT_BACKEND,
    DRAFT_GPU,
    DRAFT_CONTEXT,
    DRAFT_VOCAB,
    DRAFT_WEIGHTS,
    HEARTBEAT_MS,
    DEAD_AFTER_MS,
    MAX_RUNNING,
    OVERLAP,
    GRACE_MS,
    READY_FILE,
    ADVERTISE,
    LOG
};

static const struct argp_option option_list[] = {
    {"bind", BIND, "ENDPOINT", 0,
     "where groups and clients connect (default tcp://127.0.0.1:7077; port 0 takes any free one)",
     1},
    {"advertise", ADVERTISE, "HOST", 0,
     "the host that others reach this one by, when all addresses are bound (default: this host's "
     "name)",
     1},
    {"ready-file", READY_FILE, "FILE", 0, "write the real endpoint there once it is bound", 1},
    {"store", STORE, "FILE", 0, "keep jobs and steps in this SQLite file (default: in memory)", 1},
    {"draft", DRAFT, "MODEL", 0, "host a draft group of one rank with this model", 2},
    {"draft-threads", DRAFT_THREADS, "N", 0,
     "its threads (default: as many as there are cores for it)", 2},
    {"draft-context", DRAFT_CONTEXT, "N", 0,
     "its longest sequence (default: the model's own limit)", 2},
    {"draft-backend", DRAFT_BACKEND, "NAME", 0, "its compute backend (default: the fastest here)",
     2},
    {"draft-gpu", DRAFT_GPU, "N", 0,
     "its GPU, counted from 0 among those that the backend can use (default: the first)", 2},
    {"draft-vocab", DRAFT_VOCAB, "N", 0,
     "tokens that it chooses its guesses from, the frequent ones; 0: all (default: 32768 where there "
     "are more than 65536)",
     2},
    {"draft-weights", DRAFT_WEIGHTS, "file|q4_0", 0,
     "hold its weights as the file has them (default), or quantised to Q4_0 where that has fewer "
     "bytes",
     2},
    {"max-running", MAX_RUNNING, "N", 0, "jobs that run at once (default 8)", 3},
    {"overlap", OVERLAP, "auto|on|off", 0,
     "draft on while the target verifies (default auto: with 4 cores or more)", 3},
    {"grace-ms", GRACE_MS, "N", 0,
     "how long a job that can do without a draft group waits for one (default 2000)", 3},
    {"heartbeat-ms", HEARTBEAT_MS, "N", 0, "how often groups report (default 1000)", 4},
    {"dead-after-ms", DEAD_AFTER_MS, "N", 0,
     "a group silent for so long is given up (default 3 heartbeats)", 4},
    {"log", LOG, "LEVEL", 0, "error, warn, info (default) or debug", 4},
    {0},
};

/* Below, argp_failure() prints its one line and ends the process; argp_error() would add how to ask
 * for help. */

/* A choice among names, which `there_are` tells. */
static int choose(const char *option, const char *arg, const char *const *names,
                  const char *there_are)
{
    for (int i = 0; names[i]; i++)
        if (!strcmp(arg, names[i]))
            return i;
    argp_failure(NULL, BAD_USAGE, 0, "--%s %s: there are %s", option, arg, there_are);
    return 0;
}

static int number(const char *option, const char *arg, long least, long most)
{
    char *end = NULL;
    errno = 0;
    long n = strtol(arg, &end, 10);
    if (errno || end == arg || *end || n < least || n > most)
        argp_failure(NULL, BAD_USAGE, 0, "--%s %s: not a number from %ld to %ld", option, arg,
                     least, most);
    return (int)n;
}

static error_t parse_cluster(int key, char *arg, fr_coordinator_options *c)
{
    static const char *const overlaps[] = {"off", "on", "auto", NULL};
    switch (key) {
    case BIND:
        c->bind = arg;
        return 0;
    case STORE:
        c->store = arg;
        return 0;
    case HEARTBEAT_MS:
        c->heartbeat_ms = number("heartbeat-ms", arg, 10, 3600000);
        return 0;
    case DEAD_AFTER_MS:
        c->dead_after_ms = number("dead-after-ms", arg, 20, 3600000);
        return 0;
    case MAX_RUNNING:
        c->max_running = number("max-running", arg, 1, 100000);
        return 0;
    case GRACE_MS:
        c->grace_ms = number("grace-ms", arg, 0, 3600000);
        return 0;
    case OVERLAP:
        c->overlap = choose("overlap", arg, overlaps, "auto, on and off");
        c->overlap = c->overlap == 2 ? -1 : c->overlap;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
    fr_options *o = state->input;
    switch (key) {
    case DRAFT:
        o->draft = arg;
        return 0;
    case DRAFT_THREADS:
        o->draft_threads = number("draft-threads", arg, 1, 1024);
        return 0;
    case DRAFT_CONTEXT:
        o->draft_context = number("draft-context", arg, 16, 1 << 24);
        return 0;
    case DRAFT_VOCAB:
        o->draft_vocab = number("draft-vocab", arg, 0, 1 << 24);
        return 0;
    case DRAFT_WEIGHTS:
        if (fr_draft_weights_parse(arg, &o->draft_weights) != FR_OK)
            argp_failure(NULL, BAD_USAGE, 0, "%s", fr_cause());
        return 0;
    case DRAFT_BACKEND:
        o->draft_backend = arg;
        return 0;
    case DRAFT_GPU:
        o->draft_gpu = (fr_gpu_list){.n = 1, .numbers = {number("draft-gpu", arg, 0, FR_GPU_HIGHEST)}};
        return 0;
    case READY_FILE:
        o->ready_file = arg;
        return 0;
    case ADVERTISE:
        o->advertise = arg;
        return 0;
    case LOG:
        o->log = (fr_log_level)choose("log", arg, levels, "error, warn, info and debug");
        return 0;
    case ARGP_KEY_INIT:
        state->err_stream = NULL; /* getopt's line on an unknown option is enough */
        return 0;
    case ARGP_KEY_ARG:
        argp_failure(NULL, BAD_USAGE, 0, "\"%s\" is not an option", arg);
        return 0;
    default:
        return parse_cluster(key, arg, &o->coordinator);
    }
}

fr_status fr_options_parse(int argc, char **argv, fr_options *out)
{
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .doc = "The coordinator of a Forerun cluster: takes jobs from clients, has them drafted "
               "and verified by engine "
               "groups, and keeps them."
               "\vSIGTERM and SIGINT stop it; open jobs go on when it is started again with their "
               "store.",
    };
    argp_program_version = FR_VERSION;
    *out = (fr_options){.coordinator = FR_COORDINATOR_OPTIONS,
                        .draft_vocab = FR_DRAFT_VOCAB_AUTO,
                        .log = FR_LOG_INFO};
    static char program[] = "forerun-coordinator";
    argv[0] = program; /* getopt's lines begin with all of it */
    return argp_parse(&argp, argc, argv, 0, NULL, out) == 0 ? FR_OK : FR_EINVAL;
}
