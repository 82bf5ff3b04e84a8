/* test_host.c: the host side of the CUDA on the CPU: memory and copies, what waits for what, captures
 * and graphs, counts and knobs. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_cuda.h"

#define OK(call) assert_int_equal(call, cudaSuccess)

enum { N = 100 };

static cudaStream_t stream;
static unsigned char *mem;    /* device [N] */
static unsigned char *pinned; /* host [N] */

static int set_up(void **state)
{
    (void)state;
    fake_cuda_reset();
    OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    OK(cudaMalloc((void **)&mem, N));
    OK(cudaMallocHost((void **)&pinned, N));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    OK(cudaFree(mem));
    OK(cudaFreeHost(pinned));
    OK(cudaStreamDestroy(stream));
    return !fake_cuda_all_freed();
}

static void download(unsigned char *to)
{
    OK(cudaMemcpyAsync(to, mem, N, cudaMemcpyDeviceToHost, stream));
    OK(cudaStreamSynchronize(stream));
}

static void test_fresh_memory_is_not_zero(void **state)
{
    unsigned char x[N];
    (void)state;
    download(x);
    assert_int_equal(x[0], 0xff);
    assert_int_equal(x[N - 1], 0xff);
}

static void test_copies_are_checked(void **state)
{
    unsigned char x[N] = {0};
    (void)state;
    assert_int_equal(cudaMemcpy(x, x, N, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(mem, mem, N, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(x, x, N, cudaMemcpyDeviceToHost), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(mem + 1, x, N, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaMemcpy(mem, pinned, 1, cudaMemcpyDeviceToDevice), cudaErrorInvalidValue);
    assert_int_equal(cudaMemsetAsync(x, 0, N, stream), cudaErrorInvalidValue);
    assert_int_equal(cudaFree(mem + 1), cudaErrorInvalidValue);
    assert_int_equal(cudaFreeHost(mem), cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    OK(cudaGetLastError());
    memset(x, 3, N);
    OK(cudaMemcpy(mem + 1, x, N - 1, cudaMemcpyHostToDevice));
    OK(cudaMemcpy(x, mem + 1, N - 1, cudaMemcpyDefault));
}

static void test_when_copies_read_and_write(void **state)
{
    unsigned char x[N], y[N] = {0};
    (void)state;
    memset(x, 1, N);
    memset(pinned, 2, N);
    OK(cudaMemcpyAsync(mem, x, N / 2, cudaMemcpyHostToDevice, stream));
    OK(cudaMemcpyAsync(mem + N / 2, pinned, N / 2, cudaMemcpyHostToDevice, stream));
    memset(x, 8, N);
    memset(pinned, 9, N);
    OK(cudaMemcpyAsync(y, mem, N, cudaMemcpyDeviceToHost, stream));
    assert_int_equal(y[0], 0); /* nobody has waited */
    OK(cudaStreamSynchronize(stream));
    assert_int_equal(y[0], 1);
    assert_int_equal(y[N - 1], 9);
}

static void test_who_waits_for_whom(void **state)
{
    unsigned char x[N];
    cudaStream_t blocking;
    (void)state;
    OK(cudaStreamCreate(&blocking));
    OK(cudaMemsetAsync(mem, 1, N / 2, stream));
    OK(cudaMemsetAsync(mem + N / 2, 2, N / 2, blocking));
    OK(cudaMemcpy(x, mem, N, cudaMemcpyDeviceToHost));
    assert_int_equal(x[0], 0xff); /* a non-blocking stream: not waited for */
    assert_int_equal(x[N - 1], 2);
    OK(cudaMemsetAsync(mem, 3, N, NULL)); /* between two of the blocking stream */
    OK(cudaMemsetAsync(mem, 4, N / 2, blocking));
    OK(cudaStreamSynchronize(blocking));
    OK(cudaMemcpy(x, mem, N, cudaMemcpyDeviceToHost));
    assert_int_equal(x[0], 4);
    assert_int_equal(x[N - 1], 3);
    OK(cudaDeviceSynchronize());
    OK(cudaStreamDestroy(blocking));
}

static void test_queries_and_events(void **state)
{
    cudaEvent_t first, last, untimed;
    float ms = -1;
    (void)state;
    OK(cudaEventCreate(&first));
    OK(cudaEventCreateWithFlags(&last, cudaEventBlockingSync));
    OK(cudaEventQuery(first)); /* never recorded */
    OK(cudaEventRecord(first, stream));
    OK(cudaMemsetAsync(mem, 1, N, stream));
    OK(cudaEventRecord(last, stream));
    OK(cudaMemsetAsync(mem, 2, N, stream));
    assert_int_equal(cudaEventElapsedTime(&ms, first, last), cudaErrorNotReady);
    assert_int_equal(cudaEventQuery(last), cudaErrorNotReady);
    OK(cudaEventSynchronize(last));
    OK(cudaEventElapsedTime(&ms, first, last));
    assert_true(ms >= 0);
    OK(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
    OK(cudaEventRecord(untimed, stream));
    OK(cudaEventSynchronize(untimed));
    assert_int_equal(cudaEventElapsedTime(&ms, first, untimed), cudaErrorInvalidResourceHandle);
    OK(cudaEventDestroy(untimed));
    OK(cudaMemsetAsync(mem, 2, N, stream));
    OK(cudaStreamQuery(stream)); /* the last memset, the only work left */
    OK(cudaMemsetAsync(mem, 2, N, stream));
    OK(cudaMemsetAsync(mem, 2, N, stream));
    assert_int_equal(cudaStreamQuery(stream), cudaErrorNotReady);
    OK(cudaStreamQuery(stream));
    OK(cudaEventDestroy(first));
    OK(cudaEventDestroy(last));
    assert_int_equal(cudaEventDestroy(last), cudaErrorInvalidResourceHandle);
    OK(cudaPeekAtLastError() == cudaErrorInvalidResourceHandle ? cudaSuccess : cudaErrorUnknown);
}

static void test_one_stream_waits_for_another(void **state)
{
    unsigned char x[N];
    cudaStream_t other;
    cudaEvent_t done;
    (void)state;
    OK(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    OK(cudaEventCreate(&done));
    OK(cudaMemsetAsync(mem, 7, N, other));
    OK(cudaEventRecord(done, other));
    OK(cudaStreamWaitEvent(stream, done, 0));
    download(x);
    assert_int_equal(x[N / 2], 7);
    OK(cudaEventDestroy(done));
    OK(cudaStreamDestroy(other));
}

/* Captures */

static cudaGraphExec_t record_memset(int value)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    OK(cudaMemcpyAsync(mem, pinned, N / 2, cudaMemcpyHostToDevice, stream));
    OK(cudaMemsetAsync(mem + N / 2, value, N / 2, stream));
    OK(cudaStreamEndCapture(stream, &graph));
    OK(cudaGraphInstantiate(&exec, graph, 0));
    OK(cudaGraphDestroy(graph));
    return exec;
}

static void test_graphs_run_when_launched(void **state)
{
    unsigned char x[N];
    (void)state;
    cudaGraphExec_t exec = record_memset(5);
    download(x);
    assert_int_equal(x[N - 1], 0xff);
    for (unsigned char i = 1; i < 3; i++) {
        memset(pinned, i, N); /* read at each launch */
        OK(cudaGraphLaunch(exec, stream));
        download(x);
        assert_int_equal(x[0], i);
        assert_int_equal(x[N - 1], 5);
    }
    assert_int_equal(fake_cuda_count().graph_launches, 2);
    assert_int_equal(fake_cuda_count().captures, 1);
    assert_int_equal(fake_cuda_count().graph_execs, 1);
    OK(cudaGraphLaunch(exec, stream));
    OK(cudaGraphExecDestroy(exec)); /* what was launched goes on */
    OK(cudaStreamSynchronize(stream));
}

typedef enum { MALLOC, FREE, MALLOC_HOST, SYNC, SYNC_DEVICE, QUERY, COPY, N_FORBIDDEN } forbidden;

static cudaError_t do_forbidden(forbidden what)
{
    void *p;
    switch (what) {
    case MALLOC:
        return cudaMalloc(&p, 1);
    case FREE:
        return cudaFree(mem);
    case MALLOC_HOST:
        return cudaMallocHost(&p, 1);
    case SYNC:
        return cudaStreamSynchronize(stream);
    case SYNC_DEVICE:
        return cudaDeviceSynchronize();
    case QUERY:
        return cudaStreamQuery(stream);
    default:
        return cudaMemcpy(mem, pinned, 1, cudaMemcpyHostToDevice);
    }
}

static void test_what_a_capture_forbids(void **state)
{
    (void)state;
    for (forbidden what = MALLOC; what < N_FORBIDDEN; what++) {
        enum cudaStreamCaptureStatus status;
        cudaGraph_t graph;
        OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        OK(cudaStreamIsCapturing(stream, &status));
        assert_int_equal(status, cudaStreamCaptureStatusActive);
        assert_int_equal(do_forbidden(what), cudaErrorStreamCaptureUnsupported);
        OK(cudaStreamIsCapturing(stream, &status));
        assert_int_equal(status, cudaStreamCaptureStatusInvalidated);
        assert_int_equal(cudaMemsetAsync(mem, 0, N, stream), cudaErrorStreamCaptureInvalidated);
        assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
        assert_null(graph);
    }
    assert_int_equal(fake_cuda_count().graphs, 0);
    cudaGetLastError();
}

static void test_misused_captures(void **state)
{
    cudaGraph_t graph;
    cudaStream_t blocking;
    cudaEvent_t event;
    (void)state;
    assert_int_equal(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureUnmatched);
    assert_int_equal(cudaStreamBeginCapture(NULL, cudaStreamCaptureModeGlobal),
                     cudaErrorStreamCaptureUnsupported);
    OK(cudaStreamCreate(&blocking));
    OK(cudaStreamBeginCapture(blocking, cudaStreamCaptureModeRelaxed));
    assert_int_equal(cudaMemsetAsync(mem, 0, N, NULL), cudaErrorStreamCaptureImplicit);
    assert_int_equal(cudaStreamEndCapture(blocking, &graph), cudaErrorStreamCaptureInvalidated);
    OK(cudaStreamDestroy(blocking));
    OK(cudaEventCreate(&event));
    OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed));
    OK(cudaEventRecord(event, stream));
    OK(cudaStreamEndCapture(stream, &graph));
    assert_int_equal(cudaEventSynchronize(event), cudaErrorCapturedEvent);
    OK(cudaEventDestroy(event));
    OK(cudaGraphDestroy(graph));
    assert_int_equal(cudaGraphDestroy(graph), cudaErrorInvalidValue);
    cudaGetLastError();
}

/* Counts and knobs */

static void test_counts(void **state)
{
    (void)state;
    fake_cuda_counts c = fake_cuda_count();
    assert_int_equal(c.allocations, 1);
    assert_int_equal(c.host_allocations, 1);
    assert_int_equal(c.streams, 1);
    assert_int_equal(c.device_bytes, N);
    assert_false(fake_cuda_all_freed());
}

static void test_knobs(void **state)
{
    size_t free_bytes, total;
    void *p;
    int n;
    (void)state;
    fake_cuda_set_total_memory(1000);
    OK(cudaMemGetInfo(&free_bytes, &total));
    assert_int_equal(total, 1000);
    assert_int_equal(free_bytes, 1000 - N);
    assert_int_equal(cudaMalloc(&p, 1001 - N), cudaErrorMemoryAllocation);
    assert_null(p);
    fake_cuda_fail("cudaMalloc", 2, cudaErrorMemoryAllocation);
    OK(cudaMalloc(&p, 1));
    OK(cudaFree(p));
    assert_int_equal(cudaMalloc(&p, 1), cudaErrorMemoryAllocation);
    OK(cudaMalloc(&p, 1));
    OK(cudaFree(p));
    assert_string_equal(cudaGetErrorName(cudaGetLastError()), "cudaErrorMemoryAllocation");
    fake_cuda_set_devices(0);
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorNoDevice);
    fake_cuda_set_devices(2);
    fake_cuda_set_driver(12040);
    assert_int_equal(cudaGetDeviceCount(&n), cudaErrorInsufficientDriver);
    fake_cuda_set_driver(CUDART_VERSION);
    OK(cudaGetDeviceCount(&n));
    assert_int_equal(n, 2);
    assert_int_equal(cudaSetDevice(2), cudaErrorInvalidDevice);
    OK(cudaSetDevice(1));
    OK(cudaMemGetInfo(&free_bytes, &total));
    OK(cudaSetDevice(0));
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidDevice);
}

static void test_properties(void **state)
{
    struct cudaDeviceProp prop;
    int value;
    (void)state;
    OK(cudaGetDeviceProperties(&prop, 0));
    assert_int_equal(prop.warpSize, 32);
    OK(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    assert_int_equal(value, 227 << 10);
    assert_int_equal(cudaGetDeviceProperties(&prop, 1), cudaErrorInvalidDevice);
    cudaGetLastError();
}

enum { TURNS = 3000 };

static void *come_and_go(void *unused)
{
    for (int i = 0; i < TURNS; i++) {
        cudaStream_t s = NULL;
        if (cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) != cudaSuccess || cudaStreamDestroy(s) != cudaSuccess)
            abort();
    }
    return unused;
}

/* cudaFree waits for all of a device, of which other threads may destroy streams of their own meanwhile. */
static void test_streams_of_another_thread(void **state)
{
    (void)state;
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, come_and_go, NULL), 0);
    for (int i = 0; i < TURNS; i++) {
        void *p = NULL;
        assert_int_equal(cudaMalloc(&p, 1), cudaSuccess);
        assert_int_equal(cudaFree(p), cudaSuccess);
    }
    pthread_join(other, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_fresh_memory_is_not_zero),
        TEST(test_copies_are_checked),
        TEST(test_when_copies_read_and_write),
        TEST(test_who_waits_for_whom),
        TEST(test_queries_and_events),
        TEST(test_one_stream_waits_for_another),
        TEST(test_graphs_run_when_launched),
        TEST(test_what_a_capture_forbids),
        TEST(test_misused_captures),
        TEST(test_streams_of_another_thread),
        TEST(test_counts),
        TEST(test_knobs),
        TEST(test_properties),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
