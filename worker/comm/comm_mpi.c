/* comm_mpi.c: the communicator of a group under mpirun or srun; the only file that sees mpi.h.
 *
 * Sums. MPI_Allreduce picks its algorithm, hence its order of additions, by the size of the message, and a row's sum
 * would depend on what else is in the batch. So the values travel by MPI and are added here, always ((r0 + r1) + r2)...:
 *   small messages, 2 ranks   everything goes to everyone, each adds all;
 *   large messages            each rank adds its piece for all, then the pieces go to everyone.
 * Every rank gets the same bits, since they are computed in the same order or once.
 *
 * Commands. The leader sends them point to point. A follower probes for a moment, then sleeps on its doorbell until the
 * leader rings or IDLE_WAKE_MS are over (rings can be lost). Order matters: the leader starts the send before it rings,
 * and the follower takes old rings before it probes the last time, so a command is seen or its ring is still to come.
 *
 * Giving up. A rank that cannot go on calls the roll: each sends a word to all others and listens until its time is over;
 * nothing waits for that send. All other waits look for such words, and what they wait for is abandoned then. MPI may still
 * write to what was to be received, so that is always memory which is kept until the process ends. It may still read what
 * was to be sent, but only in this rank's calls and in those of a rank that has not called the roll. A rank that was lost,
 * or a collective that was left under way, would let MPI_Finalize wait for ever, so then it is left out: mpirun and srun
 * end what is left of a group in which a rank ended without it.
 *
 * MPI exists once a process and cannot start twice, hence the one static below. All calls come from one thread. */
#include "comm.h"

#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "buf.h"
#include "check.h"
#include "clock.h"
#include "doorbell.h"

enum {
    COMMAND_TAG = 1,
    ROLL_TAG = 2,
    SUM_TAG = 3,
    SMALL_SUM = 4096,        /* floats: above it, the extra bytes cost more than a second exchange */
    ROUNDS = 16,             /* of a wait, until it looks for alarms and gives its core away: neither is free */
    SPIN_NS = 200000,        /* a follower probes for so long before it sleeps */
    RUNG_SPIN_NS = 50000000, /* rung, but the command is still under way: the longest wait for it */
    IDLE_WAKE_MS = 100,      /* a sleeper looks for a command whose ring was lost */
};

static int n_open; /* communicators; the close of the last one finalises MPI */

typedef struct verdict {
    int32_t status;
    char cause[500];
} verdict;

typedef struct mpi_comm {
    fr_comm base;
    MPI_Comm mpi;
    bool yield; /* no core is left over: waiting ranks give theirs away */
    /* What is under way; when it is abandoned MPI may still write there. */
    MPI_Request *requests; /* [2 size] of a sum or command */
    fr_buf scratch;        /* of a sum */
    fr_buf exchange;       /* of any other collective */
    fr_doorbell *bell;
    fr_doorbell_address *bells; /* [size] leader: where each rank sleeps */
    uint64_t key, n_commands;
    fr_buf command; /* the last one received */
    int vote, first; /* of agree, as is what a rank that failed tells */
    verdict told;
    bool rolled;    /* this rank has given up */
    bool unfinished; /* a rank did not answer the roll call, or a collective is still under way */
    bool *heard;    /* [size] who has given up */
    char roll_word[FR_COMM_WHY];
    char heard_why[FR_COMM_WHY]; /* of the first that had a reason */
} mpi_comm;

static fr_status mpi_check(int rc, const char *what)
{
    if (rc == MPI_SUCCESS)
        return FR_OK;
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    MPI_Error_string(rc, text, &length);
    return fr_fail(FR_EPEER, "%s: %s", what, text);
}

static mpi_comm *of(fr_comm *c)
{
    return (mpi_comm *)c;
}

/* ---- other ranks that give up */

/* Takes in a word of a roll call if there is one. */
static fr_status hear(mpi_comm *m, int *found_out)
{
    MPI_Status status;
    char word[FR_COMM_WHY] = "";
    FR_TRY(mpi_check(MPI_Iprobe(MPI_ANY_SOURCE, ROLL_TAG, m->mpi, found_out, &status), "roll_call"));
    if (!*found_out)
        return FR_OK;
    FR_TRY(mpi_check(MPI_Recv(word, sizeof word, MPI_BYTE, status.MPI_SOURCE, ROLL_TAG, m->mpi,
                              MPI_STATUS_IGNORE),
                     "roll_call"));
    m->heard[status.MPI_SOURCE] = true;
    if (!m->heard_why[0])
        memcpy(m->heard_why, word, sizeof word);
    return FR_OK;
}

static bool mpi_alarmed(fr_comm *c)
{
    mpi_comm *m = of(c);
    int found = 0;
    if (!m->heard) /* the group is not formed yet */
        return false;
    return hear(m, &found) != FR_OK || memchr(m->heard, true, (size_t)m->base.size) != NULL;
}

static fr_status look_for_alarm(mpi_comm *m)
{
    if (!m->rolled && !m->unfinished && !mpi_alarmed(&m->base))
        return FR_OK;
    return fr_fail(FR_EPEER, "%s", m->heard_why[0] ? m->heard_why : "a rank gave the group up");
}

/* Before a collective: what an abandoned one may still write to is not to be used again. */
static fr_status check_group(mpi_comm *m)
{
    return m->rolled || m->unfinished ? look_for_alarm(m) : FR_OK;
}

/* Until all n requests are done. wait_ms 0: for ever. */
static fr_status await(mpi_comm *m, int n, MPI_Request *requests, int wait_ms, const char *what)
{
    const uint64_t end = wait_ms > 0 ? fr_now_ns() + (uint64_t)wait_ms * 1000000 : 0;
    int done = 0;
    fr_status st = mpi_check(MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE), what);
    for (unsigned round = 1; st == FR_OK && !done; round++) {
        if (round % ROUNDS == 0)
            st = look_for_alarm(m);
        if (round % ROUNDS == 0 && m->yield)
            sched_yield();
        if (st == FR_OK && wait_ms > 0 && fr_now_ns() > end)
            st = fr_fail(FR_EPEER, "rank %d: %s: not all ranks were there in %d ms", m->base.rank, what, wait_ms);
        if (st == FR_OK)
            st = mpi_check(MPI_Testall(n, requests, &done, MPI_STATUSES_IGNORE), what);
    }
    m->unfinished = m->unfinished || st != FR_OK;
    return st;
}

static fr_status mpi_roll_call(fr_comm *c, int wait_ms, char *why, bool *heard_out)
{
    mpi_comm *m = of(c);
    const uint64_t end = fr_now_ns() + (uint64_t)wait_ms * 1000000;
    m->rolled = true;
    m->heard[m->base.rank] = true;
    memcpy(m->roll_word, why, sizeof m->roll_word);
    for (int r = 0; r < m->base.size; r++) {
        MPI_Request send;
        if (r == m->base.rank)
            continue;
        FR_TRY(mpi_check(MPI_Isend(m->roll_word, sizeof m->roll_word, MPI_BYTE, r, ROLL_TAG, m->mpi,
                                   &send),
                         "roll_call"));
        FR_TRY(mpi_check(MPI_Request_free(&send), "roll_call"));
    }
    while (memchr(m->heard, false, (size_t)m->base.size) && fr_now_ns() < end) {
        int found = 0;
        FR_TRY(hear(m, &found));
        if (!found)
            fr_sleep_ms(1);
    }
    m->unfinished = m->unfinished || memchr(m->heard, false, (size_t)m->base.size);
    if (!why[0])
        memcpy(why, m->heard_why, sizeof m->heard_why);
    if (heard_out)
        memcpy(heard_out, m->heard, (size_t)m->base.size * sizeof *heard_out);
    return FR_OK;
}

static void mpi_give_up(fr_comm *c)
{
    char why[FR_COMM_WHY] = "";
    snprintf(why, sizeof why, "%s", fr_cause());
    if (!of(c)->rolled && mpi_roll_call(c, FR_COMM_LEAVE_MS, why, NULL) != FR_OK)
        of(c)->unfinished = true;
}

static fr_status check_bytes(const mpi_comm *m, size_t bytes, const char *what)
{
    if (bytes > (size_t)INT_MAX / (size_t)m->base.size)
        return fr_fail(FR_ELIMIT, "%s: a message of %zu bytes is too large", what, bytes);
    return FR_OK;
}

/* ---- collectives */

/* Room for `bytes`, contents undefined. Grown, never shrunk: the largest pass of a session comes first or soon. */
static fr_status make_room(fr_buf *b, size_t bytes)
{
    b->len = 0;
    return fr_buf_reserve(b, bytes > 0 ? bytes : 1);
}

/* One sum, x [n] of this rank, under way. Large ones are cut in as many pieces as there are ranks, of which each adds one;
 * for small ones all is one piece, which each rank adds. */
typedef struct sum {
    mpi_comm *m;
    float *x;
    size_t n;
    float *others; /* scratch: what comes from the other ranks */
} sum;

static size_t piece_at(const sum *s, int rank)
{
    return s->n * (size_t)rank / (size_t)s->m->base.size;
}

static size_t piece_len(const sum *s, int rank)
{
    return piece_at(s, rank + 1) - piece_at(s, rank);
}

/* What goes to a rank and what comes from it; a part of 0 values does neither. */
typedef struct transfer {
    const float *send;
    size_t n_send;
    float *receive;
    size_t n_receive;
} transfer;

/* Everything, in both directions. */
static transfer whole(const sum *s, int rank)
{
    return (transfer){s->x, s->n, s->others + (size_t)rank * s->n, s->n};
}

/* The rank's piece of x goes to it, and this rank's piece comes from it. */
static transfer scattered(const sum *s, int rank)
{
    const size_t mine = piece_len(s, s->m->base.rank);
    return (transfer){s->x + piece_at(s, rank), piece_len(s, rank), s->others + (size_t)rank * mine, mine};
}

/* This rank's piece, added up in x, goes to the rank, and the rank's own comes to where it lies in x. */
static transfer collected(const sum *s, int rank)
{
    const int mine = s->m->base.rank;
    return (transfer){s->x + piece_at(s, mine), piece_len(s, mine), s->others + piece_at(s, rank), piece_len(s, rank)};
}

/* From and to every other rank. Receives are posted first, so that what comes early need not be copied twice. */
static fr_status begin(const sum *s, transfer (*with)(const sum *s, int rank), int *n_out)
{
    mpi_comm *m = s->m;
    for (int r = 0; r < m->base.size; r++) {
        const transfer t = with(s, r);
        if (r != m->base.rank && t.n_receive > 0)
            FR_TRY(mpi_check(MPI_Irecv(t.receive, (int)t.n_receive, MPI_FLOAT, r, SUM_TAG, m->mpi,
                                       &m->requests[(*n_out)++]),
                             "all_reduce_sum: receive"));
    }
    for (int r = 0; r < m->base.size; r++) {
        const transfer t = with(s, r);
        if (r != m->base.rank && t.n_send > 0)
            FR_TRY(mpi_check(MPI_Isend(t.send, (int)t.n_send, MPI_FLOAT, r, SUM_TAG, m->mpi,
                                       &m->requests[(*n_out)++]),
                             "all_reduce_sum: send"));
    }
    return FR_OK;
}

static fr_status exchange(const sum *s, transfer (*with)(const sum *s, int rank))
{
    int n = 0;
    const fr_status st = begin(s, with, &n);
    if (st == FR_OK)
        return await(s->m, n, s->m->requests, 0, "all_reduce_sum");
    s->m->unfinished = true;
    return st;
}

/* x [n] := ((r0 + r1) + r2)... where rank r's part is parts + r * n, but this rank's is x itself: what comes before it is
 * summed up in part 0, then x joins, then what comes after. */
static void add_in_rank_order(const mpi_comm *m, float *restrict x, float *restrict parts, size_t n)
{
    const size_t rank = (size_t)m->base.rank, size = (size_t)m->base.size;
    for (size_t r = 1; r < rank; r++)
        for (size_t i = 0; i < n; i++)
            parts[i] += parts[r * n + i];
    for (size_t i = 0; rank > 0 && i < n; i++)
        x[i] = parts[i] + x[i];
    for (size_t r = rank + 1; r < size; r++)
        for (size_t i = 0; i < n; i++)
            x[i] += parts[r * n + i];
}

static fr_status sum_small(mpi_comm *m, float *x, size_t n)
{
    FR_TRY(make_room(&m->scratch, (size_t)m->base.size * n * sizeof *x));
    const sum s = {m, x, n, (float *)m->scratch.data};
    FR_TRY(exchange(&s, whole));
    add_in_rank_order(m, x, s.others, n);
    return FR_OK;
}

static fr_status sum_large(mpi_comm *m, float *x, size_t n)
{
    const size_t size = (size_t)m->base.size;
    FR_TRY(make_room(&m->scratch, (n + size) * sizeof *x)); /* size pieces; some are one longer than n / size */
    const sum s = {m, x, n, (float *)m->scratch.data};
    const size_t at = piece_at(&s, m->base.rank), end = piece_at(&s, m->base.rank + 1);
    FR_TRY(exchange(&s, scattered));
    add_in_rank_order(m, x + at, s.others, end - at);
    FR_TRY(exchange(&s, collected));
    memcpy(x, s.others, at * sizeof *x);
    memcpy(x + end, s.others + end, (n - end) * sizeof *x);
    return FR_OK;
}

static fr_status mpi_all_reduce_sum(fr_comm *c, float *x, size_t n)
{
    mpi_comm *m = of(c);
    if (m->base.size == 1 || n == 0)
        return FR_OK;
    FR_TRY(check_group(m));
    FR_TRY(check_bytes(m, n, "all_reduce_sum"));
    return n <= SMALL_SUM || m->base.size == 2 ? sum_small(m, x, n) : sum_large(m, x, n);
}

static fr_status mpi_gather(fr_comm *c, const void *mine, size_t bytes, void *out)
{
    mpi_comm *m = of(c);
    const size_t n_out = c->rank == 0 ? bytes * (size_t)c->size : 0;
    MPI_Request request;
    FR_TRY(check_group(m));
    FR_TRY(check_bytes(m, bytes, "gather"));
    FR_TRY(make_room(&m->exchange, bytes + n_out));
    uint8_t *in = m->exchange.data, *all = in + bytes;
    memcpy(in, mine, bytes);
    FR_TRY(mpi_check(MPI_Igather(in, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, 0, m->mpi, &request), "gather"));
    FR_TRY(await(m, 1, &request, 0, "gather"));
    if (n_out > 0)
        memcpy(out, all, n_out);
    return FR_OK;
}

static fr_status mpi_all_gather(fr_comm *c, const void *mine, size_t bytes, void *out, int wait_ms)
{
    mpi_comm *m = of(c);
    const size_t n_out = bytes * (size_t)c->size;
    MPI_Request request;
    FR_TRY(check_group(m));
    FR_TRY(check_bytes(m, bytes, "all_gather"));
    FR_TRY(make_room(&m->exchange, bytes + n_out));
    uint8_t *in = m->exchange.data, *all = in + bytes;
    memcpy(in, mine, bytes);
    FR_TRY(mpi_check(MPI_Iallgather(in, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, m->mpi, &request),
                     "all_gather"));
    FR_TRY(await(m, 1, &request, wait_ms, "all_gather"));
    memcpy(out, all, n_out);
    return FR_OK;
}

static fr_status mpi_broadcast(fr_comm *c, void *data, size_t bytes)
{
    mpi_comm *m = of(c);
    MPI_Request request;
    FR_TRY(check_group(m));
    FR_TRY(check_bytes(m, bytes, "broadcast"));
    FR_TRY(make_room(&m->exchange, bytes));
    if (c->rank == 0)
        memcpy(m->exchange.data, data, bytes);
    FR_TRY(mpi_check(MPI_Ibcast(m->exchange.data, (int)bytes, MPI_BYTE, 0, m->mpi, &request), "broadcast"));
    FR_TRY(await(m, 1, &request, 0, "broadcast"));
    memcpy(data, m->exchange.data, bytes);
    return FR_OK;
}

/* Which rank is the first that failed; the number of ranks when none did. */
static fr_status find_first_failure(mpi_comm *m, fr_status mine, int *first_out)
{
    MPI_Request request;
    m->vote = mine == FR_OK ? m->base.size : m->base.rank;
    FR_TRY(mpi_check(MPI_Iallreduce(&m->vote, &m->first, 1, MPI_INT, MPI_MIN, m->mpi, &request), "agree"));
    FR_TRY(await(m, 1, &request, 0, "agree"));
    *first_out = m->first;
    return FR_OK;
}

static fr_status mpi_agree(fr_comm *c, fr_status mine)
{
    mpi_comm *m = of(c);
    int first = 0;
    MPI_Request request;
    char cause[sizeof m->told.cause] = "";
    if (mine != FR_OK)
        snprintf(cause, sizeof cause, "%s", fr_cause());
    FR_TRY(check_group(m));
    m->told = (verdict){.status = mine};
    memcpy(m->told.cause, cause, sizeof cause);
    FR_TRY(find_first_failure(m, mine, &first));
    if (first == c->size)
        return FR_OK;
    FR_TRY(mpi_check(MPI_Ibcast(&m->told, sizeof m->told, MPI_BYTE, first, m->mpi, &request), "agree: cause"));
    FR_TRY(await(m, 1, &request, 0, "agree: cause"));
    return fr_fail((fr_status)m->told.status, "%s", m->told.cause);
}

static fr_status mpi_command_send(fr_comm *c, const void *data, size_t bytes)
{
    mpi_comm *m = of(c);
    if (m->base.rank != 0)
        return fr_fail(FR_EINVAL, "command_send: rank %d is not the leader", m->base.rank);
    FR_TRY(look_for_alarm(m));
    FR_TRY(check_bytes(m, bytes, "command_send"));
    m->n_commands++;
    const int n_followers = m->base.size - 1;
    for (int r = 1; r <= n_followers; r++)
        FR_TRY(mpi_check(
            MPI_Isend(data, (int)bytes, MPI_BYTE, r, COMMAND_TAG, m->mpi, &m->requests[r - 1]),
            "command_send"));
    /* Before the wait below: a large command leaves only when its receiver is awake. */
    for (int r = 1; r <= n_followers; r++)
        fr_doorbell_ring(m->bell, &m->bells[r], m->key, m->n_commands);
    return await(m, n_followers, m->requests, 0, "command_send");
}

/* Probes for a command for up to `ns` nanoseconds, at least once. */
static fr_status probe(mpi_comm *m, uint64_t ns, int *found_out, MPI_Status *status_out)
{
    const uint64_t start = fr_now_ns();
    do {
        FR_TRY(
            mpi_check(MPI_Iprobe(0, COMMAND_TAG, m->mpi, found_out, status_out), "command_wait"));
        if (!*found_out && m->yield)
            sched_yield();
    } while (!*found_out && fr_now_ns() - start < ns);
    return FR_OK;
}

/* Sleeps until a command is there. */
static fr_status await_command(mpi_comm *m, MPI_Status *status_out)
{
    int found = 0;
    FR_TRY(probe(m, SPIN_NS, &found, status_out));
    uint64_t rung = found ? 0 : fr_doorbell_wait(m->bell, m->key, 0);
    while (!found) {
        FR_TRY(look_for_alarm(m));
        FR_TRY(probe(m, rung > m->n_commands ? RUNG_SPIN_NS : 0, &found, status_out));
        if (!found)
            rung = fr_doorbell_wait(m->bell, m->key, IDLE_WAKE_MS);
    }
    return FR_OK;
}

static fr_status mpi_command_wait(fr_comm *c, const void **data_out, size_t *bytes_out)
{
    mpi_comm *m = of(c);
    if (m->base.rank == 0)
        return fr_fail(FR_EINVAL, "command_wait: the leader has no commands to wait for");
    MPI_Status status;
    memset(&status, 0, sizeof status);
    FR_TRY(await_command(m, &status));
    int bytes = 0;
    FR_TRY(mpi_check(MPI_Get_count(&status, MPI_BYTE, &bytes), "command_wait: size"));
    FR_TRY(make_room(&m->command, (size_t)bytes));
    FR_TRY(mpi_check(MPI_Irecv(m->command.data, bytes, MPI_BYTE, 0, COMMAND_TAG, m->mpi, m->requests), "command_wait"));
    FR_TRY(await(m, 1, m->requests, 0, "command_wait"));
    m->n_commands++;
    *data_out = m->command.data;
    *bytes_out = (size_t)bytes;
    return FR_OK;
}

static void free_comm(mpi_comm *m)
{
    fr_doorbell_close(&m->bell);
    fr_buf_free(&m->scratch);
    fr_buf_free(&m->exchange);
    fr_buf_free(&m->command);
    free(m->requests);
    free(m->bells);
    free(m->heard);
    free(m);
}

static void mpi_close(fr_comm **c)
{
    static mpi_comm *unfinished; /* MPI may write there until the process ends */
    if (!c || !*c)
        return;
    mpi_comm *m = of(*c);
    *c = NULL;
    n_open--;
    if (m->unfinished) {
        unfinished = m;
        return;
    }
    if (m->mpi != MPI_COMM_NULL)
        MPI_Comm_free(&m->mpi);
    free_comm(m);
    if (n_open == 0 && !unfinished)
        MPI_Finalize();
}

static const fr_comm_ops mpi_ops = {
    .name = "mpi",
    .all_reduce_sum = mpi_all_reduce_sum,
    .gather = mpi_gather,
    .all_gather = mpi_all_gather,
    .broadcast = mpi_broadcast,
    .agree = mpi_agree,
    .command_send = mpi_command_send,
    .command_wait = mpi_command_wait,
    .give_up = mpi_give_up,
    .roll_call = mpi_roll_call,
    .alarmed = mpi_alarmed,
    .close = mpi_close,
};

/* Cores of this host that its ranks may use together. mpirun's own binding gives each rank another core, so what one
 * rank may use says nothing about the others. */
static int usable_cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (!getenv("OMPI_MCA_orte_bound_at_launch") && sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set);
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

/* Settings that Open MPI reads when it starts, for ranks whose launcher did not decide. Without yielding, ranks beyond
 * the cores spin against each other: an all-reduce takes 30 ms instead of 20 us. The eager limit speeds messages of
 * 16-64 KB within a host threefold. Ranks that are all on one host meet in its memory: looking for network fabrics
 * first, as Open MPI does unless it is told ob1, takes 0.2 s. */
static void set_mpi_defaults(void)
{
    const char *ranks = getenv("OMPI_COMM_WORLD_LOCAL_SIZE"), *all = getenv("OMPI_COMM_WORLD_SIZE");
    if (ranks && strtol(ranks, NULL, 10) >= usable_cores())
        setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    if (ranks && all && strcmp(ranks, all) == 0)
        setenv("OMPI_MCA_pml", "ob1", 0);
    setenv("OMPI_MCA_btl_vader_eager_limit", "65536", 0);
}

static fr_status initialise(void)
{
    int done = 0, over = 0, provided = 0;
    FR_TRY(mpi_check(MPI_Initialized(&done), "MPI_Initialized"));
    FR_TRY(mpi_check(MPI_Finalized(&over), "MPI_Finalized"));
    if (over)
        return fr_fail(FR_EINVAL, "MPI was closed and cannot start again in this process");
    if (done)
        return FR_OK;
    set_mpi_defaults();
    FR_TRY(
        mpi_check(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread"));
    if (provided < MPI_THREAD_FUNNELED)
        return fr_fail(FR_EUNSUPPORTED,
                       "this MPI library cannot be used in a program with threads");
    return mpi_check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN),
                     "MPI_Comm_set_errhandler");
}

/* How many ranks of `host` may use the same cores as this one. Round by round: it takes no memory, so that no rank can
 * fail alone. */
static fr_status count_alike(MPI_Comm host, int n_ranks, int *n_out)
{
    cpu_set_t mine, other;
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof mine, &mine) != 0)
        CPU_ZERO(&mine);
    *n_out = 0;
    for (int r = 0; r < n_ranks; r++) {
        other = mine;
        FR_TRY(mpi_check(MPI_Bcast(&other, sizeof other, MPI_BYTE, r, host), "MPI_Bcast"));
        *n_out += CPU_EQUAL(&mine, &other) != 0;
    }
    return FR_OK;
}

/* Sets here, n_here, n_alike and yield. local_out: all ranks of the group are on one host. */
static fr_status look_around(mpi_comm *m, int *local_out)
{
    MPI_Comm host = MPI_COMM_NULL;
    int of_world = 0, fewest = 0;
    FR_TRY(mpi_check(
        MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host),
        "MPI_Comm_split_type"));
    FR_TRY(mpi_check(MPI_Comm_size(host, &of_world), "MPI_Comm_size"));
    FR_TRY(mpi_check(MPI_Comm_free(&host), "MPI_Comm_free"));
    m->yield = of_world >= usable_cores();

    FR_TRY(mpi_check(MPI_Comm_split_type(m->mpi, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host),
                     "MPI_Comm_split_type"));
    FR_TRY(mpi_check(MPI_Comm_rank(host, &m->base.here), "MPI_Comm_rank"));
    FR_TRY(mpi_check(MPI_Comm_size(host, &m->base.n_here), "MPI_Comm_size"));
    FR_TRY(count_alike(host, m->base.n_here, &m->base.n_alike));
    FR_TRY(mpi_check(MPI_Comm_free(&host), "MPI_Comm_free"));
    FR_TRY(mpi_check(MPI_Allreduce(&m->base.n_here, &fewest, 1, MPI_INT, MPI_MIN, m->mpi),
                     "MPI_Allreduce"));
    *local_out = fewest == m->base.size;
    return FR_OK;
}

/* All that a rank may fail in alone. */
static fr_status prepare(mpi_comm *m, int local)
{
    const size_t size = (size_t)m->base.size;
    m->requests = calloc(2 * size, sizeof *m->requests);
    m->bells = calloc(size, sizeof *m->bells);
    m->heard = calloc(size, sizeof *m->heard);
    if (!m->requests || !m->bells || !m->heard)
        return fr_no_memory();
    return fr_doorbell_open(local, &m->bell);
}

static fr_status exchange_bells(mpi_comm *m)
{
    const fr_doorbell_address where = fr_doorbell_where(m->bell);
    FR_TRY(mpi_all_gather(&m->base, &where, sizeof where, m->bells, 0));
    if (m->base.rank == 0 && getrandom(&m->key, sizeof m->key, 0) != (ssize_t)sizeof m->key)
        m->key = fr_now_ns(); /* the key only keeps other groups' rings apart */
    return mpi_broadcast(&m->base, &m->key, sizeof m->key);
}

static fr_status form_group(mpi_comm *m, int colour)
{
    int local = 0;
    FR_TRY(mpi_check(MPI_Comm_split(MPI_COMM_WORLD, colour, 0, &m->mpi), "MPI_Comm_split"));
    FR_TRY(
        mpi_check(MPI_Comm_set_errhandler(m->mpi, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler"));
    FR_TRY(mpi_check(MPI_Comm_rank(m->mpi, &m->base.rank), "MPI_Comm_rank"));
    FR_TRY(mpi_check(MPI_Comm_size(m->mpi, &m->base.size), "MPI_Comm_size"));
    FR_TRY(look_around(m, &local));
    FR_TRY(mpi_agree(&m->base, prepare(m, local)));
    return exchange_bells(m);
}

fr_status fr_comm_mpi_open(int colour, fr_comm **out)
{
    if (colour < 0)
        return fr_fail(FR_EINVAL, "group colour %d is negative", colour);
    FR_TRY(initialise());
    mpi_comm *m = calloc(1, sizeof *m);
    if (!m)
        return fr_no_memory();
    fr_comm *self = &m->base;
    n_open++;
    m->base.ops = &mpi_ops;
    m->mpi = MPI_COMM_NULL;
    fr_status st = form_group(m, colour);
    if (st != FR_OK)
        mpi_close(&self);
    else
        *out = self;
    return st;
}

int fr_comm_mpi_launched(void)
{
    return getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") || getenv("PMI_RANK");
}

/* The first rank of the world with a text, and the text's length; lengths [n_ranks]. */
static int find_author(const int *lengths, int n_ranks)
{
    for (int r = 0; r < n_ranks; r++) {
        if (lengths[r] > 0)
            return r;
    }
    return -1;
}

fr_status fr_comm_mpi_share_text(char *text, size_t cap)
{
    FR_TRY(initialise());
    int rank = 0, size = 0;
    FR_TRY(mpi_check(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank"));
    FR_TRY(mpi_check(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size"));
    const int mine = (int)strnlen(text, cap);
    fr_status st = FR_OK;
    char *shared = NULL;
    int *lengths = calloc((size_t)size, sizeof *lengths);
    if (!lengths)
        return fr_no_memory();
    FR_TRY_GOTO(st,
                mpi_check(MPI_Allgather(&mine, 1, MPI_INT, lengths, 1, MPI_INT, MPI_COMM_WORLD),
                          "share_text"),
                done);
    const int author = find_author(lengths, size);
    if (author < 0) /* nobody has one */
        goto done;
    const int length = lengths[author];
    shared = calloc((size_t)length + 1, 1);
    if (!shared) {
        st = fr_no_memory();
        goto done;
    }
    if (rank == author)
        memcpy(shared, text, (size_t)length);
    FR_TRY_GOTO(
        st, mpi_check(MPI_Bcast(shared, length, MPI_BYTE, author, MPI_COMM_WORLD), "share_text"),
        done);
    if ((size_t)length >= cap)
        st = fr_fail(FR_ELIMIT, "share_text: a text of %d bytes is too long here", length);
    else
        memcpy(text, shared, (size_t)length + 1);
done:
    free(shared);
    free(lengths);
    return st;
}
