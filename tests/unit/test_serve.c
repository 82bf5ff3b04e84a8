/* test_serve.c: a group of one rank in a thread, serving the embedded target to a coordinator played by the test over
 * inproc. What it answers is compared with a plain loop over the session's door. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "batch.h"
#include "clock.h"
#include "fault_alloc.h"
#include "link.h"
#include "requests.h"
#include "sampler.h"
#include "serve.h"

#define MODEL FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-target.gguf"
#define WAIT_MS 20000
#define MAX_GENERATED 256

static void ok(fr_status st)
{
    if (st != FR_OK)
        fail_msg("%s: %s", fr_status_text(st), fr_cause());
}

/* ---- the group */

typedef struct group {
    fr_comm *comm;
    fr_session *session;
    fr_link *server;
    fr_peer peer;
    pthread_t thread;
    fr_serve_options options;
    atomic_int stop;
    fr_status ended;
    char cause[256];
    uint64_t next_request;
} group;

static fr_session *open_session(fr_comm *comm, int context, int kv_positions, int max_rows)
{
    fr_session *s = NULL;
    ok(fr_session_open(MODEL, comm, &(fr_session_options){.threads = 1, .max_rows = max_rows, .max_context = context,
                                                          .kv_positions = kv_positions}, &s));
    return s;
}

static void *serve_thread(void *arg)
{
    group *g = arg;
    g->ended = fr_serve(g->session, &g->options);
    if (g->ended != FR_OK)
        snprintf(g->cause, sizeof g->cause, "%s", fr_cause());
    return NULL;
}

/* The next message that is no heartbeat. */
static void receive(group *g, fr_msg *m)
{
    do {
        fr_msg_free(m);
        ok(fr_link_recv(g->server, WAIT_MS, &g->peer, m));
    } while (m->kind == FR_MSG_HEARTBEAT);
}

static void expect(group *g, fr_msg_kind kind, fr_msg *m)
{
    *m = (fr_msg){0};
    receive(g, m);
    if (m->kind != kind)
        fail_msg("a %s came instead of a %s: %s", fr_msg_kind_name(m->kind), fr_msg_kind_name(kind),
                 m->kind == FR_MSG_ENGINE_ERROR ? m->body.engine_error.cause : "");
}

static void tell(group *g, const fr_msg *m)
{
    ok(fr_link_send(g->server, &g->peer, m));
}

static void send_welcome(group *g, int want_tokenizer)
{
    tell(g, &(fr_msg){.kind = FR_MSG_WELCOME, .body.welcome = {.group = 1, .epoch = 1, .heartbeat_ms = 100,
                                                               .want_tokenizer = want_tokenizer}});
}

static void start_unregistered(group *g, int context, int kv_positions, int max_rows)
{
    static int n;
    static char endpoint[64];
    *g = (group){.next_request = 1};
    snprintf(endpoint, sizeof endpoint, "inproc://serve-%d", n++);
    ok(fr_link_listen(endpoint, 0, &g->server));
    ok(fr_comm_self_open(&g->comm));
    g->session = open_session(g->comm, context, kv_positions, max_rows);
    g->options = (fr_serve_options){.endpoint = endpoint, .role = "target", .name = "test", .prefill_chunk = 16,
                                    .stop = &g->stop};
}

static void run_group(group *g)
{
    assert_int_equal(pthread_create(&g->thread, NULL, serve_thread, g), 0);
}

static void start(group *g, int context, int kv_positions, int max_rows)
{
    fr_msg m;
    start_unregistered(g, context, kv_positions, max_rows);
    run_group(g);
    expect(g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(g, 0);
}

static void join(group *g)
{
    pthread_join(g->thread, NULL);
    fr_session_close(&g->session);
    g->comm->ops->close(&g->comm);
    fr_link_close(&g->server, 0);
}

static void stop(group *g)
{
    fr_msg m;
    tell(g, &(fr_msg){.kind = FR_MSG_SHUTDOWN, .body.shutdown.reason = "test is over"});
    expect(g, FR_MSG_GOODBYE, &m);
    fr_msg_free(&m);
    join(g);
    assert_int_equal(g->ended, FR_OK);
}

/* ---- prompts, and what the model writes after them by a plain loop */

typedef struct text {
    fr_ids ids;
    int n_prompt;
    float logprobs[MAX_GENERATED];
} text;

static void prompt(const group *g, int number, text *t)
{
    char words[256];
    int n = snprintf(words, sizeof words, "<|im_start|>user\nStart with %d. (1) Add %d. (2) Take away %d. (3) Add 7."
                     "<|im_end|>\n<|im_start|>assistant\n", 40 + number, 300 + 7 * number, 90 + number);
    *t = (text){0};
    ok(fr_tokenize_prompt(fr_session_tokenizer(g->session), words, (size_t)n, &t->ids));
    t->n_prompt = (int)t->ids.len;
}

/* Before the group runs: its session is this thread's. */
static void write_plainly(group *g, text *t, const fr_sampling *sampling, int n)
{
    fr_session *s = g->session;
    int seq = -1;
    ok(fr_seq_new(s, &seq));
    for (int i = 0; i < n; i++) {
        int row = 0, answer = 0, from = fr_seq_len(s, seq), more = (int)t->ids.len - from;
        fr_row_query q;
        fr_sampling_query(sampling, (uint32_t)i, fr_tokenizer_n_vocab(fr_session_tokenizer(s)), &q);
        fr_pass_begin(s);
        ok(fr_pass_append(s, seq, t->ids.data + from, more, &row));
        ok(fr_pass_ask(s, row + more - 1, &q, &answer));
        ok(fr_pass_run(s));
        const fr_row_answer *a = fr_pass_answer(s, answer);
        int32_t id = fr_sample(sampling, (uint32_t)i, a);
        t->logprobs[i] = fr_answer_logprob(a, fr_answer_logit(a, &q, id));
        ok(fr_ids_put(&t->ids, &id, 1));
    }
    fr_seq_free(s, seq);
}

static const fr_sampling greedy = {.top_p = 1};
static const fr_sampling warm = {.temperature = 0.9f, .top_p = 0.95f, .seed = 7, .sample = 2};
static const fr_sampling hot = {.temperature = 1.3f, .top_p = 1, .seed = 11};

static fr_msg_sampling sampling_msg(const fr_sampling *s)
{
    return (fr_msg_sampling){.temperature = s->temperature, .top_p = s->top_p, .top_k = (uint32_t)s->top_k,
                             .seed = s->seed, .sample = s->sample};
}

static fr_msg_prefix prefix_of(const text *t, uint64_t job, int start, int n)
{
    return (fr_msg_prefix){.job = job, .epoch = 1, .start = (uint32_t)start,
                           .digest = fr_ids_digest(t->ids.data, (size_t)start), .tokens = t->ids.data + start,
                           .n_tokens = (size_t)(n - start), .chain_base = (uint32_t)t->n_prompt};
}

static fr_msg generate_msg(group *g, const text *t, uint64_t job, const fr_sampling *s, int max_tokens)
{
    return (fr_msg){.kind = FR_MSG_GENERATE,
                    .body.generate = {.request = g->next_request++, .prefix = prefix_of(t, job, 0, t->n_prompt),
                                      .sampling = sampling_msg(s), .max_tokens = (uint32_t)max_tokens,
                                      .step_from = (uint32_t)t->n_prompt}};
}

static fr_msg verify_msg(group *g, const text *t, uint64_t job, const fr_sampling *s, int position, int n)
{
    return (fr_msg){.kind = FR_MSG_VERIFY,
                    .body.verify = {.request = g->next_request++, .prefix = prefix_of(t, job, 0, n),
                                    .sampling = sampling_msg(s), .position = (uint32_t)position}};
}

static void expect_generated(group *g, uint64_t request, const text *t, int n, const char *why)
{
    fr_msg m;
    expect(g, FR_MSG_GENERATED, &m);
    const fr_msg_generated *r = &m.body.generated;
    assert_int_equal(r->request, request);
    assert_int_equal(r->position, t->n_prompt);
    assert_string_equal(r->stop, why);
    assert_int_equal(r->n_ids, n);
    assert_int_equal(r->n_logprobs, n);
    assert_memory_equal(r->ids, t->ids.data + t->n_prompt, (size_t)n * sizeof(int32_t));
    assert_memory_equal(r->logprobs, t->logprobs, (size_t)n * sizeof(float));
    assert_true(r->passes >= (uint32_t)n);
    fr_msg_free(&m);
}

static void expect_error(group *g, uint64_t request, fr_status st, const char *words)
{
    fr_msg m;
    expect(g, FR_MSG_ENGINE_ERROR, &m);
    assert_int_equal(m.body.engine_error.request, request);
    assert_int_equal(m.body.engine_error.status, st);
    if (!strstr(m.body.engine_error.cause, words))
        fail_msg("\"%s\" does not say \"%s\"", m.body.engine_error.cause, words);
    fr_msg_free(&m);
}

/* The group still does its work. */
static void expect_alive(group *g, const text *t)
{
    fr_msg m = generate_msg(g, t, 999, &greedy, 2);
    tell(g, &m);
    expect_generated(g, m.body.generate.request, t, 2, "limit");
}

/* ---- registering and ending */

static void test_register(void **state)
{
    (void)state;
    group g;
    fr_msg m;
    start_unregistered(&g, 512, 0, 0);
    const fr_session_info info = *fr_session_info_of(g.session);
    run_group(&g);
    for (int i = 0; i < 2; i++) { /* repeated until it is answered */
        expect(&g, FR_MSG_REGISTER, &m);
        assert_string_equal(m.body.register_.role, "target");
        assert_string_equal(m.body.register_.name, "test");
        assert_int_equal(m.body.register_.model_digest, info.model_digest);
        assert_int_equal(m.body.register_.max_context, 512);
        assert_int_equal(m.body.register_.kv_positions, info.kv_positions);
        assert_int_equal(m.body.register_.ranks, 1);
        fr_msg_free(&m);
    }
    send_welcome(&g, 1);
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
    tell(&g, &(fr_msg){.kind = FR_MSG_ENGINE_ERROR, .body.engine_error.status = FR_ENOTFOUND});
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(&g, 0);
    stop(&g);
}

static void test_refused(void **state)
{
    (void)state;
    group g;
    fr_msg m;
    start_unregistered(&g, 512, 0, 0);
    run_group(&g);
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    tell(&g, &(fr_msg){.kind = FR_MSG_ENGINE_ERROR, .body.engine_error = {.status = FR_EMISMATCH, .cause = "other model"}});
    expect(&g, FR_MSG_GOODBYE, &m);
    fr_msg_free(&m);
    join(&g);
    assert_int_equal(g.ended, FR_EMISMATCH);
    assert_non_null(strstr(g.cause, "other model"));
}

static void test_gives_up(void **state)
{
    (void)state;
    group g;
    start_unregistered(&g, 512, 0, 0);
    g.options.give_up_ms = 300;
    fr_link_close(&g.server, 0);
    run_group(&g);
    join(&g);
    assert_int_equal(g.ended, FR_EUNAVAILABLE);
    assert_non_null(strstr(g.cause, g.options.endpoint));
}

/* An idle group asks for a sign of life before it gives up. */
static void test_silence(void **state)
{
    (void)state;
    group g;
    fr_msg m;
    start_unregistered(&g, 512, 0, 0);
    g.options.give_up_ms = 400;
    run_group(&g);
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(&g, 0);
    for (int i = 0; i < 3; i++) {
        expect(&g, FR_MSG_LIST_QUERY, &m);
        fr_msg_free(&m);
        tell(&g, &(fr_msg){.kind = FR_MSG_LIST_REPLY});
    }
    join(&g);
    assert_int_equal(g.ended, FR_EUNAVAILABLE);
}

static void test_stop_flag(void **state)
{
    (void)state;
    group g;
    fr_msg m;
    start(&g, 512, 0, 0);
    text t;
    prompt(&g, 1, &t);
    fr_msg ask = generate_msg(&g, &t, 1, &hot, MAX_GENERATED);
    tell(&g, &ask);
    atomic_store(&g.stop, 1);
    m = (fr_msg){0};
    do
        receive(&g, &m);
    while (m.kind != FR_MSG_GOODBYE);
    fr_msg_free(&m);
    join(&g);
    assert_int_equal(g.ended, FR_OK);
    fr_ids_free(&t.ids);
}

static void test_idle(void **state)
{
    (void)state;
    group g;
    struct rusage before, after;
    start(&g, 512, 0, 0);
    fr_sleep_ms(50);
    getrusage(RUSAGE_SELF, &before);
    fr_sleep_ms(1000);
    getrusage(RUSAGE_SELF, &after);
    long us = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000 + after.ru_utime.tv_usec -
              before.ru_utime.tv_usec;
    assert_in_range(us, 0, 50000);
    stop(&g);
}

/* ---- generating */

static void test_generate(void **state)
{
    (void)state;
    const fr_sampling *const all[] = {&greedy, &warm, &hot};
    group g;
    text t[3];
    start_unregistered(&g, 512, 0, 0);
    for (int i = 0; i < 3; i++) {
        prompt(&g, i, &t[i]);
        write_plainly(&g, &t[i], all[i], 24);
    }
    run_group(&g);
    fr_msg m;
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(&g, 0);
    for (int i = 0; i < 3; i++) {
        m = generate_msg(&g, &t[i], (uint64_t)i, all[i], 20);
        for (int again = 0; again < 2; again++) { /* the same request, twice */
            tell(&g, &m);
            expect_generated(&g, m.body.generate.request, &t[i], 20, "limit");
        }
        /* Going on from what the engine knows, with what it wrote or with something new. */
        m = generate_msg(&g, &t[i], (uint64_t)i, all[i], 4);
        m.body.generate.prefix = prefix_of(&t[i], (uint64_t)i, t[i].n_prompt + 20, t[i].n_prompt + 20);
        tell(&g, &m);
        fr_msg r;
        expect(&g, FR_MSG_GENERATED, &r);
        assert_int_equal(r.body.generated.position, t[i].n_prompt + 20);
        assert_int_equal(r.body.generated.n_ids, 4);
        assert_memory_equal(r.body.generated.ids, t[i].ids.data + t[i].n_prompt + 20, 4 * sizeof(int32_t));
        assert_memory_equal(r.body.generated.logprobs, t[i].logprobs + 20, 4 * sizeof(float));
        fr_msg_free(&r);
        fr_ids_free(&t[i].ids);
    }
    stop(&g);
}

static void test_stream(void **state)
{
    (void)state;
    group g;
    text t;
    start_unregistered(&g, 512, 0, 0);
    prompt(&g, 3, &t);
    write_plainly(&g, &t, &warm, 12);
    run_group(&g);
    fr_msg m;
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(&g, 0);
    fr_msg ask = generate_msg(&g, &t, 1, &warm, 12);
    ask.body.generate.stream = 1;
    tell(&g, &ask);
    for (uint32_t i = 0; i < 12; i++) {
        expect(&g, FR_MSG_TOKENS, &m);
        assert_int_equal(m.body.tokens.position, t.n_prompt + (int)i);
        assert_int_equal(m.body.tokens.n_ids, 1);
        assert_int_equal(m.body.tokens.ids[0], t.ids.data[t.n_prompt + (int)i]);
        fr_msg_free(&m);
    }
    expect_generated(&g, ask.body.generate.request, &t, 12, "limit");
    fr_ids_free(&t.ids);
    stop(&g);
}

/* Where in t's generated ids the text first holds `what`, counted from `from`: the number of ids up to there. */
static int ids_until(const group *g, const text *t, int from, const char *what)
{
    fr_buf b = {0};
    int n = from;
    do {
        assert_true(n < (int)t->ids.len - t->n_prompt);
        ok(fr_detokenize(fr_session_tokenizer(g->session), t->ids.data + t->n_prompt + n++, 1, 0, &b));
    } while (!memmem(b.data, b.len, what, strlen(what)));
    fr_buf_free(&b);
    return n;
}

static void test_stop_rules(void **state)
{
    (void)state;
    group g;
    text t;
    start_unregistered(&g, 512, 0, 0);
    prompt(&g, 4, &t);
    write_plainly(&g, &t, &greedy, 200);
    int step = ids_until(&g, &t, 0, "\n\n"), second = ids_until(&g, &t, step, "\n\n"), equals = 0, end = 0;
    /* A stop string that begins in one token and ends in another. */
    size_t n = 0;
    const char *bytes = fr_token_bytes(fr_session_tokenizer(g.session), t.ids.data[t.n_prompt + 3], &n);
    char word[64];
    assert_in_range(n, 1, 30);
    size_t n2 = 0;
    const char *next = fr_token_bytes(fr_session_tokenizer(g.session), t.ids.data[t.n_prompt + 4], &n2);
    snprintf(word, sizeof word, "%.*s%.*s", (int)n, bytes, (int)n2, next);
    equals = ids_until(&g, &t, 0, word);
    while (end < 200 && !fr_tokenizer_is_end(fr_session_tokenizer(g.session), t.ids.data[t.n_prompt + end]))
        end++;
    assert_in_range(end, 1, 198);
    int unsure = 0;
    float threshold = -1e-3f;
    while (unsure < end && t.logprobs[unsure] >= threshold)
        unsure++;
    run_group(&g);
    fr_msg m;
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(&g, 0);

    fr_msg ask = generate_msg(&g, &t, 1, &greedy, 200);
    ask.body.generate.stop_at_step = 1;
    ask.body.generate.delimiter = "\n\n";
    tell(&g, &ask);
    expect_generated(&g, ask.body.generate.request, &t, step, "step");
    /* The step under way began before this prefix ended. */
    int given = second - 2;
    ask = generate_msg(&g, &t, 1, &greedy, 200);
    ask.body.generate.stop_at_step = 1;
    ask.body.generate.delimiter = "\n\n";
    ask.body.generate.prefix = prefix_of(&t, 1, 0, t.n_prompt + given);
    ask.body.generate.step_from = (uint32_t)(t.n_prompt + step);
    tell(&g, &ask);
    expect(&g, FR_MSG_GENERATED, &m);
    assert_int_equal(m.body.generated.n_ids, second - given);
    assert_string_equal(m.body.generated.stop, "step");
    fr_msg_free(&m);

    const char *stops[] = {"no such text", word};
    ask = generate_msg(&g, &t, 2, &greedy, 200);
    ask.body.generate.stops = stops;
    ask.body.generate.n_stops = 2;
    tell(&g, &ask);
    expect_generated(&g, ask.body.generate.request, &t, equals, "stop");

    ask = generate_msg(&g, &t, 3, &greedy, 200);
    tell(&g, &ask);
    expect_generated(&g, ask.body.generate.request, &t, end + 1, "end");

    if (unsure < end) {
        ask = generate_msg(&g, &t, 3, &greedy, 200);
        ask.body.generate.min_logprob = threshold;
        tell(&g, &ask);
        expect_generated(&g, ask.body.generate.request, &t, unsure + 1, "unsure");
    }
    fr_ids_free(&t.ids);
    stop(&g);
}

static void test_context_full(void **state)
{
    (void)state;
    group g;
    text t, longer;
    start_unregistered(&g, 96, 192, 0);
    prompt(&g, 4, &t);
    write_plainly(&g, &t, &hot, 96 - t.n_prompt + 1);
    prompt(&g, 5, &longer);
    for (int32_t i = 0; i < 100; i++)
        ok(fr_ids_put(&longer.ids, &i, 1));
    run_group(&g);
    fr_msg m;
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(&g, 0);
    int n = 96 - t.n_prompt + 1;
    for (int i = 0; i < n - 1; i++)
        assert_false(fr_tokenizer_is_end(fr_session_tokenizer(g.session), t.ids.data[t.n_prompt + i]));
    fr_msg ask = generate_msg(&g, &t, 1, &hot, 1000);
    tell(&g, &ask);
    expect_generated(&g, ask.body.generate.request, &t, n, "context");

    ask = generate_msg(&g, &longer, 2, &greedy, 5);
    ask.body.generate.prefix = prefix_of(&longer, 2, 0, (int)longer.ids.len);
    tell(&g, &ask);
    char words[64];
    snprintf(words, sizeof words, "prompt of %zu tokens is longer than the context of 96", longer.ids.len);
    expect_error(&g, ask.body.generate.request, FR_ELIMIT, words);
    expect_alive(&g, &t);
    fr_ids_free(&t.ids);
    fr_ids_free(&longer.ids);
    stop(&g);
}

/* ---- verifying */

static void expect_verified(group *g, uint64_t request, fr_msg *m)
{
    expect(g, FR_MSG_VERIFIED, m);
    assert_int_equal(m->body.verified.request, request);
}

static void test_verify(void **state)
{
    (void)state;
    const fr_sampling *const all[] = {&greedy, &warm, &hot};
    enum { N = 20 };
    group g;
    text t[3];
    start_unregistered(&g, 512, 0, 0);
    for (int i = 0; i < 3; i++) {
        prompt(&g, i, &t[i]);
        write_plainly(&g, &t[i], all[i], N + 1);
    }
    run_group(&g);
    fr_msg m;
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(&g, 0);
    for (int i = 0; i < 3; i++) {
        /* Right drafts: the same tokens, with the same log-probabilities, as by writing them one by one. */
        fr_msg ask = verify_msg(&g, &t[i], (uint64_t)i, all[i], t[i].n_prompt, t[i].n_prompt + N);
        for (int again = 0; again < 2; again++) {
            tell(&g, &ask);
            expect_verified(&g, ask.body.verify.request, &m);
            assert_int_equal(m.body.verified.n_own, N + 1);
            assert_int_equal(m.body.verified.n_drafted_logprobs, N);
            assert_memory_equal(m.body.verified.own, t[i].ids.data + t[i].n_prompt, (N + 1) * sizeof(int32_t));
            assert_memory_equal(m.body.verified.drafted_logprobs, t[i].logprobs, N * sizeof(float));
            fr_msg_free(&m);
        }
        /* A wrong one: what comes up to it is judged as before. */
        int32_t *wrong = &t[i].ids.data[t[i].n_prompt + 6], right = *wrong;
        *wrong = right == 5 ? 6 : 5;
        ask = verify_msg(&g, &t[i], (uint64_t)i, all[i], t[i].n_prompt + 2, t[i].n_prompt + 10);
        tell(&g, &ask);
        expect_verified(&g, ask.body.verify.request, &m);
        assert_int_equal(m.body.verified.n_own, 9);
        assert_int_equal(m.body.verified.own[4], right);
        assert_memory_equal(m.body.verified.own, t[i].ids.data + t[i].n_prompt + 2, 4 * sizeof(int32_t));
        fr_msg_free(&m);
        *wrong = right;
        /* Going on behind the right ones; nothing drafted at all. */
        ask = verify_msg(&g, &t[i], (uint64_t)i, all[i], t[i].n_prompt + 8, t[i].n_prompt + 8);
        tell(&g, &ask);
        expect_verified(&g, ask.body.verify.request, &m);
        assert_int_equal(m.body.verified.n_own, 1);
        assert_int_equal(m.body.verified.own[0], t[i].ids.data[t[i].n_prompt + 8]);
        assert_int_equal(m.body.verified.n_drafted_logprobs, 0);
        fr_msg_free(&m);
        fr_ids_free(&t[i].ids);
    }
    stop(&g);
}

/* Probes of one Verify against the same questions asked one by one, also when they do not fit one pass. */
static void test_probes(void **state)
{
    (void)state;
    enum { N = 24, PROBES = 6 };
    for (int max_rows = 16; max_rows <= 256; max_rows += 240) {
        group g;
        text t;
        start(&g, 512, 0, max_rows);
        prompt(&g, 2, &t);
        int32_t question[8] = {11, 42, 17, 99, 5, 60, 33, 21}, wanted[3] = {10, 11, 42};
        for (int i = 0; i < N; i++)
            ok(fr_ids_put(&t.ids, &question[i % 8], 1));
        fr_msg_probe probes[PROBES];
        for (int i = 0; i < PROBES; i++)
            probes[i] = (fr_msg_probe){.at = (uint32_t)(t.n_prompt + N - 4 * i), .tokens = question,
                                       .n_tokens = (size_t)(8 - i), .wanted = wanted, .n_wanted = 3};
        fr_msg ask = verify_msg(&g, &t, 1, &greedy, t.n_prompt, t.n_prompt + N), m;
        ask.body.verify.probes = probes;
        ask.body.verify.n_probes = PROBES;
        tell(&g, &ask);
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
                tell(&g, &ask);
                expect_verified(&g, ask.body.verify.request, &one);
                assert_int_equal(r->best, one.body.verified.own[0]);
                assert_memory_equal(&r->logprobs[w], one.body.verified.drafted_logprobs, sizeof(float));
                alone.ids.len = (size_t)n;
                fr_msg_free(&one);
            }
            assert_int_equal(r->at, probes[i].at);
            assert_int_equal(r->n_logprobs, 3);
            fr_ids_free(&alone.ids);
        }
        fr_msg_free(&m);
        fr_ids_free(&t.ids);
        stop(&g);
    }
}

/* ---- many requests, little cache */

enum { MANY = 8, LENGTH = 24 };

static void start_with_texts(group *g, text *t, int context, int kv_positions)
{
    start_unregistered(g, context, kv_positions, 0);
    for (int i = 0; i < MANY; i++) {
        prompt(g, i, &t[i]);
        write_plainly(g, &t[i], i % 2 ? &hot : &greedy, LENGTH + 1);
    }
    run_group(g);
    fr_msg m;
    expect(g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(g, 0);
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
        tell(g, &m);
    }
    for (int i = 0; i < 2 * MANY; i++) {
        fr_msg m = {0};
        receive(g, &m);
        if (m.kind == FR_MSG_GENERATED) {
            const text *x = &t[m.body.generated.request - first];
            const size_t n = m.body.generated.n_ids;
            assert_true(n == LENGTH || strcmp(m.body.generated.stop, "end") == 0);
            assert_memory_equal(m.body.generated.ids, x->ids.data + x->n_prompt, n * sizeof(int32_t));
            assert_memory_equal(m.body.generated.logprobs, x->logprobs, n * sizeof(float));
        } else {
            assert_int_equal(m.kind, FR_MSG_VERIFIED);
            const text *x = &t[m.body.verified.request - first - MANY];
            assert_memory_equal(m.body.verified.own, x->ids.data + x->n_prompt, (LENGTH + 1) * sizeof(int32_t));
            assert_memory_equal(m.body.verified.drafted_logprobs, x->logprobs, LENGTH * sizeof(float));
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
    stop(&g);
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
        fr_msg ask = verify_msg(&g, &t[i], (uint64_t)(MANY + i), i % 2 ? &hot : &greedy, t[i].n_prompt + 4,
                                t[i].n_prompt + 8), m;
        ask.body.verify.prefix = prefix_of(&t[i], (uint64_t)(MANY + i), t[i].n_prompt + 3, t[i].n_prompt + 8);
        tell(&g, &ask);
        expect_verified(&g, ask.body.verify.request, &m);
        assert_memory_equal(m.body.verified.own, t[i].ids.data + t[i].n_prompt + 4, 5 * sizeof(int32_t));
        fr_msg_free(&m);
    }
    for (int i = 0; i < MANY; i++)
        fr_ids_free(&t[i].ids);
    stop(&g);
}

/* What cannot fit even alone is refused, with the numbers. */
static void test_does_not_fit(void **state)
{
    (void)state;
    group g;
    text t, full;
    start_unregistered(&g, 512, 96, 0);
    prompt(&g, 2, &t);
    write_plainly(&g, &t, &greedy, 2);
    prompt(&g, 1, &full);
    int capacity = (int)fr_session_info_of(g.session)->kv_positions;
    for (int32_t i = 0; (int)full.ids.len < capacity + 1; i++)
        ok(fr_ids_put(&full.ids, &i, 1));
    run_group(&g);
    fr_msg m;
    expect(&g, FR_MSG_REGISTER, &m);
    assert_int_equal(m.body.register_.max_context, capacity); /* no sequence can be longer */
    fr_msg_free(&m);
    send_welcome(&g, 0);
    fr_msg ask = verify_msg(&g, &full, 1, &greedy, 2, capacity + 1);
    tell(&g, &ask);
    expect_error(&g, ask.body.verify.request, FR_ELIMIT, "longer than the cache of");
    int32_t question[] = {3, 4};
    fr_msg_probe probe = {.at = 3, .tokens = question, .n_tokens = 2};
    ask = verify_msg(&g, &full, 1, &greedy, capacity - 1, capacity);
    ask.body.verify.prefix.chain_base = 0;
    ask.body.verify.probes = &probe;
    ask.body.verify.n_probes = 1;
    tell(&g, &ask);
    expect_error(&g, ask.body.verify.request, FR_ELIMIT, "do not fit the cache of");
    expect_alive(&g, &t);
    fr_ids_free(&t.ids);
    fr_ids_free(&full.ids);
    stop(&g);
}

/* ---- sequences */

static void test_prefix(void **state)
{
    (void)state;
    group g;
    text t;
    start_unregistered(&g, 512, 0, 0);
    prompt(&g, 6, &t);
    write_plainly(&g, &t, &greedy, 12);
    run_group(&g);
    fr_msg m;
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(&g, 0);
    /* Unknown; then known; then with a wrong digest; then cut; then released. */
    fr_msg late = generate_msg(&g, &t, 5, &greedy, 4);
    late.body.generate.prefix = prefix_of(&t, 5, t.n_prompt - 3, t.n_prompt);
    tell(&g, &late);
    expect_error(&g, late.body.generate.request, FR_ENEEDPREFIX, "not known here");
    fr_msg whole = generate_msg(&g, &t, 5, &greedy, 8);
    tell(&g, &whole);
    expect_generated(&g, whole.body.generate.request, &t, 8, "limit");
    tell(&g, &late);
    expect_generated(&g, late.body.generate.request, &t, 4, "limit");
    fr_msg wrong = late;
    wrong.body.generate.prefix.digest++;
    tell(&g, &wrong);
    expect_error(&g, wrong.body.generate.request, FR_ENEEDPREFIX, "");
    tell(&g, &(fr_msg){.kind = FR_MSG_TRUNCATE, .body.truncate = {.job = 5, .position = 4}});
    tell(&g, &late);
    expect_error(&g, late.body.generate.request, FR_ENEEDPREFIX, "");
    fr_msg short_one = late;
    short_one.body.generate.prefix = prefix_of(&t, 5, 4, t.n_prompt);
    tell(&g, &short_one);
    expect_generated(&g, late.body.generate.request, &t, 4, "limit");
    /* A fork knows what its origin knew. */
    tell(&g, &(fr_msg){.kind = FR_MSG_FORK, .body.fork = {.job = 5, .from = 0, .to = 3, .position = (uint32_t)t.n_prompt}});
    fr_msg forked = late;
    forked.body.generate.prefix.sequence = 3;
    tell(&g, &forked);
    expect_generated(&g, late.body.generate.request, &t, 4, "limit");
    tell(&g, &(fr_msg){.kind = FR_MSG_RELEASE, .body.release = {.job = 5, .sequence = 3}});
    tell(&g, &forked);
    expect_error(&g, late.body.generate.request, FR_ENEEDPREFIX, "");
    tell(&g, &late);
    expect_generated(&g, late.body.generate.request, &t, 4, "limit");
    tell(&g, &(fr_msg){.kind = FR_MSG_RELEASE, .body.release = {.job = 5, .all = 1}});
    tell(&g, &late);
    expect_error(&g, late.body.generate.request, FR_ENEEDPREFIX, "");
    fr_ids_free(&t.ids);
    stop(&g);
}

static void test_replaced_and_cancelled(void **state)
{
    (void)state;
    group g;
    text t;
    start_unregistered(&g, 4096, 0, 0);
    prompt(&g, 7, &t);
    write_plainly(&g, &t, &greedy, 4);
    run_group(&g);
    fr_msg m;
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(&g, 0);
    fr_msg a = generate_msg(&g, &t, 1, &hot, 100000), b = generate_msg(&g, &t, 1, &greedy, 4);
    /* Another request for the sequence ends the first one. */
    tell(&g, &a);
    tell(&g, &b);
    expect_error(&g, a.body.generate.request, FR_ECANCELLED, "another request");
    expect_generated(&g, b.body.generate.request, &t, 4, "limit");
    /* A cancelled one is never answered. */
    tell(&g, &a);
    tell(&g, &(fr_msg){.kind = FR_MSG_CANCEL_REQUEST, .body.cancel_request.request = a.body.generate.request});
    tell(&g, &(fr_msg){.kind = FR_MSG_CANCEL_REQUEST, .body.cancel_request.request = 12345});
    b.body.generate.prefix.job = 2;
    tell(&g, &b);
    expect_generated(&g, b.body.generate.request, &t, 4, "limit");
    /* A newer epoch of a job drops its older requests without a word, and later ones of an older epoch too. */
    tell(&g, &a);
    b.body.generate.prefix.job = 1;
    b.body.generate.prefix.sequence = 9;
    b.body.generate.prefix.epoch = 4;
    tell(&g, &b);
    tell(&g, &a);
    expect_generated(&g, b.body.generate.request, &t, 4, "limit");
    /* A new welcome drops all, and begins epochs anew. */
    a.body.generate.prefix.epoch = 4;
    tell(&g, &a);
    send_welcome(&g, 0);
    b.body.generate.prefix.epoch = 1;
    tell(&g, &b);
    expect_generated(&g, b.body.generate.request, &t, 4, "limit");
    fr_ids_free(&t.ids);
    stop(&g);
}

/* ---- malformed requests */

static void test_malformed(void **state)
{
    (void)state;
    group g;
    text t;
    start_unregistered(&g, 512, 0, 0);
    prompt(&g, 1, &t);
    write_plainly(&g, &t, &greedy, 2);
    run_group(&g);
    fr_msg m;
    expect(&g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    send_welcome(&g, 0);
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
    const char *probe_words[] = {"at 0", "is not within the trunk", "has no tokens", "outside the vocabulary",
                                 "token id -1", "wanted tokens are over"};
    const fr_msg base = generate_msg(&g, &t, 1, &greedy, 4), check = verify_msg(&g, &t, 1, &greedy, n, n);
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
    BAD(base, FR_EINVAL, "outside the vocabulary", (q->prefix.tokens = high, q->prefix.n_tokens = 2))
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
        BAD(check, i == 5 ? FR_ELIMIT : FR_EINVAL, probe_words[i], (v->probes = &probes[i], v->n_probes = 1))
    for (int i = 0; i < k; i++) {
        tell(&g, &bad[i].m);
        uint64_t id = bad[i].m.kind == FR_MSG_VERIFY ? bad[i].m.body.verify.request : bad[i].m.body.generate.request;
        expect_error(&g, id, bad[i].st, bad[i].words);
    }
    /* Messages about nothing, and of the wrong kind. */
    tell(&g, &(fr_msg){.kind = FR_MSG_TRUNCATE, .body.truncate = {.job = 77, .position = 4000000000u}});
    tell(&g, &(fr_msg){.kind = FR_MSG_FORK, .body.fork = {.job = 77, .to = 4}});
    tell(&g, &(fr_msg){.kind = FR_MSG_RELEASE, .body.release = {.job = 77, .all = 1}});
    tell(&g, &(fr_msg){.kind = FR_MSG_SUBMIT});
    expect_alive(&g, &t);
    free(big);
    fr_ids_free(&t.ids);
    stop(&g);
}

/* ---- failing allocations: in this thread, over the tables themselves */

static int count_errors(fr_link *server)
{
    int n = 0;
    fr_msg m;
    fr_peer from;
    while (fr_link_recv(server, 0, &from, &m) == FR_OK) {
        n += m.kind == FR_MSG_ENGINE_ERROR && m.body.engine_error.status == FR_ENOMEM;
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

/* One failing allocation somewhere in a request's whole life: the request may be refused, nothing else happens. */
static void live_with_failure(group *g, fr_requests *requests, fr_batch *batch, const fr_msg *ask, long n, int *failed)
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
    /* At most one error: what failed may also have been its sending. */
    assert_in_range(count_errors(g->server), 0, *failed ? 1 : 0);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    group g;
    text t;
    int32_t question[] = {3, 4, 5};
    start_unregistered(&g, 512, 0, 0);
    prompt(&g, 1, &t);
    write_plainly(&g, &t, &greedy, 4);
    const fr_msg_probe probe = {.at = 5, .tokens = question, .n_tokens = 3, .wanted = question, .n_wanted = 3};
    const char *stops[] = {"nothing of the kind"};
    fr_msg asks[2] = {generate_msg(&g, &t, 1, &warm, 3), verify_msg(&g, &t, 2, &warm, t.n_prompt, t.n_prompt + 3)};
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
    fr_session_close(&g.session);
    g.comm->ops->close(&g.comm);
    fr_link_close(&g.server, 0);
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
        cmocka_unit_test(test_context_full),
        cmocka_unit_test(test_verify),
        cmocka_unit_test(test_probes),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_little_cache),
        cmocka_unit_test(test_does_not_fit),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_replaced_and_cancelled),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_allocation_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
