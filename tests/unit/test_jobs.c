/* test_jobs.c: which jobs run: in order, so many at once, past those that wait for a group that is
 * not there; which drafts they use; what a spec becomes, and what the target is asked; and every
 * allocation that can fail on the way in. The groups never answer, but where a test does for the
 * target. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "controller.h"
#include "fake_engine.h"
#include "fault_alloc.h"
#include "jobs.h"
#include "log.h"
#include "models.h"

typedef struct fixture {
    fr_tokenizer *t;
    fr_buf blob;
    fr_job_env env;
    fr_jobs *jobs;
    int n_sent, n_drafts; /* requests; those to draft groups */
    fr_msg_verify verify; /* the last one; its arrays are gone */
} fixture;

static fr_status on_send(void *ctx, const fr_group *g, const fr_msg *m)
{
    fixture *f = ctx;
    int is_request = m->kind == FR_MSG_GENERATE || m->kind == FR_MSG_VERIFY;
    f->n_sent += is_request;
    f->n_drafts += is_request && g->role == FR_ROLE_DRAFT;
    if (m->kind == FR_MSG_VERIFY)
        f->verify = m->body.verify;
    return FR_OK;
}

static void on_event(void *ctx, uint64_t job, const fr_policy_event *e)
{
    fixture *f = ctx;
    fr_job *j = fr_jobs_find(f->jobs, job);
    if (j)
        fr_job_event(j, e);
}

static void on_fail(void *ctx, uint64_t job, fr_status status, const char *cause)
{
    fixture *f = ctx;
    fr_job *j = fr_jobs_find(f->jobs, job);
    if (j)
        fr_job_end(j, FR_JOB_FAILED, status, cause);
}

static void on_lost(void *ctx, fr_group *g, const char *why)
{
    (void)ctx;
    (void)g;
    fail_msg("a group is lost: %s", why);
}

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    const fr_calls_host host = {
        .ctx = f, .send = on_send, .event = on_event, .fail = on_fail, .lost = on_lost};
    f->t = fake_tokenizer();
    assert_int_equal(fr_tokenizer_pack(f->t, &f->blob), FR_OK);
    f->env = (fr_job_env){.overlap = -1, .grace_s = 2};
    assert_int_equal(fr_registry_new(1000, 3000, 0, 0, &f->env.registry), FR_OK);
    assert_int_equal(fr_calls_new(f->env.registry, &host, 2, &f->env.calls), FR_OK);
    assert_int_equal(fr_store_open(NULL, &f->env.store), FR_OK);
    assert_int_equal(fr_jobs_open(&f->env, 2, 0, &f->jobs), FR_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    fr_jobs_close(&f->jobs);
    fr_store_close(&f->env.store);
    fr_calls_free(&f->env.calls);
    fr_registry_free(&f->env.registry);
    fr_buf_free(&f->blob);
    fr_tokenizer_free(&f->t);
    free(f);
    return 0;
}

static fr_group *add_group_with(fixture *f, uint8_t id, const char *role, const char *name,
                                uint64_t model, uint32_t context)
{
    fr_registered r;
    const fr_peer p = {.id = {id}, .len = 1};
    const fr_msg_register m = {.role = role,
                               .name = name,
                               .model_digest = model,
                               .model_name = name,
                               .backend = "b",
                               .tokenizer_digest = fr_tokenizer_digest(f->t),
                               .max_context = context};
    assert_int_equal(fr_registry_register(f->env.registry, 0, &p, &m, 1, &r), FR_OK);
    assert_int_equal(
        fr_registry_tokenizer(f->env.registry, r.group, (fr_bytes){f->blob.data, f->blob.len}),
        FR_OK);
    return r.group;
}

static fr_group *add_group(fixture *f, uint8_t id, const char *role, const char *name,
                           uint64_t model)
{
    return add_group_with(f, id, role, name, model, 1000);
}

static fr_msg_job_spec spec_of(const char *policy)
{
    return (fr_msg_job_spec){.problem = "What is 2 + 3?",
                             .system = "",
                             .policy = policy,
                             .judge = "",
                             .delimiter = "",
                             .name = "",
                             .threshold = NAN};
}

static uint64_t submit(fixture *f, const char *policy)
{
    const fr_msg_job_spec spec = spec_of(policy);
    uint64_t id = 0;
    assert_int_equal(fr_jobs_submit(f->jobs, &spec, 1, &id), FR_OK);
    return id;
}

static int runs(const fixture *f, uint64_t id)
{
    const fr_job *job = fr_jobs_find(f->jobs, id);
    return job && job->record.state == FR_JOB_RUNNING;
}

static const char *waits_for(const fixture *f, uint64_t id)
{
    return fr_jobs_find(f->jobs, id)->waits_for;
}

static void run_in_order(void **state)
{
    fixture *f = *state;
    uint64_t a = submit(f, "target"), b = submit(f, "target"), c = submit(f, "target");
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_int_equal(fr_jobs_running(f->jobs), 0);
    assert_string_equal(waits_for(f, c), "waiting for a target group");
    add_group(f, 1, "target", "t", 5);
    fr_jobs_turn(f->jobs, "held back", 1);
    assert_int_equal(fr_jobs_running(f->jobs), 0);
    assert_string_equal(waits_for(f, c), "held back");
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_true(runs(f, a) && runs(f, b) && !runs(f, c)); /* at most two */
    assert_string_equal(waits_for(f, c), "waiting for a running job to end");
    fr_calls_dispatch(f->env.calls, 1);
    assert_int_equal(f->n_sent, 2);
    fr_job_end(fr_jobs_find(f->jobs, a), FR_JOB_CANCELLED, FR_ECANCELLED, "test");
    assert_true(fr_jobs_deadline(f->jobs, 1) == 0);
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_null(fr_jobs_find(f->jobs, a));
    assert_true(runs(f, c));
    assert_true(isinf(fr_jobs_deadline(f->jobs, 1)));
}

static void pass_those_that_wait(void **state)
{
    fixture *f = *state;
    add_group(f, 1, "target", "t", 5);
    uint64_t step = submit(f, "step"), token = submit(f, "token"), target = submit(f, "target");
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_true(!runs(f, step) && !runs(f, token) && runs(f, target));
    assert_string_equal(waits_for(f, step), "waiting for a draft group");
    assert_true(fr_jobs_deadline(f->jobs, 1) == 3); /* the exact one can do without */
    fr_jobs_turn(f->jobs, NULL, 3);
    assert_true(!runs(f, step) && runs(f, token));
    assert_true(isinf(fr_jobs_deadline(f->jobs, 3)));
    fr_job_end(fr_jobs_find(f->jobs, target), FR_JOB_CANCELLED, FR_ECANCELLED, "test");
    add_group(f, 2, "draft", "d", 6);
    fr_jobs_turn(f->jobs, NULL, 4);
    assert_true(runs(f, step));
}

/* Groups come one by one when a cluster starts. */
static void wait_for_a_draft_from_the_first_target_on(void **state)
{
    fixture *f = *state;
    uint64_t token = submit(f, "token");
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_string_equal(waits_for(f, token), "waiting for a target group");
    assert_true(isinf(fr_jobs_deadline(f->jobs, 1)));
    fr_jobs_turn(f->jobs, "waiting for the store", 100); /* nor does it begin while nothing may */
    add_group(f, 1, "target", "t", 5);
    fr_jobs_turn(f->jobs, NULL, 100.5);
    assert_true(!runs(f, token));
    assert_string_equal(waits_for(f, token), "waiting for a draft group");
    assert_true(fr_jobs_deadline(f->jobs, 100.5) == 102);
    fr_jobs_turn(f->jobs, NULL, 102);
    assert_true(runs(f, token));
}

static void lose(fixture *f, fr_group *g)
{
    const uint32_t id = g->id;
    fr_registry_lose(f->env.registry, g, 2);
    fr_calls_group_lost(f->env.calls, id);
    fr_jobs_turn(f->jobs, NULL, 2);
}

/* The target's answer to the last verification: its own token is always the same. */
static void answer_verify(fixture *f, fr_group *target)
{
    static const float logprobs[FR_DRAFT_MAX];
    int32_t own[FR_DRAFT_MAX + 1];
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        own[i] = 20;
    const fr_msg_verify *v = &f->verify;
    const size_t n_drafted = v->prefix.start + v->prefix.n_tokens - v->position;
    const fr_msg_verified m = {.request = v->request,
                               .position = v->position,
                               .own = own,
                               .n_own = n_drafted + 1,
                               .drafted_logprobs = logprobs,
                               .n_drafted_logprobs = n_drafted,
                               .passes = 1};
    fr_calls_verified(f->env.calls, target, &m);
    fr_calls_dispatch(f->env.calls, 10);
}

/* The first draft group may come late, and another one may take its place; but its ids must be the target's. */
static void use_drafts_of_their_tokenizer(void **state)
{
    fixture *f = *state;
    fr_msg_job_spec spec = spec_of("token");
    uint64_t id = 0;
    spec.step_tokens = 1; /* a draft that was missed is asked for again at the next step */
    fr_group *t = add_group(f, 1, "target", "t", 5);
    assert_int_equal(fr_jobs_submit(f->jobs, &spec, 1, &id), FR_OK);
    fr_jobs_turn(f->jobs, NULL, 3);
    assert_true(runs(f, id));
    fr_calls_dispatch(f->env.calls, 10);
    answer_verify(f, t);
    assert_int_equal(f->n_drafts, 0);
    fr_group *d = add_group(f, 2, "draft", "d", 6);
    d->tokenizer_digest++;
    answer_verify(f, t);
    assert_int_equal(f->n_drafts, 0);
    d->tokenizer_digest--;
    answer_verify(f, t);
    assert_int_equal(f->n_drafts, 1);
    lose(f, d);
    add_group(f, 2, "draft", "d", 66);
    fr_calls_dispatch(f->env.calls, 10); /* the call to the lost one fails; the target is asked */
    fr_calls_dispatch(f->env.calls, 10);
    answer_verify(f, t);
    assert_int_equal(f->n_drafts, 2);
}

static void end_when_their_model_is_replaced(void **state)
{
    fixture *f = *state;
    fr_group *old = add_group(f, 1, "target", "t", 5);
    uint64_t id = submit(f, "target");
    fr_jobs_turn(f->jobs, NULL, 1);
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_string_equal(waits_for(f, id), "");
    uint32_t group = old->id;
    fr_registry_lose(f->env.registry, old, 2);
    fr_calls_group_lost(f->env.calls, group);
    fr_jobs_turn(f->jobs, NULL, 2);
    assert_true(runs(f, id));
    assert_string_equal(waits_for(f, id), "waiting for a target group");
    add_group(f, 1, "target", "t", 55);
    fr_jobs_turn(f->jobs, NULL, 2);
    assert_null(fr_jobs_find(f->jobs, id));
}

static void tell_which_group_they_lack(void **state)
{
    fixture *f = *state;
    fr_group *t = add_group(f, 1, "target", "t", 5), *d = add_group(f, 2, "draft", "d", 6);
    uint64_t draft = submit(f, "draft"), token = submit(f, "token");
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_true(runs(f, draft) && runs(f, token));
    lose(f, d);
    assert_string_equal(waits_for(f, draft), "waiting for a draft group");
    assert_string_equal(waits_for(f, token), "");
    lose(f, t);
    assert_string_equal(waits_for(f, draft), "waiting for a draft group");
    assert_string_equal(waits_for(f, token), "waiting for a target group");
}

/* More context changes nothing, less could end the text sooner. The draft of an exact job is none of that. */
static void end_when_their_context_shrinks(void **state)
{
    fixture *f = *state;
    fr_group *t = add_group(f, 1, "target", "t", 5), *d = add_group(f, 2, "draft", "d", 6);
    uint64_t draft = submit(f, "draft"), token = submit(f, "token");
    fr_jobs_turn(f->jobs, NULL, 1);
    lose(f, t);
    lose(f, d);
    t = add_group_with(f, 1, "target", "t", 5, 2000);
    d = add_group_with(f, 2, "draft", "d", 6, 2000);
    fr_jobs_turn(f->jobs, NULL, 2);
    assert_true(runs(f, draft) && runs(f, token));
    lose(f, d);
    add_group_with(f, 2, "draft", "d", 6, 999);
    fr_jobs_turn(f->jobs, NULL, 2);
    assert_true(!runs(f, draft) && runs(f, token));
    lose(f, t);
    add_group_with(f, 1, "target", "t", 5, 999);
    fr_jobs_turn(f->jobs, NULL, 2);
    assert_true(!runs(f, token));
}

/* Behind as many as may run: that, and the group that would be lacking then too. */
static void tell_both_reasons(void **state)
{
    fixture *f = *state;
    fr_group *t = add_group(f, 1, "target", "t", 5);
    for (int i = 0; i < 2; i++)
        submit(f, "target");
    uint64_t step = submit(f, "step"), token = submit(f, "token");
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_int_equal(fr_jobs_running(f->jobs), 2);
    assert_string_equal(waits_for(f, step), "waiting for a running job to end and for a draft group");
    assert_string_equal(waits_for(f, token), "waiting for a running job to end and for a draft group");
    fr_jobs_turn(f->jobs, NULL, 3);
    assert_string_equal(waits_for(f, token), "waiting for a running job to end"); /* it goes on without */
    fr_jobs_turn(f->jobs, "held back", 3);
    assert_string_equal(waits_for(f, step), "held back");
    lose(f, t);
    assert_string_equal(waits_for(f, step), "waiting for a running job to end and for a target group");
    add_group(f, 1, "target", "t", 5);
    add_group(f, 2, "draft", "d", 6);
    fr_jobs_turn(f->jobs, NULL, 4);
    assert_string_equal(waits_for(f, step), "waiting for a running job to end");
}

static void get_their_defaults(void **state)
{
    fixture *f = *state;
    const fr_job *job = fr_jobs_find(f->jobs, submit(f, ""));
    const fr_msg_job_spec *s = &job->record.spec;
    assert_string_equal(s->policy, "target");
    assert_string_equal(s->judge, "score");
    assert_string_equal(s->delimiter, "\n\n");
    assert_true(s->sampling.top_p == 1.0f);
    assert_true(s->max_tokens > 0 && s->step_tokens > 0 && s->draft_tokens > 0 && s->lookahead > 0);
}

/* ---- prompts */

static uint64_t submit_spec(fixture *f, const fr_msg_job_spec *spec)
{
    uint64_t id = 0;
    assert_int_equal(fr_jobs_submit(f->jobs, spec, 1, &id), FR_OK);
    return id;
}

static uint64_t submit_with_defaults(fixture *f)
{
    fr_msg_job_spec spec = spec_of("target");
    spec.system = "not read";
    spec.default_system = spec.default_suffix = 1;
    return submit_spec(f, &spec);
}

static uint64_t submit_with_texts(fixture *f, const char *system, const char *problem)
{
    fr_msg_job_spec spec = spec_of("target");
    spec.system = system;
    spec.problem = problem;
    return submit_spec(f, &spec);
}

static void assert_asks(const fixture *f, uint64_t id, const char *system, const char *problem)
{
    assert_true(runs(f, id));
    const fr_chain *chain = &fr_jobs_find(f->jobs, id)->chain;
    fr_ids want = {0};
    assert_int_equal(fr_chat_tokenize_prompt(f->t, fr_tokenizer_chat_style(f->t), system, problem, &want), FR_OK);
    assert_int_equal(chain->prompt_len, want.len);
    assert_memory_equal(chain->ids.data, want.data, want.len * sizeof *want.data);
    fr_ids_free(&want);
}

#define GENERAL_SYSTEM "You are a helpful assistant."
#define GENERAL_SUFFIX                                                                                                 \
    " Please reason step by step, separate reasoning steps with two newlines, and put your final answer within "       \
    "\\boxed{}."

static void cancel(fixture *f, uint64_t id)
{
    fr_job_end(fr_jobs_find(f->jobs, id), FR_JOB_CANCELLED, FR_ECANCELLED, "test");
}

/* A fixture's groups are of the embedded pair until this; a real model has another tokenizer. */
static void use_another_tokenizer(fixture *f)
{
    fr_tokenizer_free(&f->t);
    fr_buf_free(&f->blob);
    assert_int_equal(models_other_tokenizer(&f->t), FR_OK);
    assert_int_equal(fr_tokenizer_pack(f->t, &f->blob), FR_OK);
}

/* Whether it was submitted before its target came or after. */
static void ask_as_the_target_wants(void **state)
{
    static const char *const prompts[][2] = {{NULL, "What is 2 + 3?"},
                                             {GENERAL_SYSTEM, "What is 2 + 3?" GENERAL_SUFFIX}};
    fixture *f = *state;
    for (uint64_t i = 0; i < 2; i++) {
        const uint64_t before = submit_with_defaults(f);
        fr_group *target = add_group(f, 1, "target", "t", 5 + i);
        const uint64_t after = submit_with_defaults(f);
        fr_jobs_turn(f->jobs, NULL, 1);
        assert_asks(f, before, prompts[i][0], prompts[i][1]);
        assert_asks(f, after, prompts[i][0], prompts[i][1]);
        cancel(f, before);
        cancel(f, after);
        lose(f, target);
        use_another_tokenizer(f);
    }
}

/* What the client says it says; the other of the two is still the model's. */
static void ask_as_the_client_wants(void **state)
{
    fixture *f = *state;
    use_another_tokenizer(f);
    add_group(f, 1, "target", "t", 5);
    const uint64_t none = submit_with_texts(f, "", "2 + 3?"), both = submit_with_texts(f, "Be brief.", "2 + 3? Now.");
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_asks(f, none, NULL, "2 + 3?");
    assert_asks(f, both, "Be brief.", "2 + 3? Now.");
    cancel(f, none);
    cancel(f, both);
    fr_msg_job_spec spec = spec_of("target");
    spec.default_system = 1;
    const uint64_t own_suffix = submit_spec(f, &spec);
    spec = spec_of("target");
    spec.system = "Be brief.";
    spec.default_suffix = 1;
    const uint64_t own_system = submit_spec(f, &spec);
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_asks(f, own_suffix, GENERAL_SYSTEM, "What is 2 + 3?");
    assert_asks(f, own_system, "Be brief.", "What is 2 + 3?" GENERAL_SUFFIX);
}

static void ask_no_more_than_a_raw_problem(void **state)
{
    fixture *f = *state;
    use_another_tokenizer(f);
    add_group(f, 1, "target", "t", 5);
    fr_msg_job_spec spec = spec_of("target");
    spec.raw = spec.default_system = spec.default_suffix = 1;
    const uint64_t id = submit_spec(f, &spec);
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_true(runs(f, id));
    const fr_chain *chain = &fr_jobs_find(f->jobs, id)->chain;
    fr_ids want = {0};
    assert_int_equal(fr_tokenize_prompt(f->t, spec.problem, strlen(spec.problem), &want), FR_OK);
    assert_int_equal(chain->prompt_len, want.len);
    assert_memory_equal(chain->ids.data, want.data, want.len * sizeof *want.data);
    fr_ids_free(&want);
}

/* Of a job that had begun, and of one that was queued; with other files of the same model. */
static void ask_the_same_after_a_restart(void **state)
{
    fixture *f = *state;
    use_another_tokenizer(f);
    const uint64_t begun = submit_with_defaults(f);
    fr_group *target = add_group(f, 1, "target", "t", 5);
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_asks(f, begun, GENERAL_SYSTEM, "What is 2 + 3?" GENERAL_SUFFIX);
    lose(f, target);
    const uint64_t queued = submit_with_defaults(f);
    assert_int_equal(fr_store_flush(f->env.store), FR_OK);
    fr_jobs_close(&f->jobs);
    assert_int_equal(fr_jobs_open(&f->env, 2, 0, &f->jobs), FR_OK);
    fr_jobs_turn(f->jobs, NULL, 2);
    assert_true(!runs(f, begun) && !runs(f, queued));
    add_group(f, 1, "target", "tiny-target", 5);
    fr_jobs_turn(f->jobs, NULL, 2);
    assert_asks(f, begun, GENERAL_SYSTEM, "What is 2 + 3?" GENERAL_SUFFIX);
    assert_asks(f, queued, GENERAL_SYSTEM, "What is 2 + 3?" GENERAL_SUFFIX);
}

/* One that had begun goes on beside a draft group that it cannot use, as if that had come while it ran; one that had
 * not is told. */
static void go_on_beside_another_tokenizer(void **state)
{
    fixture *f = *state;
    fr_group *target = add_group(f, 1, "target", "t", 5), *draft = add_group(f, 2, "draft", "d", 6);
    const uint64_t begun = submit(f, "token");
    fr_jobs_turn(f->jobs, NULL, 1);
    assert_true(runs(f, begun));
    lose(f, target);
    const uint64_t queued = submit(f, "token");
    assert_int_equal(fr_store_flush(f->env.store), FR_OK);
    fr_jobs_close(&f->jobs);
    assert_int_equal(fr_jobs_open(&f->env, 2, 0, &f->jobs), FR_OK);
    add_group(f, 1, "target", "t", 5);
    draft->tokenizer_digest++;
    fr_jobs_turn(f->jobs, NULL, 2);
    assert_true(runs(f, begun));
    assert_null(fr_jobs_find(f->jobs, queued)); /* it is over */
}

static void every_allocation_may_fail(void **state)
{
    fixture *f = *state;
    add_group(f, 1, "target", "t", 5);
    for (long n = 0; n < 2000; n++) {
        fr_msg_job_spec spec = spec_of("target");
        spec.default_system = spec.default_suffix = 1;
        uint64_t id = 0;
        fr_fault_alloc_arm(n);
        fr_status st = fr_jobs_submit(f->jobs, &spec, 1, &id);
        int submitted = st == FR_OK;
        if (submitted) {
            fr_jobs_turn(f->jobs, NULL, 1);
            fr_calls_dispatch(f->env.calls, 1);
        }
        int failed = fr_fault_alloc_disarm();
        if (!submitted)
            assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        fr_job *job = fr_jobs_find(f->jobs, id);
        if (job)
            fr_job_end(job, FR_JOB_CANCELLED, FR_ECANCELLED, "test");
        fr_jobs_turn(f->jobs, NULL, 1); /* lets go of it */
        assert_int_equal(fr_jobs_running(f->jobs) + fr_jobs_queued(f->jobs), 0);
        assert_int_equal(fr_calls_count(f->env.calls), 0);
        assert_int_equal(fr_store_flush(f->env.store), FR_OK);
        if (!failed)
            return;
    }
    fail_msg("there is no end of allocations");
}

int main(void)
{
    fr_log_open("test_jobs", FR_LOG_ERROR);
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(run_in_order),       T(pass_those_that_wait),      T(end_when_their_model_is_replaced),
        T(wait_for_a_draft_from_the_first_target_on), T(use_drafts_of_their_tokenizer),
        T(end_when_their_context_shrinks),
        T(tell_which_group_they_lack), T(tell_both_reasons),
        T(get_their_defaults), T(ask_as_the_target_wants),   T(ask_as_the_client_wants),
        T(ask_no_more_than_a_raw_problem), T(ask_the_same_after_a_restart),
        T(go_on_beside_another_tokenizer), T(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
