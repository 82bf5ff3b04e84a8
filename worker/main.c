/* main.c: forerun-worker: one group. All ranks load their slices; rank 0 serves the coordinator's
 * requests, the others follow it. Started alone it is a group of one rank; under mpirun or srun all
 * its ranks are one group, and when the same mpirun starts the coordinator too, the endpoint comes
 * from there. With --leader they are one group without MPI.
 *
 * Every error is one line, printed by rank 0 alone: so the command line is judged after the ranks
 * know each other. With --leader every rank has a command line of its own, and judges that first.
 * A follower that ends while it serves says why, in a warning that is marked so (FR_LOG_ENDS). */
#include <argp.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "comm_link.h"
#include "comm_roll.h"
#include "log.h"
#include "serve.h"
#include "version.h"

enum { EXIT_RUNTIME = 1, EXIT_INPUT = 2, EXIT_NO_CLUSTER = 3 };
enum { COLOUR_COORDINATOR = 0, COLOUR_WORKER = 1 };

typedef struct args {
    const char *model, *role, *name;
    char endpoint[256];
    fr_session_options session;
    int draft_vocab;
    fr_draft_weights draft_weights;
    int mpi;        /* -1: as launched */
    const char *leader; /* of a group without MPI */
    int rank, n_ranks;  /* in it; -1: as Slurm says */
    int told;       /* getopt has told of an unknown option, or of one without its value */
    int give_up_ms;
    fr_log_level level;
} args;

enum {
    OPT_ROLE = 256,
    OPT_NAME,
    OPT_THREADS,
    OPT_PLACEMENT,
    OPT_BACKEND,
    OPT_GPUS,
    OPT_SHARE_GPU,
    OPT_BATCH_INVARIANT,
    OPT_RANK_TIMEOUT,
    OPT_CONTEXT,
    OPT_KV,
    OPT_ROWS,
    OPT_DRAFT_VOCAB,
    OPT_DRAFT_WEIGHTS,
    OPT_MPI,
    OPT_NO_MPI,
    OPT_LEADER,
    OPT_RANK,
    OPT_RANKS,
    OPT_GIVE_UP,
    OPT_LOG
};

static const struct argp_option options[] = {
    {"model", 'm', "FILE", 0, "GGUF file, or model folder with safetensors", 0},
    {"connect", 'c', "ENDPOINT", 0, "Coordinator, as tcp://host:port; under its mpirun it is known",
     0},
    {"role", OPT_ROLE, "ROLE", 0, "target (default) or draft", 0},
    {"name", OPT_NAME, "NAME", 0, "Of the group; default: role, host and process", 0},
    {"threads", OPT_THREADS, "N", 0, "CPU threads of each rank; default: its share of the cores",
     0},
    {"placement", OPT_PLACEMENT, "HOW", 0,
     "auto (default): ranks of a host have cores of their own where that helps; off", 0},
    {"backend", OPT_BACKEND, "NAME", 0, "Compute backend; default: the fastest here", 0},
    {"gpus", OPT_GPUS, "LIST", 0,
     "GPUs of this host, such as 0,2, that the group's ranks take in turn, counted from 0 among those that the backend "
     "can use; default: all",
     0},
    {"share-gpu", OPT_SHARE_GPU, NULL, 0,
     "Let ranks share a GPU, which is refused otherwise; their sums go through host memory", 0},
    {"batch-invariant", OPT_BATCH_INVARIANT, "HOW", 0,
     "on (default): a result on a GPU does not depend on what else is in the batch; off: it may, "
     "where that is faster",
     0},
    {"rank-timeout-ms", OPT_RANK_TIMEOUT, "N", 0,
     "End when another rank does not come to a sum, or to another meeting of a pass, for so long after this one; not "
     "while the model loads; default: 30000",
     0},
    {"context", OPT_CONTEXT, "N", 0, "Most positions of one sequence; default: the model's", 0},
    {"kv-positions", OPT_KV, "N", 0,
     "Positions cached, of all sequences together; default: twice the context", 0},
    {"max-rows", OPT_ROWS, "N", 0, "Most rows of one pass; default: 256", 0},
    {"draft-vocab", OPT_DRAFT_VOCAB, "N", 0,
     "Tokens that a draft chooses its guesses from, the frequent ones; 0: all; default: 32768 where "
     "there are more than 65536",
     0},
    {"draft-weights", OPT_DRAFT_WEIGHTS, "HOW", 0,
     "How a draft's weights are held: file (default): as the file has them; q4_0: quantised to Q4_0 "
     "at load where that has fewer bytes",
     0},
    {"mpi", OPT_MPI, NULL, 0, "Be a rank of an MPI group; default: when started by mpirun or srun",
     0},
    {"no-mpi", OPT_NO_MPI, NULL, 0, "Be a group of one rank, or of those of --leader, whatever started it", 0},
    {"leader", OPT_LEADER, "ENDPOINT", 0,
     "Be a rank of a group without MPI, whose rank 0 is reached at tcp://host:port", 0},
    {"rank", OPT_RANK, "R", 0, "With --leader: which one, from 0; default: SLURM_PROCID", 0},
    {"ranks", OPT_RANKS, "N", 0, "With --leader: of how many; default: SLURM_NTASKS", 0},
    {"give-up-ms", OPT_GIVE_UP, "N", 0,
     "End when the coordinator is silent for so long; default: 0, never", 0},
    {"log", OPT_LOG, "LEVEL", 0, "error, warn (default), info or debug", 0},
    {0}};

/* ---- command line */

static fr_status parse_int(const char *option, const char *text, int least, int *out)
{
    char *end = NULL;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < least || v > INT_MAX)
        return fr_fail(FR_EINVAL, "--%s %s: not a number from %d on", option, text, least);
    *out = (int)v;
    return FR_OK;
}

static fr_status parse_level(const char *text, fr_log_level *out)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(text, names[i])) {
            *out = (fr_log_level)i;
            return FR_OK;
        }
    return fr_fail(FR_EINVAL, "--log %s: there are error, warn, info and debug", text);
}

static fr_status parse_role(const char *text, const char **out)
{
    if (strcmp(text, "target") != 0 && strcmp(text, "draft") != 0)
        return fr_fail(FR_EINVAL, "--role %s: there are target and draft", text);
    *out = text;
    return FR_OK;
}

static fr_status parse_placement(const char *text, int *out)
{
    if (strcmp(text, "auto") != 0 && strcmp(text, "off") != 0)
        return fr_fail(FR_EINVAL, "--placement %s: there are auto and off", text);
    *out = strcmp(text, "auto") == 0;
    return FR_OK;
}

static fr_status parse_batch_invariant(const char *text, bool *dependent_out)
{
    if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0)
        return fr_fail(FR_EINVAL, "--batch-invariant %s: there are on and off", text);
    *dependent_out = strcmp(text, "off") == 0;
    return FR_OK;
}

/* Short name of a long option, for errors about its value. */
static const char *option_name(int key)
{
    for (int i = 0; options[i].name; i++)
        if (options[i].key == key)
            return options[i].name;
    return "";
}

static fr_status parse_one(args *a, int key, const char *text)
{
    int positions = 0;
    switch (key) {
    case 'm':
        a->model = text;
        return FR_OK;
    case 'c':
        if (strlen(text) >= sizeof a->endpoint)
            return fr_fail(FR_EINVAL, "--connect: an endpoint of %zu characters is too long",
                           strlen(text));
        strcpy(a->endpoint, text);
        return FR_OK;
    case OPT_ROLE:
        return parse_role(text, &a->role);
    case OPT_NAME:
        a->name = text;
        return FR_OK;
    case OPT_BACKEND:
        a->session.backend = text;
        return FR_OK;
    case OPT_THREADS:
        return parse_int(option_name(key), text, 0, &a->session.threads);
    case OPT_PLACEMENT:
        return parse_placement(text, &a->session.place);
    case OPT_GPUS:
        return fr_gpu_list_parse("--gpus", text, &a->session.gpus);
    case OPT_SHARE_GPU:
        a->session.share_gpu = true;
        return FR_OK;
    case OPT_BATCH_INVARIANT:
        return parse_batch_invariant(text, &a->session.batch_dependent);
    case OPT_RANK_TIMEOUT:
        return parse_int(option_name(key), text, 1, &a->session.rank_timeout_ms);
    case OPT_CONTEXT:
        return parse_int(option_name(key), text, 0, &a->session.max_context);
    case OPT_ROWS:
        return parse_int(option_name(key), text, 0, &a->session.max_rows);
    case OPT_DRAFT_VOCAB:
        return parse_int(option_name(key), text, 0, &a->draft_vocab);
    case OPT_DRAFT_WEIGHTS:
        return fr_draft_weights_parse(text, &a->draft_weights);
    case OPT_GIVE_UP:
        return parse_int(option_name(key), text, 0, &a->give_up_ms);
    case OPT_KV:
        FR_TRY(parse_int(option_name(key), text, 0, &positions));
        a->session.kv_positions = positions;
        return FR_OK;
    case OPT_MPI:
    case OPT_NO_MPI:
        a->mpi = key == OPT_MPI;
        return FR_OK;
    case OPT_LEADER:
        a->leader = text;
        return FR_OK;
    case OPT_RANK:
        return parse_int(option_name(key), text, 0, &a->rank);
    case OPT_RANKS:
        return parse_int(option_name(key), text, 1, &a->n_ranks);
    default:
        return parse_level(text, &a->level);
    }
}

typedef struct parse {
    args *args;
    fr_status st; /* of the first wrong option; its cause is fr_cause() */
} parse;

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    parse *p = state->input;
    int known = key == 'm' || key == 'c' || (key >= OPT_ROLE && key <= OPT_LOG);
    if (key == ARGP_KEY_INIT)
        state->err_stream = NULL; /* getopt's line on an unknown option is enough */
    if (key == ARGP_KEY_ARG && p->st == FR_OK)
        p->st = fr_fail(FR_EINVAL, "\"%s\" is not an option", text);
    if (known && p->st == FR_OK)
        p->st = parse_one(p->args, key, text);
    return known || key == ARGP_KEY_ARG ? 0 : ARGP_ERR_UNKNOWN;
}

static fr_status no_coordinator(void)
{
    return fr_fail(FR_EINVAL, "no coordinator: --connect ENDPOINT is missing");
}

/* Of a target the text itself would change. */
static fr_status take_draft_options(args *a)
{
    if (strcmp(a->role, "draft") == 0) {
        a->session.draft_vocab = a->draft_vocab;
        a->session.draft_weights = a->draft_weights;
    } else if (a->draft_vocab != FR_DRAFT_VOCAB_AUTO) {
        return fr_fail(FR_EINVAL, "--draft-vocab: a group of role %s makes no guesses", a->role);
    } else if (a->draft_weights != FR_DRAFT_WEIGHTS_FILE) {
        return fr_fail(FR_EINVAL, "--draft-weights: a group of role %s makes no guesses", a->role);
    }
    return FR_OK;
}

/* Before the ranks know each other: one that is wrong must not let the others wait for it. */
static fr_status check_leader(const args *a)
{
    if (!a->leader && (a->rank >= 0 || a->n_ranks >= 0))
        return fr_fail(FR_EINVAL, "--%s: is of a group with --leader, which is missing",
                       a->rank >= 0 ? "rank" : "ranks");
    if (a->leader && !a->leader[0])
        return fr_fail(FR_EINVAL, "--leader: no endpoint, want tcp://host:port");
    if (a->leader && !a->endpoint[0])
        return no_coordinator();
    return FR_OK;
}

static fr_status parse_command_line(int argc, char **argv, args *a)
{
    const struct argp argp = {
        .options = options,
        .parser = parse_option,
        .doc = "Serves one model to a Forerun coordinator.\v"
               "Exit status: 0 done, 1 failed, 2 bad usage or input, 3 no coordinator."};
    argp_program_version = FR_VERSION;
    parse p = {.args = a};
    static char program[] = "forerun-worker";
    argv[0] = program; /* getopt's lines begin with all of it */
    a->told = argp_parse(&argp, argc, argv, 0, NULL, &p) != 0;
    if (a->told)
        return FR_EINVAL;
    FR_TRY(p.st);
    if (!a->model)
        return fr_fail(FR_EINVAL, "no model: --model FILE is missing");
    FR_TRY(check_leader(a));
    return take_draft_options(a);
}

/* ---- running */

static atomic_int stop;

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stop, 1);
}

/* Without SA_RESTART, so that a wait ends. Called once there is something to end in good order: before
 * that, while a model loads, a signal just ends the process. */
static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* The session is the caller's to close, also where this fails: the cause is told before. All ranks agree on what
 * beginning it fails of; what ends a follower after that the leader may not know, so *level_out, that
 * of its line, is then a warning's. */
static fr_status run(const args *a, fr_comm *comm, fr_session **session_out, fr_log_level *level_out)
{
    if (!a->endpoint[0])
        return no_coordinator();
    FR_TRY(fr_session_begin(a->model, comm, &a->session, session_out));
    fr_session *session = *session_out;
    *level_out = FR_LOG_WARN;
    catch_signals();
    comm->patience = (fr_comm_patience){
        .ms = a->session.rank_timeout_ms > 0 ? a->session.rank_timeout_ms : FR_COMM_TIMEOUT_MS, .stop = &stop};
    fr_log(FR_LOG_INFO, "rank %d: model loaded in %.2f s", comm->rank,
           fr_session_info_of(session)->load_s);
    const fr_serve_options serve = {.endpoint = a->endpoint, .role = a->role, .name = a->name,
                                    .give_up_ms = a->give_up_ms, .stop = &stop};
    return comm->rank == 0 ? fr_serve(session, &serve) : fr_session_follow(session);
}

/* The number that an option gave, or else Slurm. */
static fr_status number_of(const char *option, const char *variable, int given, int *out)
{
    const char *text = getenv(variable);
    *out = given;
    if (given >= 0)
        return FR_OK;
    if (!text)
        return fr_fail(FR_EINVAL, "--leader: neither --%s nor %s tells which rank this is", option, variable);
    return parse_int(option, text, 0, out);
}

static fr_status join_leader(const args *a, fr_comm **out)
{
    fr_ranks_options o = {.endpoint = a->leader, .connect_ms = FR_COMM_LINK_CONNECT_MS,
                          .wait_ms = FR_COMM_LINK_WAIT_MS};
    FR_TRY(number_of("rank", "SLURM_PROCID", a->rank, &o.rank));
    FR_TRY(number_of("ranks", "SLURM_NTASKS", a->n_ranks, &o.size));
    return fr_comm_link_open(&o, out);
}

/* The group this process belongs to. Collective over all that one mpirun started, so it comes
 * before any judgement of their command line. */
static fr_status join(args *a, fr_comm **out)
{
    if (a->leader)
        return join_leader(a, out);
    if (a->mpi == 0 || (a->mpi < 0 && !fr_comm_mpi_launched()))
        return fr_comm_self_open(out);
    char shared[sizeof a->endpoint] = "";
    FR_TRY(fr_comm_mpi_share_text(shared, sizeof shared));
    if (!a->endpoint[0])
        strcpy(a->endpoint, shared);
    return fr_comm_mpi_open(COLOUR_WORKER, out);
}

static int exit_code(fr_status st)
{
    switch (st) {
    case FR_OK:
        return 0;
    case FR_EINVAL:
    case FR_EFORMAT:
    case FR_EUNSUPPORTED:
    case FR_ENOTFOUND:
    case FR_EMISMATCH:
        return EXIT_INPUT;
    case FR_EUNAVAILABLE:
        return EXIT_NO_CLUSTER;
    default:
        return EXIT_RUNTIME;
    }
}

/* What a session holds may be on a GPU that hangs, and closing it would too. So after a failure it has a limit, far
 * above what freeing memory and giving up NCCL take; then the session ends with the process. */
enum { CLOSING_S = 10 };
static volatile sig_atomic_t code_of_failure;

static void end_without_closing(int signal_number)
{
    (void)signal_number;
    _exit(code_of_failure);
}

static void close_session(fr_session **session, fr_status st)
{
    if (st != FR_OK) {
        code_of_failure = exit_code(st);
        signal(SIGALRM, end_without_closing);
        alarm(CLOSING_S);
    }
    fr_session_close(session);
    alarm(0);
}

/* A follower's line. */
static void tell_end(fr_log_level level, int rank)
{
    char why[512];
    fr_comm_name_finder(rank, why, sizeof why);
    fr_log(level, FR_LOG_ENDS "%s", why);
}

int main(int argc, char **argv)
{
    args a = {.role = "target",
              .session = {.place = 1},
              .draft_vocab = FR_DRAFT_VOCAB_AUTO,
              .mpi = -1,
              .rank = -1,
              .n_ranks = -1,
              .level = FR_LOG_WARN};
    char cause[512] = "";
    fr_comm *comm = NULL;
    fr_session *session = NULL;
    fr_log_level level = FR_LOG_INFO; /* of a follower's line */
    fr_status st = parse_command_line(argc, argv, &a);
    if (a.told)
        return EXIT_INPUT;
    snprintf(cause, sizeof cause, "%s", fr_cause());
    fr_log_open("forerun-worker", a.level);
    signal(SIGPIPE, SIG_IGN);
    fr_status joined = st != FR_OK && a.leader ? FR_OK : join(&a, &comm);
    int rank = comm ? comm->rank : 0;
    if (st != FR_OK)
        fr_fail(st, "%s", cause);
    else if (joined != FR_OK)
        st = joined;
    else
        st = run(&a, comm, &session, &level);
    if (st != FR_OK && rank == 0)
        fr_log(FR_LOG_ERROR, "%s", fr_cause());
    else if (st != FR_OK)
        tell_end(level, rank);
    close_session(&session, st);
    if (comm)
        comm->ops->close(&comm);
    return exit_code(st);
}
