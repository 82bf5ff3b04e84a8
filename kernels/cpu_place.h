/* cpu_place.h: how many threads a rank has by default, and where they run on larger machines.
 *
 * The cores that this process may use (its affinity, its cgroup, what the launcher allows) are
 * divided among the ranks that share them: disjoint, contiguous parts, within one NUMA node where
 * the numbers allow it. A rank's threads are bound to its part as a whole, not one by one, so the
 * system can still move them away from other processes, but not to another node.
 *
 * Binding comes before memory: a page lies on the node of the thread that touches it first. So a
 * rank enters its place before it opens its device; the compute threads, like any that are started
 * later, inherit the set from the thread that starts them, and weights and KV cache are then
 * touched first by one of them.
 *
 * Placing threads is an improvement, never a condition: where the machine cannot be looked at, that
 * is one line in the log, and the threads run where the system puts them. */
#ifndef FR_CPU_PLACE_H
#define FR_CPU_PLACE_H

#include <sched.h>
#include <stdbool.h>

#include "status.h"

typedef struct fr_place_wish {
    int rank, n_ranks; /* this rank among those of this host that may use the same cores */
    int threads;       /* of each rank; 0: its share of the cores, SMT siblings counted once */
    bool bind;         /* false: only the number of threads is decided */
} fr_place_wish;

typedef struct fr_place {
    int threads;
    bool bound;
    cpu_set_t before; /* when bound: what the thread might use before it entered */
} fr_place;

/* Decides the calling thread's place, binds the thread to it if it is worth it, and logs where. */
void fr_place_enter(const fr_place_wish *wish, fr_place *out);
/* By the thread that entered, once the threads that it started are gone. */
void fr_place_leave(fr_place *place);

/* Cores that the calling thread may use; SMT siblings are one core. */
int fr_place_cores(void);

/* The decision alone, on an hwloc topology cut down to what may be used. `set` becomes the hardware
 * threads of this rank: one a core, all of them only where its threads are more than its cores. It
 * becomes empty, which is no binding, when it is not wished; for a rank that has the machine to
 * itself, and on one NUMA node without SMT, where nothing is to be gained; and when the hardware
 * threads do not suffice for the threads of all ranks. All ranks decide alike. */
struct hwloc_topology;
struct hwloc_bitmap_s;
fr_status fr_place_plan(struct hwloc_topology *machine, const fr_place_wish *wish, int *threads_out,
                        struct hwloc_bitmap_s *set);

#endif
