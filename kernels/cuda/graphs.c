/* graphs.c: see graphs.h.
 *
 * Easy to get wrong: a capture that fails must leave no capture open on the stream. */
#include "graphs.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cuda_error.h"
#include "log.h"

enum {
    GRAPHS = 24,
    GRAPH_MIN = 8, /* commands: fewer are not worth a graph */
};

struct fr_cuda_graph {
    uint64_t hash, last_used;
    uint64_t *words; /* of the list of commands */
    size_t n_words;
    cudaGraphExec_t exec; /* NULL: not captured yet */
    int64_t captured_at;
    bool cannot_be; /* captured */
};

struct fr_cuda_graphs {
    cudaStream_t stream;
    fr_cuda_graph graphs[GRAPHS];
    int n;
    uint64_t clock;
};

fr_status fr_cuda_graphs_open(cudaStream_t stream, fr_cuda_graphs **out)
{
    fr_cuda_graphs *graphs = calloc(1, sizeof *graphs);
    if (!graphs)
        return fr_no_memory();
    graphs->stream = stream;
    *out = graphs;
    return FR_OK;
}

void fr_cuda_graphs_close(fr_cuda_graphs **graphs)
{
    if (!*graphs)
        return;
    fr_cuda_graphs_forget(*graphs);
    free(*graphs);
    *graphs = NULL;
}

static void drop_capture(fr_cuda_graph *g)
{
    if (g->exec)
        cudaGraphExecDestroy(g->exec);
    g->exec = NULL;
}

static void drop(fr_cuda_graph *g)
{
    drop_capture(g);
    free(g->words);
    *g = (fr_cuda_graph){0};
}

void fr_cuda_graphs_forget(fr_cuda_graphs *graphs)
{
    for (int i = 0; i < graphs->n; i++)
        drop(&graphs->graphs[i]);
    graphs->n = 0;
}

/* ---- lists seen before */

/* A pass has hundreds of commands, and is hashed every time: each word times an odd number of its own, so that no
 * product waits for the one before. */
static uint64_t hash_of(const fr_cuda_command_list *commands)
{
    const uint64_t *end = commands->words + commands->n_words;
    uint64_t hash = 0, odd = 1;
    for (const uint64_t *word = commands->words; word < end; word++) {
        hash += *word * odd;
        odd += 2 * 0x9e3779b97f4a7c15u;
    }
    return hash;
}

static fr_cuda_graph *find(fr_cuda_graphs *graphs, const fr_cuda_command_list *commands, uint64_t hash)
{
    const size_t n_words = (size_t)commands->n_words, bytes = n_words * sizeof *commands->words;
    for (int i = 0; i < graphs->n; i++) {
        fr_cuda_graph *g = &graphs->graphs[i];
        if (g->hash == hash && g->n_words == n_words && memcmp(g->words, commands->words, bytes) == 0)
            return g;
    }
    return NULL;
}

/* In place of those that were not seen for the longest time. */
static fr_status note(fr_cuda_graphs *graphs, const fr_cuda_command_list *commands, uint64_t hash)
{
    const size_t n_words = (size_t)commands->n_words, bytes = n_words * sizeof *commands->words;
    fr_cuda_graph *g = &graphs->graphs[graphs->n < GRAPHS ? graphs->n : 0];
    for (int i = 0; i < graphs->n && graphs->n == GRAPHS; i++)
        if (graphs->graphs[i].last_used < g->last_used)
            g = &graphs->graphs[i];
    uint64_t *words = malloc(bytes);
    if (!words)
        return fr_no_memory();
    memcpy(words, commands->words, bytes);
    if (graphs->n < GRAPHS)
        graphs->n++;
    drop(g);
    *g = (fr_cuda_graph){.hash = hash, .last_used = graphs->clock, .words = words, .n_words = n_words};
    return FR_OK;
}

fr_status fr_cuda_graphs_find(fr_cuda_graphs *graphs, const fr_cuda_command_list *commands, fr_cuda_graph **out)
{
    *out = NULL;
    if (commands->n < GRAPH_MIN)
        return FR_OK;
    const uint64_t hash = hash_of(commands);
    fr_cuda_graph *g = find(graphs, commands, hash);
    graphs->clock++;
    if (!g)
        return note(graphs, commands, hash);
    g->last_used = graphs->clock;
    *out = g->cannot_be ? NULL : g;
    return FR_OK;
}

/* ---- captures */

static fr_status record(const fr_cuda_graphs *graphs, fr_cuda_graph *g, const fr_cuda_command_list *commands)
{
    cudaGraph_t captured = NULL;
    FR_TRY_CUDA(cudaStreamBeginCapture(graphs->stream, cudaStreamCaptureModeThreadLocal), "capturing a graph");
    fr_status st = fr_cuda_command_list_run_captured(commands, graphs->stream);
    fr_status ended = fr_cuda_status(cudaStreamEndCapture(graphs->stream, &captured), "capturing a graph");
    if (st == FR_OK)
        st = ended;
    if (st == FR_OK)
        st = fr_cuda_status(cudaGraphInstantiate(&g->exec, captured, 0), "a graph of %d commands", commands->n);
    if (captured)
        cudaGraphDestroy(captured);
    return st;
}

bool fr_cuda_graphs_capture(fr_cuda_graphs *graphs, fr_cuda_graph *g, const fr_cuda_command_list *commands, int64_t at)
{
    drop_capture(g);
    g->captured_at = at;
    if (record(graphs, g, commands) == FR_OK)
        return true;
    fr_log(FR_LOG_WARN, "passes of %d commands are started without a graph: %s", commands->n, fr_cause());
    g->cannot_be = true;
    return false;
}

int64_t fr_cuda_graph_captured_at(const fr_cuda_graph *g)
{
    return g->exec ? g->captured_at : 0;
}

void fr_cuda_graph_give_up(fr_cuda_graph *g)
{
    drop_capture(g);
    g->cannot_be = true;
}

fr_status fr_cuda_graphs_start(fr_cuda_graphs *graphs, fr_cuda_graph *g, const fr_cuda_command_list *commands,
                               const fr_cuda_pace *pace)
{
    if (g && !g->exec && !g->cannot_be)
        fr_cuda_graphs_capture(graphs, g, commands, 0);
    if (!g || !g->exec)
        return fr_cuda_command_list_run(commands, graphs->stream, pace);
    return fr_cuda_status(cudaGraphLaunch(g->exec, graphs->stream), "a graph of %d commands", commands->n);
}
