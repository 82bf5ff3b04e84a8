/* main.c: forerun-coordinator. It opens the loop, which binds the endpoint; starts the drafter, if
 * it is to host one; joins the workers of the same mpirun, if it was started by one; tells its
 * endpoint; and runs until it is stopped.
 *
 * Exit codes: 0 stopped as told, 1 failed, 2 bad usage or bad input (also a port or store that is
 * in use). */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "check.h"
#include "comm.h"
#include "drafter.h"
#include "log.h"
#include "loop.h"
#include "options.h"

#define INNER "inproc://forerun-drafter"

typedef struct program {
    fr_options options;
    fr_coordinator *coordinator;
    fr_drafter *drafter;
    fr_comm *mpi;
    char endpoint[320]; /* as others reach it */
    fr_status status;   /* why it ends by itself, and the cause */
    char cause[512];
} program;

/* For the signal handler. */
static int wake_fd = -1;
static volatile sig_atomic_t n_signals;

/* The first signal wakes the loop, which leaves in order; the second does not wait. */
static void on_signal(int number)
{
    const uint64_t one = 1;
    if (++n_signals > 1)
        _exit(128 + number);
    int saved = errno;
    if (write(wake_fd, &one, sizeof one) < 0)
        _exit(128 + number);
    errno = saved;
}

static void on_wake(void *ctx)
{
    program *p = ctx;
    uint64_t n = 0;
    fr_status status = FR_OK;
    int loaded = 0;
    if (read(wake_fd, &n, sizeof n) < 0 && errno != EAGAIN)
        fr_log(FR_LOG_WARN, "eventfd: %s", strerror(errno));
    if (n_signals) {
        fr_log(FR_LOG_INFO, "told to stop by a signal");
        fr_coordinator_stop(p->coordinator);
    }
    if (!p->drafter || !fr_drafter_ended(p->drafter, &status, &loaded))
        return;
    if (!loaded) { /* bad input, a missing file too: what was asked for cannot be done */
        p->status = status == FR_EIO ? FR_ENOTFOUND : status;
        snprintf(p->cause, sizeof p->cause, "%s", fr_drafter_cause(p->drafter));
        fr_coordinator_stop(p->coordinator);
    } else if (!n_signals) {
        fr_log(FR_LOG_ERROR, "the drafter has ended: %s",
               status == FR_OK ? "told to" : fr_drafter_cause(p->drafter));
        fr_coordinator_no_drafter(p->coordinator);
    }
    fr_drafter_close(&p->drafter);
}

static fr_status catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (wake_fd < 0)
        return fr_fail(FR_EIO, "eventfd: %s", strerror(errno));
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &action, NULL);
    return FR_OK;
}

/* An endpoint that is bound to all addresses is told with a host's name in their place. */
static fr_status make_endpoint(program *p)
{
    const char *bound = fr_coordinator_endpoint(p->coordinator);
    const char *const all[] = {"tcp://0.0.0.0:", "tcp://*:", "tcp://[::]:"};
    char host[256] = "";
    snprintf(p->endpoint, sizeof p->endpoint, "%s", bound);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strncmp(bound, all[i], strlen(all[i])) != 0)
            continue;
        if (p->options.advertise)
            snprintf(host, sizeof host, "%s", p->options.advertise);
        else if (gethostname(host, sizeof host - 1) != 0)
            return fr_fail(FR_EIO, "this host's name: %s", strerror(errno));
        snprintf(p->endpoint, sizeof p->endpoint, "tcp://%s:%s", host, bound + strlen(all[i]));
    }
    return FR_OK;
}

/* Whole or not at all: who waits for the file reads it at once. */
static fr_status write_ready_file(const char *path, const char *endpoint)
{
    char temporary[4096];
    if (snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid()) >=
        (int)sizeof temporary)
        return fr_fail(FR_EINVAL, "ready file: its path is too long");
    FILE *f = fopen(temporary, "we");
    if (!f)
        return fr_fail(FR_EIO, "ready file %s: %s", temporary, strerror(errno));
    int ok = fprintf(f, "%s\n", endpoint) > 0 && fflush(f) == 0 && fsync(fileno(f)) == 0;
    int error = errno;
    if (fclose(f) != 0 && ok) {
        ok = 0;
        error = errno;
    }
    if (ok && rename(temporary, path) != 0) {
        ok = 0;
        error = errno;
    }
    if (!ok) {
        unlink(temporary);
        return fr_fail(FR_EIO, "ready file %s: %s", path, strerror(error));
    }
    return FR_OK;
}

/* Under the workers' mpirun: tells them the endpoint. It uses MPI for nothing else. */
static fr_status join_mpi(program *p)
{
    if (!fr_comm_mpi_launched())
        return FR_OK;
    char text[sizeof p->endpoint];
    memcpy(text, p->endpoint, sizeof text);
    FR_TRY(fr_comm_mpi_share_text(text, sizeof text));
    return fr_comm_mpi_open(0, &p->mpi);
}

static fr_status start_drafter(program *p)
{
    const fr_options *o = &p->options;
    if (!o->draft)
        return FR_OK;
    const fr_drafter_options drafter = {.model = o->draft,
                                        .endpoint = INNER,
                                        .backend = o->draft_backend,
                                        .gpus = o->draft_gpu,
                                        .threads = o->draft_threads,
                                        .max_context = o->draft_context,
                                        .draft_vocab = o->draft_vocab,
                                        .draft_weights = o->draft_weights,
                                        .wake_fd = wake_fd};
    return fr_drafter_start(&drafter, &p->drafter);
}

static fr_status run(program *p)
{
    fr_coordinator_options o = p->options.coordinator;
    FR_TRY(catch_signals());
    o.inner = p->options.draft ? INNER : NULL;
    o.wake_fd = wake_fd;
    o.woken = on_wake;
    o.ctx = p;
    FR_TRY(fr_coordinator_open(&o, &p->coordinator));
    FR_TRY(make_endpoint(p));
    FR_TRY(start_drafter(p));
    FR_TRY(join_mpi(p));
    if (p->options.ready_file)
        FR_TRY(write_ready_file(p->options.ready_file, p->endpoint));
    fr_log(FR_LOG_INFO, "listening on %s", p->endpoint);
    FR_TRY(fr_coordinator_run(p->coordinator));
    return p->status == FR_OK ? FR_OK : fr_fail(p->status, "%s", p->cause);
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
    case FR_ELIMIT:
    case FR_EBUSY:
    case FR_EMISMATCH:
        return 2;
    default:
        return 1;
    }
}

int main(int argc, char **argv)
{
    static program p;
    if (fr_options_parse(argc, argv, &p.options) != FR_OK)
        return exit_code(FR_EINVAL); /* a line has told */
    fr_log_open("forerun-coordinator", p.options.log);
    fr_status st = run(&p);
    if (st != FR_OK)
        fr_log(FR_LOG_ERROR, "%s", fr_cause());
    fr_coordinator_farewell(p.coordinator); /* the drafter hears it, and may still answer */
    fr_drafter_close(&p.drafter);
    fr_coordinator_close(&p.coordinator);
    if (p.mpi)
        p.mpi->ops->close(&p.mpi);
    return exit_code(st);
}
