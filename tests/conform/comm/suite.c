/* suite.c: what every communicator must do. One program: as one process over comm_self, as the ranks of mpirun over
 * comm_mpi, or as ranks that it starts itself over comm_link ("suite self", "mpirun -np 3 suite mpi 3", "suite link
 * 3"); with "staged" behind that, what lies over those for a device whose memory the host cannot read, here on a CPU
 * backend; with a moment, what becomes of the group when a rank fails then. Other words are refused. All ranks run the
 * same checks in the same order; the first that fails says so and exits, and mpirun or the time-outs end the others.
 * "suite no-mpi": what a build without MPI says. The checks are in the other files (suite.h). */
#include "suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm_link.h"

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

/* The host communicator stays as it was. */
static void check_staged(fr_comm *host)
{
    fr_comm *c = open_staged(host);
    check_all(c);
    close_staged(c);
    check_commands(host);
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
    CHECK(c->size == n_ranks, "%d ranks, want %d", c->size, n_ranks);
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
        if (!staged)
            check_large(c, FR_RANKS_MOST_BYTES);
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

static int count_of(const char *text)
{
    char *end = NULL;
    const long n = strtol(text, &end, 10);
    return *end || n < 1 || n > 1000 ? 0 : (int)n;
}

static int refuse(const char *word)
{
    fprintf(stderr, "conform_comm: \"%s\" is no word for this place: self [staged] | no-mpi | lost | hung | "
                    "mpi RANKS [staged] [MOMENT] | link RANKS [staged] [MOMENT]\n", word);
    return 2;
}

int main(int argc, char **argv)
{
    const char *kind = argc > 1 ? argv[1] : "";
    const bool is_self = strcmp(kind, "self") == 0;
    const bool is_mpi = strcmp(kind, "mpi") == 0, is_link = strcmp(kind, "link") == 0;
    const int n_ranks = argc > 2 && (is_mpi || is_link) ? count_of(argv[2]) : 0;
    int at = n_ranks > 0 ? 3 : 2;
    const bool staged = argc > at && (n_ranks > 0 || is_self) && strcmp(argv[at], "staged") == 0;
    at += staged;
    const int when = argc > at && n_ranks > 0 ? moment_named(argv[at]) : -1;
    at += when >= 0;
    if (at < argc)
        return refuse(argv[at]);
    if (is_self)
        check_self(staged);
    else if (strcmp(kind, "no-mpi") == 0)
        check_no_mpi();
    else if (strcmp(kind, "lost") == 0)
        check_lost();
    else if (strcmp(kind, "hung") == 0)
        check_hung();
    else if (is_link && n_ranks > 0)
        check_link(n_ranks, staged, when);
    else if (is_mpi && n_ranks > 0)
        check_mpi(n_ranks, staged, when);
    else
        return refuse(kind);
    return 0;
}
