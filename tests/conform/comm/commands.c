/* commands.c: commands from the leader, and followers that sleep until one comes. */
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "clock.h"

/* One command with content of its own from the leader to all. */
static void exchange_command(fr_comm *c, uint8_t *data, size_t bytes, int salt)
{
    if (c->rank == 0) {
        fill(data, bytes, salt);
        OK(c->ops->command_send(c, data, bytes));
        return;
    }
    const void *got = NULL;
    size_t n_got = 0;
    OK(c->ops->command_wait(c, &got, &n_got));
    CHECK(n_got == bytes, "command %d has %zu bytes, want %zu", salt, n_got, bytes);
    check_filled(got, bytes, salt);
}

void check_commands(fr_comm *c)
{
    static const size_t sizes[] = {0, 1, 100, 4096, 65535, 65536, 70000, MEGABYTE, 3, 0};
    uint8_t *data = must_alloc(MEGABYTE);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        exchange_command(c, data, sizes[s], (int)s);
    /* Many in a row: without and with a collective in between, as in a pass. */
    for (int i = 0; i < 1000; i++) {
        exchange_command(c, data, (size_t)(i * 7 % 1500), i);
        if (i % 3 == 0) {
            float x = (float)c->rank;
            OK(sum(c, &x, 1));
            CHECK(x == (float)(c->size * (c->size - 1) / 2), "sum of ranks is %g", (double)x);
        }
    }
    free(data);
}

static double cpu_ms(void)
{
    struct rusage u;
    CHECK(getrusage(RUSAGE_SELF, &u) == 0, "getrusage");
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Followers use no CPU while they wait, and the ring wakes them well before their time-out. Medians, since the machine
 * may be busy; the clock is one, since the ranks share a host. */
void check_sleep(fr_comm *c)
{
    enum { ROUNDS = 5, PAUSE_MS = 310 };
    double used[ROUNDS], late[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        const double cpu = cpu_ms();
        if (c->rank == 0) {
            fr_sleep_ms(PAUSE_MS);
            const double sent = fr_now_s();
            OK(c->ops->command_send(c, &sent, sizeof sent));
            continue;
        }
        const void *got = NULL;
        size_t bytes = 0;
        double sent = 0;
        OK(c->ops->command_wait(c, &got, &bytes));
        CHECK(bytes == sizeof sent, "%zu bytes", bytes);
        memcpy(&sent, got, sizeof sent);
        late[i] = (fr_now_s() - sent) * 1e3;
        used[i] = cpu_ms() - cpu;
    }
    if (c->rank == 0)
        return;
    qsort(used, ROUNDS, sizeof *used, by_value);
    qsort(late, ROUNDS, sizeof *late, by_value);
    printf("rank %d: %.2f ms of CPU a pause of %d ms, awake after %.3f ms\n", c->rank,
           used[ROUNDS / 2], PAUSE_MS, late[ROUNDS / 2]);
    CHECK(used[ROUNDS / 2] < 5, "%.2f ms of CPU in a pause", used[ROUNDS / 2]);
    CHECK(late[ROUNDS / 2] < 40, "awake after %.2f ms", late[ROUNDS / 2]);
}
