/* calls_fixture.c: see calls_fixture.h. */
#include "calls_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fake_engine.h"

static fr_status on_send(void *ctx, const fr_group *g, const fr_msg *m)
{
    fixture *f = ctx;
    if (f->send_status != FR_OK && (m->kind == FR_MSG_GENERATE || m->kind == FR_MSG_VERIFY))
        return fr_fail(f->send_status, "send fails");
    assert_true(f->n_sent < MAX_SENT);
    sent *s = &f->log[f->n_sent++];
    *s = (sent){.group = g->id, .kind = m->kind};
    const fr_msg_prefix *p =
        m->kind == FR_MSG_GENERATE ? &m->body.generate.prefix : &m->body.verify.prefix;
    if (m->kind == FR_MSG_CANCEL_REQUEST) {
        s->request = m->body.cancel_request.request;
    } else if (m->kind == FR_MSG_GENERATE || m->kind == FR_MSG_VERIFY) {
        s->request = m->kind == FR_MSG_GENERATE ? m->body.generate.request : m->body.verify.request;
        s->start = p->start;
        s->sequence = p->sequence;
        s->epoch = p->epoch;
        s->digest = p->digest;
        s->n_tokens = p->n_tokens;
    }
    return FR_OK;
}

static void on_event(void *ctx, uint64_t job, const fr_policy_event *e)
{
    fixture *f = ctx;
    assert_int_equal(job, 7);
    f->n_events++;
    f->last_event = e->kind;
    f->last_call = e->call;
    if (e->kind == FR_EVENT_TOKENS) {
        f->last_position = e->tokens->position;
        f->last_n_ids = e->tokens->n_ids;
    }
    if (e->kind == FR_EVENT_FAILED)
        f->last_status = e->status;
}

static void on_fail(void *ctx, uint64_t job, fr_status status, const char *cause)
{
    fixture *f = ctx;
    assert_int_equal(job, 7);
    f->n_failed++;
    f->last_status = status;
    snprintf(f->last_cause, sizeof f->last_cause, "%s", cause);
}

void lose_group(fixture *f, fr_group *g)
{
    const uint32_t id = g->id;
    fr_registry_lose(f->r, g, 5);
    fr_calls_group_lost(f->c, id);
}

static void on_lost(void *ctx, fr_group *g, const char *why)
{
    (void)why;
    lose_group(ctx, g);
}

fr_group *add_group(fixture *f, uint8_t id, const char *role, const char *name, uint64_t model)
{
    fr_registered r;
    fr_buf blob = {0};
    fr_peer p = {.id = {id}, .len = 1};
    fr_msg_register m = {.role = role,
                         .name = name,
                         .model_digest = model,
                         .model_name = "m",
                         .backend = "b",
                         .tokenizer_digest = fr_tokenizer_digest(f->t),
                         .max_context = 100};
    assert_int_equal(fr_registry_register(f->r, 0, &p, &m, 1, &r), FR_OK);
    assert_int_equal(fr_tokenizer_pack(f->t, &blob), FR_OK);
    assert_int_equal(fr_registry_tokenizer(f->r, r.group, (fr_bytes){blob.data, blob.len}), FR_OK);
    fr_buf_free(&blob);
    return r.group;
}

int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    const fr_calls_host host = {
        .ctx = f, .send = on_send, .event = on_event, .fail = on_fail, .lost = on_lost};
    f->t = fake_tokenizer();
    assert_int_equal(fr_registry_new(1000, 3000, 0, 0, &f->r), FR_OK);
    assert_int_equal(fr_calls_new(f->r, &host, 2.0, &f->c), FR_OK);
    f->a = add_group(f, 1, "target", "a", 5);
    f->terms = (fr_call_terms){.job = 7, .model = {5, 6}, .delimiter = "\n\n", .exact = 1};
    *state = f;
    return 0;
}

int tear_down(void **state)
{
    fixture *f = *state;
    fr_calls_free(&f->c);
    fr_registry_free(&f->r);
    fr_tokenizer_free(&f->t);
    free(f);
    return 0;
}

const int32_t ids[] = {11, 12, 13, 14, 15, 16, 17, 18, 19, 20};
const float logprobs[8];

uint64_t generate(fixture *f, fr_role role, int n)
{
    const fr_generate_call g = {
        .role = role, .ids = ids, .n_ids = n, .chain_base = 1, .max_tokens = 5, .stream = 1};
    uint64_t call = 0;
    assert_int_equal(fr_calls_generate(f->c, &f->terms, &g, &call), FR_OK);
    return call;
}

uint64_t verify(fixture *f, int n, int position)
{
    const fr_verify_call v = {.ids = ids, .n_ids = n, .chain_base = 1, .position = position};
    uint64_t call = 0;
    assert_int_equal(fr_calls_verify(f->c, &f->terms, &v, &call), FR_OK);
    return call;
}

const sent *last(const fixture *f)
{
    assert_true(f->n_sent > 0);
    return &f->log[f->n_sent - 1];
}

void reply_generated(fixture *f, fr_group *g, uint64_t request, int n)
{
    const fr_msg_generated m = {.request = request,
                                .logprobs = logprobs,
                                .n_logprobs = (size_t)n,
                                .position = last(f)->start + (uint32_t)last(f)->n_tokens,
                                .ids = ids + 4,
                                .n_ids = (size_t)n,
                                .stop = "step",
                                .passes = 3};
    fr_calls_generated(f->c, g, &m);
}
