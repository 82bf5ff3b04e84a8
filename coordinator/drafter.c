/* drafter.c: see drafter.h. The thread owns the session; what it leaves behind is read only after
 * `ended` is set. */
#include "drafter.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "comm.h"
#include "log.h"
#include "serve.h"

struct fr_drafter {
    fr_drafter_options options;
    pthread_t thread;
    atomic_int stop, ended;
    int loaded;
    fr_status status;
    char cause[512];
};

static fr_status load_and_serve(fr_drafter *d)
{
    const fr_drafter_options *o = &d->options;
    fr_comm *comm = NULL;
    fr_session *session = NULL;
    fr_status st = FR_OK;
    const fr_session_options session_options = {.backend = o->backend,
                                                .gpus = o->gpus,
                                                .threads = o->threads,
                                                .max_context = o->max_context,
                                                .draft_vocab = o->draft_vocab,
                                                .draft_weights = o->draft_weights};
    char name[64];
    snprintf(name, sizeof name, "drafter-%ld", (long)getpid());
    FR_TRY(fr_comm_self_open(&comm));
    FR_TRY_GOTO(st, fr_session_open(o->model, comm, &session_options, &session), done);
    fr_log(FR_LOG_INFO, "drafter: model loaded in %.2f s", fr_session_info_of(session)->load_s);
    d->loaded = 1;
    const fr_serve_options serve = {
        .endpoint = o->endpoint, .role = "draft", .name = name, .stop = &d->stop};
    st = fr_serve(session, &serve);
done:
    if (st != FR_OK)
        snprintf(d->cause, sizeof d->cause, "%s", fr_cause());
    fr_session_close(&session);
    comm->ops->close(&comm);
    return st;
}

static void *run(void *arg)
{
    fr_drafter *d = arg;
    const uint64_t one = 1;
    d->status = load_and_serve(d);
    atomic_store(&d->ended, 1);
    if (write(d->options.wake_fd, &one, sizeof one) <
        0) /* only when its counter is full: then it is readable anyway */
        fr_log(FR_LOG_DEBUG, "the drafter's end was announced already");
    return NULL;
}

fr_status fr_drafter_start(const fr_drafter_options *options, fr_drafter **out)
{
    sigset_t all, before;
    fr_drafter *d = calloc(1, sizeof *d);
    if (!d)
        return fr_no_memory();
    d->options = *options;
    /* Signals are the main thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&d->thread, NULL, run, d);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        free(d);
        return fr_fail(FR_EIO, "no thread for the drafter (error %d)", rc);
    }
    *out = d;
    return FR_OK;
}

int fr_drafter_ended(const fr_drafter *d, fr_status *status_out, int *loaded_out)
{
    if (!atomic_load(&d->ended))
        return 0;
    *status_out = d->status;
    *loaded_out = d->loaded;
    return 1;
}

const char *fr_drafter_cause(const fr_drafter *d)
{
    return d->cause;
}

void fr_drafter_close(fr_drafter **d)
{
    if (!d || !*d)
        return;
    atomic_store(&(*d)->stop, 1);
    pthread_join((*d)->thread, NULL);
    free(*d);
    *d = NULL;
}
