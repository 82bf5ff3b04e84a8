/* test_comm_nccl_ends.c: what becomes of a group over NCCL, with a fake GPU and a fake NCCL (cuda_on_cpu), when a rank
 * stalls, ends or is stopped, or a call fails: all ranks end in time, with the cause of the one that noticed, and
 * nothing leaks. */
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "check.h"
#include "clock.h"
#include "fake_cuda.h"
#include "nccl.h"
#include "nccl_group.h"

static const fr_ops *const ops = &stream_device_ops;

static fr_status sum_once(rank_thread *r, fr_comm *c, fr_device *dev)
{
    FR_TRY(ops->mem_alloc(dev, sizeof(float), &r->summed));
    fr_status st = c->ops->all_reduce_sum(c, r->summed, 1);
    if (st == FR_OK)
        st = ops->sync(dev);
    const bool told_again = st == FR_OK || c->ops->agree(c, FR_OK) == st;
    return told_again ? st : fr_fail(FR_EMISMATCH, "the group goes on");
}

/* Rank 2 hangs for longer than the others wait. */
static fr_status sum_without_2(rank_thread *r, fr_comm *c, fr_device *dev)
{
    if (r->options.rank != 2)
        return sum_once(r, c, dev);
    fr_sleep_ms(4000);
    return FR_OK;
}

static void test_stalled_rank(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true, .timeout_ms = SHORT_MS}, .use = sum_without_2};
    rank_thread ranks[3];
    gpu_ranks_run(ranks, 3, nccl_group_act, &p);
    for (int i = 0; i < 2; i++) {
        rank_thread_ended(&ranks[i], FR_EPEER, "collective 1 did not end in 300 ms");
        rank_thread_ended(&ranks[i], FR_EPEER, "; no word from rank 2");
    }
}

/* The same in the middle of its stream: its host waits as the others' do, and so has a word for them. */
static fr_status hang_in_2(rank_thread *r, fr_comm *c, fr_device *dev)
{
    if (r->options.rank == 0)
        fake_nccl_trouble(2, 1, ncclSuccess);
    FR_TRY(r->comm->ops->agree(r->comm, FR_OK));
    return sum_once(r, c, dev);
}

static void test_stalled_stream(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true, .timeout_ms = SHORT_MS}, .use = hang_in_2};
    rank_thread ranks[3];
    gpu_ranks_run(ranks, 3, nccl_group_act, &p);
    rank_threads_ended(ranks, 3, FR_EPEER, "collective 1 did not end in 300 ms; every rank is still there");
}

/* All know why while NCCL still has every GPU: to leave it takes as long as it does, and the first rank to end may take
 * the others along. */
static pthread_barrier_t all_told;
static atomic_int n_with_nccl; /* of the ranks that were told */

static void count_with_nccl(const rank_thread *r)
{
    pthread_barrier_wait(&all_told);
    if (r->options.rank == 0)
        n_with_nccl = fake_cuda_count().comms;
    pthread_barrier_wait(&all_told);
}

static fr_status hang_in_2_and_count(rank_thread *r, fr_comm *c, fr_device *dev)
{
    const fr_status st = hang_in_2(r, c, dev);
    count_with_nccl(r);
    return st;
}

/* Here rank 2 hangs as NCCL is tried out. */
static fr_status open_and_count(rank_thread *r)
{
    const nccl_plan *p = r->input;
    fr_device *dev = NULL;
    fr_comm *c = NULL;
    FR_TRY(ops->open(&(fr_device_options){.local_rank = r->options.rank}, &dev));
    const fr_status st = fr_comm_nccl_open(r->comm, ops, dev, &p->options, &c);
    count_with_nccl(r);
    if (c)
        c->ops->close(&c);
    ops->close(&dev);
    return st;
}

static void test_told_before_nccl_is_left(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true, .connect_ms = SHORT_MS, .timeout_ms = SHORT_MS},
                         .use = hang_in_2_and_count};
    for (int opening = 0; opening < 2; opening++) {
        rank_thread ranks[3];
        assert_int_equal(pthread_barrier_init(&all_told, NULL, 3), 0);
        if (opening)
            fake_nccl_trouble(2, 1, ncclSuccess);
        gpu_ranks_run(ranks, 3, opening ? open_and_count : nccl_group_act, &p);
        pthread_barrier_destroy(&all_told);
        rank_threads_ended(ranks, 3, FR_EPEER, "collective 1 did not end in 300 ms; every rank is still there");
        assert_int_equal(n_with_nccl, 3);
    }
}

/* And NCCL does not let go of rank 0's GPU for longer than anybody waits: rank 0 says so, and goes on without. */
static void test_slow_abort(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true, .timeout_ms = SHORT_MS}, .use = hang_in_2};
    rank_thread ranks[3];
    char said[1024] = "";
    FILE *log = tmpfile();
    const int out = dup(STDERR_FILENO);
    assert_true(log && out >= 0 && dup2(fileno(log), STDERR_FILENO) >= 0);
    fake_nccl_slow(FAKE_NCCL_ABORT, 0, 2 * FR_COMM_LEAVE_MS);
    gpu_ranks_run(ranks, 3, nccl_group_act, &p);
    dup2(out, STDERR_FILENO);
    close(out);
    rewind(log);
    said[fread(said, 1, sizeof said - 1, log)] = '\0';
    fclose(log);
    rank_threads_ended(ranks, 3, FR_EPEER, ": collective 1 did not end in 300 ms; every rank is still there");
    if (!strstr(said, "warning: rank 0: NCCL has not left this rank's GPU"))
        fail_msg("it says \"%s\"", said);
}

/* NCCL of one rank says that it lost another; the others, whose waits are long, hear it from there. */
static fr_status lose_in_1(rank_thread *r, fr_comm *c, fr_device *dev)
{
    if (r->options.rank == 0)
        fake_nccl_trouble(1, 1, ncclRemoteError);
    FR_TRY(r->comm->ops->agree(r->comm, FR_OK));
    return sum_once(r, c, dev);
}

static void test_remote_error(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true, .timeout_ms = LONG_MS}, .use = lose_in_1};
    rank_thread ranks[3];
    gpu_ranks_run(ranks, 3, nccl_group_act, &p);
    rank_threads_ended(ranks, 3, FR_EPEER, "rank 1: NCCL: a collective failed: remote process exited");
}

static fr_status fail_in_0(rank_thread *r, fr_comm *c, fr_device *dev)
{
    if (r->options.rank == 0)
        fake_cuda_fail("ncclAllGather", 1, ncclInternalError);
    FR_TRY(r->comm->ops->agree(r->comm, FR_OK)); /* only rank 0's comes first */
    if (r->options.rank != 0)
        fr_sleep_ms(500);
    return sum_once(r, c, dev);
}

static void test_failing_launch(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true, .timeout_ms = LONG_MS}, .use = fail_in_0};
    rank_thread ranks[3];
    gpu_ranks_run(ranks, 3, nccl_group_act, &p);
    for (int i = 0; i < 3; i++) {
        rank_thread_ended(&ranks[i], FR_EPEER, "rank 0: NCCL: a collective failed: ");
        rank_thread_ended(&ranks[i], FR_EPEER, "; every rank is still there");
    }
}

static fr_status never(rank_thread *r, fr_comm *c, fr_device *dev)
{
    (void)r, (void)c, (void)dev;
    return FR_OK;
}

static void test_failing_init(void **state)
{
    static const char *const calls[] = {"ncclGetUniqueId", "ncclCommInitRankConfig"};
    static const char *const causes[] = {"rank 0: NCCL: ncclGetUniqueId: ", ": NCCL: connecting the ranks: "};
    const nccl_plan p = {.options = {.batch_invariant = true, .connect_ms = SHORT_MS}, .use = never};
    (void)state;
    for (int call = 0; call < 2; call++) {
        rank_thread ranks[3];
        fake_cuda_fail(calls[call], 1, ncclSystemError);
        gpu_ranks_run(ranks, 3, nccl_group_act, &p);
        rank_threads_ended(ranks, 3, FR_EPEER, causes[call]);
    }
}

/* NCCL takes seconds to start, whatever a sum may take; what it may take has a limit of its own. */
static void test_slow_init(void **state)
{
    (void)state;
    nccl_plan p = {.options = {.batch_invariant = true, .timeout_ms = SHORT_MS}, .use = never};
    rank_thread ranks[3];
    fake_nccl_slow(FAKE_NCCL_INIT, 1, 2 * SHORT_MS);
    gpu_ranks_run_well(3, nccl_group_act, &p);
    p.options.connect_ms = SHORT_MS;
    gpu_ranks_run(ranks, 3, nccl_group_act, &p);
    rank_threads_ended(ranks, 3, FR_EPEER, "NCCL did not connect 3 ranks in 300 ms");
}

/* While NCCL is tried out one rank has no memory for its sum: that is everyone's cause, at once, not that it did not
 * come. */
static void test_failing_proof(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true, .timeout_ms = LONG_MS}, .use = never};
    rank_thread ranks[3];
    const uint64_t start = fr_now_ns();
    fake_cuda_fail_on(1, "cudaMalloc", 2, cudaErrorMemoryAllocation); /* the first is of what is summed */
    gpu_ranks_run(ranks, 3, nccl_group_act, &p);
    assert_true((fr_now_ns() - start) / 1000000 < LONG_MS / 2);
    rank_threads_ended(ranks, 3, FR_EPEER, "rank 1: cudaMalloc: ");
}

/* Rank 2 hangs when all sums have ended: what the hosts tell each other has the host communicator's patience. */
static fr_status agree_without_2(rank_thread *r, fr_comm *c, fr_device *dev)
{
    FR_TRY(sum_once(r, c, dev));
    r->comm->patience.ms = SHORT_MS;
    if (r->options.rank != 2)
        return c->ops->agree(c, FR_OK);
    fr_sleep_ms(3 * SHORT_MS);
    return FR_OK;
}

static void test_stalled_after_the_sums(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true, .timeout_ms = LONG_MS}, .use = agree_without_2};
    rank_thread ranks[3];
    gpu_ranks_run(ranks, 3, nccl_group_act, &p);
    for (int i = 0; i < 2; i++)
        rank_thread_ended(&ranks[i], FR_EPEER, "rank 0: no word from rank 2 in 300 ms");
}

/* Rank 2 ends between passes. The leader sees it when it looks, as it does while there is nothing to do, and rank 1,
 * which waits for a command, hears it from there. */
static fr_status idle_without_2(rank_thread *r, fr_comm *c, fr_device *dev)
{
    const void *data = NULL;
    size_t bytes = 0;
    FR_TRY(sum_once(r, c, dev));
    if (r->options.rank == 1)
        return c->ops->command_wait(c, &data, &bytes);
    fr_status st = FR_OK;
    while (r->options.rank == 0 && (st = c->ops->look(c)) == FR_OK)
        fr_sleep_ms(1);
    return st;
}

static fr_status act_and_2_leaves(rank_thread *r)
{
    const fr_status st = nccl_group_act(r);
    if (r->options.rank == 2 && st == FR_OK)
        r->comm->ops->close(&r->comm);
    return st;
}

static void test_gone_between_passes(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true, .timeout_ms = LONG_MS}, .use = idle_without_2};
    rank_thread ranks[3];
    gpu_ranks_run(ranks, 3, act_and_2_leaves, &p);
    rank_thread_ended(&ranks[0], FR_EPEER, "rank 0: rank 2 is gone; no word from rank 2");
    rank_thread_ended(&ranks[1], FR_EPEER, "rank 0: rank 2 is gone");
}

/* Rank 2 does not come to the sum, and the others are told to end. */
static fr_status stop_without_2(rank_thread *r, fr_comm *c, fr_device *dev)
{
    static const atomic_int stopped = 1;
    r->comm->patience.stop = &stopped;
    if (r->options.rank != 2)
        return sum_once(r, c, dev);
    fr_sleep_ms(2 * FR_COMM_STOP_MS);
    return FR_OK;
}

static void test_stopped(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true, .timeout_ms = LONG_MS}, .use = stop_without_2};
    rank_thread ranks[3];
    gpu_ranks_run(ranks, 3, nccl_group_act, &p);
    for (int i = 0; i < 2; i++)
        rank_thread_ended(&ranks[i], FR_EPEER, "collective 1 had not ended when the rank was stopped");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_stalled_rank, nccl_group_set_up),
        cmocka_unit_test_setup(test_stalled_stream, nccl_group_set_up),
        cmocka_unit_test_setup(test_told_before_nccl_is_left, nccl_group_set_up),
        cmocka_unit_test_setup(test_slow_abort, nccl_group_set_up),
        cmocka_unit_test_setup(test_remote_error, nccl_group_set_up),
        cmocka_unit_test_setup(test_failing_launch, nccl_group_set_up),
        cmocka_unit_test_setup(test_failing_init, nccl_group_set_up),
        cmocka_unit_test_setup(test_slow_init, nccl_group_set_up),
        cmocka_unit_test_setup(test_failing_proof, nccl_group_set_up),
        cmocka_unit_test_setup(test_stalled_after_the_sums, nccl_group_set_up),
        cmocka_unit_test_setup(test_gone_between_passes, nccl_group_set_up),
        cmocka_unit_test_setup(test_stopped, nccl_group_set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
