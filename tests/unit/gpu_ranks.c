/* gpu_ranks.c: see gpu_ranks.h. */
#include "gpu_ranks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "clock.h"
#include "fake_cuda.h"

static _Thread_local bool is_missing; /* NCCL, for the rank that this thread is */

void gpu_rank_is_without_nccl(bool without)
{
    is_missing = without;
}

fr_status __wrap_fr_nccl_open(void);
fr_status __wrap_fr_nccl_open(void)
{
    return is_missing ? fr_fail(FR_EUNAVAILABLE, "NCCL: libnccl.so.2 is missing") : FR_OK;
}

void gpu_ranks_reset(int devices)
{
    fake_cuda_reset();
    fake_cuda_set_devices(devices);
}

static void run(rank_thread *ranks, int n, fr_status (*act)(rank_thread *r), const void *input)
{
    rank_threads_set_up(ranks, n, n, act);
    for (int i = 0; i < n; i++)
        ranks[i].input = input;
    rank_threads_run(ranks, n);
}

void gpu_ranks_run(rank_thread *ranks, int n, fr_status (*act)(rank_thread *r), const void *input)
{
    run(ranks, n, act, input);
    for (int ms = 0; fake_cuda_count().comms > 0 && ms < LONG_MS; ms++) /* of a rank that did not wait for NCCL */
        fr_sleep_ms(1);
    assert_true(fake_cuda_all_freed());
}

void gpu_ranks_run_well(int n, fr_status (*act)(rank_thread *r), const void *input)
{
    rank_thread ranks[MOST_RANKS];
    run(ranks, n, act, input);
    assert_true(fake_cuda_all_freed());
    rank_threads_ended(ranks, n, FR_OK, "");
}
