/* suite.c: what every communicator must do. One program: as one process over comm_self, as the ranks of mpirun over
 * comm_mpi, or as ranks that it starts itself over comm_link ("suite self", "mpirun -np 3 suite mpi", "suite link 3");
 * with "staged" behind that, what lies over those for a device whose memory the host cannot read, here on a CPU
 * backend; with a moment, what becomes of the group when a rank fails then. All ranks run the same checks in
 * the same order; the first that fails says so and exits, and mpirun or the time-outs end the others. "suite no-mpi":
 * what a build without MPI says. */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_or_exit.h"
#include "clock.h"
#include "comm.h"
#include "comm_device.h"
#include "comm_link.h"
#include "rng.h"

#define OK(call) CHECK((call) == FR_OK, "failed")

enum { MOST = 100000, MEGABYTE = 1 << 20 };

static void *must_alloc(size_t bytes)
{
    void *p = calloc(1, bytes);
    CHECK(p, "%zu bytes", bytes);
    return p;
}

/* Element i of rank r's vector: signs and magnitudes so mixed that the order of additions shows. */
static float element(int r, size_t i)
{
    const uint32_t counter[4] = {(uint32_t)i, (uint32_t)r, 0, 0}, key[2] = {7, 11};
    uint32_t bits[4];
    fr_philox(counter, key, bits);
    const float scale = (float)(1u << (bits[1] % 20));
    return ((float)(bits[0] >> 8) / (1 << 23) - 1.0f) * scale;
}

/* Where sums take place; no device for a host communicator. */
static struct {
    const fr_ops *ops;
    fr_device *dev;
    float *x; /* device memory [MOST] */
} device;

static fr_status sum(fr_comm *c, float *x, size_t n)
{
    if (!device.dev)
        return c->ops->all_reduce_sum(c, x, n);
    OK(device.ops->upload(device.dev, device.x, x, n * sizeof *x));
    fr_status st = c->ops->all_reduce_sum(c, device.x, n);
    OK(device.ops->download(device.dev, x, device.x, n * sizeof *x));
    return st;
}

static float sum_of(int n_ranks, size_t i)
{
    float sum = element(0, i);
    for (int r = 1; r < n_ranks; r++)
        sum += element(r, i);
    return sum;
}

static int order_shows(int n_ranks)
{
    for (size_t i = 0; i < 1000; i++) {
        float backwards = element(n_ranks - 1, i);
        for (int r = n_ranks - 2; r >= 0; r--)
            backwards += element(r, i);
        if (backwards != sum_of(n_ranks, i))
            return 1;
    }
    return 0;
}

static void check_sums(fr_comm *c)
{
    static const size_t sizes[] = {1,    2,    3,    5,    7,    16,    100,   896,   1000,
                                   1536, 4095, 4096, 4097, 4099, 12288, 65536, 99999, MOST};
    CHECK(c->size < 3 || order_shows(c->size), "the data do not tell orders apart");
    float *x = must_alloc(MOST * sizeof *x), *want = must_alloc(MOST * sizeof *want);
    for (size_t i = 0; i < MOST; i++)
        want[i] = sum_of(c->size, i);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (size_t i = 0; i < sizes[s]; i++)
            x[i] = element(c->rank, i);
        OK(sum(c, x, sizes[s]));
        for (size_t i = 0; i < sizes[s]; i++)
            CHECK(memcmp(&x[i], &want[i], sizeof *x) == 0, "n %zu element %zu: %a, want %a",
                  sizes[s], i, (double)x[i], (double)want[i]);
    }
    OK(sum(c, x, 0));
    free(x);
    free(want);
}

static void fill(uint8_t *data, size_t bytes, int salt)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(i * 31 + (size_t)salt * 97 + (i >> 8));
}

static void check_filled(const uint8_t *data, size_t bytes, int salt)
{
    for (size_t i = 0; i < bytes; i++)
        CHECK(data[i] == (uint8_t)(i * 31 + (size_t)salt * 97 + (i >> 8)),
              "byte %zu of %zu is %d, salt %d", i, bytes, data[i], salt);
}

static void check_gathers(fr_comm *c)
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

/* Hosts are told apart by their names; ranks are alike when they may use the same cores. */
static void check_here(fr_comm *c)
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

static void check_broadcast(fr_comm *c)
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
static void check_agreement(fr_comm *c)
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

static void check_commands(fr_comm *c)
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
static void check_sleep(fr_comm *c)
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

static void check_misuse(fr_comm *c)
{
    const void *got = NULL;
    size_t bytes = 0;
    if (c->rank == 0)
        CHECK(c->ops->command_wait(c, &got, &bytes) == FR_EINVAL, "a leader may not wait");
    else
        CHECK(c->ops->command_send(c, "x", 1) == FR_EINVAL, "a follower may not send");
    if (c->size > 1) {
        CHECK(c->ops->broadcast(c, NULL, (size_t)1 << 40) == FR_ELIMIT, "1 TB");
        CHECK(c->ops->all_reduce_sum(c, NULL, (size_t)1 << 40) == FR_ELIMIT, "1 TB");
    }
}

static void check_share_text(void)
{
    fr_comm *c = NULL;
    OK(fr_comm_mpi_open(0, &c));
    char text[32] = "";
    OK(fr_comm_mpi_share_text(text, sizeof text));
    CHECK(text[0] == '\0', "nobody has a text, got \"%s\"", text);
    const int author = c->size - 1;
    if (c->rank == author)
        snprintf(text, sizeof text, "tcp://host:1234");
    OK(fr_comm_mpi_share_text(text, sizeof text));
    CHECK(strcmp(text, "tcp://host:1234") == 0, "got \"%s\"", text);
    /* Too long for one rank: that rank says so, the others get it. */
    const int small = c->size > 1 && c->rank == 0;
    if (c->rank != author)
        text[0] = '\0';
    CHECK(fr_comm_mpi_share_text(text, small ? 8 : sizeof text) == (small ? FR_ELIMIT : FR_OK),
          "size");
    c->ops->close(&c);
    CHECK(!c, "close leaves the pointer");
}

/* Two groups out of one world: each works alone, and closing one leaves the other. */
static void check_groups(fr_comm *world)
{
    fr_comm *group = NULL;
    const int colour = world->rank == 0 ? 0 : 1;
    OK(fr_comm_mpi_open(colour, &group));
    CHECK(group->size == (colour == 0 ? 1 : world->size - 1), "size %d", group->size);
    CHECK(group->rank == (colour == 0 ? 0 : world->rank - 1), "rank %d", group->rank);
    check_here(group);
    check_sums(group);
    check_commands(group);
    group->ops->close(&group);
    CHECK(fr_comm_mpi_open(-1, &group) == FR_EINVAL && !group, "a negative colour");
    check_commands(world);
}

static void check_all(fr_comm *c)
{
    check_sums(c);
    check_gathers(c);
    check_here(c);
    check_broadcast(c);
    check_agreement(c);
    check_commands(c);
    check_sleep(c);
    check_misuse(c);
}

/* A build without MPI. Only mpirun's mark counts: srun may start groups of one rank each. */
static void check_no_mpi(void)
{
    fr_comm *c = NULL;
    char text[8] = "";
    CHECK(fr_comm_mpi_open(0, &c) == FR_EUNSUPPORTED && !c, "no group");
    CHECK(fr_comm_mpi_share_text(text, sizeof text) == FR_EUNSUPPORTED, "no text");
    CHECK(strstr(fr_cause(), "built without MPI"), "it says why");
    unsetenv("OMPI_COMM_WORLD_SIZE");
    setenv("PMI_RANK", "0", 1);
    CHECK(!fr_comm_mpi_launched(), "srun's process is a group");
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    CHECK(fr_comm_mpi_launched(), "mpirun's rank is none");
}

/* Over the host communicator, with a device of its own. */
static fr_comm *open_staged(fr_comm *host)
{
    void *x = NULL;
    fr_comm *c = NULL;
    device.ops = &fr_ops_cpu_ref;
    OK(device.ops->open(&(fr_device_options){.threads = 1}, &device.dev));
    OK(device.ops->mem_alloc(device.dev, MOST * sizeof(float), &x));
    device.x = x;
    OK(fr_comm_staged_open(host, device.ops, device.dev, &c));
    CHECK(c->rank == host->rank && c->size == host->size, "rank %d of %d", c->rank, c->size);
    return c;
}

static void close_staged(fr_comm *c)
{
    c->ops->close(&c);
    CHECK(!c, "close leaves the pointer");
    device.ops->mem_free(device.dev, device.x);
    device.ops->close(&device.dev);
}

/* The host communicator stays as it was. */
static void check_staged(fr_comm *host)
{
    fr_comm *c = open_staged(host);
    check_all(c);
    close_staged(c);
    check_commands(host);
}

/* Every rank calls and hears the others; only then is a rank alarmed by another. Ends the group. */
static void check_roll_call(fr_comm *c)
{
    char why[FR_COMM_WHY] = "";
    bool *heard = must_alloc((size_t)c->size * sizeof *heard);
    CHECK(!c->ops->alarmed(c), "alarmed before any call");
    OK(c->ops->agree(c, FR_OK)); /* all have looked */
    if (c->rank == c->size - 1)
        snprintf(why, sizeof why, "rank %d noticed", c->rank);
    else
        while (!c->ops->alarmed(c))
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
static void check_lost(void)
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
static void check_hung(void)
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

/* How a rank that waits learns that another gave up: in a gather, in a sum that goes in one message or in pieces, in a
 * command too large to leave before its receiver takes it, idle, or, when it waits for too long, by its own clock: as
 * long as the call says or the communicator has patience, or until it is to stop. */
typedef enum {
    IN_A_PASS,
    IN_A_SMALL_SUM,
    IN_A_LARGE_SUM,
    IN_A_COMMAND,
    BETWEEN_PASSES,
    LATE,
    LATE_FOR_A_SUM,
    STOPPED_IN_A_SUM,
    STOPPED_IDLE,
    N_MOMENTS
} moment;

static const char *const moments[N_MOMENTS] = {"in-a-pass",    "in-a-small-sum", "in-a-large-sum",
                                               "in-a-command", "between-passes", "late", "late-for-a-sum",
                                               "stopped-in-a-sum", "stopped-idle"};

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
    } else if (when == IN_A_COMMAND) {
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
static void check_give_up(fr_comm *host, fr_comm *c, moment when)
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
    CHECK(fr_now_ns() - start < (uint64_t)FR_COMM_LEAVE_MS * 1000000, "refused late");
}

static void check_staged_give_up(fr_comm *host, moment when)
{
    fr_comm *c = open_staged(host);
    check_give_up(host, c, when);
    close_staged(c);
}

static void check_self(bool staged)
{
    fr_comm *c = NULL;
    OK(fr_comm_self_open(&c));
    staged ? check_staged(c) : check_all(c);
    c->ops->close(&c);
    CHECK(!c, "close leaves the pointer");
}

/* moment -1: no rank gives up. When one does, MPI is not finalised: mpirun sees to it that all ranks end. */
static void check_mpi(int n_ranks, bool staged, int when)
{
    fr_comm *c = NULL;
    CHECK(fr_comm_mpi_launched(), "run me under mpirun");
    OK(fr_comm_mpi_open(0, &c));
    CHECK(n_ranks == 0 || c->size == n_ranks, "%d ranks, want %d", c->size, n_ranks);
    if (when >= 0) {
        staged ? check_staged_give_up(c, (moment)when) : check_give_up(c, c, (moment)when);
    } else if (staged) {
        check_staged(c);
    } else {
        check_share_text();
        check_all(c);
        check_groups(c);
        check_roll_call(c);
    }
    c->ops->close(&c);
    CHECK(!c, "close leaves the pointer");
    CHECK(when >= 0 || fr_comm_mpi_open(0, &c) == FR_EINVAL, "MPI cannot start twice");
}

static void check_link_rank(const fr_ranks_options *o, bool staged, int when)
{
    fr_comm *c = NULL;
    OK(fr_comm_link_open(o, &c));
    CHECK(c->rank == o->rank && c->size == o->size, "rank %d of %d", c->rank, c->size);
    if (when >= 0) {
        staged ? check_staged_give_up(c, (moment)when) : check_give_up(c, c, (moment)when);
    } else {
        staged ? check_staged(c) : check_all(c);
        if (c->size > 1)
            check_roll_call(c);
    }
    c->ops->close(&c);
    CHECK(!c, "close leaves the pointer");
}

/* Each rank is a process of its own; the first is this one. */
static void check_link(int n_ranks, bool staged, int when)
{
    char folder[] = "/tmp/forerun-comm-XXXXXX", endpoint[64];
    CHECK(mkdtemp(folder), "mkdtemp");
    snprintf(endpoint, sizeof endpoint, "ipc://%s/leader", folder);
    fr_ranks_options o = {.endpoint = endpoint, .size = n_ranks, .connect_ms = 20000, .wait_ms = 20000};
    for (int r = 1; r < n_ranks; r++) {
        const pid_t child = fork();
        CHECK(child >= 0, "fork");
        if (child == 0) {
            o.rank = r;
            check_link_rank(&o, staged, when);
            exit(0);
        }
    }
    check_link_rank(&o, staged, when);
    for (int r = 1, status = 0; r < n_ranks; r++) {
        CHECK(wait(&status) > 0, "wait");
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a rank ended with status %d", status);
    }
    unlink(endpoint + strlen("ipc://"));
    CHECK(rmdir(folder) == 0, "%s", folder);
}

static int moment_named(const char *name)
{
    for (int i = 0; i < N_MOMENTS; i++)
        if (strcmp(name, moments[i]) == 0)
            return i;
    return -1;
}

/* suite self [staged] | mpi [RANKS [staged] [MOMENT]] | lost | hung | link RANKS [staged] [MOMENT] */
int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "self";
    const int n_ranks = argc > 2 ? atoi(argv[2]) : 0, when = moment_named(argv[argc - 1]);
    bool staged = false;
    for (int i = 2; i < argc; i++)
        staged = staged || strcmp(argv[i], "staged") == 0;
    if (strcmp(kind, "self") == 0)
        check_self(staged);
    else if (strcmp(kind, "no-mpi") == 0)
        check_no_mpi();
    else if (strcmp(kind, "lost") == 0)
        check_lost();
    else if (strcmp(kind, "hung") == 0)
        check_hung();
    else if (strcmp(kind, "link") == 0)
        check_link(n_ranks > 0 ? n_ranks : 1, staged, when);
    else
        check_mpi(n_ranks, staged, when);
    return 0;
}
