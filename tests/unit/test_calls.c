/* test_calls.c: engine calls against groups that exist only here: what goes out on the wire, what
 * comes back to the policy, and what happens when a group forgets, errs, or is lost. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "calls.h"
#include "fake_engine.h"
#include "hash.h"

enum { MAX_SENT = 64 };

typedef struct sent {
    uint32_t group;
    fr_msg_kind kind;
    uint64_t request;
    uint32_t start, sequence;
    uint64_t epoch, digest;
    size_t n_tokens;
} sent;

typedef struct fixture {
    fr_registry *r;
    fr_calls *c;
    fr_tokenizer *t;
    fr_group *a, *b; /* targets */
    fr_call_terms terms;
    sent log[MAX_SENT];
    int n_sent, n_events, n_failed;
    fr_event_kind last_event;
    uint64_t last_call;
    uint32_t last_position;
    size_t last_n_ids;
    fr_status last_status, send_status;
    char last_cause[200];
} fixture;

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

static void on_lost(void *ctx, fr_group *g, const char *why)
{
    fixture *f = ctx;
    (void)why;
    uint32_t id = g->id;
    fr_registry_lose(f->r, g, 5);
    fr_calls_group_lost(f->c, id);
}

static fr_group *add_group(fixture *f, uint8_t id, const char *role, const char *name,
                           uint64_t model)
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

static int set_up(void **state)
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

static int tear_down(void **state)
{
    fixture *f = *state;
    fr_calls_free(&f->c);
    fr_registry_free(&f->r);
    fr_tokenizer_free(&f->t);
    free(f);
    return 0;
}

static const int32_t ids[] = {11, 12, 13, 14, 15, 16, 17, 18, 19, 20};

static uint64_t generate(fixture *f, fr_role role, int n)
{
    const fr_generate_call g = {
        .role = role, .ids = ids, .n_ids = n, .chain_base = 1, .max_tokens = 5, .stream = 1};
    uint64_t call = 0;
    assert_int_equal(fr_calls_generate(f->c, &f->terms, &g, &call), FR_OK);
    return call;
}

static uint64_t verify(fixture *f, int n, int position)
{
    const fr_verify_call v = {.ids = ids, .n_ids = n, .chain_base = 1, .position = position};
    uint64_t call = 0;
    assert_int_equal(fr_calls_verify(f->c, &f->terms, &v, &call), FR_OK);
    return call;
}

static const sent *last(const fixture *f)
{
    assert_true(f->n_sent > 0);
    return &f->log[f->n_sent - 1];
}

static const float logprobs[8];

static void reply_generated(fixture *f, fr_group *g, uint64_t request, int n)
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

static void sends_the_rest_only(void **state)
{
    fixture *f = *state;
    uint64_t call = generate(f, FR_ROLE_TARGET, 4);
    assert_int_equal(f->n_sent, 0); /* not from within the policy */
    assert_true(fr_calls_deadline(f->c) == 0);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->kind, FR_MSG_GENERATE);
    assert_int_equal(last(f)->start, 0);
    assert_int_equal(last(f)->n_tokens, 4);
    assert_int_equal(last(f)->epoch, f->a->epoch);
    assert_true(isinf(fr_calls_deadline(f->c)));
    reply_generated(f, f->a, last(f)->request, 3); /* 15 16 17 */
    assert_int_equal(f->last_event, FR_EVENT_GENERATED);
    assert_int_equal(f->last_call, call);
    assert_int_equal(f->terms.passes, 3);
    verify(f, 9, 7);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->kind, FR_MSG_VERIFY);
    assert_int_equal(last(f)->start,
                     6); /* the last sampled one may not be there, and position - 1 is wanted */
    assert_int_equal(last(f)->n_tokens, 3);
    assert_int_equal(last(f)->digest, fr_hash(FR_HASH_INIT, ids, 6 * sizeof *ids));
    const fr_msg_verified wrong = {.request = last(f)->request, .n_own = 2};
    fr_calls_verified(f->c, f->a, &wrong); /* two positions short */
    assert_int_equal(f->n_failed, 1);
    assert_int_equal(f->last_status, FR_EPROTO);
}

static void refuses_wrong_replies(void **state)
{
    fixture *f = *state;
    const int32_t n_vocab = fr_tokenizer_n_vocab(f->t);
    const int32_t past[] = {11, n_vocab}, negative[] = {-1};
    const struct {
        fr_msg_generated reply; /* to four tokens, with at most five more wanted */
        const char *part;
        size_t n_logprobs;
    } wrong[] = {
        {{.position = 3, .ids = ids, .n_ids = 2}, "generated from position 3, asked was 4", 0},
        {{.position = 4, .ids = ids, .n_ids = 6}, "generated 6 tokens, asked were 1 to 5", 0},
        {{.position = 4, .ids = ids, .n_ids = 0}, "generated 0 tokens, asked were 1 to 5", 0},
        {{.position = 4, .ids = past, .n_ids = 2}, "is outside its vocabulary of", 2},
        {{.position = 4, .ids = negative, .n_ids = 1}, "group a generated token -1, which is", 1},
        {{.position = 4, .ids = ids, .n_ids = 2}, "sent 1 log-probabilities for 2 tokens", 1},
    };
    for (int i = 0; i < (int)(sizeof wrong / sizeof *wrong); i++) {
        generate(f, FR_ROLE_TARGET, 4);
        fr_calls_dispatch(f->c, 1);
        fr_msg_generated reply = wrong[i].reply;
        reply.request = last(f)->request;
        reply.stop = "step";
        reply.logprobs = logprobs;
        reply.n_logprobs = wrong[i].n_logprobs;
        fr_calls_generated(f->c, f->a, &reply);
        assert_int_equal(f->n_failed, i + 1);
        assert_int_equal(f->last_status, FR_EPROTO);
        assert_non_null(strstr(f->last_cause, wrong[i].part));
    }
    assert_int_equal(f->n_events, 0);
    assert_int_equal(f->terms.passes, 0);
    assert_int_equal(fr_calls_count(f->c), 0);
}

static void refuses_wrong_verdicts_and_streams(void **state)
{
    fixture *f = *state;
    const int32_t past[] = {11, 12, fr_tokenizer_n_vocab(f->t)};
    const fr_msg_verified verdict = {.own = past, .n_own = 3, .drafted_logprobs = logprobs,
                                     .n_drafted_logprobs = 2};
    verify(f, 9, 7);
    fr_calls_dispatch(f->c, 1);
    fr_msg_verified wrong = verdict;
    wrong.request = last(f)->request;
    fr_calls_verified(f->c, f->a, &wrong);
    assert_int_equal(f->n_failed, 1);
    assert_non_null(strstr(f->last_cause, "group a generated token"));
    const struct {
        fr_msg_tokens piece; /* behind four tokens, with at most five more wanted */
        const char *part;
    } pieces[] = {
        {{.position = 4, .ids = past, .n_ids = 3}, "is outside its vocabulary of"},
        {{.position = 4, .ids = ids, .n_ids = 6}, "streamed tokens up to position 10, asked was 9"},
        {{.position = UINT32_MAX, .ids = ids, .n_ids = 1}, "group a streamed tokens up to"},
    };
    for (int i = 0; i < (int)(sizeof pieces / sizeof *pieces); i++) {
        generate(f, FR_ROLE_TARGET, 4);
        fr_calls_dispatch(f->c, 1);
        fr_msg_tokens piece = pieces[i].piece;
        piece.request = last(f)->request;
        fr_calls_tokens(f->c, f->a, &piece);
        assert_int_equal(f->n_failed, i + 2);
        assert_int_equal(f->last_status, FR_EPROTO);
        assert_non_null(strstr(f->last_cause, pieces[i].part));
    }
    assert_int_equal(f->n_events, 0);
    assert_int_equal(fr_calls_count(f->c), 0);
}

static void reply_numbers(fixture *f, int verdict, double seconds, float logprob)
{
    const float told[] = {-1, logprob};
    if (verdict)
        verify(f, 9, 7);
    else
        generate(f, FR_ROLE_TARGET, 4);
    fr_calls_dispatch(f->c, 1);
    const fr_msg_verified v = {.request = last(f)->request, .own = ids, .n_own = 3,
                               .drafted_logprobs = told, .n_drafted_logprobs = 2,
                               .seconds = seconds};
    const fr_msg_generated g = {.request = last(f)->request, .position = 4, .ids = ids, .n_ids = 2,
                                .logprobs = told, .n_logprobs = 2, .stop = "step",
                                .seconds = seconds};
    if (verdict)
        fr_calls_verified(f->c, f->a, &v);
    else
        fr_calls_generated(f->c, f->a, &g);
}

static void refuses_numbers_that_are_none(void **state)
{
    fixture *f = *state;
    const double times[] = {-1, (double)NAN, (double)INFINITY};
    const float told[] = {1, (float)NAN, (float)INFINITY};
    for (int i = 0; i < 12; i++) {
        int time = i / 2 < 3, which = i / 2 % 3;
        reply_numbers(f, i % 2, time ? times[which] : 0, time ? 0 : told[which]);
        assert_int_equal(f->n_failed, i + 1);
        assert_int_equal(f->last_status, FR_EPROTO);
        assert_non_null(strstr(f->last_cause, time ? "group a says its reply" : "group a sent"));
    }
    for (int i = 0; i < 4; i++) { /* rounding; a token that has no probability */
        reply_numbers(f, i % 2, 0, i < 2 ? 1e-5f : (float)-INFINITY);
        assert_int_equal(f->n_events, i + 1);
    }
    assert_int_equal(f->n_failed, 12);
}

static void sends_all_when_asked(void **state)
{
    fixture *f = *state;
    generate(f, FR_ROLE_TARGET, 4);
    fr_calls_dispatch(f->c, 1);
    reply_generated(f, f->a, last(f)->request, 1);
    generate(f, FR_ROLE_TARGET, 6);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->start, 4);
    fr_msg_engine_error need = {
        .request = last(f)->request, .status = FR_ENEEDPREFIX, .cause = "gone"};
    fr_calls_error(f->c, f->a, &need);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->start, 0);
    assert_int_equal(last(f)->n_tokens, 6);
    assert_int_not_equal(last(f)->request, need.request);
    assert_int_equal(f->n_failed, 0);
    need.request = last(f)->request; /* a group that never has enough ends the job */
    fr_calls_error(f->c, f->a, &need);
    assert_int_equal(f->n_failed, 1);
    assert_int_equal(fr_calls_count(f->c), 0);
}

static void streams_every_token_once(void **state)
{
    fixture *f = *state;
    generate(f, FR_ROLE_TARGET, 4);
    fr_calls_dispatch(f->c, 1);
    fr_msg_tokens m = {.request = last(f)->request, .position = 4, .ids = ids + 4, .n_ids = 2};
    fr_calls_tokens(f->c, f->a, &m);
    assert_int_equal(f->n_events, 1);
    assert_int_equal(f->last_position, 4);
    uint64_t old = last(f)->request;
    f->b = add_group(f, 2, "target", "b", 5);
    on_lost(f, f->a, "test");
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->group, f->b->id);
    m = (fr_msg_tokens){.request = last(f)->request, .position = 4, .ids = ids + 4, .n_ids = 1};
    fr_calls_tokens(f->c, f->b, &m); /* again */
    assert_int_equal(f->n_events, 1);
    m = (fr_msg_tokens){.request = last(f)->request, .position = 5, .ids = ids + 5, .n_ids = 3};
    fr_calls_tokens(f->c, f->b, &m); /* one again, two new */
    assert_int_equal(f->n_events, 2);
    assert_int_equal(f->last_position, 6);
    assert_int_equal(f->last_n_ids, 2);
    m.request = old; /* a late one of the lost group */
    m.position = 8;
    fr_calls_tokens(f->c, f->a, &m);
    assert_int_equal(f->n_events, 2);
}

static void stays_with_its_group(void **state)
{
    fixture *f = *state;
    f->b = add_group(f, 2, "target", "b", 5);
    for (int i = 0; i < 4; i++) {
        generate(f, FR_ROLE_TARGET, 4);
        fr_calls_dispatch(f->c, 1);
        assert_int_equal(last(f)->group, f->log[0].group);
    }
    assert_int_equal(f->log[3].sequence, 3); /* at once: each has a sequence of its own */
    fr_call_terms second = {.job = 7, .model = {5, 6}, .delimiter = "", .exact = 1};
    const fr_generate_call g = {.role = FR_ROLE_TARGET, .ids = ids, .n_ids = 4, .max_tokens = 5};
    uint64_t call = 0;
    assert_int_equal(fr_calls_generate(f->c, &second, &g, &call), FR_OK);
    fr_calls_dispatch(f->c, 1);
    assert_int_not_equal(last(f)->group, f->log[0].group); /* the other one has nothing to do */
    fr_calls_cancel(f->c, call);
}

static void every_group_gets_work(void **state)
{
    fixture *f = *state;
    f->a->n_calls = 1;
    for (uint8_t i = 2; i <= 100; i++) {
        char name[8];
        snprintf(name, sizeof name, "g%d", i);
        f->b = add_group(f, i, "target", name, 5);
        f->b->n_calls = i < 100; /* the last one alone has nothing to do */
    }
    generate(f, FR_ROLE_TARGET, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->group, f->b->id);
}

static void cancels_without_an_event(void **state)
{
    fixture *f = *state;
    uint64_t call = generate(f, FR_ROLE_TARGET, 4);
    fr_calls_dispatch(f->c, 1);
    uint64_t request = last(f)->request;
    fr_calls_cancel(f->c, call);
    assert_int_equal(last(f)->kind, FR_MSG_CANCEL_REQUEST);
    assert_int_equal(last(f)->request, request);
    reply_generated(f, f->a, request, 2);
    assert_int_equal(f->n_events, 0);
    generate(f, FR_ROLE_TARGET, 4);
    fr_calls_dispatch(f->c, 1);
    fr_calls_drop_job(f->c, 7);
    assert_int_equal(f->log[f->n_sent - 2].kind, FR_MSG_CANCEL_REQUEST);
    assert_int_equal(last(f)->kind, FR_MSG_RELEASE);
    assert_int_equal(f->a->n_calls, 0);
}

static void exact_jobs_do_without_a_draft(void **state)
{
    fixture *f = *state;
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->n_events, 0);
    assert_true(fr_calls_deadline(f->c) == 2);
    fr_calls_dispatch(f->c, 2);
    assert_int_equal(f->last_event, FR_EVENT_FAILED);
    assert_int_equal(f->last_status, FR_EUNAVAILABLE);
    f->terms.exact = 0; /* others wait */
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1000);
    assert_int_equal(f->n_events, 1);
    assert_int_equal(fr_calls_count(f->c), 1);
    f->b = add_group(f, 2, "draft", "d", 6);
    fr_calls_dispatch(f->c, 1001);
    assert_int_equal(last(f)->group, f->b->id);
    fr_msg_engine_error e = {.request = last(f)->request, .status = FR_ELIMIT, .cause = "too long"};
    fr_calls_error(f->c, f->b, &e);
    assert_int_equal(f->n_failed, 1);
    assert_string_equal(f->last_cause, "too long");
}

/* As policy `step`: a draft that comes back in time is waited for, else the call fails, and the
 * next one goes to a draft again. */
static void jobs_outlive_their_draft(void **state)
{
    fixture *f = *state;
    f->terms.exact = 0;
    f->terms.outlives_draft = 1;
    f->b = add_group(f, 2, "draft", "d", 6);
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->group, f->b->id);
    on_lost(f, f->b, "test"); /* at 5, with a grace of 2 */
    fr_calls_dispatch(f->c, 6);
    assert_int_equal(fr_calls_count(f->c), 1);
    f->b = add_group(f, 2, "draft", "d", 6);
    fr_calls_dispatch(f->c, 6.5);
    assert_int_equal(last(f)->group, f->b->id);
    on_lost(f, f->b, "test");
    fr_calls_dispatch(f->c, 6.9);
    assert_int_equal(f->n_events, 0);
    assert_true(fr_calls_deadline(f->c) == 7);
    fr_calls_dispatch(f->c, 7);
    assert_int_equal(f->last_event, FR_EVENT_FAILED);
    assert_int_equal(f->last_status, FR_EUNAVAILABLE);
    assert_int_equal(fr_calls_count(f->c), 0);
    generate(f, FR_ROLE_DRAFT, 4); /* the next step: nobody waits again */
    fr_calls_dispatch(f->c, 8);
    assert_int_equal(f->n_events, 2);
    f->b = add_group(f, 2, "draft", "d", 6);
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 9);
    assert_int_equal(last(f)->group, f->b->id);
    reply_generated(f, f->b, last(f)->request, 1);
    assert_int_equal(f->last_event, FR_EVENT_GENERATED);
    assert_int_equal(f->n_failed, 0);
}

/* A draft that is there and errs is not a lost one. */
static void draft_errors_end_jobs_that_are_not_exact(void **state)
{
    fixture *f = *state;
    f->terms.exact = 0;
    f->terms.outlives_draft = 1;
    f->b = add_group(f, 2, "draft", "d", 6);
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1);
    fr_msg_engine_error e = {.request = last(f)->request, .status = FR_ELIMIT, .cause = "too long"};
    fr_calls_error(f->c, f->b, &e);
    assert_int_equal(f->n_events, 0);
    assert_int_equal(f->n_failed, 1);
    assert_string_equal(f->last_cause, "too long");
}

/* Groups of another model do not count as its draft, and it does not go on: the job is ended. */
static void another_draft_is_no_lost_draft(void **state)
{
    fixture *f = *state;
    f->terms.exact = 0;
    f->terms.outlives_draft = 1;
    f->b = add_group(f, 2, "draft", "d", 66);
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1000);
    assert_int_equal(f->n_events + f->n_failed, 0);
    assert_true(isinf(fr_calls_deadline(f->c)));
}

static void loses_groups_that_cannot_be_reached(void **state)
{
    fixture *f = *state;
    generate(f, FR_ROLE_TARGET, 4);
    f->send_status = FR_EPEER;
    fr_calls_dispatch(f->c, 1);
    assert_false(f->a->alive);
    assert_int_equal(f->n_failed, 0);
    f->send_status = FR_OK;
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->n_sent, 0); /* waits */
    f->b = add_group(f, 2, "target", "b", 5);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->group, f->b->id);
    fr_msg_engine_error e = {
        .request = last(f)->request, .status = FR_EPEER, .cause = "rank 1 is gone"};
    fr_calls_error(f->c, f->b, &e);
    assert_false(f->b->alive);
    assert_int_equal(fr_calls_count(f->c), 1);
    /* A call that every group dies of ends its job. */
    for (uint8_t i = 0; i < 20 && !f->n_failed; i++) {
        char name[8];
        snprintf(name, sizeof name, "g%d", i);
        fr_group *g = add_group(f, (uint8_t)(10 + i), "target", name, 5);
        fr_calls_dispatch(f->c, 1);
        if (f->n_failed)
            break;
        on_lost(f, g, "test");
    }
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->n_failed, 1);
    assert_int_equal(f->last_status, FR_EPEER);
}

/* An exact job's target calls go to a batch-dependent group only when there is no other, and the
 * job is marked then. */
static void exact_jobs_prefer_batch_invariant_groups(void **state)
{
    fixture *f = *state;
    f->a->batch_dependent = 1;
    generate(f, FR_ROLE_TARGET, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->group, f->a->id);
    assert_int_equal(f->terms.batch_dependent, 1);
    f->terms.batch_dependent = 0;
    fr_group *b = add_group(f, 2, "target", "b", 5);
    generate(f, FR_ROLE_TARGET, 4); /* though its chain is cached by a */
    generate(f, FR_ROLE_TARGET, 4); /* though a has less to do */
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(b->n_calls, 2);
    assert_int_equal(f->terms.batch_dependent, 0);
}

/* Where the text is not exact any group will do, and one that drafts matters too. */
static void batch_dependent_drafts_mark_inexact_jobs(void **state)
{
    fixture *f = *state;
    add_group(f, 3, "draft", "d", 6)->batch_dependent = 1;
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->terms.batch_dependent, 0);
    f->terms.exact = 0;
    generate(f, FR_ROLE_DRAFT, 4);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(f->terms.batch_dependent, 1);
    f->a->batch_dependent = 1;
    fr_group *b = add_group(f, 2, "target", "b", 5);
    for (int i = 0; i < 2; i++) {
        f->terms.group[FR_ROLE_TARGET] = 0;
        generate(f, FR_ROLE_TARGET, 4);
        fr_calls_dispatch(f->c, 1);
    }
    assert_int_equal(f->a->n_calls, 1);
    assert_int_equal(b->n_calls, 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(sends_the_rest_only),
        T(refuses_wrong_replies),
        T(refuses_wrong_verdicts_and_streams),
        T(refuses_numbers_that_are_none),
        T(sends_all_when_asked),
        T(streams_every_token_once),
        T(stays_with_its_group),
        T(every_group_gets_work),
        T(cancels_without_an_event),
        T(exact_jobs_do_without_a_draft),
        T(jobs_outlive_their_draft),
        T(draft_errors_end_jobs_that_are_not_exact),
        T(another_draft_is_no_lost_draft),
        T(exact_jobs_prefer_batch_invariant_groups),
        T(batch_dependent_drafts_mark_inexact_jobs),
        T(loses_groups_that_cannot_be_reached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
