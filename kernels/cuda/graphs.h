/* graphs.h: lists of commands seen before, and from the second time on a CUDA graph of each, which is started by one
 * launch. A graph only saves time: without one the commands are started one by one. It holds the addresses that its
 * commands name. A queue (queue.h) has one set of graphs for its stream. */
#ifndef FR_CUDA_GRAPHS_H
#define FR_CUDA_GRAPHS_H

#include <stdbool.h>

#include "command_list.h"

typedef struct fr_cuda_graphs fr_cuda_graphs;
/* The graph of one list, captured or not. The set owns it, until the next find() or forget(). */
typedef struct fr_cuda_graph fr_cuda_graph;

/* For a stream, which stays the caller's. */
fr_status fr_cuda_graphs_open(cudaStream_t stream, fr_cuda_graphs **out);
/* The stream is idle. NULL is fine. */
void fr_cuda_graphs_close(fr_cuda_graphs **graphs);
/* As if nothing had been seen yet: memory that commands name goes. CUDA frees a graph that is under
 * way when it has ended (cudaGraphExecDestroy). */
void fr_cuda_graphs_forget(fr_cuda_graphs *graphs);

/* Notes that the commands were seen. NULL: they are few, or seen for the first time, or cannot be captured. */
fr_status fr_cuda_graphs_find(fr_cuda_graphs *graphs, const fr_cuda_command_list *commands, fr_cuda_graph **out);
/* Starts the commands with what find() gave: NULL, or their graph, which is captured first if it is not yet. pace: for
 * when they are started one by one, or NULL. */
fr_status fr_cuda_graphs_start(fr_cuda_graphs *graphs, fr_cuda_graph *g, const fr_cuda_command_list *commands,
                               const fr_cuda_pace *pace);

/* ---- for ranks that capture together (meetings.h) */

/* Captures the commands, again if they were; false: they cannot be. `at` > 0: what captured_at() says then. */
bool fr_cuda_graphs_capture(fr_cuda_graphs *graphs, fr_cuda_graph *g, const fr_cuda_command_list *commands, int64_t at);
/* 0: not captured here. */
int64_t fr_cuda_graph_captured_at(const fr_cuda_graph *g);
/* From now on the commands are among those that cannot be captured. */
void fr_cuda_graph_give_up(fr_cuda_graph *g);

#endif
