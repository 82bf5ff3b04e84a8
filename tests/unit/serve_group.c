/* serve_group.c: see serve_group.h. */
#include "serve_group.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "held.h"

#define MODEL FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-target.gguf"
#define WAIT_MS 20000

const fr_sampling greedy = {.top_p = 1};
const fr_sampling warm = {.temperature = 0.9f, .top_p = 0.95f, .seed = 7, .sample = 2};
const fr_sampling hot = {.temperature = 1.3f, .top_p = 1, .seed = 11};

void ok(fr_status st)
{
    if (st != FR_OK)
        fail_msg("%s: %s", fr_status_text(st), fr_cause());
}

static fr_session *open_session(fr_comm *comm, const fr_session_options *options)
{
    fr_session *s = NULL;
    ok(fr_session_open(MODEL, comm, options, &s));
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

void group_receive(group *g, fr_msg *m)
{
    do {
        fr_msg_free(m);
        ok(fr_link_recv(g->server, WAIT_MS, &g->peer, m));
    } while (m->kind == FR_MSG_HEARTBEAT);
}

void expect(group *g, fr_msg_kind kind, fr_msg *m)
{
    *m = (fr_msg){0};
    group_receive(g, m);
    if (m->kind != kind)
        fail_msg("a %s came instead of a %s: %s", fr_msg_kind_name(m->kind), fr_msg_kind_name(kind),
                 m->kind == FR_MSG_ENGINE_ERROR ? m->body.engine_error.cause : "");
}

void group_tell(group *g, const fr_msg *m)
{
    ok(fr_link_send(g->server, &g->peer, m));
}

void group_welcome(group *g, int want_tokenizer)
{
    group_tell(g, &(fr_msg){.kind = FR_MSG_WELCOME,
                            .body.welcome = {.group = 1,
                                             .epoch = 1,
                                             .heartbeat_ms = 100,
                                             .want_tokenizer = want_tokenizer}});
}

static void open_with(group *g, const fr_session_options *options)
{
    static int n;
    static char endpoint[64];
    *g = (group){.next_request = 1};
    snprintf(endpoint, sizeof endpoint, "inproc://serve-%d", n++);
    ok(fr_link_listen(endpoint, 0, &g->server));
    ok(fr_comm_self_open(&g->comm));
    g->session = open_session(g->comm, options);
    g->options = (fr_serve_options){.endpoint = endpoint,
                                    .role = "target",
                                    .name = "test",
                                    .prefill_chunk = 16,
                                    .stop = &g->stop};
}

void group_open(group *g, int context, int kv_positions, int max_rows)
{
    open_with(g, &(fr_session_options){.threads = 1,
                                       .max_rows = max_rows,
                                       .max_context = context,
                                       .kv_positions = kv_positions});
}

void group_open_rough(group *g, int draft_vocab)
{
    open_with(
        g, &(fr_session_options){.threads = 1, .max_context = 512, .draft_vocab = draft_vocab});
}

void group_run(group *g)
{
    assert_int_equal(pthread_create(&g->thread, NULL, serve_thread, g), 0);
}

void group_begin(group *g)
{
    fr_msg m;
    group_run(g);
    expect(g, FR_MSG_REGISTER, &m);
    fr_msg_free(&m);
    group_welcome(g, 0);
}

void group_start(group *g, int context, int kv_positions, int max_rows)
{
    group_open(g, context, kv_positions, max_rows);
    group_begin(g);
}

void group_close(group *g)
{
    fr_session_close(&g->session);
    g->comm->ops->close(&g->comm);
    fr_link_close(&g->server, 0);
}

void group_join(group *g)
{
    pthread_join(g->thread, NULL);
    group_close(g);
}

void group_stop(group *g)
{
    fr_msg m;
    group_tell(g, &(fr_msg){.kind = FR_MSG_SHUTDOWN, .body.shutdown.reason = "test is over"});
    expect(g, FR_MSG_GOODBYE, &m);
    fr_msg_free(&m);
    group_join(g);
    assert_int_equal(g->ended, FR_OK);
}

/* ---- prompts, and what the model writes after them by a plain loop */

void prompt(const group *g, int number, text *t)
{
    char words[256];
    int n = snprintf(words, sizeof words,
                     "<|im_start|>user\nStart with %d. (1) Add %d. (2) Take away %d. (3) Add 7."
                     "<|im_end|>\n<|im_start|>assistant\n",
                     40 + number, 300 + 7 * number, 90 + number);
    *t = (text){0};
    ok(fr_tokenize_prompt(fr_session_tokenizer(g->session), words, (size_t)n, &t->ids));
    t->n_prompt = (int)t->ids.len;
}

typedef fr_status (*asking)(fr_session *s, int row, const fr_row_query *query, int *answer_out);

static void write_by(asking ask, group *g, text *t, const fr_sampling *sampling, int n)
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
        ok(ask(s, row + more - 1, &q, &answer));
        ok(fr_pass_run(s));
        const fr_row_answer *a = fr_pass_answer(s, answer);
        int32_t id = fr_sample(sampling, (uint32_t)i, a);
        t->logprobs[i] = fr_answer_logprob(a, fr_answer_logit(a, &q, id));
        ok(fr_ids_put(&t->ids, &id, 1));
    }
    fr_seq_free(s, seq);
}

void write_plainly(group *g, text *t, const fr_sampling *sampling, int n)
{
    write_by(fr_pass_ask, g, t, sampling, n);
}

void write_roughly(group *g, text *t, const fr_sampling *sampling, int n)
{
    write_by(fr_pass_ask_rough, g, t, sampling, n);
}

fr_msg_sampling sampling_msg(const fr_sampling *s)
{
    return (fr_msg_sampling){.temperature = s->temperature,
                             .top_p = s->top_p,
                             .top_k = (uint32_t)s->top_k,
                             .seed = s->seed,
                             .sample = s->sample};
}

fr_msg_prefix prefix_of(const text *t, uint64_t job, int start, int n)
{
    return (fr_msg_prefix){.job = job,
                           .epoch = 1,
                           .start = (uint32_t)start,
                           .digest = fr_ids_digest(t->ids.data, (size_t)start),
                           .tokens = t->ids.data + start,
                           .n_tokens = (size_t)(n - start),
                           .chain_base = (uint32_t)t->n_prompt};
}

fr_msg generate_msg(group *g, const text *t, uint64_t job, const fr_sampling *s, int max_tokens)
{
    return (fr_msg){.kind = FR_MSG_GENERATE,
                    .body.generate = {.request = g->next_request++,
                                      .prefix = prefix_of(t, job, 0, t->n_prompt),
                                      .sampling = sampling_msg(s),
                                      .max_tokens = (uint32_t)max_tokens,
                                      .step_from = (uint32_t)t->n_prompt}};
}

fr_msg verify_msg(group *g, const text *t, uint64_t job, const fr_sampling *s, int position, int n)
{
    return (fr_msg){.kind = FR_MSG_VERIFY,
                    .body.verify = {.request = g->next_request++, .prefix = prefix_of(t, job, 0, n),
                                    .sampling = sampling_msg(s), .position = (uint32_t)position}};
}

void expect_generated(group *g, uint64_t request, const text *t, int n, const char *why)
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
    assert_true(r->passes >= (uint32_t)n && r->rows >= r->passes && r->seconds > 0);
    fr_msg_free(&m);
}

void expect_verified(group *g, uint64_t request, fr_msg *m)
{
    expect(g, FR_MSG_VERIFIED, m);
    assert_int_equal(m->body.verified.request, request);
}

void expect_error(group *g, uint64_t request, fr_status st, const char *words)
{
    fr_msg m;
    expect(g, FR_MSG_ENGINE_ERROR, &m);
    assert_int_equal(m.body.engine_error.request, request);
    assert_int_equal(m.body.engine_error.status, st);
    if (!strstr(m.body.engine_error.cause, words))
        fail_msg("\"%s\" does not say \"%s\"", m.body.engine_error.cause, words);
    fr_msg_free(&m);
}

void expect_alive(group *g, const text *t)
{
    fr_msg m = generate_msg(g, t, 999, &greedy, 2);
    group_tell(g, &m);
    expect_generated(g, m.body.generate.request, t, 2, "limit");
}
