/* test_kernels.cu: the device side of the CUDA on the CPU: barriers, warp operations, shared memory,
 * asynchronous copies, limits of launches, and what must end the program. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
extern "C" {
#include <cmocka.h>
}

#include <cuda_pipeline.h>

#include "dying.h"
#include "fake_cuda.h"
#include "launch.cuh"
#include "sanitizers.h"

#define FULL 0xffffffffu

static cudaStream_t stream;

/* Device memory with what the host has, and back. */
static int *to_device(const int *host, int n)
{
    int *mem;
    const size_t bytes = size_t(n) * sizeof *host;
    assert_int_equal(cudaMalloc(&mem, bytes), cudaSuccess);
    if (host)
        assert_int_equal(cudaMemcpyAsync(mem, host, bytes, cudaMemcpyHostToDevice, stream), 0);
    return mem;
}

static void from_device(int *host, int *mem, int n)
{
    const size_t bytes = size_t(n) * sizeof *host;
    assert_int_equal(cudaMemcpyAsync(host, mem, bytes, cudaMemcpyDeviceToHost, stream), 0);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    assert_int_equal(cudaFree(mem), cudaSuccess);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
}

static int set_up(void **)
{
    fake_cuda_reset();
    return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
}

static int tear_down(void **)
{
    cudaStreamDestroy(stream);
    return !fake_cuda_all_freed();
}

/* Where a thread is */

FR_KERNEL(64) void number_threads(int *out)
{
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * 24 + thread] = block * 24 + thread;
}

static void test_every_thread_runs_once(void **)
{
    int out[12 * 24];
    int *mem = to_device(NULL, 12 * 24);
    FR_LAUNCH(number_threads, dim3(2, 3, 2), dim3(4, 3, 2), 0, stream, mem);
    from_device(out, mem, 12 * 24);
    for (int i = 0; i < 12 * 24; i++)
        assert_int_equal(out[i], i);
    assert_int_equal(fake_cuda_count().launches, 1);
    assert_int_equal(fake_cuda_count().kernels_run, 1);
}

/* Barriers */

FR_KERNEL(256) void reverse(int *x, int steps, int leave)
{
    __shared__ int shared[256];
    const int i = threadIdx.x, n = blockDim.x;
    if (i < leave) /* fewer threads than the block has meet at the barriers */
        return;
    for (int step = 0; step < steps; step++) {
        shared[i] = x[i];
        __syncthreads();
        x[i] = shared[n - 1 + leave - i] + 1;
        __syncthreads();
    }
}

FR_KERNEL(256) void reverse_without_barrier(int *x)
{
    __shared__ int shared[256];
    shared[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = shared[255 - threadIdx.x];
}

static void check_reverse(int leave)
{
    int x[200], y[200];
    for (int i = 0; i < 200; i++)
        x[i] = i * i;
    int *mem = to_device(x, 200);
    FR_LAUNCH(reverse, 1, 200, 0, stream, mem, 3, leave);
    from_device(y, mem, 200);
    for (int i = 0; i < 200; i++)
        assert_int_equal(y[i], i < leave ? x[i] : x[199 + leave - i] + 3);
}

static void test_barriers_in_every_order(void **)
{
    for (int order = FAKE_CUDA_FORWARD; order <= FAKE_CUDA_SHUFFLED; order++) {
        fake_cuda_set_order(fake_cuda_order(order), 17);
        check_reverse(0);
        check_reverse(70);
    }
}

static void test_a_missing_barrier_shows(void **)
{
    int x[256], y[2][256];
    for (int i = 0; i < 256; i++)
        x[i] = i + 1;
    for (int order = FAKE_CUDA_FORWARD; order <= FAKE_CUDA_BACKWARD; order++) {
        fake_cuda_set_order(fake_cuda_order(order), 0);
        int *mem = to_device(x, 256);
        FR_LAUNCH(reverse_without_barrier, 1, 256, 0, stream, mem);
        from_device(y[order], mem, 256);
    }
    assert_memory_not_equal(y[0], y[1], sizeof y[0]);
}

/* Warps */

FR_KERNEL(64) void shuffle_all(int *out)
{
    const int lane = threadIdx.x % 32;
    int *o = out + threadIdx.x * 8;
    o[0] = __shfl_sync(FULL, lane * 10, 5);
    o[1] = __shfl_xor_sync(FULL, lane, 9);
    o[2] = __shfl_down_sync(FULL, lane, 3);
    o[3] = __shfl_up_sync(FULL, lane, 3);
    o[4] = int(__shfl_sync(FULL, double(lane) / 2, 7, 16) * 2);
    o[5] = int(__ballot_sync(FULL, lane % 3 == 0));
    o[6] = __any_sync(FULL, lane == 40) * 2 + __any_sync(FULL, lane == 4);
    o[7] = 0;
    if (lane < 4) /* part of a warp */
        for (int step = 2; step; step /= 2)
            o[7] += __shfl_xor_sync(0xfu, lane, step);
    else
        o[7] = __shfl_sync(0xfffffff0u, lane, 31);
    __syncwarp();
}

static void test_warp_operations(void **)
{
    int out[64 * 8];
    int *mem = to_device(NULL, 64 * 8);
    FR_LAUNCH(shuffle_all, 1, 64, 0, stream, mem);
    from_device(out, mem, 64 * 8);
    for (int i = 0; i < 64; i++) {
        const int lane = i % 32, *o = out + i * 8;
        assert_int_equal(o[0], 50);
        assert_int_equal(o[1], lane ^ 9);
        assert_int_equal(o[2], lane + 3 < 32 ? lane + 3 : lane);
        assert_int_equal(o[3], lane >= 3 ? lane - 3 : lane);
        assert_int_equal(o[4], lane < 16 ? 7 : 23);
        assert_int_equal(o[5], 0x49249249);
        assert_int_equal(o[6], 1);
        assert_int_equal(o[7], lane < 4 ? (lane ^ 2) + (lane ^ 1) : 31);
    }
}

FR_KERNEL(32) void shuffle_from_outside(int *out)
{
    if (threadIdx.x < 16)
        out[threadIdx.x] = __shfl_down_sync(0xffffu, 7, 8);
}

static void test_a_source_outside_of_the_mask(void **)
{
    int out[16];
    int *mem = to_device(NULL, 16);
    FR_LAUNCH(shuffle_from_outside, 1, 32, 0, stream, mem);
    from_device(out, mem, 16);
    assert_int_equal(out[7], 7);
    assert_int_equal(out[8], -1);
}

/* Shared memory and copies into it */

FR_KERNEL(32) void look_at_dynamic(int *out)
{
    FR_DYNAMIC_SHARED(int, shared);
    out[blockIdx.x * 32 + threadIdx.x] = shared[threadIdx.x];
    shared[threadIdx.x] = 1; /* not for the next block */
}

static void test_dynamic_shared_memory_is_fresh(void **)
{
    int out[64];
    int *mem = to_device(NULL, 64);
    FR_LAUNCH(look_at_dynamic, 2, 32, 128, stream, mem);
    from_device(out, mem, 64);
    for (int i = 0; i < 64; i++)
        assert_int_equal(out[i], -1);
}

FR_KERNEL(1) void copy_async(const int *x, int *out)
{
    __shared__ __align__(16) int shared[12];
    __pipeline_memcpy_async(shared, x, 16);
    __pipeline_commit();
    __pipeline_memcpy_async(shared + 4, x + 4, 8, 4);
    __pipeline_commit();
    out[0] = shared[0]; /* too early */
    __pipeline_wait_prior(1);
    out[1] = shared[0];
    out[2] = shared[4]; /* too early */
    __pipeline_wait_prior(0);
    out[3] = shared[4];
    out[4] = shared[5]; /* a zero */
}

static void test_asynchronous_copies(void **)
{
    const int x[] = {11, 12, 13, 14, 15, 16, 17, 18}, expected[] = {-1, 11, -1, 15, 0};
    int out[5];
    int *in = to_device(x, 8), *mem = to_device(NULL, 5);
    FR_LAUNCH(copy_async, 1, 1, 0, stream, in, mem);
    from_device(out, mem, 5);
    assert_memory_equal(out, expected, sizeof out);
    assert_int_equal(cudaFree(in), cudaSuccess);
}

/* Integers */

FR_KERNEL(1) void integers(int *out)
{
    out[0] = __dp4a(0x01ff7f80, 0x02ff7f80, 5); /* 1*2 + 1 + 127*127 + 128*128 + 5 */
    out[1] = int(__dp4a(0x01ff7f80u, 0x02ff7f80u, 5u));
    out[2] = int(__umulhi(0x80000000u, 6u));
    out[3] = __clz(1);
    out[4] = __popc(0xf0f0u);
    out[5] = __ffs(8);
    out[6] = min(3, -4) + max(2, 9);
    out[7] = __float_as_int(1.0f);
    atomicAdd(&out[0], 1);
}

static void test_integer_functions(void **)
{
    int out[8];
    int *mem = to_device(NULL, 8);
    FR_LAUNCH(integers, 1, 1, 0, stream, mem);
    from_device(out, mem, 8);
    const int expected[] = {2 + 1 + 127 * 127 + 128 * 128 + 5 + 1,
                            2 + 255 * 255 + 127 * 127 + 128 * 128 + 5,
                            3,
                            31,
                            8,
                            4,
                            5,
                            0x3f800000};
    assert_memory_equal(out, expected, sizeof out);
}

/* Launches */

template <typename T, int N> FR_KERNEL(32) void add_constant(T *x)
{
    x[threadIdx.x] += N;
}

static void test_arguments_are_taken_at_the_launch(void **)
{
    int x[4] = {1, 2, 3, 4}, y[4];
    int *mem = to_device(x, 4), *argument = mem;
    auto kernel = add_constant<int, 5>;
    FR_LAUNCH(kernel, 1, 4, 0, stream, argument);
    argument = NULL;
    x[0] = 100; /* the copy took it at the call, too: it is not pinned */
    from_device(y, mem, 4);
    assert_int_equal(y[0], 6);
    assert_int_equal(y[3], 9);
}

static cudaError_t launch(dim3 grid, dim3 block, size_t shared)
{
    FR_LAUNCH(look_at_dynamic, grid, block, shared, stream, NULL);
    return cudaGetLastError();
}

static void test_limits_of_a_launch(void **)
{
    assert_int_equal(launch(1, 1025, 0), cudaErrorInvalidConfiguration);
    assert_int_equal(launch(1, dim3(1, 1, 65), 0), cudaErrorInvalidConfiguration);
    assert_int_equal(launch(0, 32, 0), cudaErrorInvalidConfiguration);
    assert_int_equal(launch(dim3(1, 65536), 32, 0), cudaErrorInvalidConfiguration);
    assert_int_equal(launch(1, 32, (48 << 10) + 1), cudaErrorInvalidConfiguration);
    assert_int_equal(
        cudaFuncSetAttribute(reverse, cudaFuncAttributeMaxDynamicSharedMemorySize, (227 << 10) + 1),
        cudaErrorInvalidValue);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
    assert_int_equal(cudaFuncSetAttribute(look_at_dynamic,
                                          cudaFuncAttributeMaxDynamicSharedMemorySize, 227 << 10),
                     cudaSuccess);
    int out[32];
    int *mem = to_device(NULL, 32);
    FR_LAUNCH(look_at_dynamic, 1, 32, 227 << 10, stream, mem);
    from_device(out, mem, 32);
}

static void test_a_launch_can_be_told_to_fail(void **)
{
    fake_cuda_fail("kernel", 2, cudaErrorLaunchOutOfResources);
    int out[24];
    int *mem = to_device(NULL, 24);
    FR_LAUNCH(number_threads, 1, 24, 0, stream, mem);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    FR_LAUNCH(number_threads, 1, 24, 0, stream, mem);
    assert_int_equal(cudaGetLastError(), cudaErrorLaunchOutOfResources);
    assert_int_equal(fake_cuda_count().launches, 1);
    from_device(out, mem, 24);
}

/* A rank's life, with a device of its own, many times over. */
static void *use_device(void *arg)
{
    const int device = int(intptr_t(arg));
    intptr_t wrong = cudaSetDevice(device);
    for (int round = 0; round < 200; round++) {
        cudaStream_t own;
        int *mem, x[64];
        for (int i = 0; i < 64; i++)
            x[i] = device * 1000 + i;
        wrong += cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking);
        wrong += cudaMalloc(&mem, sizeof x);
        wrong += cudaMemcpyAsync(mem, x, sizeof x, cudaMemcpyHostToDevice, own);
        FR_LAUNCH(reverse, 1, 64, 0, own, mem, 2 + device, 0);
        wrong += cudaMemcpyAsync(x, mem, sizeof x, cudaMemcpyDeviceToHost, own);
        wrong += cudaStreamSynchronize(own);
        wrong += x[0] != device * 1000 + (device ? 63 : 0) + 2 + device;
        wrong += cudaFree(mem);
        wrong += cudaStreamDestroy(own);
    }
    return reinterpret_cast<void *>(wrong);
}

static void test_several_threads(void **)
{
    pthread_t threads[2];
    fake_cuda_set_devices(2);
    for (intptr_t i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, use_device, reinterpret_cast<void *>(i));
    for (int i = 0; i < 2; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
}

static void test_kernels_are_listed(void **)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    fake_cuda_print_kernels(out);
    fclose(out);
    assert_non_null(strstr(text, "number_threads 2 at "));
    free(text);
}

/* What must end the program */

FR_KERNEL(64) void half_warp_shuffles(int *)
{
    if (threadIdx.x < 16)
        __shfl_sync(FULL, 1, 0);
    else
        __syncthreads();
}

FR_KERNEL(64) void leave_before_shuffle(int *)
{
    if (threadIdx.x != 3)
        __syncwarp();
}

FR_KERNEL(64) void lane_out_of_mask(int *)
{
    __shfl_sync(0xffu, 1, 0);
}

FR_KERNEL(32) void different_operations(int *)
{
    if (threadIdx.x < 16)
        __syncwarp();
    else
        __shfl_sync(FULL, 1, 0);
}

FR_KERNEL(32) void past_the_end(int *x)
{
    x[threadIdx.x] = 1;
}

FR_KERNEL(32) void past_shared(int *x)
{
    FR_DYNAMIC_SHARED(int, shared);
    x[0] = shared[threadIdx.x];
}

#define RUN_BADLY(name, kernel, shared)                                \
    static void name(void)                                             \
    {                                                                  \
        FR_LAUNCH(kernel, 1, 32, shared, stream, to_device(NULL, 20)); \
        cudaStreamSynchronize(stream);                                 \
    }
RUN_BADLY(run_half_warp, half_warp_shuffles, 0)
RUN_BADLY(run_leaving, leave_before_shuffle, 0)
RUN_BADLY(run_out_of_mask, lane_out_of_mask, 0)
RUN_BADLY(run_different, different_operations, 0)
RUN_BADLY(run_past_the_end, past_the_end, 0)
RUN_BADLY(run_past_shared, past_shared, 100)

static void read_device_memory(void)
{
    printf("%d\n", *to_device(NULL, 1));
}

static void test_broken_rules(void **)
{
#ifdef FAKE_CUDA_TSAN
    skip(); /* it loses sight of fibres in a child */
#endif
    assert_true(dies_saying(run_half_warp, "half_warp_shuffles, block (0, 0, 0): lane"));
    assert_true(dies_saying(run_half_warp, "for lane 16, which is at __syncthreads"));
    assert_true(dies_saying(run_leaving, "for lane 3, which is gone"));
    assert_true(dies_saying(run_out_of_mask, "mask 000000ff, which leaves it out"));
    assert_true(dies_saying(run_different, "meet in different warp operations"));
}

static void test_memory_errors(void **)
{
#ifdef FAKE_CUDA_ASAN
    assert_true(dies_saying(run_past_the_end, "heap-buffer-overflow"));
    assert_true(dies_saying(run_past_shared, "heap-buffer-overflow"));
    assert_true(dies_saying(read_device_memory, "use-after-poison"));
#else
    (void)run_past_the_end, (void)run_past_shared, (void)read_device_memory;
    skip();
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_thread_runs_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_barriers_in_every_order, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_missing_barrier_shows, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_warp_operations, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_source_outside_of_the_mask, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_dynamic_shared_memory_is_fresh, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_asynchronous_copies, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_integer_functions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_arguments_are_taken_at_the_launch, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_limits_of_a_launch, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_launch_can_be_told_to_fail, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_several_threads, set_up, tear_down),
        cmocka_unit_test(test_kernels_are_listed),
        cmocka_unit_test_setup_teardown(test_broken_rules, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_memory_errors, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
