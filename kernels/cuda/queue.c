/* queue.c: see queue.h.
 *
 * Easy to get wrong: the pinned block may not be written again before the copy that reads it is done (two blocks take
 * turns, each with an event); a graph holds addresses of the device block, so the graphs go when that grows. */
#include "queue.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "command_list.h"
#include "cuda_error.h"
#include "graphs.h"
#include "meetings.h"

enum {
    BLOCKS = 2,
    FIRST_BLOCK = 4 << 20,  /* bytes */
    STAGED_MAX = 64,        /* arrays that are looked through for one that is there already */
    ALIGNMENT = 256,
    COMMANDS_MAX = 1 << 16, /* before what an operation stages, the queue is then flushed */
};

typedef struct staged {
    const void *data;
    size_t bytes, at;
} staged;

struct fr_cuda_queue {
    fr_cuda_gpu gpu;
    cudaStream_t stream;
    fr_cuda_command_list commands;
    fr_cuda_graphs *graphs;
    fr_cuda_meetings meetings;
    uint8_t *pinned[BLOCKS], *device;
    cudaEvent_t copied[BLOCKS], begun, ended; /* the latter two of the last flush */
    cudaEvent_t paced[2];                     /* in turn, where the host kept the pace */
    int pace;                                 /* the one to record next */
    int block; /* the one being filled */
    size_t used, block_bytes;
    size_t committed; /* of `used`, what pushed commands read: the rest is an operation's at work */
    void *fetched;    /* [FR_CUDA_FETCH], pinned */
    staged staged[STAGED_MAX];
    int n_staged;
};

static void free_blocks(fr_cuda_queue *q)
{
    for (int b = 0; b < BLOCKS; b++) {
        if (q->pinned[b])
            cudaFreeHost(q->pinned[b]);
        q->pinned[b] = NULL;
    }
    if (q->device)
        cudaFree(q->device);
    q->device = NULL;
    q->block_bytes = 0;
}

static fr_status make_blocks(fr_cuda_queue *q, size_t bytes)
{
    void *mem = NULL;
    FR_TRY(fr_cuda_gpu_use(q->gpu));
    for (int b = 0; b < BLOCKS; b++) {
        FR_TRY_CUDA(cudaMallocHost(&mem, bytes), "pinned memory of %zu bytes", bytes);
        q->pinned[b] = mem;
    }
    FR_TRY_CUDA(cudaMalloc(&mem, bytes), "memory of %zu bytes", bytes);
    q->device = mem;
    q->block_bytes = bytes;
    return FR_OK;
}

fr_status fr_cuda_queue_open(fr_cuda_gpu gpu, cudaStream_t stream, fr_cuda_queue **out)
{
    fr_cuda_queue *q = calloc(1, sizeof *q);
    if (!q)
        return fr_no_memory();
    q->gpu = gpu;
    q->stream = stream;
    fr_status st = fr_cuda_graphs_open(stream, &q->graphs);
    if (st == FR_OK)
        st = make_blocks(q, FIRST_BLOCK);
    if (st == FR_OK)
        st = fr_cuda_status(cudaMallocHost(&q->fetched, FR_CUDA_FETCH), "pinned memory of %d bytes", FR_CUDA_FETCH);
    for (int b = 0; b < BLOCKS && st == FR_OK; b++)
        st = fr_cuda_status(cudaEventCreateWithFlags(&q->copied[b], cudaEventDisableTiming), "an event");
    for (int i = 0; i < 2 && st == FR_OK; i++)
        st = fr_cuda_status(cudaEventCreateWithFlags(&q->paced[i], cudaEventDisableTiming), "an event");
    if (st == FR_OK)
        st = fr_cuda_status(cudaEventCreateWithFlags(&q->begun, cudaEventDefault), "an event");
    if (st == FR_OK)
        st = fr_cuda_status(cudaEventCreateWithFlags(&q->ended, cudaEventDefault), "an event");
    if (st != FR_OK)
        fr_cuda_queue_close(&q);
    *out = q;
    return st;
}

void fr_cuda_queue_close(fr_cuda_queue **pq)
{
    fr_cuda_queue *q = *pq;
    if (!q)
        return;
    cudaStreamSynchronize(q->stream);
    fr_cuda_graphs_close(&q->graphs);
    free_blocks(q);
    if (q->fetched)
        cudaFreeHost(q->fetched);
    for (int b = 0; b < BLOCKS; b++)
        if (q->copied[b])
            cudaEventDestroy(q->copied[b]);
    for (int i = 0; i < 2; i++)
        if (q->paced[i])
            cudaEventDestroy(q->paced[i]);
    if (q->begun)
        cudaEventDestroy(q->begun);
    if (q->ended)
        cudaEventDestroy(q->ended);
    free(q->commands.words);
    free(q);
    *pq = NULL;
}

/* ---- staging */

/* A size class: a list that grows by an entry seldom moves what is staged behind it. */
static size_t class_of(size_t bytes)
{
    size_t size = ALIGNMENT;
    while (size < bytes)
        size *= 2;
    return size;
}

static fr_status grow_blocks(fr_cuda_queue *q, size_t bytes)
{
    FR_TRY(fr_cuda_queue_wait(q));
    fr_cuda_graphs_forget(q->graphs);
    free_blocks(q);
    return make_blocks(q, class_of(bytes));
}

static fr_status wait_for(fr_cuda_queue *q, cudaEvent_t event);

fr_status fr_cuda_queue_room(fr_cuda_queue *q, const size_t *bytes, int n)
{
    size_t size = 0;
    for (int i = 0; i < n; i++)
        size += class_of(bytes[i]);
    q->used = q->committed; /* without what an operation that failed had staged */
    while (q->n_staged > 0 && q->staged[q->n_staged - 1].at >= q->used)
        q->n_staged--;
    if (q->used + size > q->block_bytes || q->commands.n >= COMMANDS_MAX) {
        FR_TRY(fr_cuda_queue_flush(q));
        if (size > q->block_bytes)
            FR_TRY(grow_blocks(q, size));
    }
    if (q->used == 0) /* the copy of two flushes ago still reads this block, perhaps */
        FR_TRY(wait_for(q, q->copied[q->block]));
    return FR_OK;
}

fr_status fr_cuda_queue_reserve(fr_cuda_queue *q, size_t bytes, void **host_out, void **device_out)
{
    size_t size = class_of(bytes);
    if (q->used == q->committed)
        FR_TRY(fr_cuda_queue_room(q, &bytes, 1));
    if (q->used + size > q->block_bytes)
        return fr_fail(FR_ELIMIT, "a GPU operation stages %zu bytes more than it said", size);
    *host_out = q->pinned[q->block] + q->used;
    *device_out = q->device + q->used;
    q->used += size;
    return FR_OK;
}

fr_status fr_cuda_queue_stage(fr_cuda_queue *q, const void *data, size_t bytes, void **device_out)
{
    void *host = NULL;
    for (int i = 0; i < q->n_staged; i++) {
        const staged *s = &q->staged[i];
        if (s->data == data && s->bytes == bytes && memcmp(q->pinned[q->block] + s->at, data, bytes) == 0) {
            *device_out = q->device + s->at;
            return FR_OK;
        }
    }
    FR_TRY(fr_cuda_queue_reserve(q, bytes, &host, device_out));
    memcpy(host, data, bytes);
    if (q->n_staged < STAGED_MAX)
        q->staged[q->n_staged++] = (staged){data, bytes, (size_t)((uint8_t *)*device_out - q->device)};
    return FR_OK;
}

/* ---- commands */

fr_status fr_cuda_queue_push(fr_cuda_queue *q, fr_cuda_launch launch, const void *args, size_t bytes)
{
    FR_TRY(fr_cuda_command_list_push(&q->commands, launch, args, bytes));
    q->committed = q->used;
    return FR_OK;
}

void fr_cuda_queue_note_meeting(fr_cuda_queue *q)
{
    q->meetings.n_pushed++;
}

const void *fr_cuda_queue_last(const fr_cuda_queue *q, fr_cuda_launch launch)
{
    return fr_cuda_command_list_last(&q->commands, launch);
}

void fr_cuda_queue_drop_last(fr_cuda_queue *q)
{
    fr_cuda_command_list_drop_last(&q->commands);
}

/* The stream has come to where the one before was recorded: the host is at most 2 FR_CUDA_PACE commands ahead. */
static fr_status keep_pace(void *ctx)
{
    fr_cuda_queue *q = ctx;
    FR_TRY_CUDA(cudaEventRecord(q->paced[q->pace], q->stream), "an event");
    q->pace = 1 - q->pace;
    return wait_for(q, q->paced[q->pace]);
}

static fr_status start_commands(fr_cuda_queue *q)
{
    const fr_cuda_pace pace = {keep_pace, q};
    fr_cuda_graph *g = NULL;
    FR_TRY(fr_cuda_graphs_find(q->graphs, &q->commands, &g));
    if (fr_cuda_meetings_are_due(&q->meetings))
        return fr_cuda_meetings_start(&q->meetings, q->graphs, g, &q->commands, &pace);
    return fr_cuda_graphs_start(q->graphs, g, &q->commands, NULL);
}

static fr_status send_block(fr_cuda_queue *q)
{
    if (q->used == 0)
        return FR_OK;
    FR_TRY_CUDA(cudaMemcpyAsync(q->device, q->pinned[q->block], q->used, cudaMemcpyHostToDevice, q->stream),
                "a copy of %zu bytes", q->used);
    FR_TRY_CUDA(cudaEventRecord(q->copied[q->block], q->stream), "an event");
    q->block = (q->block + 1) % BLOCKS;
    return FR_OK;
}

static fr_status start(fr_cuda_queue *q)
{
    FR_TRY(fr_cuda_gpu_use(q->gpu));
    FR_TRY_CUDA(cudaEventRecord(q->begun, q->stream), "an event");
    FR_TRY(send_block(q));
    FR_TRY(start_commands(q));
    return fr_cuda_status(cudaEventRecord(q->ended, q->stream), "an event");
}

fr_status fr_cuda_queue_flush(fr_cuda_queue *q)
{
    if (q->commands.n == 0)
        return FR_OK;
    fr_status st = start(q);
    fr_cuda_command_list_clear(&q->commands);
    q->n_staged = 0;
    q->used = q->committed = 0;
    return st;
}

fr_status fr_cuda_queue_ms(fr_cuda_queue *q, double *out)
{
    float ms = 0;
    FR_TRY_CUDA(cudaEventSynchronize(q->ended), "a pass");
    FR_TRY_CUDA(cudaEventElapsedTime(&ms, q->begun, q->ended), "the time of a pass");
    *out = (double)ms;
    return FR_OK;
}

void fr_cuda_queue_set_peers(fr_cuda_queue *q, const fr_device_peers *peers)
{
    fr_cuda_graphs_forget(q->graphs);
    q->meetings.peers = peers ? *peers : (fr_device_peers){0};
}

/* Until the event, or with NULL all of the stream, is done. A pass takes milliseconds: giving the core away between two
 * looks is enough. */
static fr_status wait_for(fr_cuda_queue *q, cudaEvent_t event)
{
    const fr_device_peers *peers = &q->meetings.peers;
    for (;;) {
        if (peers->check)
            FR_TRY(peers->check(peers->ctx));
        cudaError_t e = event ? cudaEventQuery(event) : cudaStreamQuery(q->stream);
        if (e != cudaErrorNotReady)
            return fr_cuda_status(e, "a pass");
        sched_yield();
    }
}

fr_status fr_cuda_queue_wait(fr_cuda_queue *q)
{
    FR_TRY(fr_cuda_queue_flush(q));
    return wait_for(q, NULL);
}

/* ---- results */

typedef struct fetch_args {
    void *to;
    const void *from;
    size_t bytes;
} fetch_args;

static void run_fetch(cudaStream_t stream, const void *args)
{
    const fetch_args *a = args;
    /* As of a kernel, fr_cuda_command_list_run() is told what went wrong. */
    (void)cudaMemcpyAsync(a->to, a->from, a->bytes, cudaMemcpyDeviceToHost, stream);
}

fr_status fr_cuda_queue_fetch(fr_cuda_queue *q, const void *device, size_t bytes, void *host_out)
{
    if (bytes > FR_CUDA_FETCH)
        return fr_fail(FR_ELIMIT, "%zu bytes fetched from a GPU, at most %d", bytes, FR_CUDA_FETCH);
    const fetch_args args = {q->fetched, device, bytes};
    FR_TRY(fr_cuda_queue_push(q, run_fetch, &args, sizeof args));
    FR_TRY(fr_cuda_queue_wait(q));
    memcpy(host_out, q->fetched, bytes);
    return FR_OK;
}
