/* test_ranks.c: groups over Forerun's own link that do not go well: ranks that are missing, silent, gone, doubled or at
 * another exchange. Each time every rank that is still there has to end in time with one cause, which names the rank.
 * What goes well is tested by the communicators' suite. Ranks are threads here, over tcp. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "check.h"
#include "clock.h"
#include "rank_threads.h"

static fr_status do_nothing(rank_thread *m)
{
    (void)m;
    return FR_OK;
}

static fr_status sum_alone_or_not(rank_thread *m)
{
    float x = 1;
    return m->options.rank == 2 ? FR_OK : m->comm->ops->all_reduce_sum(m->comm, &x, 1);
}

static void test_missing(void **state)
{
    (void)state;
    rank_thread m[3];
    rank_threads_set_up(m, 3, 4, do_nothing);
    m[0].options.connect_ms = SHORT_MS;
    m[2].options.rank = 3;
    rank_threads_run(m, 3);
    rank_threads_ended(m, 3, FR_EPEER, "no word from rank 2 in 300 ms");
}

static void test_silent(void **state)
{
    (void)state;
    rank_thread m[3];
    rank_threads_set_up(m, 3, 3, sum_alone_or_not);
    m[0].options.wait_ms = SHORT_MS;
    rank_threads_run(m, 3);
    rank_thread_ended(&m[0], FR_EPEER, "rank 0: no word from rank 2 in 300 ms");
    rank_thread_ended(&m[1], FR_EPEER, "rank 0: no word from rank 2 in 300 ms");
}

static fr_status leader_is_silent(rank_thread *m)
{
    float x = 1;
    return m->options.rank == 0 ? FR_OK : m->comm->ops->all_reduce_sum(m->comm, &x, 1);
}

static void test_silent_leader(void **state)
{
    (void)state;
    rank_thread m[2];
    rank_threads_set_up(m, 2, 2, leader_is_silent);
    m[1].options.wait_ms = SHORT_MS;
    rank_threads_run(m, 2);
    rank_thread_ended(&m[1], FR_EPEER, "rank 1: no word from rank 0 in 300 ms");
}

/* ZeroMQ notices a moment later that a peer is gone. */
static fr_status one_leaves(rank_thread *m)
{
    fr_status st = FR_OK;
    if (m->options.rank == 1)
        m->comm->ops->close(&m->comm);
    for (int i = 0; m->options.rank == 0 && i < 500 && st == FR_OK; i++) {
        st = m->comm->ops->command_send(m->comm, "x", 1);
        fr_sleep_ms(10);
    }
    return st;
}

static void test_gone(void **state)
{
    (void)state;
    rank_thread m[2];
    rank_threads_set_up(m, 2, 2, one_leaves);
    rank_threads_run(m, 2);
    rank_thread_ended(&m[0], FR_EPEER, "rank 0: rank 1 is gone");
}

/* ---- in a group that serves */

/* Long enough to tell whether a rank ended at once or by its long patience. */
static void took_less_than(uint64_t start, int ms)
{
    assert_in_range((fr_now_ns() - start) / 1000000, 0, ms);
}

static fr_status wait_for_command(rank_thread *m)
{
    const void *data = NULL;
    size_t bytes = 0;
    return m->comm->ops->command_wait(m->comm, &data, &bytes);
}

/* One rank's process ends, and with it its connection. The others learn it while they wait, not when they send. */
static fr_status one_leaves_a_sum(rank_thread *m)
{
    float x = 1;
    if (m->options.rank != *(const int *)m->input)
        return m->comm->ops->all_reduce_sum(m->comm, &x, 1);
    fr_sleep_ms(SHORT_MS);
    m->comm->ops->close(&m->comm);
    return FR_OK;
}

static void test_gone_in_a_sum(void **state)
{
    (void)state;
    for (int gone = 0; gone < 3; gone++) {
        rank_thread m[3];
        const uint64_t start = fr_now_ns();
        rank_threads_set_up(m, 3, 3, one_leaves_a_sum);
        for (int r = 0; r < 3; r++)
            m[r].input = &gone;
        rank_threads_run(m, 3);
        took_less_than(start, LONG_MS / 4);
        char want[32];
        snprintf(want, sizeof want, "rank %d is gone", gone);
        for (int r = 0; r < 3; r++)
            rank_thread_ended(&m[r], r == gone ? FR_OK : FR_EPEER, r == gone ? "" : want);
    }
}

/* A leader that has nothing to do looks; then it does as a session does. */
static fr_status one_leaves_an_idle_group(rank_thread *m)
{
    fr_status st = FR_OK;
    if (m->options.rank == 1)
        m->comm->ops->close(&m->comm);
    if (m->options.rank == 2)
        return wait_for_command(m);
    while (m->options.rank == 0 && (st = m->comm->ops->look(m->comm)) == FR_OK)
        fr_sleep_ms(1);
    if (m->options.rank == 0)
        m->comm->ops->give_up(m->comm);
    return st;
}

static void test_gone_while_idle(void **state)
{
    (void)state;
    rank_thread m[3];
    rank_threads_set_up(m, 3, 3, one_leaves_an_idle_group);
    rank_threads_run(m, 3);
    rank_thread_ended(&m[0], FR_EPEER, "rank 0: rank 1 is gone");
    rank_thread_ended(&m[2], FR_EPEER, "rank 0: rank 1 is gone");
}

static fr_status leader_leaves(rank_thread *m)
{
    if (m->options.rank != 0)
        return wait_for_command(m);
    fr_sleep_ms(SHORT_MS);
    m->comm->ops->close(&m->comm);
    return FR_OK;
}

static void test_leader_gone(void **state)
{
    (void)state;
    rank_thread m[2];
    const uint64_t start = fr_now_ns();
    rank_threads_set_up(m, 2, 2, leader_leaves);
    rank_threads_run(m, 2);
    took_less_than(start, LONG_MS / 4);
    rank_thread_ended(&m[1], FR_EPEER, "rank 1: rank 0 is gone");
}

/* Each meeting of a pass has the communicator's patience. */
typedef enum { SUM, GATHER, ALL_GATHER, AGREE, N_MEETINGS } meeting;

static fr_status meet_without_2(rank_thread *m)
{
    fr_comm *c = m->comm;
    float x = 1, all[MOST_RANKS];
    c->patience.ms = SHORT_MS;
    if (m->options.rank == 2)
        return FR_OK;
    switch (*(const meeting *)m->input) {
    case SUM:
        return c->ops->all_reduce_sum(c, &x, 1);
    case GATHER: {
        const fr_status st = c->ops->gather(c, &x, sizeof x, all);
        return st == FR_OK ? wait_for_command(m) : st; /* of a follower it wants no answer */
    }
    case ALL_GATHER:
        return c->ops->all_gather(c, &x, sizeof x, all, 0);
    default:
        return c->ops->agree(c, FR_OK);
    }
}

static void test_impatient(void **state)
{
    (void)state;
    for (meeting at = SUM; at < N_MEETINGS; at++) {
        rank_thread m[3];
        rank_threads_set_up(m, 3, 3, meet_without_2);
        for (int r = 0; r < 3; r++)
            m[r].input = &at;
        rank_threads_run(m, 3);
        for (int r = 0; r < 2; r++)
            rank_thread_ended(&m[r], FR_EPEER, "rank 0: no word from rank 2 in 300 ms");
    }
}

/* The follower's patience is not for idling. */
static fr_status command_after_a_while(rank_thread *m)
{
    m->comm->patience.ms = SHORT_MS;
    if (m->options.rank != 0)
        return wait_for_command(m);
    fr_sleep_ms(3 * SHORT_MS);
    return m->comm->ops->command_send(m->comm, "x", 1);
}

static void test_idle(void **state)
{
    (void)state;
    rank_thread m[2];
    rank_threads_set_up(m, 2, 2, command_after_a_while);
    rank_threads_run(m, 2);
    rank_threads_ended(m, 2, FR_OK, "");
}

static const atomic_int stopped = 1;

/* Rank 0 waits for a sum in vain, rank 1 for a command, and both are told to end. */
static fr_status stop_waiting(rank_thread *m)
{
    float x = 1;
    m->comm->patience.stop = &stopped;
    if (m->options.rank == 0)
        return m->comm->ops->all_reduce_sum(m->comm, &x, 1);
    return m->options.rank == 1 ? wait_for_command(m) : FR_OK;
}

static void test_stopped(void **state)
{
    (void)state;
    for (int n = 2; n <= 3; n++) {
        rank_thread m[3];
        const uint64_t start = fr_now_ns();
        rank_threads_set_up(m, n, n, stop_waiting);
        m[0].act = n == 2 ? do_nothing : stop_waiting;
        rank_threads_run(m, n);
        took_less_than(start, FR_COMM_STOP_MS + 1500);
        rank_thread_ended(&m[1], n == 2 ? FR_ECANCELLED : m[1].st, "stopped while it waited for rank");
        if (n == 3)
            rank_thread_ended(&m[0], m[0].st, "stopped while it waited for rank");
    }
}

/* A group that is told to end while it gets on ends in good order, however long the pass. */
static fr_status stop_in_a_long_pass(rank_thread *m)
{
    enum { SUMS = 8 };
    float x = 1;
    m->comm->patience = (fr_comm_patience){.ms = LONG_MS, .stop = &stopped};
    for (int i = 0; i < SUMS; i++) {
        if (m->options.rank == 1)
            fr_sleep_ms(FR_COMM_STOP_MS / 5);
        FR_TRY(m->comm->ops->all_reduce_sum(m->comm, &x, 1));
    }
    return FR_OK;
}

static void test_stopped_in_good_order(void **state)
{
    (void)state;
    rank_thread m[2];
    rank_threads_set_up(m, 2, 2, stop_in_a_long_pass);
    rank_threads_run(m, 2);
    rank_threads_ended(m, 2, FR_OK, "");
}

/* ---- ranks that went apart */

static fr_status gather_or_agree(rank_thread *m)
{
    uint8_t x = 0, all[2];
    if (m->options.rank == 0)
        return m->comm->ops->agree(m->comm, FR_OK);
    return m->comm->ops->all_gather(m->comm, &x, 1, all, 0);
}

static void test_apart(void **state)
{
    (void)state;
    rank_thread m[2];
    rank_threads_set_up(m, 2, 2, gather_or_agree);
    rank_threads_run(m, 2);
    rank_thread_ended(&m[0], FR_EPROTO, "rank 0: rank 1 is at an exchange of kind");
    rank_thread_ended(&m[1], FR_EPEER, "rank 0: rank 1 is at an exchange of kind");
}

static fr_status sum_more_or_less(rank_thread *m)
{
    float x[2] = {0};
    return m->comm->ops->all_reduce_sum(m->comm, x, m->options.rank == 0 ? 2 : 1);
}

static void test_sizes_apart(void **state)
{
    (void)state;
    rank_thread m[2];
    rank_threads_set_up(m, 2, 2, sum_more_or_less);
    rank_threads_run(m, 2);
    rank_thread_ended(&m[0], FR_EPROTO, "rank 1 came with 4 bytes to an exchange of 8");
    rank_thread_ended(&m[1], FR_EPEER, "rank 1 came with 4 bytes to an exchange of 8");
}

static void test_another_count(void **state)
{
    (void)state;
    rank_thread m[2];
    const uint64_t start = fr_now_ns();
    rank_threads_set_up(m, 2, 2, do_nothing);
    m[1].options.size = 3;
    rank_threads_run(m, 2);
    took_less_than(start, LONG_MS / 4);
    rank_threads_ended(m, 2, FR_EMISMATCH, "rank 1 was started as one of 3 ranks, rank 0 as one of 2");
}

/* The one that came second is refused; the first was in a group that is given up. */
static void test_doubled(void **state)
{
    (void)state;
    rank_thread m[3];
    const uint64_t start = fr_now_ns();
    rank_threads_set_up(m, 3, 3, do_nothing);
    m[2].options.rank = 1;
    rank_threads_run(m, 3);
    took_less_than(start, LONG_MS / 4);
    const int first = m[1].st == FR_EPEER ? 1 : 2, second = 3 - first;
    rank_thread_ended(&m[0], FR_EMISMATCH, "two processes came as rank 1");
    rank_thread_ended(&m[first], FR_EPEER, "two processes came as rank 1");
    rank_thread_ended(&m[second], FR_EMISMATCH, "two processes came as rank 1");
}

/* One more process comes as rank 1, while rank 0 waits for the sum of the real one. */
static fr_status another_comes(rank_thread *m)
{
    float x = 1;
    fr_comm *c = NULL;
    if (m->options.rank == 1 && fr_comm_link_open(&m->options, &c) == FR_OK)
        return fr_fail(FR_EMISMATCH, "the other process was let in");
    if (m->options.rank == 1 && !strstr(fr_cause(), "a process came as rank 1 of 2, but the group of 2 is whole"))
        return FR_EPROTO;
    FR_TRY(m->comm->ops->all_reduce_sum(m->comm, &x, 1));
    return x == 2 ? FR_OK : fr_fail(FR_EMISMATCH, "the sum is %g", (double)x);
}

static void test_whole(void **state)
{
    (void)state;
    rank_thread m[2];
    rank_threads_set_up(m, 2, 2, another_comes);
    rank_threads_run(m, 2);
    rank_threads_ended(m, 2, FR_OK, "");
}

static void test_bad_options(void **state)
{
    (void)state;
    fr_comm *c = NULL;
    fr_ranks_options o = {.endpoint = "tcp://nowhere", .size = 2, .connect_ms = SHORT_MS, .wait_ms = SHORT_MS};
    assert_int_equal(fr_comm_link_open(&o, &c), FR_EINVAL);
    o.rank = 2;
    assert_int_equal(fr_comm_link_open(&o, &c), FR_EINVAL);
    o.rank = -1;
    assert_int_equal(fr_comm_link_open(&o, &c), FR_EINVAL);
    assert_null(c);
}

/* The leader notices something; rank 1 idles, and is told; rank 2 never looks. */
static fr_status roll(rank_thread *m)
{
    const void *data = NULL;
    size_t bytes = 0;
    char why[FR_COMM_WHY] = "the leader noticed";
    if (m->options.rank == 2)
        return FR_OK;
    if (m->options.rank == 1)
        return m->comm->ops->command_wait(m->comm, &data, &bytes);
    return m->comm->ops->roll_call(m->comm, SHORT_MS, why, m->heard);
}

static void test_roll_call(void **state)
{
    (void)state;
    rank_thread m[3];
    rank_threads_set_up(m, 3, 3, roll);
    rank_threads_run(m, 3);
    assert_int_equal(m[0].st, FR_OK);
    assert_true(m[0].heard[0] && m[0].heard[1] && !m[0].heard[2]);
    rank_thread_ended(&m[1], FR_EPEER, "the leader noticed");
}

/* A follower notices something; the others look, and all have the same list. */
static fr_status roll_of_follower(rank_thread *m)
{
    char why[FR_COMM_WHY] = "";
    if (m->options.rank == 3)
        return FR_OK;
    if (m->options.rank == 1)
        snprintf(why, sizeof why, "rank 1 noticed");
    while (m->options.rank != 1 && m->comm->ops->look(m->comm) == FR_OK)
        fr_sleep_ms(1);
    fr_status st = m->comm->ops->roll_call(m->comm, SHORT_MS, why, m->heard);
    return st == FR_OK ? fr_fail(FR_EPEER, "%s", why) : st;
}

static void test_roll_call_of_follower(void **state)
{
    (void)state;
    rank_thread m[4];
    rank_threads_set_up(m, 4, 4, roll_of_follower);
    rank_threads_run(m, 4);
    for (int i = 0; i < 3; i++) {
        rank_thread_ended(&m[i], FR_EPEER, "rank 1 noticed");
        assert_true(m[i].heard[0] && m[i].heard[1] && m[i].heard[2] && !m[i].heard[3]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing),       cmocka_unit_test(test_silent),
        cmocka_unit_test(test_silent_leader), cmocka_unit_test(test_gone),
        cmocka_unit_test(test_apart),         cmocka_unit_test(test_sizes_apart),
        cmocka_unit_test(test_another_count), cmocka_unit_test(test_doubled),
        cmocka_unit_test(test_whole),         cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_gone_in_a_sum), cmocka_unit_test(test_gone_while_idle),
        cmocka_unit_test(test_leader_gone),
        cmocka_unit_test(test_impatient),     cmocka_unit_test(test_idle),
        cmocka_unit_test(test_stopped),       cmocka_unit_test(test_stopped_in_good_order),
        cmocka_unit_test(test_roll_call),     cmocka_unit_test(test_roll_call_of_follower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
