/* fake_engine.c: see fake_engine.h. */
#include "fake_engine.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "chain.h"
#include "clock.h"
#include "hash.h"

enum { MAX_HELD = 64, HEARTBEAT_MS = 50, WORDS = 7, STEP = 9 };

typedef struct held {
    uint64_t job;
    uint32_t sequence;
    fr_ids ids;
} held;

struct fake_engine {
    fake_options o;
    pthread_t thread;
    atomic_int stop, kill;
    fake_counts counts;
    fr_link *link;
    held held[MAX_HELD];
    int n_held, work, is_struck;
    double beat_at;
};

fr_tokenizer *fake_tokenizer(void)
{
    fr_model_file *file = NULL;
    fr_tokenizer *t = NULL;
    assert_int_equal(
        fr_model_file_open(FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-target.gguf", &file),
        FR_OK);
    assert_int_equal(fr_tokenizer_from_model(file, &t), FR_OK);
    fr_model_file_close(&file);
    return t;
}

/* ---- the model */

static int32_t token_of(const fr_tokenizer *t, const char *text, int last)
{
    fr_ids ids = {0};
    if (fr_tokenize(t, text, strlen(text), 0, &ids) != FR_OK || ids.len == 0)
        abort();
    int32_t id = ids.data[last ? ids.len - 1 : 0];
    fr_ids_free(&ids);
    return id;
}

/* near_tie: as in fake_options. */
static int32_t next_of(const fr_tokenizer *t, const int32_t *ids, int n, int base, int is_draft, int near_tie)
{
    static const char *const words[WORDS] = {"1", "2", "3", "4", "5", "6", "7"};
    int at = n - base, n_ends = 0;
    uint64_t prompt = fr_hash(FR_HASH_INIT, ids, (size_t)base * sizeof *ids);
    uint64_t all = fr_hash(FR_HASH_INIT, ids, (size_t)n * sizeof *ids);
    if (at >= 60 + (int)(prompt % 20))
        return fr_tokenizer_ends(t, &n_ends)[0];
    if (at % STEP >= STEP - 2)
        return token_of(t, "\n", 1);
    const int is_other = (is_draft && at % 5 == 3) || (near_tie && at == near_tie);
    return token_of(t, words[(all + (uint64_t)is_other) % WORDS], 0);
}

int32_t fake_next(const fr_tokenizer *t, const int32_t *ids, int n, int base, int is_draft)
{
    return next_of(t, ids, n, base, is_draft, 0);
}

void fake_text_otherwise(const fr_tokenizer *t, const char *problem, int max_tokens, int near_tie, fr_buf *out)
{
    fr_chain chain = {0};
    assert_int_equal(fr_chain_open(&chain, t, NULL, NULL, problem, 0), FR_OK);
    for (int i = 0; i < max_tokens; i++) {
        int32_t id = next_of(t, chain.ids.data, (int)chain.ids.len, chain.prompt_len, 0, near_tie);
        assert_int_equal(fr_chain_append(&chain, &id, 1), FR_OK);
        if (fr_tokenizer_is_end(t, id))
            break;
    }
    assert_int_equal(fr_buf_put(out, chain.text.data, chain.text.len), FR_OK);
    fr_chain_close(&chain);
}

void fake_text(const fr_tokenizer *t, const char *problem, int max_tokens, fr_buf *out)
{
    fake_text_otherwise(t, problem, max_tokens, 0, out);
}

/* ---- the protocol; failures here abort, since cmocka's asserts belong to the test's own thread */

static void must(fr_status st)
{
    if (st != FR_OK) {
        fprintf(stderr, "fake engine: %s\n", fr_cause());
        abort();
    }
}

static void say(fake_engine *e, const fr_msg *m)
{
    fr_status st = fr_link_send(e->link, NULL, m);
    if (st != FR_EBUSY)
        must(st);
}

static int dead(fake_engine *e)
{
    return atomic_load(&e->kill) || e->is_struck || (e->o.dies_after && e->work >= e->o.dies_after);
}

static void heartbeat(fake_engine *e)
{
    if (fr_now_s() < e->beat_at)
        return;
    e->beat_at = fr_now_s() + HEARTBEAT_MS / 1000.0;
    fr_msg m = {.kind = FR_MSG_HEARTBEAT,
                .body.heartbeat = {.kv_free = 1000, .passes = (uint64_t)e->work}};
    say(e, &m);
}

static void work(fake_engine *e)
{
    if (e->o.token_ms)
        fr_sleep_ms((unsigned)e->o.token_ms);
    e->work++;
    if (!dead(e))
        heartbeat(e);
}

static void say_register(fake_engine *e)
{
    fr_msg m = {.kind = FR_MSG_REGISTER};
    m.body.register_ = (fr_msg_register){.role = e->o.role,
                                         .name = e->o.name,
                                         .model_digest = e->o.model_digest,
                                         .model_name = "fake",
                                         .ranks = 1,
                                         .tokenizer_digest = fr_tokenizer_digest(e->o.tokenizer),
                                         .threads = 1,
                                         .max_context = e->o.max_context,
                                         .kv_positions = 1000,
                                         .backend = "none",
                                         .pid = 1,
                                         .batch_dependent = e->o.batch_dependent};
    say(e, &m);
}

static void on_welcome(fake_engine *e, const fr_msg_welcome *m)
{
    e->n_held = 0;
    atomic_fetch_add(&e->counts.registered, 1);
    if (!m->want_tokenizer)
        return;
    fr_buf blob = {0};
    must(fr_tokenizer_pack(e->o.tokenizer, &blob));
    fr_msg reply = {.kind = FR_MSG_TOKENIZER_BLOB,
                    .body.tokenizer_blob.blob = {blob.data, blob.len}};
    say(e, &reply);
    fr_buf_free(&blob);
}

static void say_error(fake_engine *e, uint64_t request, fr_status st, const char *cause,
                      size_t have)
{
    fr_msg m = {.kind = FR_MSG_ENGINE_ERROR,
                .body.engine_error = {
                    .request = request, .status = st, .cause = cause, .have = (uint32_t)have}};
    say(e, &m);
}

static uint64_t digest_of(const fr_ids *ids, size_t n)
{
    return fr_hash(FR_HASH_INIT, ids->data,
                   n * sizeof *ids->data); /* tests run on little-endian machines */
}

/* The request's sequence with its prefix applied; NULL when it was refused. */
static held *apply_prefix(fake_engine *e, uint64_t request, const fr_msg_prefix *p)
{
    held *h = NULL;
    for (int i = 0; i < e->n_held; i++)
        if (e->held[i].job == p->job && e->held[i].sequence == p->sequence)
            h = &e->held[i];
    if (!h) {
        if (e->n_held == MAX_HELD)
            e->n_held = 0;
        h = &e->held[e->n_held++];
        h->job = p->job;
        h->sequence = p->sequence;
        h->ids.len = 0;
    }
    atomic_fetch_add(&e->counts.prefix_tokens, (long long)p->n_tokens);
    if (p->start > h->ids.len || digest_of(&h->ids, p->start) != p->digest ||
        (e->o.forgets && p->start)) {
        atomic_fetch_add(&e->counts.need_prefix, 1);
        say_error(e, request, FR_ENEEDPREFIX, "not cached", 0);
        return NULL;
    }
    if (p->start + p->n_tokens > e->o.max_context) {
        say_error(e, request, FR_ELIMIT, "longer than the fake engine's context", 0);
        return NULL;
    }
    h->ids.len = p->start;
    must(fr_ids_put(&h->ids, p->tokens, p->n_tokens));
    return h;
}

static int step_ended(fake_engine *e, const fr_ids *ids, size_t from, const char *delimiter)
{
    fr_buf text = {0};
    must(fr_detokenize(e->o.tokenizer, ids->data + from, ids->len - from, 0, &text));
    must(fr_buf_put(&text, "", 1));
    int ended = strstr((const char *)text.data, delimiter) != NULL;
    fr_buf_free(&text);
    return ended;
}

static void on_generate(fake_engine *e, const fr_msg_generate *m)
{
    atomic_fetch_add(&e->counts.generates, 1);
    held *h = apply_prefix(e, m->request, &m->prefix);
    if (!h)
        return;
    size_t first = h->ids.len;
    const char *stop = NULL;
    while (!stop) {
        int32_t id = next_of(e->o.tokenizer, h->ids.data, (int)h->ids.len, (int)m->prefix.chain_base,
                             !strcmp(e->o.role, "draft"), e->o.near_tie);
        work(e);
        if (dead(e))
            return;
        must(fr_ids_put(&h->ids, &id, 1));
        fr_msg tokens = {.kind = FR_MSG_TOKENS,
                         .body.tokens = {.request = m->request,
                                         .ids = &id,
                                         .n_ids = 1,
                                         .position = (uint32_t)h->ids.len - 1}};
        if (m->stream)
            say(e, &tokens);
        if (fr_tokenizer_is_end(e->o.tokenizer, id))
            stop = "end";
        else if (m->stop_at_step && step_ended(e, &h->ids, m->step_from, m->delimiter))
            stop = "step";
        else if (h->ids.len - first >= m->max_tokens)
            stop = "limit";
        else if (h->ids.len >= e->o.max_context)
            stop = "context";
    }
    size_t n = h->ids.len - first;
    float *logprobs = calloc(n, sizeof *logprobs);
    fr_msg reply = {.kind = FR_MSG_GENERATED,
                    .body.generated = {.request = m->request,
                                       .position = (uint32_t)first,
                                       .stop = stop,
                                       .ids = h->ids.data + first,
                                       .n_ids = n,
                                       .logprobs = logprobs,
                                       .n_logprobs = n,
                                       .passes = (uint32_t)n}};
    say(e, &reply);
    free(logprobs);
}

/* A rating of the text before `at` that accepts three steps of four. */
static void rate(const held *h, const fr_msg_probe *probe, float *logprobs,
                 fr_msg_probe_result *out)
{
    size_t digit = digest_of(&h->ids, probe->at) % 4 == 0 ? 3 : 8;
    for (size_t i = 0; i < probe->n_wanted; i++)
        logprobs[i] = i == digit ? -0.1f : -5.0f;
    *out = (fr_msg_probe_result){.at = probe->at,
                                 .logprobs = logprobs,
                                 .n_logprobs = probe->n_wanted,
                                 .best = digit < probe->n_wanted ? probe->wanted[digit] : 0};
}

static void on_verify(fake_engine *e, const fr_msg_verify *m)
{
    atomic_fetch_add(&e->counts.verifies, 1);
    held *h = apply_prefix(e, m->request, &m->prefix);
    if (!h)
        return;
    work(e);
    if (dead(e))
        return;
    size_t n = h->ids.len - m->position;
    int32_t *own = calloc(n + 1, sizeof *own);
    float *drafted = calloc(n + 1, sizeof *drafted),
          *rated = calloc(m->n_probes * 16 + 1, sizeof *rated);
    fr_msg_probe_result *results = calloc(m->n_probes + 1, sizeof *results);
    for (size_t i = 0; i <= n; i++) {
        own[i] = fake_next(e->o.tokenizer, h->ids.data, (int)(m->position + i),
                           (int)m->prefix.chain_base, 0);
        if (i < n)
            drafted[i] = own[i] == h->ids.data[m->position + i] ? -0.1f : -3.0f;
    }
    for (size_t i = 0; i < m->n_probes; i++)
        rate(h, &m->probes[i], rated + 16 * i, &results[i]);
    fr_msg reply = {.kind = FR_MSG_VERIFIED,
                    .body.verified = {.request = m->request,
                                      .position = m->position,
                                      .own = own,
                                      .n_own = n + 1,
                                      .drafted_logprobs = drafted,
                                      .n_drafted_logprobs = n,
                                      .probes = results,
                                      .n_probes = m->n_probes,
                                      .passes = 1}};
    say(e, &reply);
    free(own);
    free(drafted);
    free(rated);
    free(results);
}

static void on_message(fake_engine *e, const fr_msg *m)
{
    uint64_t request =
        m->kind == FR_MSG_GENERATE ? m->body.generate.request : m->body.verify.request;
    int is_request = m->kind == FR_MSG_GENERATE || m->kind == FR_MSG_VERIFY;
    uint64_t seed = m->kind == FR_MSG_GENERATE ? m->body.generate.sampling.seed : m->body.verify.sampling.seed;
    e->is_struck = is_request && e->o.dies_of_seed && seed == e->o.dies_of_seed;
    if (e->is_struck)
        atomic_store(&e->counts.struck, 1);
    else if (is_request && e->o.refuses != FR_OK)
        say_error(e, request, e->o.refuses, "the fake engine refuses", 0);
    else if (m->kind == FR_MSG_GENERATE)
        on_generate(e, &m->body.generate);
    else if (m->kind == FR_MSG_VERIFY)
        on_verify(e, &m->body.verify);
    else if (m->kind == FR_MSG_WELCOME)
        on_welcome(e, &m->body.welcome);
    else if (m->kind == FR_MSG_RELEASE)
        atomic_fetch_add(&e->counts.released, 1);
    else if (m->kind == FR_MSG_SHUTDOWN)
        atomic_store(&e->stop, 1);
    else if (m->kind == FR_MSG_ENGINE_ERROR && m->body.engine_error.status == FR_ENOTFOUND)
        say_register(e);
    else if (m->kind == FR_MSG_ENGINE_ERROR)
        atomic_fetch_add(&e->counts.refused, 1);
}

static void *run(void *arg)
{
    fake_engine *e = arg;
    must(fr_link_connect(e->o.endpoint, 0, &e->link));
    say_register(e);
    while (!atomic_load(&e->stop) && !dead(e)) {
        fr_msg m;
        fr_status st = fr_link_recv(e->link, 20, NULL, &m);
        if (st == FR_ETIMEDOUT) {
            heartbeat(e);
            continue;
        }
        must(st);
        on_message(e, &m);
        fr_msg_free(&m);
    }
    while (dead(e) && !atomic_load(&e->kill) && !atomic_load(&e->stop))
        fr_sleep_ms(10); /* hangs, with its connection */
    fr_msg bye = {.kind = FR_MSG_GOODBYE, .body.goodbye.reason = "told to stop"};
    if (!dead(e))
        say(e, &bye);
    fr_link_close(&e->link, dead(e) ? 0 : 200);
    return NULL;
}

fake_engine *fake_engine_start(const fake_options *o)
{
    fake_engine *e = calloc(1, sizeof *e);
    assert_non_null(e);
    e->o = *o;
    if (!e->o.max_context)
        e->o.max_context = 4096;
    assert_int_equal(pthread_create(&e->thread, NULL, run, e), 0);
    return e;
}

const fake_counts *fake_engine_counts(const fake_engine *e)
{
    return &e->counts;
}

static void finish(fake_engine **e)
{
    pthread_join((*e)->thread, NULL);
    for (int i = 0; i < MAX_HELD; i++)
        fr_ids_free(&(*e)->held[i].ids);
    free(*e);
    *e = NULL;
}

void fake_engine_stop(fake_engine **e)
{
    if (!*e)
        return;
    atomic_store(&(*e)->stop, 1);
    finish(e);
}

void fake_engine_kill(fake_engine **e)
{
    if (!*e)
        return;
    atomic_store(&(*e)->kill, 1);
    finish(e);
}
