/* test_nccl.c: the fake NCCL between ranks that are threads: sums, copies, groups, graphs, calls that
 * do not block, a rank that hangs or fails, and ranks that do not do the same. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dying.h"
#include "fake_cuda.h"
#include "nccl.h"

enum { RANKS = 3, N = 10 };

typedef struct rank {
    int rank;
    int non_blocking;
    ncclUniqueId id;
    ncclComm_t comm;
    cudaStream_t stream;
    float *x, *all; /* device [N], [RANKS][N] */
    float host[RANKS * N];
    void (*body)(struct rank *);
    int failures;
    pthread_t thread;
} rank;

/* cmocka's assertions work in the main thread only. */
#define CHECK(r, condition)                                                             \
    do {                                                                                \
        if (!(condition)) {                                                             \
            fprintf(stderr, "line %d, rank %d: %s\n", __LINE__, (r)->rank, #condition); \
            (r)->failures++;                                                            \
        }                                                                               \
    } while (0)

static ncclResult_t settle(rank *r, ncclResult_t result)
{
    while (result == ncclInProgress) {
        CHECK(r, ncclCommGetAsyncError(r->comm, &result) == ncclSuccess);
        sched_yield();
    }
    return result;
}

static void *run_rank(void *arg)
{
    rank *r = arg;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = !r->non_blocking;
    for (int i = 0; i < N; i++)
        r->host[i] = (float)(r->rank * 100 + i);
    CHECK(r, cudaSetDevice(r->rank) == cudaSuccess);
    CHECK(r, cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking) == cudaSuccess);
    CHECK(r, cudaMalloc((void **)&r->x, N * sizeof(float)) == cudaSuccess);
    CHECK(r, cudaMalloc((void **)&r->all, RANKS * N * sizeof(float)) == cudaSuccess);
    CHECK(r, cudaMemcpy(r->x, r->host, N * sizeof(float), cudaMemcpyHostToDevice) == cudaSuccess);
    const ncclResult_t began = ncclCommInitRankConfig(&r->comm, RANKS, r->id, r->rank, &config);
    CHECK(r, began == (r->non_blocking ? ncclInProgress : ncclSuccess));
    CHECK(r, settle(r, began) == ncclSuccess);
    r->body(r);
    if (r->comm) {
        CHECK(r, settle(r, ncclCommFinalize(r->comm)) == ncclSuccess);
        CHECK(r, ncclCommDestroy(r->comm) == ncclSuccess);
    }
    CHECK(r, cudaFree(r->x) == cudaSuccess);
    CHECK(r, cudaFree(r->all) == cudaSuccess);
    CHECK(r, cudaStreamDestroy(r->stream) == cudaSuccess);
    return NULL;
}

static int run_ranks(void (*body)(rank *), int non_blocking)
{
    rank ranks[RANKS] = {0};
    int failures = 0;
    ncclUniqueId id;
    ncclGetUniqueId(&id);
    for (int i = 0; i < RANKS; i++) {
        ranks[i].rank = i;
        ranks[i].non_blocking = non_blocking;
        ranks[i].id = id;
        ranks[i].body = body;
        pthread_create(&ranks[i].thread, NULL, run_rank, &ranks[i]);
    }
    for (int i = 0; i < RANKS; i++) {
        pthread_join(ranks[i].thread, NULL);
        failures += ranks[i].failures;
    }
    return failures;
}

static void check_ranks(void (*body)(rank *))
{
    for (int non_blocking = 0; non_blocking < 2; non_blocking++) {
        assert_int_equal(run_ranks(body, non_blocking), 0);
        assert_true(fake_cuda_all_freed());
    }
}

static int set_up(void **state)
{
    (void)state;
    fake_cuda_reset();
    fake_cuda_set_devices(RANKS);
    return 0;
}

static void download(rank *r, const float *from, size_t n)
{
    CHECK(r, cudaMemcpyAsync(r->host, from, n * sizeof(float), cudaMemcpyDeviceToHost, r->stream) ==
                 cudaSuccess);
    CHECK(r, cudaStreamSynchronize(r->stream) == cudaSuccess);
}

static void collectives(rank *r)
{
    CHECK(r, settle(r, ncclAllGather(r->x, r->all, N, ncclFloat, r->comm, r->stream)) == 0);
    download(r, r->all, RANKS * N);
    for (int i = 0; i < RANKS * N; i++)
        CHECK(r, r->host[i] == (float)(i / N * 100 + i % N));
    CHECK(r, settle(r, ncclAllReduce(r->x, r->x, N, ncclFloat, ncclSum, r->comm, r->stream)) == 0);
    download(r, r->x, N);
    for (int i = 0; i < N; i++)
        CHECK(r, r->host[i] == (float)(300 + 3 * i));
    CHECK(r, settle(r, ncclBroadcast(r->all, r->all, N, ncclFloat, 1, r->comm, r->stream)) == 0);
    download(r, r->all, N);
    CHECK(r, r->host[5] == 5); /* of rank 1's gathered values, the first part */
}

static void test_collectives(void **state)
{
    (void)state;
    check_ranks(collectives);
}

/* Value `to` of each rank's x goes to rank `to`, in one group. */
static void everyone_to_everyone(rank *r)
{
    CHECK(r, ncclGroupStart() == ncclSuccess);
    for (int peer = 0; peer < RANKS; peer++) {
        CHECK(r, ncclSend(r->x + peer, 1, ncclFloat, peer, r->comm, r->stream) == ncclSuccess);
        CHECK(r, ncclRecv(r->all + peer, 1, ncclFloat, peer, r->comm, r->stream) == ncclSuccess);
    }
    CHECK(r, settle(r, ncclGroupEnd()) == ncclSuccess);
    download(r, r->all, RANKS);
    for (int peer = 0; peer < RANKS; peer++)
        CHECK(r, r->host[peer] == (float)(peer * 100 + r->rank));
}

static void test_groups(void **state)
{
    (void)state;
    check_ranks(everyone_to_everyone);
}

static void replay(rank *r)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    CHECK(r, cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(r, settle(r, ncclAllReduce(r->x, r->x, N, ncclFloat, ncclSum, r->comm, r->stream)) == 0);
    CHECK(r, cudaStreamEndCapture(r->stream, &graph) == cudaSuccess);
    CHECK(r, cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess);
    CHECK(r, cudaGraphDestroy(graph) == cudaSuccess);
    for (int i = 0; i < 2; i++)
        CHECK(r, cudaGraphLaunch(exec, r->stream) == cudaSuccess);
    download(r, r->x, N);
    CHECK(r, r->host[1] == (float)(303 * RANKS));
    CHECK(r, cudaGraphExecDestroy(exec) == cudaSuccess);
}

static void test_graphs(void **state)
{
    (void)state;
    check_ranks(replay);
}

/* A call before the last one has settled is refused, and the first one still works. */
static void hurry(rank *r)
{
    CHECK(r,
          ncclAllReduce(r->x, r->x, N, ncclFloat, ncclSum, r->comm, r->stream) == ncclInProgress);
    CHECK(r, ncclAllReduce(r->x, r->x, N, ncclFloat, ncclSum, r->comm, r->stream) ==
                 ncclInvalidArgument);
    CHECK(r, cudaStreamQuery(r->stream) == cudaSuccess); /* it has not even reached the stream */
    CHECK(r, settle(r, ncclInProgress) == ncclSuccess);
    download(r, r->x, N);
    CHECK(r, r->host[0] == 300);
}

static void test_non_blocking_calls_must_settle(void **state)
{
    (void)state;
    assert_int_equal(run_ranks(hurry, 1), 0);
    assert_true(fake_cuda_all_freed());
}

/* Rank 1 hangs (or fails) in its second operation: nobody gets out but by giving up. */
static void be_stuck(rank *r)
{
    ncclResult_t state = ncclSuccess;
    CHECK(r, ncclAllReduce(r->x, r->x, N, ncclFloat, ncclSum, r->comm, r->stream) == 0);
    CHECK(r, cudaStreamSynchronize(r->stream) == cudaSuccess);
    CHECK(r, ncclAllReduce(r->x, r->x, N, ncclFloat, ncclSum, r->comm, r->stream) == 0);
    for (int i = 0; i < 100; i++) {
        CHECK(r, cudaStreamQuery(r->stream) == cudaErrorNotReady);
        sched_yield();
    }
    CHECK(r, ncclCommGetAsyncError(r->comm, &state) == ncclSuccess);
    CHECK(r, state == (r->rank == 1 ? ncclRemoteError : ncclSuccess));
    CHECK(r, ncclCommAbort(r->comm) == ncclSuccess);
    r->comm = NULL;
    CHECK(r, cudaStreamSynchronize(r->stream) == cudaSuccess);
}

static void test_a_rank_that_hangs(void **state)
{
    (void)state;
    fake_nccl_trouble(1, 2, ncclRemoteError);
    assert_int_equal(run_ranks(be_stuck, 0), 0);
    assert_true(fake_cuda_all_freed());
}

static void test_misuse(void **state)
{
    ncclComm_t comm;
    ncclUniqueId id;
    float *x, host;
    (void)state;
    assert_int_equal(ncclGetUniqueId(&id), ncclSuccess);
    assert_int_equal(ncclCommInitRank(&comm, 1, id, 1), ncclInvalidArgument);
    assert_int_equal(ncclCommInitRank(&comm, 1, id, 0), ncclSuccess);
    assert_int_equal(cudaMalloc((void **)&x, 4), cudaSuccess);
    assert_int_equal(ncclAllReduce(&host, x, 1, ncclFloat, ncclSum, comm, NULL),
                     ncclInvalidArgument);
    assert_int_equal(ncclAllReduce(x, x, 2, ncclFloat, ncclSum, comm, NULL), ncclInvalidArgument);
    assert_int_equal(ncclAllReduce(x, x, 1, ncclFloat, ncclSum, comm, NULL), ncclSuccess);
    assert_int_equal(ncclGroupEnd(), ncclInvalidUsage);
    assert_int_equal(ncclCommDestroy(comm), ncclSuccess);
    assert_int_equal(ncclCommDestroy(comm), ncclInvalidArgument);
    assert_int_equal(cudaFree(x), cudaSuccess);
    assert_true(fake_cuda_all_freed());
}

static void differ(rank *r)
{
    ncclAllReduce(r->x, r->x, r->rank == 2 ? N - 1 : N, ncclFloat, ncclSum, r->comm, r->stream);
    cudaStreamSynchronize(r->stream);
}

static void run_differing(void)
{
    run_ranks(differ, 0);
}

static void keep_a_graph(rank *r)
{
    cudaGraph_t graph;
    cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal);
    ncclAllReduce(r->x, r->x, N, ncclFloat, ncclSum, r->comm, r->stream);
    cudaStreamEndCapture(r->stream, &graph);
}

static void abort_with_a_graph(rank *r)
{
    keep_a_graph(r);
    ncclCommAbort(r->comm);
}

static void run_aborting(void)
{
    run_ranks(abort_with_a_graph, 0);
}

/* Rank 1 does by itself what the others do by a graph. */
static void capture_apart(rank *r)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    if (r->rank != 1)
        cudaStreamBeginCapture(r->stream, cudaStreamCaptureModeThreadLocal);
    ncclAllReduce(r->x, r->x, N, ncclFloat, ncclSum, r->comm, r->stream);
    if (r->rank != 1) {
        cudaStreamEndCapture(r->stream, &graph);
        cudaGraphInstantiate(&exec, graph, 0);
        cudaGraphLaunch(exec, r->stream);
    }
    cudaStreamSynchronize(r->stream);
}

static void run_capturing_apart(void)
{
    run_ranks(capture_apart, 0);
}

static void run_keeping(void)
{
    run_ranks(keep_a_graph, 0);
}

static void test_broken_rules(void **state)
{
    (void)state;
    assert_true(dies_saying(run_differing, "ncclAllReduce of 9 values"));
    assert_true(dies_saying(run_keeping, "held by a graph"));
    assert_true(dies_saying(run_aborting, "held by a graph"));
    assert_true(dies_saying(run_capturing_apart, "captured as number 0"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_collectives, set_up),
        cmocka_unit_test_setup(test_groups, set_up),
        cmocka_unit_test_setup(test_graphs, set_up),
        cmocka_unit_test_setup(test_non_blocking_calls_must_settle, set_up),
        cmocka_unit_test_setup(test_a_rank_that_hangs, set_up),
        cmocka_unit_test_setup(test_misuse, set_up),
        cmocka_unit_test_setup(test_broken_rules, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
