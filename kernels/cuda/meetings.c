/* meetings.c: see meetings.h.
 *
 * Easy to get wrong: a rank may not wait for commands in which it meets others before these could start theirs. */
#include "meetings.h"

#include "check.h"

/* What ranks compare: how many meetings they have pushed, and what they have of the commands at hand. */
enum { AT, HAS };
/* HAS; else the number of the meeting that the graph was captured at, the same on all ranks. */
enum { NOTHING = -1, NOT_CAPTURED = 0 };

typedef struct comparison {
    int64_t mine[2], least[2], greatest[2];
} comparison;

static fr_status compare(const fr_cuda_meetings *m, int64_t has, comparison *c)
{
    *c = (comparison){.mine = {[AT] = m->n_pushed, [HAS] = has}};
    return m->peers.compare(m->peers.ctx, c->mine, c->least, c->greatest);
}

/* Some ranks are at more meetings than others: a block of commands was full, or memory had to grow. None has a graph
 * for that. Those who are ahead compare again until the others have come up with them: these may have to wait for the
 * GPUs where they are, and so need ours to start, but not to know more of us. So the host keeps no pace: it would wait
 * for meetings to which the others come after they compared. */
static fr_status start_apart(const fr_cuda_meetings *m, fr_cuda_graphs *graphs, const fr_cuda_command_list *commands,
                             comparison *c)
{
    FR_TRY(fr_cuda_graphs_start(graphs, NULL, commands, NULL));
    while (c->mine[AT] > c->least[AT])
        FR_TRY(compare(m, NOTHING, c));
    return FR_OK;
}

/* All ranks come here with the same number of meetings. */
static fr_status capture_together(const fr_cuda_meetings *m, fr_cuda_graphs *graphs, fr_cuda_graph *g,
                                  const fr_cuda_command_list *commands, const fr_cuda_pace *pace)
{
    comparison c;
    const bool captured = fr_cuda_graphs_capture(graphs, g, commands, m->n_pushed);
    FR_TRY(compare(m, captured ? m->n_pushed : NOTHING, &c));
    if (c.least[HAS] == NOTHING)
        fr_cuda_graph_give_up(g);
    return fr_cuda_graphs_start(graphs, g, commands, pace);
}

bool fr_cuda_meetings_are_due(const fr_cuda_meetings *m)
{
    return m->peers.compare && m->n_pushed > m->n_started;
}

fr_status fr_cuda_meetings_start(fr_cuda_meetings *m, fr_cuda_graphs *graphs, fr_cuda_graph *g,
                                 const fr_cuda_command_list *commands, const fr_cuda_pace *pace)
{
    comparison c;
    FR_TRY(compare(m, g ? fr_cuda_graph_captured_at(g) : NOTHING, &c));
    m->n_started = m->n_pushed;
    if (c.least[AT] != c.greatest[AT])
        return start_apart(m, graphs, commands, &c);
    if (c.least[HAS] == NOTHING)
        return fr_cuda_graphs_start(graphs, NULL, commands, pace);
    if (c.least[HAS] == NOT_CAPTURED || c.least[HAS] != c.greatest[HAS])
        return capture_together(m, graphs, g, commands, pace);
    return fr_cuda_graphs_start(graphs, g, commands, pace);
}
