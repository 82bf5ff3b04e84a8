/* test_calls.c: engine calls against groups that exist only here: what goes out on the wire, and what comes back to the
 * policy of it. Which group a call goes to, and what becomes of it with none: test_calls_groups.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "calls_fixture.h"
#include "hash.h"

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

/* A stream that another group takes over begins again, for the policy too; but of no stream is anything given on
 * behind a gap. */
static void streams_of_groups_are_not_joined(void **state)
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
    lose_group(f, f->a);
    fr_calls_dispatch(f->c, 1);
    assert_int_equal(last(f)->group, f->b->id);
    m = (fr_msg_tokens){.request = last(f)->request, .position = 6, .ids = ids + 6, .n_ids = 1};
    fr_calls_tokens(f->c, f->b, &m); /* new, but where are those before it? */
    assert_int_equal(f->n_events, 1);
    m = (fr_msg_tokens){.request = last(f)->request, .position = 4, .ids = ids + 4, .n_ids = 1};
    fr_calls_tokens(f->c, f->b, &m); /* again */
    assert_int_equal(f->n_events, 2);
    assert_int_equal(f->last_position, 4);
    fr_calls_tokens(f->c, f->b, &m); /* by the same group: nothing new */
    assert_int_equal(f->n_events, 2);
    m = (fr_msg_tokens){.request = last(f)->request, .position = 5, .ids = ids + 5, .n_ids = 3};
    fr_calls_tokens(f->c, f->b, &m); /* one again, two new */
    assert_int_equal(f->n_events, 3);
    assert_int_equal(f->last_position, 5);
    assert_int_equal(f->last_n_ids, 3);
    m.request = old; /* a late one of the lost group */
    m.position = 8;
    fr_calls_tokens(f->c, f->a, &m);
    assert_int_equal(f->n_events, 3);
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

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(sends_the_rest_only),
        T(refuses_wrong_replies),
        T(refuses_wrong_verdicts_and_streams),
        T(refuses_numbers_that_are_none),
        T(sends_all_when_asked),
        T(streams_of_groups_are_not_joined),
        T(cancels_without_an_event),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
