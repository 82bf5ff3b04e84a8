/* queue.c: see queue.h.
 *
 * Easy to get wrong: the pinned block may not be written again before the copy that reads it is done
 * (two blocks take turns, each with an event); a graph holds the addresses of the device block, so the
 * graphs go when the block grows; a capture that fails must leave no capture open on the stream; and a rank
 * may not wait for commands in which it meets others before these could start theirs (start_meetings). */
#include "queue.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cuda_error.h"
#include "grow.h"
#include "log.h"

enum {
    BLOCKS = 2,
    FIRST_BLOCK = 4 << 20, /* bytes */
    GRAPHS = 24,
    GRAPH_MIN = 8,     /* commands: fewer are not worth a graph */
    STAGED_MAX = 64,   /* arrays that are looked through for one that is there already */
    ALIGNMENT = 256,
    COMMANDS_MAX = 1 << 16, /* before what an operation stages, the queue is then flushed */
    NO_COMMAND = -1,
};

/* A command as it lies in the queue, with as many words of arguments as it has: what is written, hashed and compared in
 * every pass is a third of fr_cuda_command's. */
typedef struct packed_command {
    fr_cuda_launch launch;
    size_t bytes; /* of args, the last word filled up with zeros */
    uint64_t args[];
} packed_command;

enum { HEAD_WORDS = sizeof(packed_command) / sizeof(uint64_t) };

typedef struct staged {
    const void *data;
    size_t bytes, at;
} staged;

/* A list of commands seen before, and its graph from the second time on. */
typedef struct graph {
    uint64_t hash, last_used;
    uint64_t *commands; /* as in the queue */
    size_t n_words;
    cudaGraphExec_t exec; /* NULL: not captured yet */
    int64_t captured_at;  /* with other ranks': the number of the meeting, the same on all */
    bool cannot_be;       /* a capture failed */
} graph;

struct fr_cuda_queue {
    cudaStream_t stream;
    uint64_t *commands; /* n of them, one behind the other (packed_command) */
    int n, n_words, cap_words;
    int last; /* where the last one begins; NO_COMMAND: not known */
    int marked; /* likewise */
    uint8_t *pinned[BLOCKS], *device;
    cudaEvent_t copied[BLOCKS], begun, ended; /* the latter two of the last flush */
    int block; /* the one being filled */
    size_t used, block_bytes;
    size_t committed; /* of `used`, what pushed commands read: the rest is an operation's at work */
    void *fetched;    /* [FR_CUDA_FETCH], pinned */
    staged staged[STAGED_MAX];
    int n_staged;
    graph graphs[GRAPHS];
    int n_graphs;
    uint64_t clock;
    fr_device_peers peers; /* zeros: none */
    int64_t n_meetings, n_met; /* pushed in all; of those, started */
};

static void drop_graph(graph *g)
{
    if (g->exec)
        cudaGraphExecDestroy(g->exec);
    free(g->commands);
    *g = (graph){0};
}

static void drop_graphs(fr_cuda_queue *q)
{
    for (int i = 0; i < q->n_graphs; i++)
        drop_graph(&q->graphs[i]);
    q->n_graphs = 0;
}

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
    for (int b = 0; b < BLOCKS; b++) {
        FR_TRY_CUDA(cudaMallocHost(&mem, bytes), "pinned memory of %zu bytes", bytes);
        q->pinned[b] = mem;
    }
    FR_TRY_CUDA(cudaMalloc(&mem, bytes), "memory of %zu bytes", bytes);
    q->device = mem;
    q->block_bytes = bytes;
    return FR_OK;
}

fr_status fr_cuda_queue_open(cudaStream_t stream, fr_cuda_queue **out)
{
    fr_cuda_queue *q = calloc(1, sizeof *q);
    if (!q)
        return fr_no_memory();
    q->stream = stream;
    q->last = q->marked = NO_COMMAND;
    fr_status st = make_blocks(q, FIRST_BLOCK);
    if (st == FR_OK)
        st = fr_cuda_status(cudaMallocHost(&q->fetched, FR_CUDA_FETCH), "pinned memory of %d bytes", FR_CUDA_FETCH);
    for (int b = 0; b < BLOCKS && st == FR_OK; b++)
        st = fr_cuda_status(cudaEventCreateWithFlags(&q->copied[b], cudaEventDisableTiming), "an event");
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
    drop_graphs(q);
    free_blocks(q);
    if (q->fetched)
        cudaFreeHost(q->fetched);
    for (int b = 0; b < BLOCKS; b++)
        if (q->copied[b])
            cudaEventDestroy(q->copied[b]);
    if (q->begun)
        cudaEventDestroy(q->begun);
    if (q->ended)
        cudaEventDestroy(q->ended);
    free(q->commands);
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
    drop_graphs(q);
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
    if (q->used + size > q->block_bytes || q->n >= COMMANDS_MAX) {
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

static size_t words_of(size_t bytes)
{
    return (bytes + sizeof(uint64_t) - 1) / sizeof(uint64_t);
}

static const packed_command *command_at(const uint64_t *words)
{
    return (const packed_command *)(const void *)words;
}

/* What lies behind a command. */
static const uint64_t *behind(const packed_command *c)
{
    return c->args + words_of(c->bytes);
}

static fr_status make_room(fr_cuda_queue *q, int n_words)
{
    void *commands = q->commands;
    FR_TRY(fr_grow(&commands, &q->cap_words, q->n_words + n_words, sizeof *q->commands));
    q->commands = commands;
    return FR_OK;
}

fr_status fr_cuda_queue_push(fr_cuda_queue *q, fr_cuda_launch launch, const void *args, size_t bytes)
{
    if (bytes > FR_CUDA_ARGS)
        return fr_fail(FR_ELIMIT, "a GPU command of %zu bytes, at most %d", bytes, FR_CUDA_ARGS);
    const int n_words = HEAD_WORDS + (int)words_of(bytes);
    if (q->n_words + n_words > q->cap_words)
        FR_TRY(make_room(q, n_words));
    uint64_t *words = q->commands + q->n_words;
    words[n_words - 1] = 0; /* what the arguments do not fill */
    packed_command *c = (packed_command *)(void *)words;
    c->launch = launch;
    c->bytes = bytes;
    memcpy(c->args, args, bytes);
    q->last = q->n_words;
    q->n_words += n_words;
    q->n++;
    q->committed = q->used;
    return FR_OK;
}

void fr_cuda_queue_note_meeting(fr_cuda_queue *q)
{
    q->n_meetings++;
}

const void *fr_cuda_queue_last(const fr_cuda_queue *q, fr_cuda_launch launch)
{
    if (q->n == 0 || q->last == NO_COMMAND)
        return NULL;
    const packed_command *c = command_at(q->commands + q->last);
    return c->launch == launch ? c->args : NULL;
}

void fr_cuda_queue_mark(fr_cuda_queue *q)
{
    q->marked = q->last;
}

void *fr_cuda_queue_marked(fr_cuda_queue *q)
{
    return q->n == 0 || q->marked == NO_COMMAND ? NULL : ((packed_command *)(void *)(q->commands + q->marked))->args;
}

void fr_cuda_queue_drop_last(fr_cuda_queue *q)
{
    if (q->marked == q->last)
        q->marked = NO_COMMAND;
    q->n--;
    q->n_words = q->last;
    q->last = NO_COMMAND;
}

/* Captured, they end at the first error: a collective that came to a capture that has failed would fail, too, and with it
 * the group. */
static fr_status launch_commands(fr_cuda_queue *q, bool captured)
{
    const uint64_t *at = q->commands;
    for (int i = 0; i < q->n; i++) {
        const packed_command *c = command_at(at);
        c->launch(q->stream, c->args);
        at = behind(c);
        if (captured)
            FR_TRY(fr_cuda_status(cudaGetLastError(), "capturing command %d of %d", i + 1, q->n));
    }
    return fr_cuda_status(cudaGetLastError(), "starting %d commands", q->n);
}

static fr_status run_commands(fr_cuda_queue *q)
{
    return launch_commands(q, false);
}

/* ---- graphs */

/* A pass has hundreds of commands, and is hashed every time: each word times an odd number of its own, so that no
 * product waits for the one before. */
static uint64_t hash_commands(const uint64_t *commands, int n)
{
    const uint64_t *end = commands;
    for (int i = 0; i < n; i++)
        end = behind(command_at(end));
    uint64_t hash = 0, odd = 1;
    for (const uint64_t *word = commands; word < end; word++) {
        hash += *word * odd;
        odd += 2 * 0x9e3779b97f4a7c15u;
    }
    return hash;
}

static graph *find_graph(fr_cuda_queue *q, uint64_t hash)
{
    const size_t n_words = (size_t)q->n_words, bytes = n_words * sizeof *q->commands;
    for (int i = 0; i < q->n_graphs; i++) {
        graph *g = &q->graphs[i];
        if (g->hash == hash && g->n_words == n_words && memcmp(g->commands, q->commands, bytes) == 0)
            return g;
    }
    return NULL;
}

/* Notes that these commands were seen, in place of those that were not for the longest time. */
static fr_status note_commands(fr_cuda_queue *q, uint64_t hash)
{
    const size_t n_words = (size_t)q->n_words, bytes = n_words * sizeof *q->commands;
    graph *g = &q->graphs[q->n_graphs < GRAPHS ? q->n_graphs : 0];
    for (int i = 0; i < q->n_graphs && q->n_graphs == GRAPHS; i++)
        if (q->graphs[i].last_used < g->last_used)
            g = &q->graphs[i];
    uint64_t *copy = malloc(bytes);
    if (!copy)
        return fr_no_memory();
    memcpy(copy, q->commands, bytes);
    if (q->n_graphs < GRAPHS)
        q->n_graphs++;
    drop_graph(g);
    *g = (graph){.hash = hash, .last_used = q->clock, .commands = copy, .n_words = n_words};
    return FR_OK;
}

/* The graph of the commands at hand. NULL: they are few, or seen for the first time, or cannot be captured. */
static fr_status look_up_graph(fr_cuda_queue *q, graph **out)
{
    *out = NULL;
    if (q->n < GRAPH_MIN)
        return FR_OK;
    const uint64_t hash = hash_commands(q->commands, q->n);
    graph *g = find_graph(q, hash);
    q->clock++;
    if (!g)
        return note_commands(q, hash);
    g->last_used = q->clock;
    *out = g->cannot_be ? NULL : g;
    return FR_OK;
}

static fr_status record(fr_cuda_queue *q, graph *g)
{
    cudaGraph_t captured = NULL;
    FR_TRY_CUDA(cudaStreamBeginCapture(q->stream, cudaStreamCaptureModeThreadLocal), "capturing a graph");
    fr_status st = launch_commands(q, true);
    fr_status ended = fr_cuda_status(cudaStreamEndCapture(q->stream, &captured), "capturing a graph");
    if (st == FR_OK)
        st = ended;
    if (st == FR_OK)
        st = fr_cuda_status(cudaGraphInstantiate(&g->exec, captured, 0), "a graph of %d commands", q->n);
    if (captured)
        cudaGraphDestroy(captured);
    return st;
}

static void forget_capture(graph *g)
{
    if (g->exec)
        cudaGraphExecDestroy(g->exec);
    g->exec = NULL;
}

/* A graph only saves time: without one the commands are started one by one. */
static void capture(fr_cuda_queue *q, graph *g)
{
    forget_capture(g);
    if (record(q, g) == FR_OK)
        return;
    fr_log(FR_LOG_WARN, "passes of %d commands are started without a graph: %s", q->n, fr_cause());
    g->cannot_be = true;
}

static fr_status launch(fr_cuda_queue *q, const graph *g)
{
    if (!g->exec)
        return run_commands(q);
    return fr_cuda_status(cudaGraphLaunch(g->exec, q->stream), "a graph of %d commands", q->n);
}

/* ---- meetings */

/* What ranks compare: how many meetings they have pushed, and what they have of the commands at hand. */
enum { AT, HAS };
enum { NOTHING = -1, NOT_CAPTURED = 0 }; /* HAS; else captured_at */

typedef struct comparison {
    int64_t mine[2], least[2], greatest[2];
} comparison;

static fr_status compare(fr_cuda_queue *q, int64_t has, comparison *c)
{
    *c = (comparison){.mine = {[AT] = q->n_meetings, [HAS] = has}};
    return q->peers.compare(q->peers.ctx, c->mine, c->least, c->greatest);
}

/* Some ranks are at more meetings than others: a block of commands was full, or memory had to grow. None has a graph for
 * that. Those who are ahead compare again until the others have come up with them: these may have to wait for the GPUs
 * where they are, and so need ours to start, but not to know more of us. */
static fr_status start_apart(fr_cuda_queue *q, comparison *c)
{
    FR_TRY(run_commands(q));
    while (c->mine[AT] > c->least[AT])
        FR_TRY(compare(q, NOTHING, c));
    return FR_OK;
}

/* All ranks come here with the same number of meetings. */
static fr_status capture_together(fr_cuda_queue *q, graph *g)
{
    comparison c;
    capture(q, g);
    FR_TRY(compare(q, g->cannot_be ? NOTHING : q->n_meetings, &c));
    g->captured_at = q->n_meetings;
    if (c.least[HAS] == NOTHING) {
        forget_capture(g);
        g->cannot_be = true;
    }
    return launch(q, g);
}

static fr_status start_meetings(fr_cuda_queue *q, graph *g)
{
    comparison c;
    FR_TRY(compare(q, !g ? NOTHING : g->exec ? g->captured_at : NOT_CAPTURED, &c));
    q->n_met = q->n_meetings;
    if (c.least[AT] != c.greatest[AT])
        return start_apart(q, &c);
    if (c.least[HAS] == NOTHING)
        return run_commands(q);
    if (c.least[HAS] == NOT_CAPTURED || c.least[HAS] != c.greatest[HAS])
        return capture_together(q, g);
    return launch(q, g);
}

static fr_status start_commands(fr_cuda_queue *q)
{
    graph *g = NULL;
    FR_TRY(look_up_graph(q, &g));
    if (q->peers.compare && q->n_meetings > q->n_met)
        return start_meetings(q, g);
    if (!g)
        return run_commands(q);
    if (!g->exec)
        capture(q, g);
    return launch(q, g);
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
    FR_TRY_CUDA(cudaEventRecord(q->begun, q->stream), "an event");
    FR_TRY(send_block(q));
    FR_TRY(start_commands(q));
    return fr_cuda_status(cudaEventRecord(q->ended, q->stream), "an event");
}

fr_status fr_cuda_queue_flush(fr_cuda_queue *q)
{
    if (q->n == 0)
        return FR_OK;
    fr_status st = start(q);
    q->n = q->n_words = q->n_staged = 0;
    q->last = q->marked = NO_COMMAND;
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
    drop_graphs(q);
    q->peers = peers ? *peers : (fr_device_peers){0};
}

/* Until the event, or with NULL all of the stream, is done. A pass takes milliseconds: giving the core away between two
 * looks is enough. */
static fr_status wait_for(fr_cuda_queue *q, cudaEvent_t event)
{
    for (;;) {
        if (q->peers.check)
            FR_TRY(q->peers.check(q->peers.ctx));
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
    /* As of a kernel, run_commands() is told what went wrong. */
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
