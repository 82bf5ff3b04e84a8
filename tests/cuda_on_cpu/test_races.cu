/* test_races.cu: what races.h calls a race ends the program, and what it does not is left alone. */
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

#define FULL 0xffffffffu

static cudaStream_t stream;
static int *memory; /* [WORDS], zeros */
enum { WORDS = 256 };

static int set_up(void **)
{
    fake_cuda_reset();
    return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) || cudaMalloc(&memory, WORDS * sizeof *memory) ||
           cudaMemsetAsync(memory, 0, WORDS * sizeof *memory, stream);
}

static int tear_down(void **)
{
    cudaFree(memory);
    cudaStreamDestroy(stream);
    return !fake_cuda_all_freed();
}

/* A program of launches, and after it the end of all of them. */
#define RUN(name, ...)                                              \
    static void name(void)                                          \
    {                                                               \
        __VA_ARGS__;                                                \
        assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess); \
    }

/* In one block. What `ordered` adds makes it right. */

FR_KERNEL(64) void reverse(int *x, int ordered)
{
    __shared__ int shared[64];
    FR_AWAIT_PREVIOUS();
    shared[threadIdx.x] = int(threadIdx.x);
    if (ordered)
        __syncthreads();
    x[threadIdx.x] = shared[63 - threadIdx.x];
}

FR_KERNEL(64) void reverse_lanes(int *x, int ordered)
{
    FR_DYNAMIC_SHARED(int, shared);
    FR_AWAIT_PREVIOUS();
    shared[threadIdx.x] = int(threadIdx.x);
    if (ordered)
        __syncwarp();
    else
        __shfl_sync(FULL, 1, 0);
    x[threadIdx.x] = shared[threadIdx.x ^ 31];
}

FR_KERNEL(64) void overwrite_after_read(int *x, int ordered)
{
    __shared__ int shared;
    FR_AWAIT_PREVIOUS();
    if (threadIdx.x == 0)
        shared = 7;
    __syncthreads();
    x[threadIdx.x] = shared;
    if (ordered)
        __syncwarp();
    if (threadIdx.x == 31 || (!ordered && threadIdx.x == 63))
        x[64] = shared;
    __syncthreads();
    if (threadIdx.x < 32)
        x[threadIdx.x] = shared;
    if (ordered)
        __syncwarp(threadIdx.x < 32 ? FULL : FULL);
    if (threadIdx.x == 31)
        shared = 8;
}

/* 0 tells 1, 1 tells 2: with `ordered`, 2 knows of what 0 wrote. */
FR_KERNEL(32) void tell_on(int *x, int ordered)
{
    __shared__ int shared;
    FR_AWAIT_PREVIOUS();
    const int lane = int(threadIdx.x);
    if (lane == 0)
        shared = 7;
    if (lane < 2)
        __syncwarp(3);
    if (ordered && (lane == 1 || lane == 2))
        __syncwarp(6);
    if (!ordered && (lane == 2 || lane == 3))
        __syncwarp(12);
    if (lane == 2)
        x[0] = shared;
}

/* Halves of words: each its thread's, unless shifted by one. */
FR_KERNEL(64) void write_halves(int *x, int own)
{
    __shared__ uint16_t shared[66];
    FR_AWAIT_PREVIOUS();
    shared[threadIdx.x] = uint16_t(threadIdx.x);
    x[threadIdx.x] = shared[threadIdx.x + (own ? 0 : 1)];
}

FR_KERNEL(64) void count(int *x, int atomically)
{
    __shared__ int n;
    FR_AWAIT_PREVIOUS();
    if (threadIdx.x == 0)
        n = 0;
    __syncthreads();
    atomicAdd(&n, 1);
    if (!atomically && threadIdx.x == 40)
        n = 5;
    __syncthreads();
    x[threadIdx.x] = n;
}

FR_KERNEL(32) void copy_async(int *x, int wait, int barrier)
{
    __shared__ __align__(16) int shared[128];
    FR_AWAIT_PREVIOUS();
    const int i = int(threadIdx.x);
    __pipeline_memcpy_async(shared + 4 * i, x + 4 * i, 16);
    __pipeline_commit();
    if (wait)
        __pipeline_wait_prior(0);
    if (barrier)
        __syncthreads();
    x[128 + i] = shared[4 * (barrier ? i ^ 1 : i)];
}

RUN(reverse_well, FR_LAUNCH(reverse, 2, 64, 0, stream, memory + 64 * 0, 1))
