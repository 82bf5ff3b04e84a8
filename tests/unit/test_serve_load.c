/* test_serve_load.c: serving: many requests at once, little cache, sequences that are forked, cut,
 * released or replaced, malformed requests, and failing allocations. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "batch.h"
#include "clock.h"
#include "fault_alloc.h"
#include "ops.h"
#include "requests.h"
#include "serve_group.h"

/* ---- many requests, little cache */

enum { MANY = 8, LENGTH = 24 };

static void start_with_texts(group *g, text *t, int context, int kv_positions)
{
    group_open(g, context, kv_positions, 0);
    for (int i = 0; i < MANY; i++) {
        prompt(g, i, &t[i]);
        write_plainly(g, &t[i], i % 2 ? &hot : &greedy, LENGTH + 1);
    }
    group_begin(g);
}

/* All at once, half of them verifications: every answer is what it is alone. */
static void check_many(group *g, text *t)
{
    uint64_t first = g->next_request;
    for (int i = 0; i < 2 * MANY; i++) {
        const text *x = &t[i % MANY];
        const fr_sampling *s = i % 2 ? &hot : &greedy;
        fr_msg m = i < MANY ? generate_msg(g, x, (uint64_t)i, s, LENGTH)
                            : verify_msg(g, x, (uint64_t)i, s, x->n_prompt, x->n_prompt + LENGTH);
        group_tell(g, &m);
    }
    for (int i = 0; i < 2 * MANY; i++) {
        fr_msg m = {0};
        group_receive(g, &m);
        if (m.kind == FR_MSG_GENERATED) {
            const text *x = &t[m.body.generated.request - first];
            const size_t n = m.body.generated.n_ids;
            assert_true(n == LENGTH || strcmp(m.body.generated.stop, "end") == 0);
            assert_memory_equal(m.body.generated.ids, x->ids.data + x->n_prompt,
                                n * sizeof(int32_t));
            assert_memory_equal(m.body.generated.logprobs, x->logprobs, n * sizeof(float));
        } else {
            assert_int_equal(m.kind, FR_MSG_VERIFIED);
            const text *x = &t[m.body.verified.request - first - MANY];
            assert_memory_equal(m.body.verified.own, x->ids.data + x->n_prompt,
                                (LENGTH + 1) * sizeof(int32_t));
            assert_memory_equal(m.body.verified.drafted_logprobs, x->logprobs,
                                LENGTH * sizeof(float));
        }
        fr_msg_free(&m);
    }
}

static void test_many_at_once(void **state)
{
    (void)state;
    group g;
    text t[MANY];
    start_with_texts(&g, t, 512, 0);
    check_many(&g, t);
    for (int i = 0; i < MANY; i++)
        fr_ids_free(&t[i].ids);
    group_stop(&g);
}

/* The cache holds little more than one of the sixteen sequences: they take turns. */
static void test_little_cache(void **state)
{
    (void)state;
    group g;
    text t[MANY];
    start_with_texts(&g, t, 512, 128);
    check_many(&g, t);
    check_many(&g, t);
    /* The evicted ones are still known: no prefix is asked for. */
    for (int i = 0; i < MANY; i++) {
        fr_msg ask = verify_msg(&g, &t[i], (uint64_t)(MANY + i), i % 2 ? &hot : &greedy,
                                t[i].n_prompt + 4, t[i].n_prompt + 8),
               m;
        ask.body.verify.prefix =
            prefix_of(&t[i], (uint64_t)(MANY + i), t[i].n_prompt + 3, t[i].n_prompt + 8);
        group_tell(&g, &ask);
        expect_verified(&g, ask.body.verify.request, &m);
        assert_memory_equal(m.body.verified.own, t[i].ids.data + t[i].n_prompt + 4,
                            5 * sizeof(int32_t));
        fr_msg_free(&m);
    }
    for (int i = 0; i < MANY; i++)
        fr_ids_free(&t[i].ids);
    group_stop(&g);
}

/* What cannot fit even alone is refused, with the numbers. */
static void test_does_not_fit(void **state)
{
    (void)state;
    group g;
    text t, full;
    group_open(&g, 512, 96, 0);
    prompt(&g, 2, &t);
    write_plainly(&g, &t, &greedy, 2);
    prompt(&g, 1, &full);
    int capacity = (int)fr_session_info_of(g.session)->kv_positions;
    for (int32_t i = 0; (int)full.ids.len < capacity + 1; i++)
        ok(fr_ids_put(&full.ids, &i, 1));
    group_run(&g);
    fr_msg m;
    expect(&g, FR_MSG_REGISTER, &m);
    assert_int_equal(m.body.register_.max_context, capacity - (FR_PAGE - 1)); /* see the next test */
    fr_msg_free(&m);
    group_welcome(&g, 0);
    fr_msg ask = verify_msg(&g, &full, 1, &greedy, 2, capacity + 1);
    group_tell(&g, &ask);
    expect_error(&g, ask.body.verify.request, FR_ELIMIT, "longer than the cache of");
    int32_t question[] = {3, 4};
    fr_msg_probe probe = {.at = 3, .tokens = question, .n_tokens = 2};
    ask = verify_msg(&g, &full, 1, &greedy, capacity - 1, capacity);
    ask.body.verify.prefix.chain_base = 0;
    ask.body.verify.probes = &probe;
    ask.body.verify.n_probes = 1;
    group_tell(&g, &ask);
    expect_error(&g, ask.body.verify.request, FR_ELIMIT, "do not fit the cache of");
    expect_alive(&g, &t);
    fr_ids_free(&t.ids);
    fr_ids_free(&full.ids);
    group_stop(&g);
}

/* What the group registers as its context holds a trunk with a probe behind it, wherever the trunk ends. */
static void test_probes_fit_the_context(void **state)
{
    (void)state;
    enum { KV = 96, PROBE_MAX = 40 };
    for (int context = KV - FR_PAGE; context <= KV + FR_PAGE; context += FR_PAGE) {
        group g;
        text t = {0};
        fr_msg m;
        int32_t question[PROBE_MAX];
        group_open(&g, context, KV, 0);
        group_run(&g);
        expect(&g, FR_MSG_REGISTER, &m);
        const int n = (int)m.body.register_.max_context;
        assert_true(n <= context && n >= context - FR_PAGE - (FR_PAGE - 1));
        fr_msg_free(&m);
        group_welcome(&g, 0);
        for (int32_t i = 0; i < n; i++)
            ok(fr_ids_put(&t.ids, &i, 1));
        for (int32_t i = 0; i < PROBE_MAX; i++)
            question[i] = 3 + i;
        for (int n_probe = 1; n_probe <= PROBE_MAX; n_probe++) {
            const int at = n - n_probe;
            const fr_msg_probe probe = {.at = (uint32_t)at, .tokens = question, .n_tokens = (size_t)n_probe};
            fr_msg ask = verify_msg(&g, &t, 1, &greedy, at - 2, at);
            ask.body.verify.probes = &probe;
            ask.body.verify.n_probes = 1;
            group_tell(&g, &ask);
            expect_verified(&g, ask.body.verify.request, &m);
            assert_int_equal(m.body.verified.n_probes, 1);
            fr_msg_free(&m);
        }
        fr_ids_free(&t.ids);
        group_stop(&g);
    }
}

/* ---- sequences */

static void test_prefix(void **state)
{
    (void)state;
    group g;
    text t;
    group_open(&g, 512, 0, 0);
    prompt(&g, 6, &t);
    write_plainly(&g, &t, &greedy, 12);
    group_begin(&g);
    /* Unknown; then known; then with a wrong digest; then cut; then released. */
    fr_msg late = generate_msg(&g, &t, 5, &greedy, 4);
    late.body.generate.prefix = prefix_of(&t, 5, t.n_prompt - 3, t.n_prompt);
    group_tell(&g, &late);
    expect_error(&g, late.body.generate.request, FR_ENEEDPREFIX, "not known here");
    fr_msg whole = generate_msg(&g, &t, 5, &greedy, 8);
    group_tell(&g, &whole);
    expect_generated(&g, whole.body.generate.request, &t, 8, "limit");
    group_tell(&g, &late);
    expect_generated(&g, late.body.generate.request, &t, 4, "limit");
    fr_msg wrong = late;
    wrong.body.generate.prefix.digest++;
    group_tell(&g, &wrong);
    expect_error(&g, wrong.body.generate.request, FR_ENEEDPREFIX, "");
    group_tell(&g, &(fr_msg){.kind = FR_MSG_TRUNCATE, .body.truncate = {.job = 5, .position = 4}});
    group_tell(&g, &late);
    expect_error(&g, late.body.generate.request, FR_ENEEDPREFIX, "");
    fr_msg short_one = late;
    short_one.body.generate.prefix = prefix_of(&t, 5, 4, t.n_prompt);
    group_tell(&g, &short_one);
    expect_generated(&g, late.body.generate.request, &t, 4, "limit");
    /* A fork knows what its origin knew. */
    group_tell(&g, &(fr_msg){.kind = FR_MSG_FORK,
                             .body.fork = {
                                 .job = 5, .from = 0, .to = 3, .position = (uint32_t)t.n_prompt}});
    fr_msg forked = late;
    forked.body.generate.prefix.sequence = 3;
    group_tell(&g, &forked);
    expect_generated(&g, late.body.generate.request, &t, 4, "limit");
    group_tell(&g, &(fr_msg){.kind = FR_MSG_RELEASE, .body.release = {.job = 5, .sequence = 3}});
    group_tell(&g, &forked);
    expect_error(&g, late.body.generate.request, FR_ENEEDPREFIX, "");
    group_tell(&g, &late);
    expect_generated(&g, late.body.generate.request, &t, 4, "limit");
    group_tell(&g, &(fr_msg){.kind = FR_MSG_RELEASE, .body.release = {.job = 5, .all = 1}});
    group_tell(&g, &late);
    expect_error(&g, late.body.generate.request, FR_ENEEDPREFIX, "");
    fr_ids_free(&t.ids);
    group_stop(&g);
}

static void test_replaced_and_cancelled(void **state)
{
    (void)state;
    group g;
    text t;
    group_open(&g, 4096, 0, 0);
    prompt(&g, 7, &t);
    write_plainly(&g, &t, &greedy, 4);
    group_begin(&g);
    fr_msg a = generate_msg(&g, &t, 1, &hot, 100000), b = generate_msg(&g, &t, 1, &greedy, 4);
    /* Another request for the sequence ends the first one. */
    group_tell(&g, &a);
    group_tell(&g, &b);
    expect_error(&g, a.body.generate.request, FR_ECANCELLED, "another request");
    expect_generated(&g, b.body.generate.request, &t, 4, "limit");
    /* A cancelled one is never answered. */
    group_tell(&g, &a);
    group_tell(&g, &(fr_msg){.kind = FR_MSG_CANCEL_REQUEST,
                             .body.cancel_request.request = a.body.generate.request});
    group_tell(&g, &(fr_msg){.kind = FR_MSG_CANCEL_REQUEST, .body.cancel_request.request = 12345});
    b.body.generate.prefix.job = 2;
    group_tell(&g, &b);
    expect_generated(&g, b.body.generate.request, &t, 4, "limit");
    /* A newer epoch of a job drops its older requests without a word, and later ones of an older
     * epoch too. */
    group_tell(&g, &a);
    b.body.generate.prefix.job = 1;
    b.body.generate.prefix.sequence = 9;
    b.body.generate.prefix.epoch = 4;
    group_tell(&g, &b);
    group_tell(&g, &a);
    expect_generated(&g, b.body.generate.request, &t, 4, "limit");
    /* A new welcome drops all, and begins epochs anew. */
    a.body.generate.prefix.epoch = 4;
    group_tell(&g, &a);
    group_welcome(&g, 0);
    b.body.generate.prefix.epoch = 1;
    group_tell(&g, &b);
    expect_generated(&g, b.body.generate.request, &t, 4, "limit");
    fr_ids_free(&t.ids);
    group_stop(&g);
}

/* ---- malformed requests */

static void test_malformed(void **state)
{
    (void)state;
    group g;
    text t;
    group_open(&g, 512, 0, 0);
    prompt(&g, 1, &t);
    write_plainly(&g, &t, &greedy, 2);
    group_begin(&g);
    const int n = t.n_prompt, vocab = fr_session_info_of(g.session)->n_vocab;
    int32_t high[] = {3, vocab}, low[] = {3, -1}, fine[] = {3, 4}, many[17] = {0};
    char *big = calloc(1, 2000);
    assert_non_null(big);
    memset(big, 'x', 1999);
    const fr_msg_probe probes[] = {
        {.at = 0, .tokens = fine, .n_tokens = 2},
        {.at = (uint32_t)n + 1, .tokens = fine, .n_tokens = 2},
        {.at = 2, .tokens = NULL, .n_tokens = 0},
        {.at = 2, .tokens = high, .n_tokens = 2},
        {.at = 2, .tokens = fine, .n_tokens = 2, .wanted = low, .n_wanted = 2},
        {.at = 2, .tokens = fine, .n_tokens = 2, .wanted = many, .n_wanted = 17},
    };
    const char *probe_words[] = {"at 0",          "is not within the trunk",
                                 "has no tokens", "outside the vocabulary",
                                 "token id -1",   "wanted tokens are over"};
    const fr_msg base = generate_msg(&g, &t, 1, &greedy, 4),
                 check = verify_msg(&g, &t, 1, &greedy, n, n);
    struct {
        fr_msg m;
        const char *words;
        fr_status st;
    } bad[32];
    int k = 0;
#define BAD(from, status, text_, ...)                                                   \
    do {                                                                                \
        bad[k].m = from;                                                                \
        bad[k].st = status;                                                             \
        bad[k].words = text_;                                                           \
        fr_msg_generate *q = &bad[k].m.body.generate;                                   \
        fr_msg_verify *v = &bad[k++].m.body.verify;                                     \
        (void)q, (void)v;                                                               \
        __VA_ARGS__;                                                                    \
    } while (0);
    BAD(base, FR_EINVAL, "no tokens", q->prefix.n_tokens = 0)
    BAD(base, FR_EINVAL, "outside the vocabulary",
        (q->prefix.tokens = high, q->prefix.n_tokens = 2))
    BAD(base, FR_EINVAL, "token id -1", (q->prefix.tokens = low, q->prefix.n_tokens = 2))
    BAD(base, FR_ELIMIT, "longer than the context", q->prefix.start = 4000000000u)
    BAD(base, FR_ENEEDPREFIX, "", q->prefix.start = 7)
    BAD(base, FR_EINVAL, "max_tokens", q->max_tokens = 0)
    BAD(base, FR_EINVAL, "chain_base", q->prefix.chain_base = (uint32_t)n + 1)
    BAD(base, FR_EINVAL, "step_from", q->step_from = (uint32_t)n + 1)
    BAD(base, FR_EINVAL, "temperature", q->sampling.temperature = NAN)
    BAD(base, FR_EINVAL, "temperature", q->sampling.temperature = -1)
    BAD(base, FR_EINVAL, "top_p", q->sampling.top_p = 1.5f)
    BAD(base, FR_ELIMIT, "delimiter", q->delimiter = big)
    BAD(check, FR_EINVAL, "position 0", v->position = 0)
    BAD(check, FR_EINVAL, "position", v->position = (uint32_t)n + 1)
    BAD(check, FR_EINVAL, "chain_base", v->position = (uint32_t)n - 1)
    BAD(check, FR_EINVAL, "temperature", v->sampling.temperature = INFINITY)
    for (size_t i = 0; i < sizeof probes / sizeof *probes; i++)
        BAD(check, i == 5 ? FR_ELIMIT : FR_EINVAL, probe_words[i],
            (v->probes = &probes[i], v->n_probes = 1))
    for (int i = 0; i < k; i++) {
        group_tell(&g, &bad[i].m);
        uint64_t id = bad[i].m.kind == FR_MSG_VERIFY ? bad[i].m.body.verify.request
                                                     : bad[i].m.body.generate.request;
        expect_error(&g, id, bad[i].st, bad[i].words);
    }
    /* Messages about nothing, and of the wrong kind. */
    group_tell(&g, &(fr_msg){.kind = FR_MSG_TRUNCATE,
                             .body.truncate = {.job = 77, .position = 4000000000u}});
    group_tell(&g, &(fr_msg){.kind = FR_MSG_FORK, .body.fork = {.job = 77, .to = 4}});
    group_tell(&g, &(fr_msg){.kind = FR_MSG_RELEASE, .body.release = {.job = 77, .all = 1}});
    group_tell(&g, &(fr_msg){.kind = FR_MSG_SUBMIT});
    expect_alive(&g, &t);
    free(big);
    fr_ids_free(&t.ids);
    group_stop(&g);
}

/* A coordinator that does not read for long: when replies were lost, the group registers again to
 * be asked again. */
static void test_lost_replies(void **state)
{
    (void)state;
    group g;
    text t;
    fr_msg m = {0};
    group_open(&g, 512, 0, 0);
    prompt(&g, 1, &t);
    write_plainly(&g, &t, &greedy, 2);
    group_begin(&g);
    fr_msg bad = generate_msg(&g, &t, 1, &greedy, 0);
    for (int i = 0; i < 10000; i++)
        while (fr_link_send(g.server, &g.peer, &bad) == FR_EBUSY)
            fr_sleep_ms(1);
    fr_sleep_ms(200);
    /* It goes on registering until it is answered; two without an error between them: it has read
     * all. */
    for (int in_a_row = 0; in_a_row < 2;) {
        group_receive(&g, &m);
        assert_true(m.kind == FR_MSG_ENGINE_ERROR || m.kind == FR_MSG_REGISTER);
        in_a_row = m.kind == FR_MSG_REGISTER ? in_a_row + 1 : 0;
    }
    fr_msg_free(&m);
    group_welcome(&g, 0);
    expect_alive(&g, &t);
    fr_ids_free(&t.ids);
    group_stop(&g);
}

/* ---- failing allocations: in this thread, over the tables themselves */

static int is_reply(const fr_msg *m)
{
    return m->kind == FR_MSG_GENERATED || m->kind == FR_MSG_VERIFIED ||
           m->kind == FR_MSG_ENGINE_ERROR;
}

static int count_replies(fr_link *server)
{
    int n = 0;
    fr_msg m;
    fr_peer from;
    while (fr_link_recv(server, 0, &from, &m) == FR_OK) {
        n += is_reply(&m);
        fr_msg_free(&m);
    }
    return n;
}

static fr_msg copy_of(const fr_msg *m)
{
    fr_buf b = {0};
    fr_msg copy;
    ok(fr_msg_encode(m, &b));
    ok(fr_msg_decode(b.data, b.len, &copy));
    fr_buf_free(&b);
    return copy;
}

/* One failing allocation somewhere in a request's whole life: it may be refused, but not without a
 * reply, unless that is known to be lost. */
static void live_with_failure(group *g, fr_requests *requests, fr_batch *batch, const fr_msg *ask,
                              long n, int *failed)
{
    fr_msg m = copy_of(ask);
    fr_fault_alloc_arm(n);
    fr_requests_add(requests, &m);
    fr_status st = FR_OK;
    while (requests->n > 0 && st == FR_OK)
        st = fr_batch_pass(batch, requests);
    *failed = fr_fault_alloc_disarm();
    assert_true(st == FR_OK || (*failed && st == FR_ENOMEM));
    fr_requests_fail_all(requests, FR_EUNAVAILABLE, "over");
    assert_int_equal(count_replies(g->server), requests->reply_lost ? 0 : 1);
    assert_true(*failed || !requests->reply_lost);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    group g;
    text t;
    int32_t question[] = {3, 4, 5};
    group_open(&g, 512, 0, 0);
    prompt(&g, 1, &t);
    write_plainly(&g, &t, &greedy, 4);
    const fr_msg_probe probe = {
        .at = 5, .tokens = question, .n_tokens = 3, .wanted = question, .n_wanted = 3};
    const char *stops[] = {"nothing of the kind"};
    fr_msg asks[2] = {generate_msg(&g, &t, 1, &warm, 3),
                      verify_msg(&g, &t, 2, &warm, t.n_prompt, t.n_prompt + 3)};
    asks[0].body.generate.stream = 1;
    asks[0].body.generate.stops = stops;
    asks[0].body.generate.n_stops = 1;
    asks[1].body.verify.probes = &probe;
    asks[1].body.verify.n_probes = 1;
    for (int i = 0; i < 2; i++) {
        for (int n = 0, failed = 1; failed; n++) {
            fr_requests requests = {.session = g.session, .held.session = g.session};
            fr_batch batch = {.prefill_chunk = 16};
            ok(fr_link_connect(g.options.endpoint, 0, &requests.link));
            live_with_failure(&g, &requests, &batch, &asks[i], n, &failed);
            fr_link *link = requests.link;
            fr_requests_close(&requests);
            fr_batch_close(&batch);
            fr_link_close(&link, 0);
        }
    }
    fr_ids_free(&t.ids);
    group_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_little_cache),
        cmocka_unit_test(test_does_not_fit),
        cmocka_unit_test(test_probes_fit_the_context),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_replaced_and_cancelled),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_lost_replies),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
