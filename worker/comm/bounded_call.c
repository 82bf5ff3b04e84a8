/* bounded_call.c: see bounded_call.h. */
#include "bounded_call.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

typedef struct bounded_call {
    void (*call)(void *arg);
    void *arg;
} bounded_call;

static void *run(void *ctx)
{
    const bounded_call b = *(bounded_call *)ctx;
    free(ctx);
    b.call(b.arg);
    return NULL;
}

static struct timespec from_now(int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000L;
    t.tv_sec += t.tv_nsec / 1000000000L;
    t.tv_nsec %= 1000000000L;
    return t;
}

bool fr_bounded_call(void (*call)(void *arg), void *arg, int ms)
{
    pthread_t thread;
    bounded_call *b = malloc(sizeof *b);
    if (b)
        *b = (bounded_call){call, arg};
    if (!b || pthread_create(&thread, NULL, run, b) != 0) {
        free(b);
        call(arg);
        return true;
    }
    const struct timespec end = from_now(ms);
    if (pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &end) == 0)
        return true;
    pthread_detach(thread);
    return false;
}
