/* giving_up.c: groups that a rank leaves, does not come to, or gives up: the others end in time, and know why. */
#include "suite.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

/* Every rank calls and hears the others; until one does no rank sees anything. */
void check_roll_call(fr_comm *c)
{
    char why[FR_COMM_WHY] = "";
    bool *heard = must_alloc((size_t)c->size * sizeof *heard);
    OK(c->ops->look(c));
    OK(c->ops->agree(c, FR_OK)); /* all have looked */
    if (c->rank == c->size - 1)
        snprintf(why, sizeof why, "rank %d noticed", c->rank);
    else
        while (c->ops->look(c) == FR_OK)
            fr_sleep_ms(1);
    OK(c->ops->roll_call(c, 10000, why, heard));
    for (int r = 0; r < c->size; r++)
        CHECK(heard[r], "no word from rank %d", r);
    char want[64];
    snprintf(want, sizeof want, "rank %d noticed", c->size - 1);
    CHECK(strcmp(why, want) == 0, "why is \"%s\"", why);
    free(heard);
}

/* The last rank never comes back: the others end, close in good order, and mpirun ends the last one too. */
void check_lost(void)
{
    fr_comm *c = NULL;
    char why[FR_COMM_WHY] = "lost";
    OK(fr_comm_mpi_open(0, &c));
    const int last = c->size - 1;
    bool *heard = must_alloc((size_t)c->size * sizeof *heard);
    while (c->rank == last)
        fr_sleep_ms(1000);
    OK(c->ops->roll_call(c, 1000, why, heard));
    for (int r = 0; r < c->size; r++)
        CHECK(heard[r] == (r != last), "rank %d: %d", r, heard[r]);
    if (c->rank == 0)
        printf("all but rank %d were heard\n", last);
    free(heard);
    c->ops->close(&c);
    CHECK(!c, "close leaves the pointer");
}

/* The same where it hangs in a sum: the others' patience ends, and they name it. */
void check_hung(void)
{
    fr_comm *c = NULL;
    float one = 1;
    OK(fr_comm_mpi_open(0, &c));
    c->patience.ms = 200;
    while (c->rank == c->size - 1)
        fr_sleep_ms(1000);
    CHECK(sum(c, &one, 1) == FR_EPEER, "a sum without rank %d", c->size - 1);
    c->ops->give_up(c);
    printf("%s\n", fr_cause());
    fflush(stdout);
    c->ops->close(&c);
}

static const char *const moments[N_MOMENTS] = {"in-a-pass",    "in-a-small-sum", "in-a-large-sum",
                                               "in-a-command", "between-passes", "leader-idle", "late",
                                               "late-for-a-sum", "stopped-in-a-sum", "stopped-idle"};

enum { PATIENCE_MS = 200 };

static int failing_rank(const fr_comm *c, moment when)
{
    return when == BETWEEN_PASSES || when == STOPPED_IDLE ? 0 : c->size - 1;
}

/* The others give up by themselves, and after so long; the failing rank only sleeps. */
static bool is_late(moment when)
{
    return when == LATE || when == LATE_FOR_A_SUM || when == STOPPED_IN_A_SUM || when == STOPPED_IDLE;
}

static int wait_of(moment when)
{
    return when == STOPPED_IN_A_SUM || when == STOPPED_IDLE ? FR_COMM_STOP_MS : PATIENCE_MS;
}

/* Followers go on to wait for a command, the leader for their answers to it. */
static fr_status wait_for_others(fr_comm *c)
{
    const void *data = NULL;
    size_t bytes = 0;
    uint8_t all[64] = {0}, mine = 1;
    return c->rank == 0 ? c->ops->gather(c, &mine, 1, all) : c->ops->command_wait(c, &data, &bytes);
}

static fr_status look_until_it_ends(fr_comm *c)
{
    fr_status st = FR_OK;
    while ((st = c->ops->look(c)) == FR_OK)
        fr_sleep_ms(10);
    return st;
}

/* A vector and a command of MOST floats. */
static fr_status wait_with(fr_comm *c, moment when, float *x)
{
    uint8_t all[64] = {0}, mine = 1;
    fr_status st = FR_OK;
    if (is_late(when) && c->rank == failing_rank(c, when))
        fr_sleep_ms(wait_of(when) + 2 * PATIENCE_MS);
    if (when == LATE) {
        st = c->ops->all_gather(c, &mine, 1, all, PATIENCE_MS); /* the late one may find all that it needs */
    } else if (when == LATE_FOR_A_SUM || when == STOPPED_IN_A_SUM) {
        st = sum(c, x, 100);
    } else if (when == IN_A_PASS) {
        st = c->ops->gather(c, &mine, 1, all);
    } else if (when == IN_A_SMALL_SUM || when == IN_A_LARGE_SUM) {
        st = sum(c, x, when == IN_A_SMALL_SUM ? 100 : MOST);
    } else if (when == IN_A_COMMAND && c->rank == 0) {
        st = c->ops->command_send(c, x, MOST * sizeof *x);
    } else if (when == LEADER_IDLE && c->rank == 0) {
        st = look_until_it_ends(c);
    } else if (when == IN_A_COMMAND || when == LEADER_IDLE) {
        st = wait_for_others(c);
    }
    return st == FR_OK ? wait_for_others(c) : st;
}

/* The last rank fails while the others wait for it, or the leader while they are idle, or the last rank is late. */
static fr_status wait_in_vain(fr_comm *host, fr_comm *c, moment when)
{
    const int failing = failing_rank(c, when);
    static const atomic_int stopped = 1;
    if (when == LATE_FOR_A_SUM)
        host->patience.ms = PATIENCE_MS;
    else if (wait_of(when) == FR_COMM_STOP_MS)
        host->patience.stop = &stopped;
    if (c->rank == failing && !is_late(when)) {
        fr_sleep_ms(PATIENCE_MS);
        return fr_fail(FR_EIO, "rank %d: out of order", failing);
    }
    float *x = must_alloc(MOST * sizeof *x);
    const uint64_t start = fr_now_ns();
    const fr_status st = wait_with(c, when, x);
    const uint64_t waited_ms = (fr_now_ns() - start) / 1000000;
    CHECK(waited_ms < (uint64_t)wait_of(when) + FR_COMM_LEAVE_MS / 2, "it took %d ms", (int)waited_ms);
    free(x);
    return st;
}

/* What a rank says it says before its word: none leaves before it has heard all others, and the first that leaves
 * mpirun makes the others end. */
void check_give_up(fr_comm *host, fr_comm *c, moment when)
{
    const fr_status st = wait_in_vain(host, c, when);
    const int failing = failing_rank(c, when);
    const bool stopped = wait_of(when) == FR_COMM_STOP_MS;
    char cause[300], want[64];
    snprintf(cause, sizeof cause, "%s", fr_cause());
    snprintf(want, sizeof want, "rank %d: out of order", failing);
    CHECK(st == (c->rank == failing && !is_late(when) ? FR_EIO : FR_EPEER) || (stopped && st == FR_ECANCELLED),
          "status %d: %s", st, cause);
    if (is_late(when))
        CHECK(strstr(cause, stopped ? "stopped while it waited for " : " in 200 ms"), "%s", cause);
    else
        CHECK(strcmp(cause, want) == 0, "%s", cause);
    if (c->rank != failing)
        printf("ended: %s\n", cause);
    fflush(stdout);
    fr_fail(st, "%s", cause);
    c->ops->give_up(c);
    c->ops->give_up(c); /* does nothing more */
    float one = 1;
    const uint64_t start = fr_now_ns();
    CHECK(sum(c, &one, 1) == FR_EPEER, "the group goes on");
    CHECK(c->ops->command_send(c, "x", 1) != FR_OK, "the group goes on");
    CHECK(!c->ops->look || c->ops->look(c) == FR_EPEER, "the group goes on");
    CHECK(fr_now_ns() - start < (uint64_t)FR_COMM_LEAVE_MS * 1000000, "refused late");
}

int moment_named(const char *name)
{
    for (int i = 0; i < N_MOMENTS; i++)
        if (strcmp(name, moments[i]) == 0)
            return i;
    return -1;
}
