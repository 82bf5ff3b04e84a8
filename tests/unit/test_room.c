/* test_room.c: a cache that is smaller than the jobs need together: who keeps its place, how much is computed again,
 * and that nobody waits in vain. Passes are run by this thread, over the tables themselves, so that what is idle when
 * is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "batch.h"
#include "ops.h"
#include "serve_group.h"

enum { JOBS = 6, LENGTH = 96, STEP = 4, CACHE = 384, SMALL_CACHE = 208, RECEIVE_MS = 20000 };
enum { SHARED = 16 }; /* more than the words that all prompts begin with */

typedef struct engine {
    group g;
    fr_requests requests;
    fr_batch batch;
    text t[JOBS];
} engine;

/* Any one of the texts has to fit the cache. */
static void engine_open(engine *e, int kv_positions)
{
    *e = (engine){.batch.prefill_chunk = 16};
    group_open(&e->g, 512, kv_positions, 0);
    for (int i = 0; i < JOBS; i++) {
        prompt(&e->g, i, &e->t[i]);
        write_plainly(&e->g, &e->t[i], &hot, LENGTH + 1);
    }
    e->requests = (fr_requests){.session = e->g.session, .held.session = e->g.session};
    ok(fr_link_connect(e->g.options.endpoint, 0, &e->requests.link));
}

static void engine_close(engine *e)
{
    fr_link *link = e->requests.link;
    fr_requests_close(&e->requests);
    fr_batch_close(&e->batch);
    fr_link_close(&link, 0);
    group_close(&e->g);
    for (int i = 0; i < JOBS; i++)
        fr_ids_free(&e->t[i].ids);
}

/* Verifies the ids of text i from `at` to `end`, as request number i. */
static void ask_of(engine *e, int i, uint64_t job, uint32_t sequence, int at, int end)
{
    fr_msg m = verify_msg(&e->g, &e->t[i], job, &hot, at, end), copy;
    m.body.verify.prefix.sequence = sequence;
    m.body.verify.request = (uint64_t)i;
    fr_buf b = {0};
    ok(fr_msg_encode(&m, &b));
    ok(fr_msg_decode(b.data, b.len, &copy));
    fr_buf_free(&b);
    fr_requests_add(&e->requests, &copy);
}

/* Of the text that has the job's number. */
static void ask(engine *e, int job, int at, int end)
{
    ask_of(e, job, (uint64_t)job, 0, at, end);
}

/* One pass; what is answered is the text. */
static void pass(engine *e)
{
    fr_msg m;
    int n = e->requests.n;
    ok(fr_batch_pass(&e->batch, &e->requests));
    for (; n > e->requests.n; n--) {
        ok(fr_link_recv(e->g.server, RECEIVE_MS, &e->g.peer, &m));
        assert_int_equal(m.kind, FR_MSG_VERIFIED);
        const text *t = &e->t[m.body.verified.request];
        assert_memory_equal(m.body.verified.own, t->ids.data + m.body.verified.position,
                            m.body.verified.n_own * sizeof(int32_t));
        fr_msg_free(&m);
    }
}

/* The same until all are answered; none may wait. Returns the rows that took. */
static int rows_until_answered(engine *e)
{
    const uint64_t before = e->batch.rows;
    while (e->requests.n > 0) {
        pass(e);
        assert_true(e->batch.wait_s <= 0);
    }
    return (int)(e->batch.rows - before);
}

static fr_held *held(const engine *e, int job)
{
    fr_held *h = fr_held_find(&e->requests.held, (uint64_t)job, 0);
    assert_non_null(h);
    return h;
}

static int cached(const engine *e, int job)
{
    return fr_held_cached(&e->requests.held, held(e, job));
}

/* As if it had been idle so much longer; less than 0: as if it were to be wanted soon, however slow this test is. */
static void age(const engine *e, int job, double seconds)
{
    held(e, job)->used_s -= seconds;
}

static int whole(const engine *e, int job)
{
    return e->t[job].n_prompt + LENGTH;
}

/* Jobs that are verified a few tokens at a time and draft in between, so that each is idle when the others are at
 * work. Little is computed twice, the texts are the same, and all end. */
static void test_little_is_computed_again(void **state)
{
    (void)state;
    engine e;
    int at[JOBS], drafts[JOBS] = {0}, needed = 0, left = JOBS;
    engine_open(&e, CACHE);
    for (int job = 0; job < JOBS; job++) {
        at[job] = e.t[job].n_prompt;
        needed += whole(&e, job) + LENGTH / STEP; /* the token before the drafted ones is asked about each time */
    }
    assert_true(needed > 2 * CACHE);
    for (int round = 0; left > 0; round++) {
        assert_true(round < 10000);
        for (int job = 0; job < JOBS; job++) {
            const fr_held *h = fr_held_find(&e.requests.held, (uint64_t)job, 0);
            if ((h && h->request) || at[job] > whole(&e, job))
                continue;
            drafts[job] = !drafts[job]; /* every other round */
            if (drafts[job])
                continue;
            if (at[job] < whole(&e, job)) {
                ask(&e, job, at[job], at[job] + STEP);
            } else {
                fr_requests_release(&e.requests, &(fr_msg_release){.job = (uint64_t)job, .all = 1});
                left--;
            }
            at[job] += STEP;
        }
        if (e.requests.n > 0)
            pass(&e);
        for (int i = 0; i < e.requests.held.n; i++)
            age(&e, (int)e.requests.held.list[i]->job, -1000);
    }
    if (e.batch.rows > (uint64_t)needed * 3 / 2)
        fail_msg("%d rows were needed, %d computed", needed, (int)e.batch.rows);
    engine_close(&e);
}

/* A job waits for the room of an older one that is idle, not for ever; and then takes no more than it needs. When the
 * older one comes back, it has what it had at once, and computes only what was taken. */
static void test_idle_older_job(void **state)
{
    (void)state;
    engine e;
    engine_open(&e, SMALL_CACHE);
    ask(&e, 1, whole(&e, 1), whole(&e, 1));
    rows_until_answered(&e);
    age(&e, 1, -1000);
    ask(&e, 2, whole(&e, 2), whole(&e, 2));
    for (int i = 0; i < 3; i++) {
        pass(&e);
        assert_int_equal(e.requests.n, 1);
        assert_true(e.batch.wait_s > 900);
        assert_int_equal(cached(&e, 1), whole(&e, 1));
    }
    age(&e, 1, 2000);
    assert_in_range(rows_until_answered(&e), whole(&e, 2) - SHARED, whole(&e, 2));
    const int left = cached(&e, 1);
    assert_in_range(left, SMALL_CACHE - whole(&e, 2) - FR_PAGE, whole(&e, 1) - 1);
    age(&e, 2, -1000);
    ask(&e, 1, whole(&e, 1), whole(&e, 1));
    assert_int_equal(rows_until_answered(&e), whole(&e, 1) - left);
    engine_close(&e);
}

/* An older job does not wait for a younger one, at work or idle, nor a job for another sequence of its own. */
static void test_nobody_waits_for_those(void **state)
{
    (void)state;
    engine e;
    engine_open(&e, SMALL_CACHE);
    ask(&e, 2, whole(&e, 2), whole(&e, 2));
    ask(&e, 1, whole(&e, 1), whole(&e, 1));
    while (e.requests.n == 2)
        pass(&e);
    assert_non_null(held(&e, 2)->request);
    age(&e, 1, 1000);
    rows_until_answered(&e);
    age(&e, 2, -1000);
    ask(&e, 1, whole(&e, 1), whole(&e, 1));
    rows_until_answered(&e);
    age(&e, 1, -1000);
    ask_of(&e, 3, 1, 1, whole(&e, 3), whole(&e, 3));
    assert_in_range(rows_until_answered(&e), whole(&e, 3) - SHARED, whole(&e, 3));
    engine_close(&e);
}

/* A young job whose next words fit the pages that it has takes its turn, though older ones have all the others. */
static void test_needs_no_page(void **state)
{
    (void)state;
    engine e;
    engine_open(&e, SMALL_CACHE);
    const int end = whole(&e, 1) / FR_PAGE * FR_PAGE - 3;
    ask(&e, 1, end, end);
    rows_until_answered(&e);
    for (int more = e.t[0].n_prompt; fr_session_kv_free(e.g.session) >= FR_PAGE; more += FR_PAGE) {
        assert_true(more <= whole(&e, 0));
        ask(&e, 0, more, more);
        rows_until_answered(&e);
    }
    age(&e, 0, -1000);
    assert_int_equal(cached(&e, 1), end);
    ask(&e, 1, end + 2, end + 2);
    assert_int_equal(rows_until_answered(&e), 2);
    engine_close(&e);
}

/* The serving loop comes back to a request that waits, without a message. */
static void test_loop_comes_back(void **state)
{
    (void)state;
    group g;
    text t[2];
    fr_msg m;
    group_open(&g, 512, SMALL_CACHE, 0);
    for (int i = 0; i < 2; i++) {
        prompt(&g, i, &t[i]);
        write_plainly(&g, &t[i], &hot, LENGTH + 1);
    }
    group_begin(&g);
    for (int i = 0; i < 2; i++) {
        const int n = t[i].n_prompt + LENGTH;
        fr_msg verify = verify_msg(&g, &t[i], (uint64_t)i, &hot, n, n);
        group_tell(&g, &verify);
        expect_verified(&g, verify.body.verify.request, &m);
        assert_int_equal(m.body.verified.own[0], t[i].ids.data[n]);
        fr_msg_free(&m);
        fr_ids_free(&t[i].ids);
    }
    group_stop(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_little_is_computed_again),
        cmocka_unit_test(test_idle_older_job),
        cmocka_unit_test(test_nobody_waits_for_those),
        cmocka_unit_test(test_needs_no_page),
        cmocka_unit_test(test_loop_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
