/* exchanges.c: collectives that carry bytes, and what the ranks know of each other through them. */
#include "suite.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void check_gathers(fr_comm *c)
{
    static const size_t sizes[] = {0, 1, 8, 13, 4000, 100000};
    uint8_t *mine = must_alloc(MOST), *all = must_alloc((size_t)c->size * MOST);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const size_t n = sizes[s];
        fill(mine, n, c->rank);
        memset(all, 0, (size_t)c->size * n);
        OK(c->ops->gather(c, mine, n, c->rank == 0 ? all : NULL));
        for (int r = 0; c->rank == 0 && r < c->size; r++)
            check_filled(all + (size_t)r * n, n, r);
        memset(all, 0, (size_t)c->size * n);
        OK(c->ops->all_gather(c, mine, n, all, 0));
        for (int r = 0; r < c->size; r++)
            check_filled(all + (size_t)r * n, n, r);
    }
    free(mine);
    free(all);
}

void check_here(fr_comm *c)
{
    typedef struct whereabouts {
        char name[64];
        cpu_set_t cores;
    } whereabouts;
    whereabouts *mine = must_alloc(sizeof *mine), *all = must_alloc((size_t)c->size * sizeof *all);
    int here = 0, before = 0, alike = 0;
    gethostname(mine->name, sizeof mine->name - 1);
    CHECK(sched_getaffinity(0, sizeof mine->cores, &mine->cores) == 0, "sched_getaffinity");
    OK(c->ops->all_gather(c, mine, sizeof *mine, all, 0));
    for (int r = 0; r < c->size; r++) {
        int is_here = strcmp(all[r].name, mine->name) == 0;
        here += is_here;
        before += is_here && r < c->rank;
        alike += is_here && CPU_EQUAL(&all[r].cores, &mine->cores);
    }
    CHECK(c->n_here == here, "%d ranks on this host, want %d", c->n_here, here);
    CHECK(c->here == before, "number %d on this host, want %d", c->here, before);
    CHECK(c->n_alike == alike, "%d ranks may use the same cores, want %d", c->n_alike, alike);
    free(mine);
    free(all);
}

void check_broadcast(fr_comm *c)
{
    static const size_t sizes[] = {0, 1, 100, 65537, MEGABYTE};
    uint8_t *data = must_alloc(MEGABYTE);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        memset(data, 0, sizes[s]);
        if (c->rank == 0)
            fill(data, sizes[s], 5);
        OK(c->ops->broadcast(c, data, sizes[s]));
        check_filled(data, sizes[s], 5);
    }
    free(data);
}

/* Every run of ranks fails once: the word of its first one is everyone's. */
void check_agreement(fr_comm *c)
{
    char want[64];
    OK(c->ops->agree(c, FR_OK));
    for (int first = 0; first < c->size; first++) {
        for (int last = first; last < c->size; last++) {
            const int fails = c->rank >= first && c->rank <= last;
            fr_fail(FR_EIO, "of before");
            fr_status st = fails ? fr_fail(FR_EBUSY, "rank %d of %d", c->rank, c->size) : FR_OK;
            st = c->ops->agree(c, st);
            snprintf(want, sizeof want, "rank %d of %d", first, c->size);
            CHECK(st == FR_EBUSY && strcmp(fr_cause(), want) == 0, "status %d, want %s", st, want);
        }
    }
    OK(c->ops->agree(c, FR_OK));
}
