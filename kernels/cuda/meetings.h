/* meetings.h: commands in which this device meets other ranks' (NCCL's collectives) must be in graphs on all ranks or
 * on none, and captured together. But each rank sees passes of its own shape (heads, tokens it holds, blocks that fill
 * up), so the ranks compare what they have before they start such commands: one exchange between the hosts a pass. */
#ifndef FR_CUDA_MEETINGS_H
#define FR_CUDA_MEETINGS_H

#include "graphs.h"
#include "ops.h"

/* Zeros: no peers, no meeting so far. */
typedef struct fr_cuda_meetings {
    fr_device_peers peers;       /* zeros: none */
    int64_t n_pushed, n_started; /* in all */
} fr_cuda_meetings;

/* The commands pushed since the last start have meetings of which the peers have to know. */
bool fr_cuda_meetings_are_due(const fr_cuda_meetings *m);
/* Starts those, with what fr_cuda_graphs_find() gave for them, at that pace. All ranks; what the peers' compare()
 * returns, or keeping the pace. */
fr_status fr_cuda_meetings_start(fr_cuda_meetings *m, fr_cuda_graphs *graphs, fr_cuda_graph *g,
                                 const fr_cuda_command_list *commands, const fr_cuda_pace *pace);

#endif
