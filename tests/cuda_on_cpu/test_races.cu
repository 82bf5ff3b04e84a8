/* test_races.cu: what races.h calls a race ends the program, and what it does not is left alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
extern "C" {
#include <cmocka.h>
}

#include <cublasLt.h>
#include <cuda_pipeline.h>

#include "dying.h"
#include "fake_cuda.h"
#include "launch.cuh"

#define FULL 0xffffffffu

static cudaStream_t stream;
static int *memory; /* [WORDS], zeros */
enum { WORDS = 256 };

static int set_up(void **)
{
    fake_cuda_reset();
    return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) ||
           cudaMalloc(&memory, WORDS * sizeof *memory) ||
           cudaMemsetAsync(memory, 0, WORDS * sizeof *memory, stream);
}

static int tear_down(void **)
{
    cudaFree(memory);
    cudaStreamDestroy(stream);
    return !fake_cuda_all_freed();
}

/* test_KERNEL: as `blocks` blocks of 64 threads, KERNEL(memory, right) ends the program unless it is right, in whatever
 * order threads run; when in the usual one, with this in the message. */
#define TEST_KERNEL(kernel, blocks, text)                                                         \
    static void run_##kernel(int right)                                                           \
    {                                                                                             \
        FR_LAUNCH(kernel, blocks, 64, 64 * sizeof(int), stream, memory, right);                   \
        assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);                             \
    }                                                                                             \
    static void kernel##_wrongly(void)                                                            \
    {                                                                                             \
        run_##kernel(0);                                                                          \
    }                                                                                             \
    static void test_##kernel(void **)                                                            \
    {                                                                                             \
        assert_true(dies_saying(kernel##_wrongly, text));                                         \
        for (int order = FAKE_CUDA_FORWARD; order <= FAKE_CUDA_SHUFFLED; order++) {               \
            fake_cuda_set_order(fake_cuda_order(order), 17);                                      \
            assert_true(dies_saying(kernel##_wrongly, "cuda_on_cpu: a race in kernel " #kernel)); \
            run_##kernel(1);                                                                      \
        }                                                                                         \
    }

/* Threads of a block */

FR_KERNEL(64) void read_of_another(int *x, int right)
{
    __shared__ int shared[64];
    FR_AWAIT_PREVIOUS();
    shared[threadIdx.x] = int(threadIdx.x);
    if (right)
        __syncthreads();
    x[threadIdx.x] += shared[63 - threadIdx.x];
}
TEST_KERNEL(read_of_another, 1, "static shared memory")

FR_KERNEL(64) void write_after_read(int *x, int right)
{
    __shared__ int shared[64];
    FR_AWAIT_PREVIOUS();
    shared[threadIdx.x] = int(threadIdx.x);
    __syncthreads();
    x[threadIdx.x] += shared[63 - threadIdx.x];
    if (right)
        __syncthreads();
    shared[threadIdx.x] = 0;
}
TEST_KERNEL(write_after_read, 1, "with no barrier of the two between")

FR_KERNEL(64) void two_writes(int *x, int right)
{
    FR_AWAIT_PREVIOUS();
    x[right ? threadIdx.x : 5] = 1;
}
TEST_KERNEL(two_writes, 1,
            "byte 20 of 1024 of an allocation of global memory\n  a write by thread ")

/* Halves of words: each thread's own, unless it reads the next one's. */
FR_KERNEL(64) void halves(int *x, int right)
{
    __shared__ uint16_t shared[65];
    FR_AWAIT_PREVIOUS();
    shared[threadIdx.x] = uint16_t(threadIdx.x);
    x[threadIdx.x] = shared[threadIdx.x + 1 - right];
}
TEST_KERNEL(halves, 1, "by thread 0 (warp 0, lane 0)")

/* The other half is written in between. */
FR_KERNEL(64) void half_written_before_the_other(int *x, int right)
{
    __shared__ uint16_t shared[2];
    FR_AWAIT_PREVIOUS();
    if (threadIdx.x < 2)
        shared[threadIdx.x] = 1;
    if (right)
        __syncthreads();
    if (threadIdx.x == 40)
        x[0] = shared[0];
}
TEST_KERNEL(half_written_before_the_other, 1, "after a write by thread 0 (warp 0, lane 0)")

/* The others are read in between. */
FR_KERNEL(64) void byte_read_before_the_others(int *x, int right)
{
    __shared__ uint8_t shared[4];
    FR_AWAIT_PREVIOUS();
    if (threadIdx.x < 4)
        x[threadIdx.x] = shared[threadIdx.x];
    if (right)
        __syncthreads();
    if (threadIdx.x == 40)
        shared[0] = 1;
}
TEST_KERNEL(byte_read_before_the_others, 1, "after a read by thread 0 (warp 0, lane 0)")

/* Every block has shared memory of its own, in the same places here. */
FR_KERNEL(64) void shared_of_blocks(int *x, int right)
{
    FR_DYNAMIC_SHARED(int, shared);
    __shared__ int one;
    FR_AWAIT_PREVIOUS();
    shared[threadIdx.x] = 1;
    if (threadIdx.x == 5)
        one = 1;
    if (right)
        __syncthreads();
    x[blockIdx.x * 64 + threadIdx.x] = shared[threadIdx.x ^ 1] + one;
}
TEST_KERNEL(shared_of_blocks, 3, "byte 4 of dynamic shared memory")

/* Lanes of a warp */

FR_KERNEL(64) void read_of_a_lane(int *x, int right)
{
    __shared__ int shared[64];
    FR_AWAIT_PREVIOUS();
    shared[threadIdx.x] = 1;
    if (right)
        __syncwarp();
    else
        __shfl_sync(FULL, __ballot_sync(FULL, 1), 0); /* orders no memory */
    x[threadIdx.x] = shared[threadIdx.x ^ 31];
}
TEST_KERNEL(read_of_a_lane, 1, "with no barrier of the two between")

FR_KERNEL(64) void write_after_lanes_read(int *x, int right)
{
    __shared__ int shared[2];
    FR_AWAIT_PREVIOUS();
    x[threadIdx.x] = shared[threadIdx.x / 32];
    if (right)
        __syncwarp();
    if (threadIdx.x % 32 == 31)
        shared[threadIdx.x / 32] = 8;
}
TEST_KERNEL(write_after_lanes_read, 1, "after a read by thread ")

FR_KERNEL(64) void warp_barrier_for_a_block(int *x, int right)
{
    __shared__ int shared[64];
    FR_AWAIT_PREVIOUS();
    shared[threadIdx.x] = 1;
    __syncwarp();
    if (right)
        __syncthreads();
    x[threadIdx.x] = shared[threadIdx.x ^ 32];
}
TEST_KERNEL(warp_barrier_for_a_block, 1, "(warp 1, lane ")

/* Lane 0 meets lane 1, which meets lane 2, or else lane 3 does. */
FR_KERNEL(64) void chain_of_lanes(int *x, int right)
{
    __shared__ int shared;
    FR_AWAIT_PREVIOUS();
    const int t = int(threadIdx.x);
    if (t == 0)
        shared = 7;
    if (t < 2)
        __syncwarp(3);
    if (right ? t == 1 || t == 2 : t == 2 || t == 3)
        __syncwarp(right ? 6 : 12);
    if (t == 2)
        x[0] = shared;
}
TEST_KERNEL(chain_of_lanes, 1, "after a write by thread 0 (warp 0, lane 0)")

/* What a lane did after its last meeting is not covered by it. */
FR_KERNEL(64) void written_after_the_meeting(int *x, int right)
{
    __shared__ int shared[2];
    FR_AWAIT_PREVIOUS();
    const int warp = threadIdx.x / 32;
    if (threadIdx.x % 32 == 3 && right)
        shared[warp] = 7;
    __syncwarp();
    if (threadIdx.x % 32 == 3 && !right)
        shared[warp] = 7;
    if (threadIdx.x % 32 == 4)
        x[warp] = shared[warp];
}
TEST_KERNEL(written_after_the_meeting, 1, "(warp 0, lane 4)")

/* Atomic operations */

FR_KERNEL(64) void atomic_and_plain(int *x, int right)
{
    __shared__ int n;
    FR_AWAIT_PREVIOUS();
    if (threadIdx.x == 0)
        n = 0;
    __syncthreads();
    if (right || threadIdx.x != 40)
        atomicAdd(&n, 1);
    else
        n = 5;
    __syncthreads();
    x[threadIdx.x] = n;
}
TEST_KERNEL(atomic_and_plain, 1, "atomic access")

/* Also when it has used it atomically itself since the others did. */
FR_KERNEL(64) void read_after_an_atomic_of_its_own(int *x, int right)
{
    __shared__ int n;
    FR_AWAIT_PREVIOUS();
    if (threadIdx.x == 0)
        n = 0;
    __syncthreads();
    atomicAdd(&n, 1);
    if (right)
        __syncthreads();
    if (threadIdx.x == 63)
        x[0] = n;
}
TEST_KERNEL(read_after_an_atomic_of_its_own, 1, "after an atomic access by thread ")

/* Block 0's own atomic access is between its write and the other block's. */
FR_KERNEL(64) void atomic_after_a_write(int *x, int right)
{
    FR_AWAIT_PREVIOUS();
    if (threadIdx.x == 0 && blockIdx.x == 0)
        x[right ? 1 : 0] = 1;
    if (threadIdx.x == 0)
        atomicAdd(x, 1);
}
TEST_KERNEL(atomic_after_a_write, 2, "in another block (")

/* Each block counts itself; the last one to come cannot know what the others did. */
FR_KERNEL(64) void atomic_of_blocks(int *x, int right)
{
    FR_AWAIT_PREVIOUS();
    if (threadIdx.x == 0 && atomicAdd(x, 1) % 3 == 2 && !right)
        x[1] = x[0];
}
TEST_KERNEL(atomic_of_blocks, 3, "read by thread 0")

/* Blocks of a launch */

FR_KERNEL(64) void words_of_blocks(int *x, int right)
{
    FR_AWAIT_PREVIOUS();
    __syncthreads();
    if (threadIdx.x == 9)
        x[right ? blockIdx.x : 0] += 1;
    __syncthreads();
}
TEST_KERNEL(words_of_blocks, 2, "by thread 9 (warp 0, lane 9), code ")

/* Each thread has a half of a word, and every block the same ones. */
FR_KERNEL(64) void halves_of_blocks(int *x, int right)
{
    FR_AWAIT_PREVIOUS();
    reinterpret_cast<uint16_t *>(x)[(right ? blockIdx.x * 64 : 0) + threadIdx.x] = 1;
}
TEST_KERNEL(halves_of_blocks, 2, "in another block (")

FR_KERNEL(64) void write_what_a_block_read(int *x, int right)
{
    FR_AWAIT_PREVIOUS();
    __shared__ int sum;
    if (threadIdx.x == 0)
        sum = x[0];
    __syncthreads();
    if (threadIdx.x == blockIdx.x) /* block 0 goes first, or last */
        x[right ? 1 + blockIdx.x : 0] = sum;
}
TEST_KERNEL(write_what_a_block_read, 2, "in another block (")

/* Asynchronous copies */

FR_KERNEL(64) void copy_read_before_its_wait(int *x, int right)
{
    __shared__ __align__(16) int shared[64];
    FR_AWAIT_PREVIOUS();
    __pipeline_memcpy_async(&shared[threadIdx.x], x + threadIdx.x, 4);
    __pipeline_commit();
    if (right)
        __pipeline_wait_prior(0);
    x[64 + threadIdx.x] = shared[threadIdx.x];
    __pipeline_wait_prior(0);
}
TEST_KERNEL(copy_read_before_its_wait, 1, "after an asynchronous copy into it by thread ")

FR_KERNEL(64) void copy_of_another_read_before_its_wait(int *x, int right)
{
    __shared__ __align__(16) int shared[64];
    FR_AWAIT_PREVIOUS();
    __pipeline_memcpy_async(&shared[threadIdx.x], x + threadIdx.x, 4);
    __pipeline_commit();
    if (right)
        __pipeline_wait_prior(0);
    __syncthreads();
    x[64 + threadIdx.x] = shared[63 - threadIdx.x];
    __pipeline_wait_prior(0);
}
TEST_KERNEL(copy_of_another_read_before_its_wait, 1, "that is not awaited")

FR_KERNEL(64) void copy_of_another_read_without_barrier(int *x, int right)
{
    __shared__ __align__(16) int shared[64];
    FR_AWAIT_PREVIOUS();
    __pipeline_memcpy_async(&shared[threadIdx.x], x + threadIdx.x, 4);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    if (right)
        __syncthreads();
    x[64 + threadIdx.x] = shared[63 - threadIdx.x];
}
TEST_KERNEL(copy_of_another_read_without_barrier, 1, "with no barrier of the two between")

FR_KERNEL(64) void copy_over_what_is_read(int *x, int right)
{
    __shared__ __align__(16) int shared[64];
    FR_AWAIT_PREVIOUS();
    const int before = shared[63 - threadIdx.x];
    if (right)
        __syncthreads();
    __pipeline_memcpy_async(&shared[threadIdx.x], x + threadIdx.x, 4);
    __pipeline_commit();
    __pipeline_wait_prior(0);
    x[64 + threadIdx.x] = before;
}
TEST_KERNEL(copy_over_what_is_read, 1, "with no barrier of the two between")

FR_KERNEL(64) void copy_from_what_is_written(int *x, int right)
{
    __shared__ __align__(16) int shared[64];
    FR_AWAIT_PREVIOUS();
    x[63 - threadIdx.x] = 1;
    if (right)
        __syncthreads();
    __pipeline_memcpy_async(&shared[threadIdx.x], x + threadIdx.x, 4);
    __pipeline_commit();
    __pipeline_wait_prior(0);
}
TEST_KERNEL(copy_from_what_is_written, 1,
            "of an allocation of global memory\n  a write by thread 32 ")

/* Kernels that start before the last one is over */

FR_KERNEL(64) void write_words(int *x)
{
    FR_AWAIT_PREVIOUS();
    x[threadIdx.x] = 1;
}

FR_KERNEL(64) void read_words(const int *x, int *out)
{
    FR_AWAIT_PREVIOUS();
    out[threadIdx.x] = x[threadIdx.x];
}

FR_KERNEL(64) void read_early(const int *x, int *out)
{
    const int word = x[threadIdx.x];
    FR_AWAIT_PREVIOUS();
    out[threadIdx.x] = word;
}

FR_KERNEL(64) void write_early(int *x)
{
    x[threadIdx.x] = 1;
    FR_AWAIT_PREVIOUS();
}

FR_KERNEL(64) void read_bytes(const uint8_t *x, int *out)
{
    FR_AWAIT_PREVIOUS();
    out[threadIdx.x] = x[threadIdx.x];
}

FR_KERNEL(64) void write_bytes(uint8_t *x)
{
    FR_AWAIT_PREVIOUS();
    x[threadIdx.x] = 1;
}

/* The first of each four. */
FR_KERNEL(64) void write_bytes_early(uint8_t *x)
{
    x[threadIdx.x * 4] = 1;
    FR_AWAIT_PREVIOUS();
}

FR_KERNEL(64) void await_never(const int *x, int *out)
{
    out[threadIdx.x] = x[threadIdx.x];
}

#define WRITE(first) FR_LAUNCH(write_words, 1, 32, 0, stream, memory + (first))
#define READ(first, out) FR_LAUNCH(read_words, 1, 32, 0, stream, memory + (first), memory + (out))
#define READ_EARLY(first, out) \
    FR_LAUNCH(read_early, 1, 32, 0, stream, memory + (first), memory + (out))
#define WRITE_EARLY(first) FR_LAUNCH(write_early, 1, 32, 0, stream, memory + (first))
#define AWAIT_NEVER(first, out) \
    FR_LAUNCH(await_never, 1, 32, 0, stream, memory + (first), memory + (out))
#define BYTES_AT(first) reinterpret_cast<uint8_t *>(memory + (first))
#define SYNCHRONIZE() cudaStreamSynchronize(stream)

static void read_what_was_written(void)
{
    WRITE(0);
    READ_EARLY(0, 64);
    SYNCHRONIZE();
}

static void write_what_was_read(void)
{
    READ(0, 64);
    WRITE_EARLY(0);
    SYNCHRONIZE();
}

static void write_what_was_written(void)
{
    WRITE(0);
    WRITE_EARLY(0);
    SYNCHRONIZE();
}

static void read_what_the_one_before_wrote(void)
{
    WRITE(0);
    READ(128, 64);
    READ_EARLY(0, 64);
    SYNCHRONIZE();
}

static void read_and_await_never(void)
{
    WRITE(0);
    AWAIT_NEVER(0, 64);
    SYNCHRONIZE();
}

static void write_bytes_that_were_written(void)
{
    FR_LAUNCH(write_bytes, 1, 64, 0, stream, BYTES_AT(0));
    FR_LAUNCH(write_bytes_early, 1, 16, 0, stream, BYTES_AT(0));
    SYNCHRONIZE();
}

static void write_bytes_that_were_read(void)
{
    FR_LAUNCH(read_bytes, 1, 64, 0, stream, BYTES_AT(0), memory + 64);
    FR_LAUNCH(write_bytes_early, 1, 16, 0, stream, BYTES_AT(0));
    SYNCHRONIZE();
}

static void read_behind_an_event(void)
{
    cudaEvent_t event;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    WRITE(0);
    cudaEventRecord(event, stream);
    WRITE(64);
    cudaEventSynchronize(event);
    READ_EARLY(64, 128);
    SYNCHRONIZE();
}

static void test_early_kernels(void **)
{
    assert_true(dies_saying(read_what_was_written,
                            "a race in kernel read_early, block (0, 0, 0): byte 0 of 1024 of"));
    assert_true(dies_saying(read_what_was_written,
                            "after a write by kernel write_words, which may still run"));
    assert_true(
        dies_saying(write_what_was_read, "after a read by kernel read_words, which may still run"));
    assert_true(dies_saying(write_what_was_written,
                            "after a write by kernel write_words, which may still run"));
    assert_true(
        dies_saying(read_what_the_one_before_wrote, "by kernel write_words, which may still run"));
    assert_true(dies_saying(read_and_await_never, "a race in kernel await_never"));
    assert_true(dies_saying(write_bytes_that_were_written,
                            "after a write by kernel write_bytes, which may still run"));
    assert_true(
        dies_saying(write_bytes_that_were_read, "after a read by kernel read_bytes, which may still run"));
    assert_true(dies_saying(read_behind_an_event,
                            "after a write by kernel write_words, which may still run"));
}

/* The same where it is no race: all before is over, was not written, or is awaited. */
static void test_early_kernels_that_may(void **)
{
    const int zeros[32] = {};
    cudaEvent_t event;
    assert_int_equal(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), cudaSuccess);
    WRITE(0);
    READ_EARLY(128, 64);
    READ(0, 64);
    SYNCHRONIZE();
    READ_EARLY(0, 64);
    READ_EARLY(0, 64);
    assert_int_equal(
        cudaMemcpyAsync(memory + 192, zeros, sizeof zeros, cudaMemcpyHostToDevice, stream),
        cudaSuccess);
    WRITE_EARLY(0);
    assert_int_equal(cudaMemsetAsync(memory + 192, 0, sizeof zeros, stream), cudaSuccess);
    READ_EARLY(0, 64);
    cudaEventRecord(event, stream);
    assert_int_equal(cudaEventSynchronize(event), cudaSuccess);
    READ_EARLY(64, 0);
    cudaEventRecord(event, stream);
    while (cudaEventQuery(event) == cudaErrorNotReady)
        continue;
    READ_EARLY(0, 64);
    while (cudaStreamQuery(stream) == cudaErrorNotReady)
        continue;
    READ_EARLY(64, 0);
    SYNCHRONIZE();
    AWAIT_NEVER(0, 64);
    SYNCHRONIZE();
    FR_LAUNCH(write_bytes, 1, 3, 0, stream, BYTES_AT(0) + 1); /* of a word's four, all but the first */
    FR_LAUNCH(write_bytes_early, 1, 1, 0, stream, BYTES_AT(0));
    SYNCHRONIZE();
    assert_int_equal(cudaEventDestroy(event), cudaSuccess);
}

/* A library's product awaits what is before it, and is awaited. */

static void multiply(void)
{
    const float one = 1, zero = 0;
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t square;
    cublasLtCreate(&handle);
    cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasLtMatrixLayoutCreate(&square, CUDA_R_32F, 4, 4, 4);
    assert_int_equal(cublasLtMatmul(handle, product, &one, memory, square, memory + 64, square,
                                    &zero, memory + 128, square, memory + 128, square, NULL, NULL,
                                    0, stream),
                     CUBLAS_STATUS_SUCCESS);
    cublasLtMatrixLayoutDestroy(square);
    cublasLtMatmulDescDestroy(product);
    cublasLtDestroy(handle);
}

static void read_a_product_early(void)
{
    multiply();
    FR_LAUNCH(read_early, 1, 16, 0, stream, memory + 128, memory + 192);
    SYNCHRONIZE();
}

static void write_a_factor_early(void)
{
    multiply();
    FR_LAUNCH(write_early, 1, 16, 0, stream, memory + 64);
    SYNCHRONIZE();
}

static void test_products(void **)
{
    assert_true(dies_saying(read_a_product_early,
                            "after a write by kernel cublasLtMatmul, which may still run"));
    assert_true(dies_saying(write_a_factor_early,
                            "after a read by kernel cublasLtMatmul, which may still run"));
    WRITE(192);
    multiply();
    READ_EARLY(192, 0);
    SYNCHRONIZE();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_read_of_another),
        TEST(test_write_after_read),
        TEST(test_two_writes),
        TEST(test_halves),
        TEST(test_half_written_before_the_other),
        TEST(test_byte_read_before_the_others),
        TEST(test_shared_of_blocks),
        TEST(test_read_of_a_lane),
        TEST(test_write_after_lanes_read),
        TEST(test_warp_barrier_for_a_block),
        TEST(test_chain_of_lanes),
        TEST(test_written_after_the_meeting),
        TEST(test_atomic_and_plain),
        TEST(test_read_after_an_atomic_of_its_own),
        TEST(test_atomic_after_a_write),
        TEST(test_atomic_of_blocks),
        TEST(test_words_of_blocks),
        TEST(test_halves_of_blocks),
        TEST(test_write_what_a_block_read),
        TEST(test_copy_read_before_its_wait),
        TEST(test_copy_of_another_read_before_its_wait),
        TEST(test_copy_of_another_read_without_barrier),
        TEST(test_copy_over_what_is_read),
        TEST(test_copy_from_what_is_written),
        TEST(test_early_kernels),
        TEST(test_early_kernels_that_may),
        TEST(test_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
