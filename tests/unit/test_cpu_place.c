/* test_cpu_place.c: where ranks are placed on machines of many shapes (hwloc's synthetic ones), and
 * that a place is entered and left on this one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <hwloc.h>

#include "cpu_place.h"

enum { MOST_RANKS = 16 };

/* A machine as described, of whose hardware threads only `allowed` (NULL: all) may be used. */
static hwloc_topology_t machine_new(const char *description, const char *allowed)
{
    hwloc_topology_t machine = NULL;
    assert_int_equal(hwloc_topology_init(&machine), 0);
    assert_int_equal(hwloc_topology_set_synthetic(machine, description), 0);
    assert_int_equal(hwloc_topology_load(machine), 0);
    if (allowed) {
        hwloc_bitmap_t set = hwloc_bitmap_alloc();
        assert_non_null(set);
        assert_int_equal(hwloc_bitmap_list_sscanf(set, allowed), 0);
        assert_int_equal(hwloc_topology_restrict(machine, set, 0), 0);
        hwloc_bitmap_free(set);
    }
    return machine;
}

static int count_inside(hwloc_topology_t machine, hwloc_obj_type_t type, hwloc_const_bitmap_t set)
{
    int n = 0;
    for (int i = 0; i < hwloc_get_nbobjs_by_type(machine, type); i++)
        n +=
            hwloc_bitmap_intersects(hwloc_get_obj_by_type(machine, type, (unsigned)i)->cpuset, set);
    return n;
}

typedef struct example {
    const char *machine, *allowed;
    int ranks, threads; /* asked for; 0: the default */
    int want_threads;
    const char *want[MOST_RANKS]; /* each rank's hardware threads; "": not bound */
} example;

static void check_example(const example *e)
{
    hwloc_topology_t machine = machine_new(e->machine, e->allowed);
    hwloc_bitmap_t set = hwloc_bitmap_alloc(), taken = hwloc_bitmap_alloc();
    assert_non_null(set);
    assert_non_null(taken);
    for (int r = 0; r < e->ranks; r++) {
        const fr_place_wish wish = {
            .rank = r, .n_ranks = e->ranks, .threads = e->threads, .bind = true};
        int threads = 0;
        char *text = NULL;
        assert_int_equal(fr_place_plan(machine, &wish, &threads, set), FR_OK);
        assert_int_equal(threads, e->want_threads);
        assert_true(hwloc_bitmap_list_asprintf(&text, set) >= 0);
        assert_string_equal(text, e->want[r]);
        free(text);
        assert_false(hwloc_bitmap_intersects(set, taken));
        assert_int_equal(hwloc_bitmap_or(taken, taken, set), 0);
    }
    hwloc_bitmap_free(set);
    hwloc_bitmap_free(taken);
    hwloc_topology_destroy(machine);
}

static void check_examples(const example *examples, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check_example(&examples[i]);
}
#define CHECK_EXAMPLES(e) check_examples(e, sizeof(e) / sizeof *(e))

static void test_ranks_keep_to_nodes(void **state)
{
    (void)state;
    static const example examples[] = {
        {"numa:2 core:4 pu:1", NULL, 2, 0, 4, {"0-3", "4-7"}},
        {"numa:2 core:4 pu:1", NULL, 2, 1, 1, {"0-3", "4-7"}},
        {"numa:2 core:4 pu:1", NULL, 4, 0, 2, {"0-1", "2-3", "4-5", "6-7"}},
        {"numa:4 core:4 pu:1", NULL, 2, 0, 8, {"0-7", "8-15"}},
        {"numa:4 core:2 pu:1", NULL, 6, 1, 1, {"0", "1", "2-3", "4", "5", "6-7"}},
        {"package:2 numa:2 core:2 pu:1", NULL, 4, 0, 2, {"0-1", "2-3", "4-5", "6-7"}},
        {"package:2 [numa] core:2 pu:1", NULL, 2, 0, 2, {"0-1", "2-3"}},
        /* Two kinds of memory beside the same cores are one node here. */
        {"package:2 [numa] [numa] core:2 pu:1", NULL, 2, 0, 2, {"0-1", "2-3"}},
    };
    CHECK_EXAMPLES(examples);
}

static void test_uneven(void **state)
{
    (void)state;
    static const example examples[] = {
        {"numa:2 core:4 pu:1", NULL, 3, 0, 2, {"0-1", "2-4", "5-7"}},
        {"numa:2 core:4 pu:1", NULL, 5, 1, 1, {"0", "1-2", "3", "4-5", "6-7"}},
        {"numa:4 core:4 pu:1", NULL, 3, 5, 5, {"0-4", "5-9", "10-15"}},
        {"numa:2 core:4 pu:1", "0-3,6-7", 2, 2, 2, {"0-3", "6-7"}},
        /* The second node is too small for a rank: all cores are cut in two. */
        {"numa:2 core:4 pu:1", "0-3,6-7", 2, 0, 3, {"0-2", "3,6-7"}},
        {"numa:4 core:2 pu:1", "0-1,6-7", 2, 0, 2, {"0-1", "6-7"}}, /* two nodes are left */
    };
    CHECK_EXAMPLES(examples);
}

static void test_cores_before_siblings(void **state)
{
    (void)state;
    static const example examples[] = {
        {"numa:2 core:4 pu:2", NULL, 2, 0, 4, {"0,2,4,6", "8,10,12,14"}},
        {"numa:2 core:4 pu:2", NULL, 2, 5, 5, {"0-7", "8-15"}},
        {"numa:2 core:4 pu:2", NULL, 2, 8, 8, {"0-7", "8-15"}},
        {"numa:1 core:4 pu:2", NULL, 2, 0, 2, {"0,2", "4,6"}},
        {"numa:1 core:4 pu:2", NULL, 8, 0, 1, {"", "", "", "", "", "", "", ""}},
        {"numa:1 core:4 pu:2", "1,3-7", 2, 0, 2, {"1,3", "4,6"}},
        /* Numbered as firmware likes to: siblings, or neighbours too, far apart. */
        {"numa:2 core:2 pu:2(indexes=0,4,1,5,2,6,3,7)", NULL, 2, 0, 2, {"0-1", "2-3"}},
        {"numa:2 core:4 pu:2(indexes=numa:core)", NULL, 2, 0, 4, {"0,2,4,6", "1,3,5,7"}},
    };
    CHECK_EXAMPLES(examples);
}

static void test_no_binding(void **state)
{
    (void)state;
    static const example examples[] = {
        {"numa:1 core:2 pu:1", NULL, 2, 0, 1, {"", ""}}, /* one node, no SMT */
        {"numa:1 core:8 pu:1", NULL, 4, 0, 2, {"", "", "", ""}},
        {"pu:4", NULL, 2, 0, 2, {"", ""}},
        {"numa:2 core:4 pu:2", "0,2,4", 3, 0, 1, {"", "", ""}}, /* what is left is such a machine */
        {"numa:2 core:4 pu:1", NULL, 1, 0, 8, {""}},            /* alone */
        {"numa:2 core:4 pu:2", NULL, 1, 0, 8, {""}},
        {"numa:2 core:4 pu:1", NULL, 2, 5, 5, {"", ""}}, /* more threads than there is room for */
        {"numa:2 core:4 pu:2", NULL, 2, 9, 9, {"", ""}},
        {"numa:2 core:1 pu:1", NULL, 4, 0, 1, {"", "", "", ""}},
        {"numa:2 core:4 pu:1", "3", 2, 0, 1, {"", ""}},
    };
    CHECK_EXAMPLES(examples);
}

static void test_not_wished(void **state)
{
    (void)state;
    hwloc_topology_t machine = machine_new("numa:2 core:8 pu:2", NULL);
    hwloc_bitmap_t set = hwloc_bitmap_alloc_full();
    int threads = 0;
    assert_non_null(set);
    assert_int_equal(fr_place_plan(machine, &(fr_place_wish){.n_ranks = 2}, &threads, set), FR_OK);
    assert_int_equal(threads, 8);
    assert_true(hwloc_bitmap_iszero(set));
    hwloc_bitmap_free(set);
    hwloc_topology_destroy(machine);
}

/* Whatever the numbers: all ranks are bound or none; their sets are disjoint, have room for the
 * threads, siblings only where cores do not suffice, and lie in one node where ranks are a multiple
 * of the nodes. */
static void check_shape(hwloc_topology_t machine, int ranks, int threads)
{
    const int nodes = hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_NUMANODE),
              cores = hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_CORE),
              pus = hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_PU) / cores;
    hwloc_bitmap_t set = hwloc_bitmap_alloc(), taken = hwloc_bitmap_alloc();
    int n_bound = 0;
    for (int r = 0; r < ranks; r++) {
        const fr_place_wish wish = {.rank = r, .n_ranks = ranks, .threads = threads, .bind = true};
        int n = 0;
        assert_int_equal(fr_place_plan(machine, &wish, &n, set), FR_OK);
        assert_int_equal(n, threads);
        if (hwloc_bitmap_iszero(set))
            continue;
        n_bound++;
        int room = hwloc_bitmap_weight(set), own = count_inside(machine, HWLOC_OBJ_CORE, set);
        assert_true(room >= threads);
        assert_int_equal(room, threads <= own ? own : own * pus);
        if (ranks % nodes == 0)
            assert_int_equal(count_inside(machine, HWLOC_OBJ_NUMANODE, set), 1);
        assert_false(hwloc_bitmap_intersects(set, taken));
        assert_int_equal(hwloc_bitmap_or(taken, taken, set), 0);
    }
    assert_true(n_bound == 0 || n_bound == ranks);
    hwloc_bitmap_free(set);
    hwloc_bitmap_free(taken);
}

static void test_every_shape(void **state)
{
    (void)state;
    for (int nodes = 1; nodes <= 4; nodes++)
        for (int cores = 1; cores <= 4; cores++)
            for (int pus = 1; pus <= 2; pus++) {
                char description[64];
                snprintf(description, sizeof description, "numa:%d core:%d pu:%d", nodes, cores,
                         pus);
                hwloc_topology_t machine = machine_new(description, NULL);
                for (int ranks = 1; ranks <= 9; ranks++)
                    for (int threads = 1; threads <= 5; threads++)
                        check_shape(machine, ranks, threads);
                hwloc_topology_destroy(machine);
            }
}

/* This machine, said to be two nodes of one core: a rank is bound to its own, and a thread that
 * leaves may run where it might before. */
static void test_enter_and_leave(void **state)
{
    (void)state;
    cpu_set_t before, now;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    if (!CPU_ISSET(0, &before) || !CPU_ISSET(1, &before))
        skip(); /* not on one core, nor bound to others */
    setenv("HWLOC_SYNTHETIC", "numa:2 core:1 pu:1", 1);
    for (int r = 0; r < 2; r++) {
        fr_place place;
        fr_place_enter(&(fr_place_wish){.rank = r, .n_ranks = 2, .bind = true}, &place);
        assert_true(place.bound);
        assert_int_equal(place.threads, 1);
        assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
        assert_int_equal(CPU_COUNT(&now), 1);
        assert_true(CPU_ISSET(r, &now));
        fr_place_leave(&place);
        assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
        assert_true(CPU_EQUAL(&now, &before));
        fr_place_leave(&place); /* once more is fine */
    }
    unsetenv("HWLOC_SYNTHETIC");
}

/* Where hwloc knows no machine, or not this one, the threads are counted without it. */
static void test_machine_unknown(void **state)
{
    (void)state;
    cpu_set_t before, now;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    /* Of that machine this process may use nothing: its only hardware thread is number 1000. */
    setenv("HWLOC_SYNTHETIC", "pu:1(indexes=1000)", 1);
    fr_place place;
    fr_place_enter(&(fr_place_wish){.rank = 1, .n_ranks = 2, .bind = true}, &place);
    assert_false(place.bound);
    assert_int_equal(place.threads, CPU_COUNT(&before) > 1 ? CPU_COUNT(&before) / 2 : 1);
    fr_place_enter(&(fr_place_wish){.rank = 1, .n_ranks = 2, .threads = 3, .bind = true}, &place);
    assert_int_equal(place.threads, 3);
    assert_int_equal(fr_place_cores(), CPU_COUNT(&before));
    assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
    assert_true(CPU_EQUAL(&now, &before));
    unsetenv("HWLOC_SYNTHETIC");
}

static void test_this_machine(void **state)
{
    (void)state;
    cpu_set_t mine;
    assert_int_equal(sched_getaffinity(0, sizeof mine, &mine), 0);
    assert_in_range(fr_place_cores(), 1, CPU_COUNT(&mine));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_keep_to_nodes),
        cmocka_unit_test(test_uneven),
        cmocka_unit_test(test_cores_before_siblings),
        cmocka_unit_test(test_no_binding),
        cmocka_unit_test(test_not_wished),
        cmocka_unit_test(test_every_shape),
        cmocka_unit_test(test_enter_and_leave),
        cmocka_unit_test(test_machine_unknown),
        cmocka_unit_test(test_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
