/* cpu_place.c: see cpu_place.h. The only file that sees hwloc.
 *
 * Cores are counted in hwloc's order, in which those of a NUMA node are neighbours. They are
 * divided in two steps: as many groups of whole nodes as nodes and ranks have in common (their
 * greatest common divisor), then each group's cores evenly among its ranks. So 4 ranks on 2 nodes
 * are two a node, 2 ranks on 4 nodes have two nodes each, and 3 ranks on 2 nodes a third of all
 * cores each. */
#include "cpu_place.h"

#include <errno.h>
#include <hwloc.h>
#include <hwloc/glibc-sched.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "log.h"

typedef struct layout {
    hwloc_topology_t machine;
    hwloc_obj_type_t core; /* HWLOC_OBJ_PU where the machine does not tell its cores */
    int n_nodes, n_cores, n_hw_threads;
} layout;

typedef struct part {
    int begin, end; /* cores */
} part;

/* ---- the machine */

/* What the calling thread may use of this machine. Caches and, by hwloc's default, devices are not
 * looked for. */
static fr_status discover(hwloc_topology_t *out)
{
    cpu_set_t mine;
    fr_status st = FR_OK;
    hwloc_topology_t machine = NULL;
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    const unsigned long quickly = HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING |
                                  HWLOC_TOPOLOGY_FLAG_NO_DISTANCES |
                                  HWLOC_TOPOLOGY_FLAG_NO_MEMATTRS | HWLOC_TOPOLOGY_FLAG_NO_CPUKINDS;
    if (!allowed || hwloc_topology_init(&machine) != 0) {
        st = fr_no_memory();
        goto fail;
    }
    if (hwloc_topology_set_cache_types_filter(machine, HWLOC_TYPE_FILTER_KEEP_NONE) != 0 ||
        hwloc_topology_set_flags(machine, quickly) != 0 || hwloc_topology_load(machine) != 0) {
        st = fr_fail(FR_EUNAVAILABLE, "hwloc: the cores of this machine: %s", strerror(errno));
        goto fail;
    }
    if (sched_getaffinity(0, sizeof mine, &mine) != 0 ||
        hwloc_cpuset_from_glibc_sched_affinity(machine, allowed, &mine, sizeof mine) != 0 ||
        hwloc_topology_restrict(machine, allowed, 0) != 0) {
        st = fr_fail(FR_EUNAVAILABLE, "the cores this process may use: %s", strerror(errno));
        goto fail;
    }
    hwloc_bitmap_free(allowed);
    *out = machine;
    return FR_OK;
fail:
    if (machine)
        hwloc_topology_destroy(machine);
    hwloc_bitmap_free(allowed);
    return st;
}

static hwloc_obj_t core_at(const layout *l, int core)
{
    return hwloc_get_obj_by_type(l->machine, l->core, (unsigned)core);
}

/* Is this the first core of a NUMA node? Nodes without cores are never met, and a core's two kinds
 * of memory are one set. */
static bool starts_node(const layout *l, int core)
{
    return core == 0 ||
           !hwloc_bitmap_isequal(core_at(l, core)->nodeset, core_at(l, core - 1)->nodeset);
}

static layout look_at(hwloc_topology_t machine)
{
    layout l = {.machine = machine, .core = HWLOC_OBJ_CORE};
    l.n_hw_threads = hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_PU);
    l.n_cores = hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_CORE);
    if (l.n_cores <= 0) {
        l.core = HWLOC_OBJ_PU;
        l.n_cores = l.n_hw_threads;
    }
    for (int c = 0; c < l.n_cores; c++)
        l.n_nodes += starts_node(&l, c);
    return l;
}

/* The first core of a node; of the node after the last: the number of cores. */
static int first_core(const layout *l, int node)
{
    int core = 0;
    for (; core < l->n_cores; core++)
        if (starts_node(l, core) && node-- == 0)
            break;
    return core;
}

/* ---- planning */

static int common_divisor(int a, int b)
{
    while (b != 0) {
        int rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* n_groups divides both the nodes and the ranks. */
static part part_of(const layout *l, int rank, int n_ranks, int n_groups)
{
    int ranks = n_ranks / n_groups, nodes = l->n_nodes / n_groups, group = rank / ranks;
    int from = first_core(l, group * nodes), to = first_core(l, (group + 1) * nodes);
    int i = rank % ranks, cores = to - from;
    return (part){from + cores * i / ranks, from + cores * (i + 1) / ranks};
}

static int hw_threads_of(const layout *l, part p)
{
    int n = 0;
    for (int c = p.begin; c < p.end; c++)
        n += hwloc_bitmap_weight(core_at(l, c)->cpuset);
    return n;
}

/* Has every rank hardware threads enough in its part? */
static bool all_fit(const layout *l, int n_ranks, int threads, int n_groups)
{
    for (int r = 0; r < n_ranks; r++)
        if (hw_threads_of(l, part_of(l, r, n_ranks, n_groups)) < threads)
            return false;
    return true;
}

static fr_status fill(const layout *l, part p, int threads, hwloc_bitmap_t set)
{
    bool one_each = threads <= p.end - p.begin;
    for (int c = p.begin; c < p.end; c++) {
        hwloc_const_bitmap_t core = core_at(l, c)->cpuset;
        if ((one_each ? hwloc_bitmap_set(set, (unsigned)hwloc_bitmap_first(core))
                      : hwloc_bitmap_or(set, set, core)) != 0)
            return fr_no_memory();
    }
    return FR_OK;
}

fr_status fr_place_plan(struct hwloc_topology *machine, const fr_place_wish *wish, int *threads_out,
                        struct hwloc_bitmap_s *set)
{
    const layout l = look_at(machine);
    int n_ranks = wish->n_ranks, threads = wish->threads;
    if (threads <= 0)
        threads = l.n_cores > n_ranks ? l.n_cores / n_ranks : 1;
    *threads_out = threads;
    hwloc_bitmap_zero(set);
    bool plain = l.n_nodes == 1 && l.n_hw_threads == l.n_cores;
    if (!wish->bind || n_ranks == 1 || plain)
        return FR_OK;
    int n_groups = common_divisor(l.n_nodes, n_ranks);
    if (!all_fit(&l, n_ranks, threads, n_groups))
        n_groups = 1; /* of uneven nodes, one may be too small */
    if (!all_fit(&l, n_ranks, threads, n_groups))
        return FR_OK;
    return fill(&l, part_of(&l, wish->rank, n_ranks, n_groups), threads, set);
}

/* ---- entering and leaving */

static const char *plural(int n)
{
    return n == 1 ? "" : "s";
}

static void log_place(hwloc_topology_t machine, const fr_place_wish *wish, int threads,
                      hwloc_const_bitmap_t set)
{
    char *cpus = NULL, *nodes = NULL;
    hwloc_bitmap_t nodeset = hwloc_bitmap_alloc();
    if (nodeset && hwloc_cpuset_to_nodeset(machine, set, nodeset) == 0 &&
        hwloc_bitmap_list_asprintf(&cpus, set) >= 0 &&
        hwloc_bitmap_list_asprintf(&nodes, nodeset) >= 0)
        fr_log(FR_LOG_INFO, "rank %d of %d here: %d thread%s on CPU%s %s of NUMA node%s %s",
               wish->rank, wish->n_ranks, threads, plural(threads),
               plural(hwloc_bitmap_weight(set)), cpus, plural(hwloc_bitmap_weight(nodeset)), nodes);
    hwloc_bitmap_free(nodeset);
    free(cpus);
    free(nodes);
}

static fr_status bind_thread(hwloc_topology_t machine, hwloc_const_bitmap_t set, fr_place *place)
{
    cpu_set_t cpus;
    if (hwloc_cpuset_to_glibc_sched_affinity(machine, set, &cpus, sizeof cpus) != 0 ||
        sched_getaffinity(0, sizeof place->before, &place->before) != 0 ||
        sched_setaffinity(0, sizeof cpus, &cpus) != 0)
        return fr_fail(FR_EUNAVAILABLE, "sched_setaffinity: %s", strerror(errno));
    place->bound = true;
    return FR_OK;
}

static fr_status enter(const fr_place_wish *wish, fr_place *place)
{
    hwloc_topology_t machine = NULL;
    FR_TRY(discover(&machine));
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    fr_status st = set ? fr_place_plan(machine, wish, &place->threads, set) : fr_no_memory();
    if (st == FR_OK && !hwloc_bitmap_iszero(set))
        st = bind_thread(machine, set, place);
    if (place->bound)
        log_place(machine, wish, place->threads, set);
    hwloc_bitmap_free(set);
    hwloc_topology_destroy(machine);
    return st;
}

/* Hardware threads that the calling thread may use: what is left to count when hwloc fails. */
static int hw_threads_allowed(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

void fr_place_enter(const fr_place_wish *wish, fr_place *out)
{
    *out = (fr_place){.threads = wish->threads};
    if (wish->threads > 0 && (!wish->bind || wish->n_ranks == 1))
        return; /* nothing to decide */
    if (wish->threads <= 0) {
        int share = hw_threads_allowed() / wish->n_ranks;
        out->threads = share > 0 ? share : 1;
    }
    if (enter(wish, out) != FR_OK)
        fr_log(FR_LOG_WARN, "threads run where the system puts them: %s", fr_cause());
}

void fr_place_leave(fr_place *place)
{
    if (place->bound)
        (void)sched_setaffinity(0, sizeof place->before, &place->before); /* unless it shrank */
    place->bound = false;
}

int fr_place_cores(void)
{
    fr_place place;
    fr_place_enter(&(fr_place_wish){.n_ranks = 1}, &place);
    return place.threads;
}
