/* cluster.c: see cluster.h. Start: 1 a folder, 2 the coordinator, which writes its endpoint into
 * the ready file, 3 the worker group, 4 the cluster's status until both roles are alive. */
#include "cluster.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "interrupt.h"
#include "process.h"
#include "programs.h"

#define ENDPOINT_MS 20000
#define MODELS_MS 300000 /* a cold 40 GB model from a disk */
#define STOP_MS 3000
#define POLL_MS 10
#define DIR_PREFIX "forerun-run-"

struct fr_cluster {
    char dir[PATH_MAX];
    fr_process coordinator, worker;
    fr_call call;
};

/* The folder's name leaves room for every file in it: checked when it is made. */
static void file_in(const fr_cluster *c, const char *name, char *out)
{
    snprintf(out, PATH_MAX, "%.*s/%.30s", PATH_MAX - 32, c->dir, name);
}

static void remove_dir(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(path);
}

/* Folders of clients that were killed: their names carry the client's pid. */
static void remove_stale_dirs(const char *temp_dir)
{
    DIR *d = opendir(temp_dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        char path[PATH_MAX];
        int pid = 0, n = 0;
        if (sscanf(e->d_name, DIR_PREFIX "%d-%n", &pid, &n) != 1 || n == 0 || pid <= 0)
            continue;
        int len = snprintf(path, sizeof path, "%s/%s", temp_dir, e->d_name);
        if (len > 0 && len < (int)sizeof path && kill(pid, 0) != 0 && errno == ESRCH)
            remove_dir(path);
    }
    closedir(d);
}

static fr_status make_dir(fr_cluster *c, const char *temp_dir)
{
    remove_stale_dirs(temp_dir);
    int n = snprintf(c->dir, sizeof c->dir, "%s/" DIR_PREFIX "%d-XXXXXX", temp_dir, (int)getpid());
    if (n < 0 || n >= (int)sizeof c->dir - 32) {
        c->dir[0] = 0;
        return fr_fail(FR_ELIMIT, "%.64s...: path of the temporary folder too long", temp_dir);
    }
    if (mkdtemp(c->dir))
        return FR_OK;
    c->dir[0] = 0;
    return fr_fail(FR_EIO, "cannot make a folder in %s: %s", temp_dir, strerror(errno));
}

/* Why a program of the cluster ended: its own words. */
static fr_status ended(const fr_cluster *c, const fr_process *p)
{
    char log[PATH_MAX], name[64];
    snprintf(name, sizeof name, "%s.log", p->name);
    file_in(c, name, log);
    fr_buf why = {0};
    fr_status st = fr_process_why(p, log, 0, &why);
    if (st == FR_OK)
        st = fr_fail(p->exit_code == 2 ? FR_EINVAL : FR_EPEER, "%s: %s", p->name,
                     why.len ? (const char *)why.data : "ended without a word");
    fr_buf_free(&why);
    return st;
}

fr_status fr_cluster_check(fr_cluster *c)
{
    if (!fr_process_running(&c->coordinator))
        return ended(c, &c->coordinator);
    if (c->worker.name[0] && !fr_process_running(&c->worker))
        return ended(c, &c->worker);
    return FR_OK;
}

static fr_status check_children(void *ctx)
{
    return fr_cluster_check(ctx);
}

int fr_read_endpoint(const char *path, char *out, size_t cap)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    int ok =
        fgets(out, (int)cap, f) != NULL && strchr(out, '\n') != NULL; /* the whole line is there */
    fclose(f);
    if (ok)
        out[strcspn(out, " \r\n")] = 0;
    return ok;
}

static fr_status start_coordinator(fr_cluster *c, const fr_client_config *config,
                                   const fr_cluster_options *o)
{
    char ready[PATH_MAX], log[PATH_MAX], endpoint[256];
    file_in(c, "ready", ready);
    file_in(c, "coordinator.log", log);
    fr_argv argv = {0};
    /* No store: its jobs end with it. */
    fr_coordinator_args args = {.bind = "tcp://127.0.0.1:0", .ready_file = ready,
                                .draft = o->draft, .draft_backend = o->backend,
                                .draft_gpu = o->draft_gpu,
                                .draft_vocab = o->draft_vocab,
                                .draft_weights = o->draft_weights,
                                .overlap = o->overlap, .draft_threads = o->threads,
                                .draft_context = o->context, .max_running = o->max_running};
    fr_status st = fr_coordinator_command(config, &args, &argv);
    if (st == FR_OK)
        st = fr_process_start(&c->coordinator, "coordinator", argv.v, log);
    fr_argv_free(&argv);
    FR_TRY(st);
    double end = fr_now_s() + ENDPOINT_MS / 1e3;
    while (!fr_read_endpoint(ready, endpoint, sizeof endpoint)) {
        FR_TRY(fr_interrupt_check());
        FR_TRY(fr_cluster_check(c));
        if (fr_now_s() > end)
            return fr_fail(FR_ETIMEDOUT, "coordinator: not ready after %d s", ENDPOINT_MS / 1000);
        fr_sleep_ms(5);
    }
    return fr_call_open(endpoint, &c->call);
}

static fr_status start_worker(fr_cluster *c, const fr_client_config *config,
                              const fr_cluster_options *o)
{
    char log[PATH_MAX];
    file_in(c, "worker.log", log);
    fr_argv argv = {0};
    fr_group_args args = {.endpoint = c->call.endpoint, .name = "target", .role = "target",
                          .model = o->target, .backend = o->backend, .ranks = o->ranks,
                          .threads = o->threads, .context = o->context, .gpus = o->gpus,
                          .share_gpu = o->share_gpu ? "on" : NULL};
    fr_status st = fr_group_command(config, &args, &argv);
    if (st == FR_OK)
        st = fr_process_start(&c->worker, "worker", argv.v, log);
    fr_argv_free(&argv);
    return st;
}

static int is_ready(const fr_msg_status_reply *s, int want_draft)
{
    int target = 0, draft = 0;
    for (size_t i = 0; i < s->n_groups; i++) {
        target |= s->groups[i].alive && strcmp(s->groups[i].role, "target") == 0;
        draft |= s->groups[i].alive && strcmp(s->groups[i].role, "draft") == 0;
    }
    return target && (draft || !want_draft);
}

fr_status fr_cluster_wait_ready(fr_call *call, int want_draft, int timeout_ms,
                                fr_status (*check)(void *ctx), void *ctx)
{
    double end = fr_now_s() + timeout_ms / 1e3;
    for (;;) {
        fr_msg query = {.kind = FR_MSG_STATUS_QUERY}, reply = {0};
        fr_status st = fr_call_ask(call, &query, FR_MSG_STATUS_REPLY, 1000, &reply);
        int ready = st == FR_OK && is_ready(&reply.body.status_reply, want_draft);
        if (st == FR_OK)
            fr_msg_free(&reply);
        else if (st != FR_EUNAVAILABLE)
            return st;
        if (ready)
            return FR_OK;
        if (check)
            FR_TRY(check(ctx));
        if (fr_now_s() > end)
            return fr_fail(FR_ETIMEDOUT, "cluster at %s: no model serves after %d s",
                           call->endpoint, timeout_ms / 1000);
        fr_sleep_ms(POLL_MS); /* the first token waits for this */
    }
}

/* The logs go with the cluster, and nobody else reads them. What target and draft both warn of (such as that there is
 * no GPU) is told once. */
static void pass_on_warnings(const fr_cluster *c)
{
    static const char *const logs[] = {"worker.log", "coordinator.log"};
    fr_buf told = {0};
    for (size_t i = 0; i < sizeof logs / sizeof *logs; i++) {
        char log[PATH_MAX];
        file_in(c, logs[i], log);
        fr_log_warnings(log, &told);
    }
    fr_buf_free(&told);
}

fr_status fr_cluster_start(const fr_client_config *config, const fr_cluster_options *options,
                           fr_cluster **out)
{
    fr_status st;
    fr_cluster *c = calloc(1, sizeof *c);
    if (!c)
        return fr_no_memory();
    FR_TRY_GOTO(st, make_dir(c, config->temp_dir), fail);
    FR_TRY_GOTO(st, start_coordinator(c, config, options), fail);
    FR_TRY_GOTO(st, start_worker(c, config, options), fail);
    FR_TRY_GOTO(
        st, fr_cluster_wait_ready(&c->call, options->draft != NULL, MODELS_MS, check_children, c),
        fail);
    pass_on_warnings(c);
    *out = c;
    return FR_OK;
fail:
    if (c->dir[0])
        pass_on_warnings(c); /* they may tell what led to the cause */
    if (st == FR_EPEER) /* it never was there */
        st = fr_fail(FR_EUNAVAILABLE, "%s", fr_cause());
    fr_cluster_stop(&c);
    return st;
}

fr_call *fr_cluster_call(fr_cluster *c)
{
    return &c->call;
}

void fr_cluster_stop(fr_cluster **cluster)
{
    fr_cluster *c = *cluster;
    if (!c)
        return;
    char cause[512]; /* stopping must not hide why */
    snprintf(cause, sizeof cause, "%s", fr_cause());
    if (c->call.link && fr_process_running(&c->coordinator)) {
        fr_msg stop = {.kind = FR_MSG_STOP_CLUSTER};
        if (fr_call_send(&c->call, &stop) == FR_OK && fr_process_wait(&c->coordinator, STOP_MS))
            fr_process_wait(&c->worker, STOP_MS);
    }
    fr_process_stop(&c->worker, STOP_MS);
    fr_process_stop(&c->coordinator, STOP_MS);
    fr_call_close(&c->call, 0);
    if (c->dir[0])
        remove_dir(c->dir);
    free(c);
    *cluster = NULL;
    if (cause[0])
        fr_fail(FR_EIO, "%s", cause);
}
