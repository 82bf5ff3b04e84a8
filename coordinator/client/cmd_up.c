/* cmd_up.c: `forerun up`: a local cluster as configured, and its supervisor. In the foreground
 * until it is stopped, or detached: then the parent waits until the cluster is ready and tells how
 * that went. 1 read the configuration, 2 lock the run folder, 3 the coordinator, which tells its
 * endpoint, 4 the groups, 5 look after all of them until Ctrl-C, `forerun down`, or the
 * coordinator's orderly end. */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "args.h"
#include "check.h"
#include "clock.h"
#include "cluster.h"
#include "conf.h"
#include "interrupt.h"
#include "log.h"
#include "programs.h"
#include "run_dir.h"
#include "supervise.h"

#define ENDPOINT_MS 20000
#define MODELS_MS 600000
#define STOP_MS 8000
#define TICK_MS 200
#define LOOK_MS 2000  /* between two looks at the groups */
#define ANSWER_MS 500 /* for the coordinator to tell of them */
#define HEARTBEAT_MS 1000 /* the coordinator's default; its dead_after_ms is three of them */
#define SILENT_DEATHS 10 /* times dead_after_ms: a group that is gone for so long does not come back by itself */

typedef struct up_options {
    const char *conf;
    int detach;
} up_options;

typedef struct cluster_up {
    fr_client_config config;
    fr_conf conf;
    const char *run_dir;
    char ready_path[PATH_MAX], store_path[PATH_MAX], endpoint[256];
    int lock_fd, report_fd; /* -1: none */
    fr_supervisor supervisor;
    fr_call call;
} cluster_up;

static const struct argp_option options[] = {
    {"detach", 'd', 0, 0, "go to the background once the cluster is ready", 1},
    {0}};

static const char doc[] =
    "Runs a cluster on this machine as the configuration file says, and starts again what dies or hangs."
    "\vExamples:\n"
    "  forerun up deploy/conf/local.ini\n"
    "  forerun up --detach cluster.ini && forerun solve --connect tcp://127.0.0.1:7077 \"...\"\n"
    "Sections: [cluster] bind, run_dir, store, heartbeat_ms, dead_after_ms; [coordinator] draft, "
    "draft_backend, draft_gpu, draft_threads, draft_context, draft_vocab, draft_weights, overlap, "
    "max_running; "
    "[group NAME] role, model, ranks, threads, placement, context, kv_positions, draft_vocab, "
    "draft_weights, backend, gpus, share_gpu, batch_invariant, hosts, launcher. A model is a file or folder, a name in "
    "FORERUN_MODELS, or `embedded`. Ctrl-C or `forerun down` stops the cluster.";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    up_options *o = state->input;
    switch (key) {
    case 'd':
        o->detach = 1;
        return 0;
    case ARGP_KEY_ARG:
        if (o->conf)
            return fr_arg_error(fr_fail(FR_EINVAL, "'%.64s': one argument too many", arg));
        o->conf = arg;
        return 0;
    case ARGP_KEY_END:
        return o->conf ? 0 : fr_arg_error(fr_fail(FR_EINVAL, "no configuration file given"));
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static fr_status find_model(const cluster_up *up, const char *name, const char *role, char *out)
{
    return strcmp(name, "embedded") == 0 ? fr_client_config_tiny(&up->config, role, out, PATH_MAX)
                                         : fr_client_config_model(&up->config, name, out, PATH_MAX);
}

static fr_status add_coordinator(cluster_up *up, const char *bind)
{
    char draft[PATH_MAX];
    fr_coordinator_args args = {.bind = bind, .ready_file = up->ready_path,
                                .store = up->conf.store ? up->conf.store : up->store_path,
                                .draft_backend = up->conf.draft_backend,
                                .draft_gpu = up->conf.draft_gpu,
                                .draft_threads = up->conf.draft_threads,
                                .draft_context = up->conf.draft_context,
                                .draft_vocab = up->conf.draft_vocab,
                                .draft_weights = up->conf.draft_weights,
                                .overlap = up->conf.overlap,
                                .max_running = up->conf.max_running,
                                .dead_after_ms = up->conf.dead_after_ms,
                                .heartbeat_ms = up->conf.heartbeat_ms};
    if (up->conf.draft) {
        FR_TRY(find_model(up, up->conf.draft, "draft", draft));
        args.draft = draft;
    }
    fr_argv argv = {0};
    fr_status st = fr_coordinator_command(&up->config, &args, &argv);
    if (st == FR_OK)
        st = fr_supervisor_add(&up->supervisor, "coordinator", up->run_dir, &argv);
    fr_argv_free(&argv);
    return st;
}

static fr_status add_group(cluster_up *up, const fr_conf_group *g)
{
    char model[PATH_MAX];
    FR_TRY(find_model(up, g->model, g->role, model));
    fr_group_args args = {.endpoint = up->endpoint,
                          .name = g->name,
                          .role = g->role,
                          .model = model,
                          .backend = g->backend,
                          .draft_vocab = g->draft_vocab,
                          .draft_weights = g->draft_weights,
                          .hosts = g->hosts,
                          .launcher = g->launcher,
                          .ranks = g->ranks,
                          .threads = g->threads,
                          .placement = g->placement,
                          .gpus = g->gpus,
                          .share_gpu = g->share_gpu,
                          .batch_invariant = g->batch_invariant,
                          .context = g->context,
                          .kv_positions = g->kv_positions};
    fr_argv argv = {0};
    fr_status st = fr_group_command(&up->config, &args, &argv);
    if (st == FR_OK)
        st = fr_supervisor_add(&up->supervisor, g->name, up->run_dir, &argv);
    fr_argv_free(&argv);
    return st;
}

static fr_status tick(void *ctx)
{
    FR_TRY(fr_interrupt_check());
    return fr_supervisor_tick(&((cluster_up *)ctx)->supervisor);
}

static fr_status start_coordinator(cluster_up *up)
{
    const char *bind = up->conf.bind ? up->conf.bind : FR_DEFAULT_ENDPOINT;
    if (unlink(up->ready_path) != 0 && errno != ENOENT)
        return fr_fail(FR_EIO, "%s: %s", up->ready_path, strerror(errno));
    FR_TRY(add_coordinator(up, bind));
    FR_TRY(fr_supervisor_start(&up->supervisor, 0));
    double end = fr_now_s() + ENDPOINT_MS / 1e3;
    while (!fr_read_endpoint(up->ready_path, up->endpoint, sizeof up->endpoint)) {
        FR_TRY(tick(up));
        if (fr_now_s() > end)
            return fr_fail(FR_ETIMEDOUT,
                           "coordinator: not ready after %d s; see %s/coordinator.log",
                           ENDPOINT_MS / 1000, up->run_dir);
        fr_sleep_ms(10);
    }
    if (strcmp(up->endpoint, bind) == 0)
        return FR_OK;
    /* A free port was asked for: a restarted coordinator has to come back to the one the groups
     * know. */
    fr_argv *argv = &up->supervisor.members[0].argv;
    for (size_t i = 0; i + 1 < argv->n; i++) {
        if (strcmp(argv->v[i], "--bind") != 0)
            continue;
        char *real = strdup(up->endpoint);
        if (!real)
            return fr_no_memory();
        free(argv->v[i + 1]);
        argv->v[i + 1] = real;
    }
    return FR_OK;
}

static int has_draft(const fr_conf *c)
{
    for (int i = 0; i < c->n_groups; i++)
        if (strcmp(c->groups[i].role, "draft") == 0)
            return 1;
    return c->draft != NULL;
}

/* What the waiting parent of a detached cluster reads: the exit code, then the text to show. */
static void report(cluster_up *up, int exit_code, const char *text)
{
    if (up->report_fd < 0)
        return;
    if (dprintf(up->report_fd, "%d%s\n", exit_code, text) < 0)
        fr_log(FR_LOG_WARN, "the starting process is gone: %s", strerror(errno));
    close(up->report_fd);
    up->report_fd = -1;
}

static int dead_after_ms(const fr_conf *c)
{
    const int heartbeat_ms = c->heartbeat_ms > 0 ? c->heartbeat_ms : HEARTBEAT_MS;
    return c->dead_after_ms > 0 ? c->dead_after_ms : 3 * heartbeat_ms;
}

/* Tells the supervisor which groups the coordinator hears of. */
static fr_status look_at_groups(cluster_up *up)
{
    const int silent_ms = SILENT_DEATHS * dead_after_ms(&up->conf);
    fr_msg query = {.kind = FR_MSG_STATUS_QUERY}, reply = {0};
    if (fr_call_ask(&up->call, &query, FR_MSG_STATUS_REPLY, ANSWER_MS, &reply) != FR_OK) {
        fr_supervisor_note_nothing(&up->supervisor);
        return FR_OK;
    }
    const fr_msg_status_reply *s = &reply.body.status_reply;
    fr_status st = FR_OK;
    for (int i = 0; i < up->conf.n_groups && st == FR_OK; i++) {
        const char *name = up->conf.groups[i].name;
        double heard_s = INFINITY;
        int alive = 0;
        for (size_t k = 0; k < s->n_groups; k++) {
            if (strcmp(s->groups[k].name, name) != 0)
                continue;
            alive |= s->groups[k].alive;
            heard_s = fmin(heard_s, s->groups[k].last_seen_s);
        }
        st = fr_supervisor_note(&up->supervisor, name, alive, heard_s, silent_ms);
    }
    fr_msg_free(&reply);
    return st;
}

static fr_status serve(cluster_up *up)
{
    FR_TRY(start_coordinator(up));
    FR_TRY(fr_call_open(up->endpoint, &up->call));
    for (int i = 0; i < up->conf.n_groups; i++) {
        FR_TRY(add_group(up, &up->conf.groups[i]));
        FR_TRY(fr_supervisor_start(&up->supervisor, i + 1));
    }
    FR_TRY(fr_cluster_wait_ready(&up->call, has_draft(&up->conf), MODELS_MS, tick, up));
    up->supervisor.settled = 1;
    char text[400];
    snprintf(text, sizeof text, "cluster ready at %s", up->endpoint);
    fr_log(FR_LOG_INFO, "%s; logs in %s", text, up->run_dir);
    report(up, FR_EXIT_DONE, text);
    for (double look_at_s = 0;;) {
        FR_TRY(tick(up));
        if (fr_now_s() >= look_at_s) {
            FR_TRY(look_at_groups(up));
            look_at_s = fr_now_s() + LOOK_MS / 1e3;
        }
        fr_sleep_ms(TICK_MS);
    }
}

static void stop(cluster_up *up)
{
    if (up->call.link && up->supervisor.n_members &&
        fr_process_running(&up->supervisor.members[0].process)) {
        fr_msg request = {.kind = FR_MSG_STOP_CLUSTER};
        if (fr_call_send(&up->call, &request) != FR_OK)
            fr_log(FR_LOG_WARN, "cannot ask the coordinator to stop: %s", fr_cause());
    }
    fr_supervisor_stop(&up->supervisor, up->call.link ? STOP_MS : 0);
    fr_call_close(&up->call, 0);
}

/* Everything after the configuration was read; ends with the cluster stopped. */
static fr_status supervise(cluster_up *up)
{
    FR_TRY(fr_run_dir_lock(up->run_dir, &up->lock_fd));
    fr_interrupt_arm();
    fr_status st = serve(up);
    char cause[512];
    snprintf(cause, sizeof cause, "%s", fr_cause());
    int ready = up->supervisor.settled;
    fr_log(FR_LOG_INFO, "stopping: %s",
           st == FR_ECANCELLED && fr_interrupted() ? "asked to" : cause);
    stop(up);
    if (unlink(up->ready_path) != 0 && errno != ENOENT)
        fr_log(FR_LOG_WARN, "%s: %s", up->ready_path, strerror(errno));
    close(up->lock_fd);
    if (st == FR_ECANCELLED && ready)
        return FR_OK; /* an orderly end of a cluster that had come up */
    return fr_fail(st, "%s", cause);
}

/* In the child of --detach: a session of its own, and its words go to a log. */
static fr_status leave_terminal(const char *run_dir)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%.*s/up.log", PATH_MAX - 16, run_dir);
    int log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int ok = log_fd >= 0 && null_fd >= 0 && setsid() >= 0 && dup2(null_fd, 0) >= 0 &&
             dup2(log_fd, 1) >= 0 && dup2(log_fd, 2) >= 0;
    int e = errno;
    if (log_fd >= 0)
        close(log_fd);
    if (null_fd >= 0)
        close(null_fd);
    return ok ? FR_OK : fr_fail(FR_EIO, "%s: %s", path, strerror(e));
}

/* The parent: waits for the report. Returns the exit code. */
static int await_report(int fd)
{
    char text[600];
    size_t n = 0;
    ssize_t got;
    while (n < sizeof text - 1 && (got = read(fd, text + n, sizeof text - 1 - n)) != 0) {
        if (got > 0)
            n += (size_t)got;
        else if (errno != EINTR)
            break;
    }
    close(fd);
    text[n] = 0;
    text[strcspn(text, "\n")] = 0;
    if (n < 2) {
        fprintf(stderr,
                "forerun: the cluster ended without a report; see up.log in its run folder\n");
        return FR_EXIT_NO_CLUSTER;
    }
    int code = text[0] - '0';
    fprintf(code == FR_EXIT_DONE ? stdout : stderr, code == FR_EXIT_DONE ? "%s\n" : "forerun: %s\n",
            text + 1);
    return code;
}

/* Returns the exit code, in the parent and in the child alike. */
static int supervise_detached(cluster_up *up)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fr_exit_report(fr_fail(FR_EIO, "pipe: %s", strerror(errno)));
    pid_t pid = fork();
    if (pid < 0)
        return fr_exit_report(fr_fail(FR_EIO, "fork: %s", strerror(errno)));
    if (pid > 0) {
        close(ends[1]);
        return await_report(ends[0]);
    }
    close(ends[0]);
    up->report_fd = ends[1];
    fr_status st = leave_terminal(up->run_dir);
    if (st == FR_OK)
        st = supervise(up);
    report(up, fr_exit_of(st), fr_cause());
    return fr_exit_of(st);
}

static fr_status prepare(cluster_up *up, const char *path)
{
    FR_TRY(fr_client_config_read(&up->config));
    FR_TRY(fr_conf_read(path, &up->conf));
    up->run_dir = up->conf.run_dir ? up->conf.run_dir : up->config.run_dir;
    if (strlen(up->run_dir) > PATH_MAX - 64)
        return fr_fail(FR_ELIMIT, "%s: run_dir is too long", path);
    snprintf(up->ready_path, sizeof up->ready_path, "%.*s/ready", PATH_MAX - 64, up->run_dir);
    snprintf(up->store_path, sizeof up->store_path, "%.*s/jobs.db", PATH_MAX - 64, up->run_dir);
    /* A model that is not there is told before anything starts. */
    char model[PATH_MAX];
    if (up->conf.draft)
        FR_TRY(find_model(up, up->conf.draft, "draft", model));
    for (int i = 0; i < up->conf.n_groups; i++)
        FR_TRY(find_model(up, up->conf.groups[i].model, up->conf.groups[i].role, model));
    return fr_run_dir_make(up->run_dir);
}

static int run(int argc, char **argv)
{
    static const struct argp argp = {options, parse, "CONFIG", doc, NULL, NULL, NULL};
    up_options o = {0};
    fr_status st = fr_args_parse(&argp, argc, argv, &o);
    cluster_up *up = st == FR_OK ? calloc(1, sizeof *up) : NULL;
    if (st == FR_OK && !up)
        st = fr_no_memory();
    int code = 0;
    if (st == FR_OK) {
        up->lock_fd = up->report_fd = -1;
        st = prepare(up, o.conf);
    }
    if (st == FR_OK && o.detach) {
        code = supervise_detached(up);
    } else {
        if (st == FR_OK)
            st = supervise(up);
        code = fr_exit_report(st);
    }
    if (up)
        fr_conf_free(&up->conf);
    free(up);
    return code;
}

const fr_command fr_command_up = {"up", "run a cluster on this machine as configured", run};
