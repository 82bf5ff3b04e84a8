/* comm_link.c: the communicator table over ranks.h. All collectives are alike: the followers' words go to rank 0, and
 * what it made of them goes to all.
 *
 * When a rank is late, both rank 0, which waits for it, and the followers, which wait for rank 0, run out of patience.
 * Rank 0 can name it, so the followers have a little more. */
#include "comm_link.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

typedef struct link_comm {
    fr_comm base;
    fr_ranks *ranks;
    int opening_ms; /* how long a wait may take until there is patience */
    fr_msg command; /* the last one received */
} link_comm;

typedef struct verdict {
    int32_t status;
    char cause[500];
} verdict;

static link_comm *of(fr_comm *c)
{
    return (link_comm *)c;
}

/* A word has to hold what n_ranks give. */
static fr_status check_bytes(size_t bytes, int n_ranks, const char *what)
{
    if (bytes > FR_RANKS_MOST_BYTES / (size_t)n_ranks)
        return fr_fail(FR_ELIMIT, "%s: a message of %zu bytes is too large", what, bytes);
    return FR_OK;
}

/* Of an exchange that begins now, may take ms, and is over for all ranks together. 0: as long as any. */
static fr_comm_wait begin_wait(const link_comm *l, int ms)
{
    fr_comm_patience p = l->base.patience;
    if (ms > 0)
        p.ms = ms;
    if (p.ms > 0 && l->base.rank != 0)
        p.ms = p.ms < INT_MAX - FR_COMM_LEAVE_MS ? p.ms + FR_COMM_LEAVE_MS : INT_MAX;
    if (p.ms == 0)
        p.ms = l->opening_ms;
    return fr_comm_wait_begin(p);
}

static fr_status receive_into(link_comm *l, int from, fr_ranks_kind kind, void *out, size_t bytes,
                              fr_comm_wait *wait)
{
    fr_msg word;
    FR_TRY(fr_ranks_receive(l->ranks, from, kind, bytes, wait, &word));
    if (bytes > 0)
        memcpy(out, word.body.rank_word.data.data, bytes);
    fr_msg_free(&word);
    return FR_OK;
}

static fr_status send_all(link_comm *l, fr_ranks_kind kind, const void *data, size_t bytes)
{
    for (int r = 1; r < l->base.size; r++)
        FR_TRY(fr_ranks_send(l->ranks, r, kind, data, bytes));
    return FR_OK;
}

/* From every rank in rank order, on rank 0. */
static fr_status collect(link_comm *l, fr_ranks_kind kind, const void *mine, size_t bytes, uint8_t *out, int wait_ms)
{
    fr_comm_wait wait = begin_wait(l, wait_ms);
    if (bytes > 0 && out != mine)
        memcpy(out, mine, bytes);
    for (int r = 1; r < l->base.size; r++)
        FR_TRY(receive_into(l, r, kind, out + (size_t)r * bytes, bytes, &wait));
    return FR_OK;
}

static fr_status add_rank(link_comm *l, int rank, float *x, size_t n, fr_comm_wait *wait)
{
    fr_msg word;
    FR_TRY(fr_ranks_receive(l->ranks, rank, FR_RANKS_SUM, n * sizeof *x, wait, &word));
    for (size_t i = 0; i < n; i++) {
        float y;
        memcpy(&y, word.body.rank_word.data.data + i * sizeof y, sizeof y);
        x[i] += y;
    }
    fr_msg_free(&word);
    return FR_OK;
}

/* Of as much as a word holds. */
static fr_status sum_piece(link_comm *l, float *x, size_t n, fr_comm_wait *wait)
{
    if (l->base.rank != 0) {
        FR_TRY(fr_ranks_send(l->ranks, 0, FR_RANKS_SUM, x, n * sizeof *x));
        return receive_into(l, 0, FR_RANKS_SUM, x, n * sizeof *x, wait);
    }
    for (int r = 1; r < l->base.size; r++)
        FR_TRY(add_rank(l, r, x, n, wait));
    return send_all(l, FR_RANKS_SUM, x, n * sizeof *x);
}

static fr_status link_all_reduce_sum(fr_comm *c, float *x, size_t n)
{
    const size_t most = FR_RANKS_MOST_BYTES / sizeof *x;
    link_comm *l = of(c);
    fr_comm_wait wait = begin_wait(l, 0);
    if (c->size == 1)
        return FR_OK;
    if (n > INT_MAX / sizeof *x) /* as over MPI */
        return fr_fail(FR_ELIMIT, "all_reduce_sum: a sum of %zu numbers is too large", n);
    for (size_t at = 0; at < n; at += most)
        FR_TRY(sum_piece(l, x + at, n - at < most ? n - at : most, &wait));
    return FR_OK;
}

static fr_status link_gather(fr_comm *c, const void *mine, size_t bytes, void *out)
{
    FR_TRY(check_bytes(bytes, 1, "gather"));
    if (c->rank != 0)
        return fr_ranks_send(of(c)->ranks, 0, FR_RANKS_GATHER, mine, bytes);
    return collect(of(c), FR_RANKS_GATHER, mine, bytes, out, 0);
}

static fr_status link_all_gather(fr_comm *c, const void *mine, size_t bytes, void *out, int wait_ms)
{
    link_comm *l = of(c);
    fr_comm_wait wait = begin_wait(l, wait_ms);
    FR_TRY(check_bytes(bytes, c->size, "all_gather"));
    if (c->rank != 0) {
        FR_TRY(fr_ranks_send(l->ranks, 0, FR_RANKS_ALL_GATHER, mine, bytes));
        return receive_into(l, 0, FR_RANKS_ALL_GATHER, out, bytes * (size_t)c->size, &wait);
    }
    FR_TRY(collect(l, FR_RANKS_ALL_GATHER, mine, bytes, out, wait_ms));
    return send_all(l, FR_RANKS_ALL_GATHER, out, bytes * (size_t)c->size);
}

static fr_status link_broadcast(fr_comm *c, void *data, size_t bytes)
{
    FR_TRY(check_bytes(bytes, 1, "broadcast"));
    link_comm *l = of(c);
    fr_comm_wait wait = begin_wait(l, 0);
    return c->rank == 0 ? send_all(l, FR_RANKS_BROADCAST, data, bytes)
                        : receive_into(l, 0, FR_RANKS_BROADCAST, data, bytes, &wait);
}

/* Words take memory, little of it: a rank without any cannot tell, and the others' wait has its deadline. */
static fr_status link_agree(fr_comm *c, fr_status mine)
{
    link_comm *l = of(c);
    verdict first = {.status = mine}, other;
    fr_comm_wait wait = begin_wait(l, 0);
    if (mine != FR_OK)
        snprintf(first.cause, sizeof first.cause, "%s", fr_cause());
    if (c->rank == 0) {
        for (int r = 1; r < c->size; r++) {
            FR_TRY(receive_into(l, r, FR_RANKS_AGREE, &other, sizeof other, &wait));
            if (first.status == FR_OK)
                first = other;
        }
        FR_TRY(send_all(l, FR_RANKS_AGREE, &first, sizeof first));
    } else {
        FR_TRY(fr_ranks_send(l->ranks, 0, FR_RANKS_AGREE, &first, sizeof first));
        FR_TRY(receive_into(l, 0, FR_RANKS_AGREE, &first, sizeof first, &wait));
    }
    first.cause[sizeof first.cause - 1] = '\0';
    return first.status == FR_OK ? FR_OK : fr_fail((fr_status)first.status, "%s", first.cause);
}

static fr_status link_command_send(fr_comm *c, const void *data, size_t bytes)
{
    if (c->rank != 0)
        return fr_fail(FR_EINVAL, "command_send: rank %d is not the leader", c->rank);
    FR_TRY(check_bytes(bytes, 1, "command_send"));
    return send_all(of(c), FR_RANKS_COMMAND, data, bytes);
}

static fr_status link_command_wait(fr_comm *c, const void **data_out, size_t *bytes_out)
{
    link_comm *l = of(c);
    if (c->rank == 0)
        return fr_fail(FR_EINVAL, "command_wait: the leader has no commands to wait for");
    fr_msg_free(&l->command);
    FR_TRY(fr_ranks_idle(l->ranks, 0, FR_RANKS_COMMAND, c->patience.stop, &l->command));
    *data_out = l->command.body.rank_word.data.data;
    *bytes_out = l->command.body.rank_word.data.len;
    return FR_OK;
}

static void link_give_up(fr_comm *c)
{
    fr_ranks_give_up(of(c)->ranks);
}

static fr_status link_roll_call(fr_comm *c, int wait_ms, char *why, bool *heard_out)
{
    return fr_ranks_roll_call(of(c)->ranks, wait_ms, why, heard_out);
}

static fr_status link_look(fr_comm *c)
{
    return fr_ranks_look(of(c)->ranks);
}

static void link_close(fr_comm **c)
{
    if (!c || !*c)
        return;
    link_comm *l = of(*c);
    fr_msg_free(&l->command);
    fr_ranks_close(&l->ranks);
    free(l);
    *c = NULL;
}

static const fr_comm_ops link_ops = {
    .name = "link",
    .all_reduce_sum = link_all_reduce_sum,
    .gather = link_gather,
    .all_gather = link_all_gather,
    .broadcast = link_broadcast,
    .agree = link_agree,
    .command_send = link_command_send,
    .command_wait = link_command_wait,
    .give_up = link_give_up,
    .roll_call = link_roll_call,
    .look = link_look,
    .close = link_close,
};

typedef struct whereabouts {
    char host[64];
    cpu_set_t cores;
} whereabouts;

/* Sets here, n_here and n_alike. Hosts are told apart by their names. */
static fr_status look_around(link_comm *l)
{
    fr_comm *c = &l->base;
    whereabouts mine = {.host = ""}, *all = calloc((size_t)c->size, sizeof *all);
    fr_status st = link_agree(c, all ? FR_OK : fr_no_memory());
    gethostname(mine.host, sizeof mine.host - 1);
    if (sched_getaffinity(0, sizeof mine.cores, &mine.cores) != 0)
        CPU_ZERO(&mine.cores);
    if (st == FR_OK)
        st = link_all_gather(c, &mine, sizeof mine, all, 0);
    for (int r = 0; r < c->size && st == FR_OK; r++) {
        const bool is_here = strcmp(all[r].host, mine.host) == 0;
        c->n_here += is_here;
        c->here += is_here && r < c->rank;
        c->n_alike += is_here && CPU_EQUAL(&all[r].cores, &mine.cores);
    }
    free(all);
    return st;
}

fr_status fr_comm_link_open(const fr_ranks_options *options, fr_comm **out)
{
    fr_status st;
    if (options->size < 1 || options->rank < 0 || options->rank >= options->size)
        return fr_fail(FR_EINVAL, "there is no rank %d in a group of %d", options->rank, options->size);
    link_comm *l = calloc(1, sizeof *l);
    if (!l)
        return fr_no_memory();
    fr_comm *self = &l->base;
    l->base.ops = &link_ops;
    l->base.rank = options->rank;
    l->base.size = options->size;
    l->opening_ms = options->wait_ms;
    FR_TRY_GOTO(st, fr_ranks_open(options, &l->ranks), fail);
    FR_TRY_GOTO(st, look_around(l), fail);
    *out = self;
    return FR_OK;
fail:
    link_close(&self);
    return st;
}
