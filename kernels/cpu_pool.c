/* cpu_pool.c: see cpu_pool.h.
 *
 * All hand-over goes through one atomic word, `state`: the number of the loop (upper 32 bits),
 * whether it takes helpers (OPEN), and how many helpers are in it.
 *   1. The caller writes the loop's fields, then publishes number + 1 with OPEN set and no helpers.
 *   2. A helper that sees a new number joins by compare-and-swap, only while OPEN. So it can never
 *      touch the fields of a loop that has ended.
 *   3. Each thread claims pieces of its own portion of the items, then of the others' until none
 *      are left. So a thread reads memory in one run, which prefetchers follow. Against pieces
 *      taken in turn from one queue, decoding the 0.5B was 8% faster, and verifying 8 tokens with
 *      the 1.5B took 41.5 ms, not 46.9.
 *   4. The caller clears OPEN and waits until the helpers that joined have left. Only then may it
 *      write the fields again.
 * Sleepers are counted before they look at the state a last time, and the caller looks at the count
 * after publishing (both sequentially consistent), so no wake-up is lost. */
#include "cpu_pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_place.h"

#define OPEN ((uint64_t)1 << 31)
#define HELPERS (OPEN - 1)
#define SPINS 1000 /* pauses before sleeping: 15 to 50 microseconds */

/* Of the items of a loop; each on a cache line of its own. */
typedef struct portion {
    _Alignas(64) atomic_int_least64_t next;
    int64_t end;
} portion;

typedef struct helper {
    pthread_t id;
    fr_pool *pool;
    int number; /* from 1; the caller is 0 */
} helper;

struct fr_pool {
    int threads, started; /* threads counts the caller; started are the helpers that exist */
    int spins;
    helper *helpers;
    pthread_mutex_t lock;
    pthread_cond_t wake, left;
    atomic_uint_least64_t state;
    atomic_int sleepers; /* helpers in, or about to be in, pthread_cond_wait(wake) */
    atomic_bool caller_sleeps, stop;
    /* the loop */
    fr_pool_fn fn;
    void *ctx;
    int64_t grain;
    portion *portions; /* [threads] */
};

static void pause_briefly(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void work_on(fr_pool *p, portion *part)
{
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&part->next, p->grain, memory_order_relaxed);
        if (begin >= part->end)
            return;
        p->fn(p->ctx, begin, begin + p->grain < part->end ? begin + p->grain : part->end);
    }
}

static void work(fr_pool *p, int number)
{
    for (int i = 0; i < p->threads; i++)
        work_on(p, &p->portions[(number + i) % p->threads]);
}

static void divide(fr_pool *p, int64_t n)
{
    int64_t pieces = (n + p->grain - 1) / p->grain;
    for (int t = 0; t < p->threads; t++) {
        int64_t begin = pieces * t / p->threads * p->grain;
        int64_t end = pieces * (t + 1) / p->threads * p->grain;
        atomic_store_explicit(&p->portions[t].next, begin, memory_order_relaxed);
        p->portions[t].end = end < n ? end : n;
    }
}

/* Returns once there is a loop that is not number `seen`, or the pool stops. */
static void await_loop(fr_pool *p, uint64_t seen)
{
    for (int i = 0; i < p->spins; i++) {
        if (atomic_load_explicit(&p->state, memory_order_relaxed) >> 32 != seen)
            return;
        pause_briefly();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->state) >> 32 == seen && !atomic_load(&p->stop))
        pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void leave_loop(fr_pool *p)
{
    uint64_t after = atomic_fetch_sub(&p->state, 1) - 1;
    if ((after & (OPEN | HELPERS)) != 0 || !atomic_load(&p->caller_sleeps))
        return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_signal(&p->left);
    pthread_mutex_unlock(&p->lock);
}

static void *helper_main(void *arg)
{
    const helper *me = arg;
    fr_pool *p = me->pool;
    uint64_t seen = 0;
    while (!atomic_load(&p->stop)) {
        await_loop(p, seen);
        uint64_t state = atomic_load(&p->state);
        seen = state >> 32;
        while (state & OPEN) {
            if (atomic_compare_exchange_weak(&p->state, &state, state + 1)) {
                work(p, me->number);
                leave_loop(p);
                break;
            }
            seen = state >> 32;
        }
    }
    return NULL;
}

static void await_helpers(fr_pool *p)
{
    for (int i = 0; i < p->spins; i++) {
        if ((atomic_load(&p->state) & HELPERS) == 0)
            return;
        pause_briefly();
    }
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->caller_sleeps, true);
    while ((atomic_load(&p->state) & HELPERS) != 0)
        pthread_cond_wait(&p->left, &p->lock);
    atomic_store(&p->caller_sleeps, false);
    pthread_mutex_unlock(&p->lock);
}

void fr_pool_run(fr_pool *p, int64_t n, int64_t grain, fr_pool_fn fn, void *ctx)
{
    if (p->threads == 1 || n <= grain) {
        if (n > 0)
            fn(ctx, 0, n);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->grain = grain;
    divide(p, n);
    uint64_t number = (atomic_load(&p->state) >> 32) + 1;
    atomic_store(&p->state, number << 32 | OPEN);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    work(p, 0);
    atomic_fetch_and(&p->state, ~OPEN);
    await_helpers(p);
}

/* Can all threads run at once? Then waiting ones may spin; else they would take a core from those
 * they wait for. */
static bool enough_hw_threads(int threads)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 && threads <= CPU_COUNT(&set);
}

fr_status fr_pool_new(int threads, fr_pool **out)
{
    if (threads < 0 || threads > 1024)
        return fr_fail(FR_EINVAL, "%d threads asked for, want 0 to 1024", threads);
    fr_pool *p = calloc(1, sizeof *p);
    if (!p)
        return fr_no_memory();
    p->threads = threads ? threads : fr_place_cores();
    p->spins = enough_hw_threads(p->threads) ? SPINS : 0;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->left, NULL);
    p->helpers = calloc((size_t)p->threads, sizeof *p->helpers);
    p->portions = aligned_alloc(_Alignof(portion), (size_t)p->threads * sizeof *p->portions);
    if (!p->helpers || !p->portions) {
        fr_pool_free(&p);
        return fr_no_memory();
    }
    for (; p->started < p->threads - 1; p->started++) {
        helper *h = &p->helpers[p->started];
        *h = (helper){.pool = p, .number = p->started + 1};
        int error = pthread_create(&h->id, NULL, helper_main, h);
        if (error) {
            fr_pool_free(&p);
            return fr_fail(FR_EUNAVAILABLE, "cannot start a compute thread: %s", strerror(error));
        }
    }
    *out = p;
    return FR_OK;
}

void fr_pool_free(fr_pool **pp)
{
    fr_pool *p = *pp;
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->started; i++)
        pthread_join(p->helpers[i].id, NULL);
    pthread_cond_destroy(&p->left);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p->helpers);
    free(p->portions);
    free(p);
    *pp = NULL;
}

int fr_pool_threads(const fr_pool *p)
{
    return p->threads;
}
