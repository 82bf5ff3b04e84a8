/* bounded_call.c: see bounded_call.h. The call belongs to both threads; who is last to need it frees it. */
#include "bounded_call.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

typedef struct bounded_call {
    void (*call)(void *arg);
    void *arg;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t over;  /* of the monotonic clock */
    bool returned, left_alone;
} bounded_call;

static bounded_call *new_call(void (*call)(void *arg), void *arg)
{
    bounded_call *b = calloc(1, sizeof *b);
    pthread_condattr_t monotonic;
    if (!b)
        return NULL;
    b->call = call;
    b->arg = arg;
    pthread_mutex_init(&b->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&b->over, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return b;
}

static void free_call(bounded_call *b)
{
    pthread_cond_destroy(&b->over);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

static void *run(void *ctx)
{
    bounded_call *b = ctx;
    b->call(b->arg);
    pthread_mutex_lock(&b->lock);
    b->returned = true;
    const bool is_mine = b->left_alone;
    pthread_cond_signal(&b->over);
    pthread_mutex_unlock(&b->lock);
    if (is_mine)
        free_call(b);
    return NULL;
}

static bool begin(bounded_call *b)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, b) != 0)
        return false;
    pthread_detach(thread);
    return true;
}

static bool wait_for(bounded_call *b, int ms)
{
    struct timespec end;
    int late = 0;
    clock_gettime(CLOCK_MONOTONIC, &end);
    const long ns = end.tv_nsec + ms % 1000 * 1000000L;
    end.tv_sec += ms / 1000 + ns / 1000000000L;
    end.tv_nsec = ns % 1000000000L;
    pthread_mutex_lock(&b->lock);
    while (!b->returned && late == 0)
        late = pthread_cond_timedwait(&b->over, &b->lock, &end);
    const bool returned = b->returned;
    b->left_alone = !returned;
    pthread_mutex_unlock(&b->lock);
    if (returned)
        free_call(b);
    return returned;
}

bool fr_bounded_call(void (*call)(void *arg), void *arg, int ms)
{
    bounded_call *b = new_call(call, arg);
    if (b && begin(b))
        return wait_for(b, ms);
    if (b)
        free_call(b);
    call(arg);
    return true;
}
