/* test_serve.c: serving: registration and its end, Generate and Verify. What comes is compared with
 * a plain loop over the session's door. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "clock.h"
#include "serve_group.h"

#define WAIT_MS 20000

/* ---- registering and ending */

static void test_register(void **state)
{
    (void)state;
    group g;
    fr_msg m;
    group_open(&g, 512, 0, 0);
    /* Only on a GPU it would be so of itself. */
    ((fr_session_info *)(uintptr_t)fr_session_info_of(g.session))->batch_dependent = true;
    const fr_session_info info = *fr_session_info_of(g.session);
    group_run(&g);
    for (int i = 0; i < 2; i++) { /* repeated until it is answered */
        expect(&g, FR_MSG_REGISTER, &m);
        assert_string_equal(m.body.register_.role, "target");
        assert_string_equal(m.body.register_.name, "test");
        assert_int_equal(m.body.register_.model_digest, info.model_digest);
        assert_int_equal(m.body.register_.max_context, 512);
        assert_int_equal(m.body.register_.kv_positions, info.kv_positions);
        assert_int_equal(m.body.register_.ranks, 1);
        assert_int_equal(m.body.register_.batch_dependent, 1);
        fr_msg_free(&m);
    }
    group_welcome(&g, 1);
    expect(&g, FR_MSG_TOKENIZER_BLOB, &m);
    fr_tokenizer *t = NULL;
    ok(fr_tokenizer_unpack(m.body.tokenizer_blob.blob.data, m.body.tokenizer_blob.blob.len, &t));
    assert_int_equal(fr_tokenizer_digest(t), info.tokenizer_digest);
    fr_tokenizer_free(&t);
    fr_msg_free(&m);
    ok(fr_link_recv(g.server, WAIT_MS, &g.peer, &m));
    assert_int_equal(m.kind, FR_MSG_HEARTBEAT);
    assert_int_equal(m.body.heartbeat.kv_free, info.kv_positions);
    fr_msg_free(&m);
    /* A coordinator that was restarted does not know the group. */
    group_tell(&g,
               &(fr_msg){.kind = FR_MSG_ENGINE_ERROR, .body.engine_error.status = FR_ENOTFOUND});
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    group_welcome(&g, 0);
    group_stop(&g);
}

static void test_refused(void **state)
{
    (void)state;
    group g;
    fr_msg m;
    group_open(&g, 512, 0, 0);
    group_run(&g);
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    group_tell(&g,
               &(fr_msg){.kind = FR_MSG_ENGINE_ERROR,
                         .body.engine_error = {.status = FR_EMISMATCH, .cause = "other model"}});
    expect(&g, FR_MSG_GOODBYE, &m);
    fr_msg_free(&m);
    group_join(&g);
    assert_int_equal(g.ended, FR_EMISMATCH);
    assert_non_null(strstr(g.cause, "other model"));
}

static void test_gives_up(void **state)
{
    (void)state;
    group g;
    group_open(&g, 512, 0, 0);
    g.options.give_up_ms = 300;
    fr_link_close(&g.server, 0);
    group_run(&g);
    group_join(&g);
    assert_int_equal(g.ended, FR_EUNAVAILABLE);
    assert_non_null(strstr(g.cause, g.options.endpoint));
}

/* An idle group asks for a sign of life before it gives up. */
static void test_silence(void **state)
{
    (void)state;
    group g;
    fr_msg m;
    group_open(&g, 512, 0, 0);
    g.options.give_up_ms = 400;
    group_run(&g);
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    group_welcome(&g, 0);
    for (int i = 0; i < 3; i++) {
        expect(&g, FR_MSG_LIST_QUERY, &m);
        fr_msg_free(&m);
        group_tell(&g, &(fr_msg){.kind = FR_MSG_LIST_REPLY});
    }
    group_join(&g);
    assert_int_equal(g.ended, FR_EUNAVAILABLE);
}

static void test_stop_flag(void **state)
{
    (void)state;
    group g;
    fr_msg m;
    group_start(&g, 512, 0, 0);
    text t;
    prompt(&g, 1, &t);
    fr_msg ask = generate_msg(&g, &t, 1, &hot, MAX_GENERATED);
    group_tell(&g, &ask);
    atomic_store(&g.stop, 1);
    m = (fr_msg){0};
    do
        group_receive(&g, &m);
    while (m.kind != FR_MSG_GOODBYE);
    fr_msg_free(&m);
    group_join(&g);
    assert_int_equal(g.ended, FR_OK);
    fr_ids_free(&t.ids);
}

static void test_idle(void **state)
{
    (void)state;
    group g;
    struct rusage before, after;
    group_start(&g, 512, 0, 0);
    fr_sleep_ms(50);
    getrusage(RUSAGE_SELF, &before);
    fr_sleep_ms(1000);
    getrusage(RUSAGE_SELF, &after);
    long us = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000 + after.ru_utime.tv_usec -
              before.ru_utime.tv_usec;
    assert_in_range(us, 0, 50000);
    group_stop(&g);
}

/* ---- generating */

static void test_generate(void **state)
{
    (void)state;
    const fr_sampling *const all[] = {&greedy, &warm, &hot};
    group g;
    text t[3];
    group_open(&g, 512, 0, 0);
    for (int i = 0; i < 3; i++) {
        prompt(&g, i, &t[i]);
        write_plainly(&g, &t[i], all[i], 24);
    }
    group_begin(&g);
    fr_msg m;
    for (int i = 0; i < 3; i++) {
        m = generate_msg(&g, &t[i], (uint64_t)i, all[i], 20);
        for (int again = 0; again < 2; again++) { /* the same request, twice */
            group_tell(&g, &m);
            expect_generated(&g, m.body.generate.request, &t[i], 20, "limit");
        }
        /* Going on from what the engine knows, with what it wrote or with something new. */
        m = generate_msg(&g, &t[i], (uint64_t)i, all[i], 4);
        m.body.generate.prefix =
            prefix_of(&t[i], (uint64_t)i, t[i].n_prompt + 20, t[i].n_prompt + 20);
        group_tell(&g, &m);
        fr_msg r;
        expect(&g, FR_MSG_GENERATED, &r);
        assert_int_equal(r.body.generated.position, t[i].n_prompt + 20);
        assert_int_equal(r.body.generated.n_ids, 4);
        /* policy/controller.h learns from replies that had little to read. */
        assert_in_range(r.body.generated.rows, 4, 4 + 2);
        assert_memory_equal(r.body.generated.ids, t[i].ids.data + t[i].n_prompt + 20,
                            4 * sizeof(int32_t));
        assert_memory_equal(r.body.generated.logprobs, t[i].logprobs + 20, 4 * sizeof(float));
        fr_msg_free(&r);
        fr_ids_free(&t[i].ids);
    }
    group_stop(&g);
}

static void test_stream(void **state)
{
    (void)state;
    group g;
    text t;
    group_open(&g, 512, 0, 0);
    prompt(&g, 3, &t);
    write_plainly(&g, &t, &warm, 12);
    group_begin(&g);
    fr_msg m;
    fr_msg ask = generate_msg(&g, &t, 1, &warm, 12);
    ask.body.generate.stream = 1;
    group_tell(&g, &ask);
    for (uint32_t i = 0; i < 12; i++) {
        expect(&g, FR_MSG_TOKENS, &m);
        assert_int_equal(m.body.tokens.position, t.n_prompt + (int)i);
        assert_int_equal(m.body.tokens.n_ids, 1);
        assert_int_equal(m.body.tokens.ids[0], t.ids.data[t.n_prompt + (int)i]);
        fr_msg_free(&m);
    }
    expect_generated(&g, ask.body.generate.request, &t, 12, "limit");
    fr_ids_free(&t.ids);
    group_stop(&g);
}

/* Where in t's generated ids the text first holds `what`, counted from `from`: the number of ids up
 * to there. */
static int ids_until(const group *g, const text *t, int from, const char *what)
{
    fr_buf b = {0};
    int n = from;
    do {
        assert_true(n < (int)t->ids.len - t->n_prompt);
        ok(fr_detokenize(fr_session_tokenizer(g->session), t->ids.data + t->n_prompt + n++, 1, 0,
                         &b));
    } while (!memmem(b.data, b.len, what, strlen(what)));
    fr_buf_free(&b);
    return n;
}

static void test_stop_rules(void **state)
{
    (void)state;
    group g;
    text t;
    group_open(&g, 512, 0, 0);
    prompt(&g, 4, &t);
    write_plainly(&g, &t, &greedy, 200);
    int step = ids_until(&g, &t, 0, "\n\n"), second = ids_until(&g, &t, step, "\n\n"), equals = 0,
        end = 0;
    /* A stop string that begins in one token and ends in another. */
    size_t n = 0;
    const char *bytes =
        fr_token_bytes(fr_session_tokenizer(g.session), t.ids.data[t.n_prompt + 3], &n);
    char word[64];
    assert_in_range(n, 1, 30);
    size_t n2 = 0;
    const char *next =
        fr_token_bytes(fr_session_tokenizer(g.session), t.ids.data[t.n_prompt + 4], &n2);
    snprintf(word, sizeof word, "%.*s%.*s", (int)n, bytes, (int)n2, next);
    equals = ids_until(&g, &t, 0, word);
    while (end < 200 &&
           !fr_tokenizer_is_end(fr_session_tokenizer(g.session), t.ids.data[t.n_prompt + end]))
        end++;
    assert_in_range(end, 1, 198);
    /* The sum that counts passes the threshold with a token that does not do so by itself. */
    int unsure = 0;
    float joint = 0;
    for (; unsure < end && !(joint < t.logprobs[unsure] && t.logprobs[unsure] < -1e-6f); unsure++)
        joint += t.logprobs[unsure];
    float threshold = joint + 0.5f * t.logprobs[unsure];
    assert_true(unsure < end && t.logprobs[unsure] > threshold);
    group_begin(&g);
    fr_msg m;

    fr_msg ask = generate_msg(&g, &t, 1, &greedy, 200);
    ask.body.generate.stop_at_step = 1;
    ask.body.generate.delimiter = "\n\n";
    group_tell(&g, &ask);
    expect_generated(&g, ask.body.generate.request, &t, step, "step");
    /* The step under way began before this prefix ended. */
    int given = second - 2;
    ask = generate_msg(&g, &t, 1, &greedy, 200);
    ask.body.generate.stop_at_step = 1;
    ask.body.generate.delimiter = "\n\n";
    ask.body.generate.prefix = prefix_of(&t, 1, 0, t.n_prompt + given);
    ask.body.generate.step_from = (uint32_t)(t.n_prompt + step);
    group_tell(&g, &ask);
    expect(&g, FR_MSG_GENERATED, &m);
    assert_int_equal(m.body.generated.n_ids, second - given);
    assert_string_equal(m.body.generated.stop, "step");
    fr_msg_free(&m);

    const char *stops[] = {"no such text", word};
    ask = generate_msg(&g, &t, 2, &greedy, 200);
    ask.body.generate.stops = stops;
    ask.body.generate.n_stops = 2;
    group_tell(&g, &ask);
    expect_generated(&g, ask.body.generate.request, &t, equals, "stop");

    ask = generate_msg(&g, &t, 3, &greedy, 200);
    group_tell(&g, &ask);
    expect_generated(&g, ask.body.generate.request, &t, end + 1, "end");

    ask = generate_msg(&g, &t, 3, &greedy, 200);
    ask.body.generate.min_joint_logprob = threshold;
    group_tell(&g, &ask);
    expect_generated(&g, ask.body.generate.request, &t, unsure + 1, "unsure");
    fr_ids_free(&t.ids);
    group_stop(&g);
}

/* One group writes roughly for those who ask for it, and in full for the others, in the same passes;
 * it verifies in full. */
static void test_rough(void **state)
{
    (void)state;
    const fr_sampling wild = {.temperature = 8, .top_p = 1, .seed = 3}, /* takes any token */
        other = {.temperature = 8, .top_p = 1, .seed = 4};
    group g, h;
    fr_msg m;
    text full, rough, whole;
    group_open_rough(&h, 300);
    prompt(&h, 5, &whole);
    write_plainly(&h, &whole, &other, 30);
    group_begin(&h);
    group_stop(&h);
    group_open_rough(&g, 300);
    prompt(&g, 5, &full);
    prompt(&g, 5, &rough);
    write_plainly(&g, &full, &wild, 40);
    write_roughly(&g, &rough, &other, 30);
    assert_memory_not_equal(whole.logprobs, rough.logprobs, 30 * sizeof(float));
    assert_memory_not_equal(whole.ids.data, rough.ids.data, rough.ids.len * sizeof(int32_t));
    group_begin(&g);
    fr_msg ask_full = generate_msg(&g, &full, 1, &wild, 40),
           ask_rough = generate_msg(&g, &rough, 2, &other, 30);
    ask_rough.body.generate.rough = 1;
    group_tell(&g, &ask_full);
    group_tell(&g, &ask_rough);
    expect_generated(&g, ask_rough.body.generate.request, &rough, 30, "limit");
    expect_generated(&g, ask_full.body.generate.request, &full, 40, "limit");
    fr_msg check = verify_msg(&g, &full, 3, &wild, full.n_prompt, (int)full.ids.len);
    group_tell(&g, &check);
    expect_verified(&g, check.body.verify.request, &m);
    assert_memory_equal(m.body.verified.own, full.ids.data + full.n_prompt, 40 * sizeof(int32_t));
    assert_memory_equal(m.body.verified.drafted_logprobs, full.logprobs, 40 * sizeof(float));
    fr_msg_free(&m);
    fr_ids_free(&full.ids);
    fr_ids_free(&rough.ids);
    fr_ids_free(&whole.ids);
    group_stop(&g);
}

static void test_context_full(void **state)
{
    (void)state;
    group g;
    text t, longer;
    group_open(&g, 96, 192, 0);
    prompt(&g, 4, &t);
    write_plainly(&g, &t, &hot, 96 - t.n_prompt + 1);
    prompt(&g, 5, &longer);
    for (int32_t i = 0; i < 100; i++)
        ok(fr_ids_put(&longer.ids, &i, 1));
    group_begin(&g);
    int n = 96 - t.n_prompt + 1;
    for (int i = 0; i < n - 1; i++)
        assert_false(
            fr_tokenizer_is_end(fr_session_tokenizer(g.session), t.ids.data[t.n_prompt + i]));
    fr_msg ask = generate_msg(&g, &t, 1, &hot, 1000);
    group_tell(&g, &ask);
    expect_generated(&g, ask.body.generate.request, &t, n, "context");

    ask = generate_msg(&g, &longer, 2, &greedy, 5);
    ask.body.generate.prefix = prefix_of(&longer, 2, 0, (int)longer.ids.len);
    group_tell(&g, &ask);
    char words[64];
    snprintf(words, sizeof words, "prompt of %zu tokens is longer than the context of 96",
             longer.ids.len);
    expect_error(&g, ask.body.generate.request, FR_ELIMIT, words);
    expect_alive(&g, &t);
    fr_ids_free(&t.ids);
    fr_ids_free(&longer.ids);
    group_stop(&g);
}

/* ---- verifying */

static void test_verify(void **state)
{
    (void)state;
    const fr_sampling *const all[] = {&greedy, &warm, &hot};
    enum { N = 20 };
    group g;
    text t[3];
    group_open(&g, 512, 0, 0);
    for (int i = 0; i < 3; i++) {
        prompt(&g, i, &t[i]);
        write_plainly(&g, &t[i], all[i], N + 1);
    }
    group_begin(&g);
    fr_msg m;
    for (int i = 0; i < 3; i++) {
        /* Right drafts: the same tokens, with the same log-probabilities, as by writing them one by
         * one. */
        fr_msg ask = verify_msg(&g, &t[i], (uint64_t)i, all[i], t[i].n_prompt, t[i].n_prompt + N);
        for (int again = 0; again < 2; again++) {
            group_tell(&g, &ask);
            expect_verified(&g, ask.body.verify.request, &m);
            assert_int_equal(m.body.verified.n_own, N + 1);
            assert_int_equal(m.body.verified.n_drafted_logprobs, N);
            assert_memory_equal(m.body.verified.own, t[i].ids.data + t[i].n_prompt,
                                (N + 1) * sizeof(int32_t));
            assert_memory_equal(m.body.verified.drafted_logprobs, t[i].logprobs, N * sizeof(float));
            fr_msg_free(&m);
        }
        /* A wrong one: what comes up to it is judged as before. */
        int32_t *wrong = &t[i].ids.data[t[i].n_prompt + 6], right = *wrong;
        *wrong = right == 5 ? 6 : 5;
        ask = verify_msg(&g, &t[i], (uint64_t)i, all[i], t[i].n_prompt + 2, t[i].n_prompt + 10);
        group_tell(&g, &ask);
        expect_verified(&g, ask.body.verify.request, &m);
        assert_int_equal(m.body.verified.n_own, 9);
        assert_int_equal(m.body.verified.rows, 9); /* those asked about, behind a cached prefix */
        assert_int_equal(m.body.verified.own[4], right);
        assert_memory_equal(m.body.verified.own, t[i].ids.data + t[i].n_prompt + 2,
                            4 * sizeof(int32_t));
        fr_msg_free(&m);
        *wrong = right;
        /* Going on behind the right ones; nothing drafted at all. */
        ask = verify_msg(&g, &t[i], (uint64_t)i, all[i], t[i].n_prompt + 8, t[i].n_prompt + 8);
        group_tell(&g, &ask);
        expect_verified(&g, ask.body.verify.request, &m);
        assert_int_equal(m.body.verified.n_own, 1);
        assert_int_equal(m.body.verified.own[0], t[i].ids.data[t[i].n_prompt + 8]);
        assert_int_equal(m.body.verified.n_drafted_logprobs, 0);
        fr_msg_free(&m);
        fr_ids_free(&t[i].ids);
    }
    group_stop(&g);
}

/* Probes of one Verify against the same questions asked one by one, also when they do not fit one
 * pass. */
static void test_probes(void **state)
{
    (void)state;
    enum { N = 24, PROBES = 6 };
    for (int max_rows = 16; max_rows <= 256; max_rows += 240) {
        group g;
        text t;
        group_start(&g, 512, 0, max_rows);
        prompt(&g, 2, &t);
        int32_t question[8] = {11, 42, 17, 99, 5, 60, 33, 21}, wanted[3] = {10, 11, 42};
        for (int i = 0; i < N; i++)
            ok(fr_ids_put(&t.ids, &question[i % 8], 1));
        fr_msg_probe probes[PROBES];
        for (int i = 0; i < PROBES; i++)
            probes[i] = (fr_msg_probe){.at = (uint32_t)(t.n_prompt + N - 4 * i),
                                       .tokens = question,
                                       .n_tokens = (size_t)(8 - i),
                                       .wanted = wanted,
                                       .n_wanted = 3};
        fr_msg ask = verify_msg(&g, &t, 1, &greedy, t.n_prompt, t.n_prompt + N), m;
        ask.body.verify.probes = probes;
        ask.body.verify.n_probes = PROBES;
        group_tell(&g, &ask);
        expect_verified(&g, ask.body.verify.request, &m);
        assert_int_equal(m.body.verified.n_probes, PROBES);
        assert_int_equal(m.body.verified.passes == 1, max_rows == 256);
        for (int i = 0; i < PROBES; i++) {
            const fr_msg_probe_result *r = &m.body.verified.probes[i];
            text alone = {.n_prompt = t.n_prompt};
            ok(fr_ids_put(&alone.ids, t.ids.data, probes[i].at));
            ok(fr_ids_put(&alone.ids, question, probes[i].n_tokens));
            int n = (int)alone.ids.len;
            for (int w = 0; w < 3; w++) {
                fr_msg one;
                ok(fr_ids_put(&alone.ids, &wanted[w], 1));
                ask = verify_msg(&g, &alone, 50, &greedy, n, n + 1);
                group_tell(&g, &ask);
                expect_verified(&g, ask.body.verify.request, &one);
                assert_int_equal(r->best, one.body.verified.own[0]);
                assert_memory_equal(&r->logprobs[w], one.body.verified.drafted_logprobs,
                                    sizeof(float));
                alone.ids.len = (size_t)n;
                fr_msg_free(&one);
            }
            assert_int_equal(r->at, probes[i].at);
            assert_int_equal(r->n_logprobs, 3);
            fr_ids_free(&alone.ids);
        }
        fr_msg_free(&m);
        fr_ids_free(&t.ids);
        group_stop(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_register),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_gives_up),
        cmocka_unit_test(test_silence),
        cmocka_unit_test(test_stop_flag),
        cmocka_unit_test(test_idle),
        cmocka_unit_test(test_generate),
        cmocka_unit_test(test_stream),
        cmocka_unit_test(test_stop_rules),
        cmocka_unit_test(test_rough),
        cmocka_unit_test(test_context_full),
        cmocka_unit_test(test_verify),
        cmocka_unit_test(test_probes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
