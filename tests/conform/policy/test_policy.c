/* test_policy.c: what every policy in the table must hold, over simulated engines
 * (simulation.h).
 *
 * exact policies: the chain is the target's plain chain, token for token, cut into the same
 * steps. The others: the chain is a pure function of models, prompt, parameters: the same for
 * every lookahead, with and without overlap, in whatever order replies come, and from every
 * committed step on. What the draft writes roughly decides neither. All: limits hold, one finish,
 * no call left open. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fault_alloc.h"
#include "simulation.h"

static fr_tokenizer *tiny, *other;

static int load_tokenizers(void **state)
{
    (void)state;
    return models_tiny_tokenizer(&tiny) != FR_OK || models_other_tokenizer(&other) != FR_OK;
}

static int free_tokenizers(void **state)
{
    (void)state;
    fr_tokenizer_free(&tiny);
    fr_tokenizer_free(&other);
    return 0;
}

static sim_options options(const fr_policy_ops *policy, const models *m, uint64_t order)
{
    return (sim_options){
        .policy = policy,
        .models = m,
        .order = order + 1,
        .params = {.max_tokens = 120,
                   .step_tokens = 20,
                   .draft_tokens = 4,
                   .lookahead = 3,
                   .overlap = 1,
                   .delimiter = "\n\n",
                   .threshold = NAN,
                   .max_context = 4096},
    };
}

static void run_ok(const sim_options *o, sim_result *out)
{
    if (sim_run(o, out) != FR_OK)
        fail_msg("policy %s, order %llu: %s", o->policy->name, (unsigned long long)o->order,
                 fr_cause());
}

/* b's steps are a's from number `skip` on. Scores and rejected steps are compared too, unless
 * exact only the chain. */
static void assert_same_steps(const sim_options *o, const sim_result *a, int skip,
                              const sim_result *b, int chain_only)
{
    int j = skip;
    char what[160];
    snprintf(what, sizeof what, "policy %s, seed %llu, order %llu", o->policy->name,
             (unsigned long long)o->models->seed, (unsigned long long)o->order);
    for (int i = 0; i < b->n_steps; i++, j++) {
        if (j >= a->n_steps)
            fail_msg("%s: more than %d steps", what, a->n_steps);
        const sim_step *x = &a->steps[j], *y = &b->steps[i];
        int same = x->n == y->n && x->accepted == y->accepted &&
                   memcmp(a->ids.data + x->from, b->ids.data + y->from,
                          (size_t)x->n * sizeof(int32_t)) == 0;
        if (!chain_only)
            same = same && x->origin == y->origin &&
                   (x->score == y->score || (isnan(x->score) && isnan(y->score)));
        if (!same)
            fail_msg("%s: step %d differs (%d tokens, accepted %d against %d, %d)", what, j, x->n,
                     x->accepted, y->n, y->accepted);
    }
    if (j != a->n_steps)
        fail_msg("%s: %d steps, want %d", what, j, a->n_steps);
    if (strcmp(a->stop, b->stop) != 0)
        fail_msg("%s: stopped by %s, want %s", what, b->stop, a->stop);
}

/* The index in r->steps behind its n-th accepted step. */
static int behind_accepted(const sim_result *r, int n)
{
    int i = 0;
    for (; n > 0; i++)
        n -= r->steps[i].accepted;
    return i;
}

static int count_accepted(const sim_result *r)
{
    int n = 0;
    for (int i = 0; i < r->n_steps; i++)
        n += r->steps[i].accepted;
    return n;
}

/* ---- exact policies ---- */

static void check_exact(const sim_options *o, const sim_result *plain)
{
    sim_result got = {0};
    run_ok(o, &got);
    assert_same_steps(o, plain, 0, &got, 1);
    sim_result_free(&got);
}

static void vary_exact(const fr_policy_ops *policy, const models *m)
{
    sim_options o = options(policy, m, m->seed);
    sim_result plain = {0};
    o.params.max_tokens = 40 + (int)(m->seed * 37 % 100);
    o.params.step_tokens = m->seed % 3 ? 24 : 3;
    o.params.max_context = m->seed % 4 ? 4096 : 100;
    o.again = 50;
    assert_int_equal(sim_plain(&o, &plain), FR_OK);
    for (int k = 0; k <= 16; k++) {
        o.params.draft_tokens = k;
        o.params.overlap = (k + (int)m->seed) % 2;
        o.order = m->seed * 100 + (uint64_t)k + 1;
        o.slow_draft = k % 3 * 45;
        o.missing = k % 4 == 3 ? 200 : 0;
        o.rough_errors = k % 5 * 100;
        o.times = k % 2;
        check_exact(&o, &plain);
    }
    sim_result_free(&plain);
}

static void exact_policies_equal_plain_decoding(void **state)
{
    (void)state;
    static const int agreements[] = {0, 50, 90, 100};
    for (const fr_policy_ops *const *p = fr_policy_all(); *p; p++) {
        for (uint64_t seed = 0; (*p)->exact && seed < 32; seed++) {
            models m = {0};
            assert_int_equal(models_open(&m, tiny, tiny, seed), FR_OK);
            m.agree = agreements[seed % 4];
            m.repetitive = seed / 4 % 2 == 1;
            m.ends = seed % 5 ? 12 : 0;
            vary_exact(*p, &m);
            models_close(&m);
        }
    }
}

static void exact_policies_resume_from_every_step(void **state)
{
    (void)state;
    for (const fr_policy_ops *const *p = fr_policy_all(); *p; p++) {
        for (uint64_t seed = 0; (*p)->exact && seed < 8; seed++) {
            models m = {0};
            sim_result plain = {0}, rest = {0};
            assert_int_equal(models_open(&m, tiny, tiny, seed), FR_OK);
            m.repetitive = seed % 2 == 1;
            sim_options o = options(*p, &m, seed);
            assert_int_equal(sim_plain(&o, &plain), FR_OK);
            o.resume = &plain;
            for (o.resume_steps = 0; o.resume_steps <= plain.n_steps; o.resume_steps++) {
                o.order++;
                run_ok(&o, &rest);
                assert_same_steps(&o, &plain, o.resume_steps, &rest, 1);
                sim_result_free(&rest);
            }
            sim_result_free(&plain);
            models_close(&m);
        }
    }
}

/* ---- the others ---- */

static void vary_order(const sim_options *base, const sim_result *want)
{
    sim_result got = {0};
    for (int i = 1; i <= 16; i++) {
        sim_options o = *base;
        o.order = base->order * 1000 + (uint64_t)i;
        o.params.lookahead = (i + 1) / 2;
        o.params.overlap = i % 2;
        o.params.draft_tokens = i;
        o.slow_draft = i % 4 * 30;
        o.rough_errors = i % 5 * 100;
        o.again = 50;
        run_ok(&o, &got);
        assert_same_steps(&o, want, 0, &got, 0);
        sim_result_free(&got);
    }
}

static void resume_everywhere(const sim_options *base, const sim_result *want)
{
    sim_options o = *base;
    sim_result got = {0};
    int n = count_accepted(want);
    o.resume = want;
    for (o.resume_steps = 0; o.resume_steps <= n; o.resume_steps++) {
        o.order++;
        o.params.lookahead = 1 + o.resume_steps % 5;
        run_ok(&o, &got);
        /* Rejected steps behind the last accepted one are drafted, and rejected, again. */
        assert_same_steps(&o, want, behind_accepted(want, o.resume_steps), &got, 0);
        sim_result_free(&got);
    }
}

static void check_pure(const fr_policy_ops *policy, const fr_tokenizer *draft, const char *judge,
                       uint64_t seed)
{
    static const int accepts[] = {60, 20, 95, 0};
    models m = {0};
    sim_result want = {0};
    assert_int_equal(models_open(&m, tiny, draft, seed), FR_OK);
    m.accepts = accepts[seed % 4];
    m.ends = seed % 3 ? 10 : 0;
    sim_options o = options(policy, &m, seed);
    o.params.judge = judge;
    o.params.threshold = strcmp(judge, "score-mean") == 0 ? 5.5 : NAN;
    o.params.max_tokens = seed % 5 == 4 ? 61 : 120;
    o.params.step_tokens = seed % 4 == 3 ? 5 : 20;
    o.params.max_context = seed % 6 == 5 ? 130 : 4096;
    o.params.lookahead = 1;
    o.params.overlap = 0;
    run_ok(&o, &want);
    vary_order(&o, &want);
    resume_everywhere(&o, &want);
    sim_result_free(&want);
    models_close(&m);
}

static void other_policies_are_pure_functions_of_the_chain(void **state)
{
    (void)state;
    static const char *const judges[] = {"score", "score-mean", "logprob"};
    for (const fr_policy_ops *const *p = fr_policy_all(); *p; p++) {
        for (uint64_t seed = 0; !(*p)->exact && seed < 24; seed++) {
            check_pure(*p, tiny, judges[seed % 3], seed);
            if (!(*p)->needs_same_tokenizer)
                check_pure(*p, other, judges[seed % 3], seed);
        }
    }
}

/* ---- all ---- */

static void limits_hold_for_any_depth(void **state)
{
    (void)state;
    for (const fr_policy_ops *const *p = fr_policy_all(); *p; p++) {
        models m = {0};
        sim_result got = {0};
        assert_int_equal(models_open(&m, tiny, (*p)->needs_same_tokenizer ? tiny : other, 5),
                         FR_OK);
        m.ends = 0;
        m.agree = 100;
        m.accepts = 100;
        for (int i = 0; i < 120; i++) {
            sim_options o = options(*p, &m, (uint64_t)i);
            o.params.max_tokens = 1 + i % 13;
            o.params.draft_tokens = 1 + i % 17 * 5;
            o.params.lookahead = 1 + i % 8;
            o.params.step_tokens = 1 + i % 11;
            o.params.max_context = 40 + i % 50;
            o.params.delimiter = i % 7 ? "\n\n" : "";
            run_ok(&o, &got); /* the simulation asserts the limits */
            assert_true(strcmp(got.stop, "limit") == 0 || strcmp(got.stop, "context") == 0);
            sim_result_free(&got);
        }
        models_close(&m);
    }
}

static void a_full_context_finishes_at_once(void **state)
{
    (void)state;
    for (const fr_policy_ops *const *p = fr_policy_all(); *p; p++) {
        models m = {0};
        sim_result got = {0};
        assert_int_equal(models_open(&m, tiny, tiny, 1), FR_OK);
        sim_options o = options(*p, &m, 1);
        o.params.max_context = 1;
        run_ok(&o, &got);
        assert_string_equal(got.stop, "context");
        assert_int_equal(got.n_steps, 0);
        models_close(&m);
        sim_result_free(&got);
    }
}

static void closing_in_mid_flight_is_clean(void **state)
{
    (void)state;
    for (const fr_policy_ops *const *p = fr_policy_all(); *p; p++) {
        models m = {0};
        sim_result got = {0};
        assert_int_equal(models_open(&m, tiny, tiny, 3), FR_OK);
        for (int n = 1; n < 60; n++) {
            sim_options o = options(*p, &m, (uint64_t)n);
            o.close_after = n;
            run_ok(&o, &got);
            sim_result_free(&got);
        }
        models_close(&m);
    }
}

static void a_failed_target_is_an_error_never_a_rejection(void **state)
{
    (void)state;
    for (const fr_policy_ops *const *p = fr_policy_all(); *p; p++) {
        models m = {0};
        sim_result got = {0}, whole = {0};
        assert_int_equal(models_open(&m, tiny, tiny, 11), FR_OK);
        sim_options o = options(*p, &m, 0);
        run_ok(&o, &whole);
        int replies = strcmp((*p)->name, "target") == 0 ? 1 : whole.n_verify;
        for (o.bad_target = 1; o.bad_target <= replies; o.bad_target++) {
            assert_int_equal(sim_run(&o, &got), FR_EIO);
            assert_string_equal(fr_cause(), "the target failed");
            assert_true(got.n_steps <= whole.n_steps);
            sim_result_free(&got);
        }
        sim_result_free(&whole);
        models_close(&m);
    }
}

/* With no draft in sight: a policy that can do without goes on, one that is only the draft says
 * so. */
static void a_missing_draft(void **state)
{
    (void)state;
    for (const fr_policy_ops *const *p = fr_policy_all(); *p; p++) {
        for (int missing = 100; missing <= 2000; missing += 190) {
            models m = {0};
            sim_result got = {0};
            assert_int_equal(models_open(&m, tiny, tiny, (uint64_t)missing), FR_OK);
            sim_options o = options(*p, &m, (uint64_t)missing);
            o.missing = missing;
            fr_status st = sim_run(&o, &got);
            if (strcmp((*p)->name, "draft") == 0)
                assert_true(st == FR_EUNAVAILABLE || (st == FR_OK && missing < 2000));
            else
                assert_int_equal(st, FR_OK);
            sim_result_free(&got);
            models_close(&m);
        }
    }
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    for (const fr_policy_ops *const *p = fr_policy_all(); *p; p++) {
        models m = {0};
        sim_result got = {0};
        assert_int_equal(models_open(&m, tiny, (*p)->needs_same_tokenizer ? tiny : other, 2),
                         FR_OK);
        sim_options o = options(*p, &m, 2);
        o.params.max_tokens = 24;
        o.params.step_tokens = 8;
        long n = 0;
        for (bool failed = true; failed; n++) {
            fr_fault_alloc_arm(n);
            fr_status st = sim_run(&o, &got);
            failed = fr_fault_alloc_disarm();
            assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
            sim_result_free(&got);
        }
        assert_true(n > 10);
        models_close(&m);
    }
}

static void the_table_names_its_policies(void **state)
{
    (void)state;
    char names[256] = "";
    for (const fr_policy_ops *const *p = fr_policy_all(); *p; p++) {
        assert_ptr_equal(fr_policy_find((*p)->name), *p);
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", *names ? ", " : "",
                 (*p)->name);
    }
    assert_string_equal(names, fr_policy_names());
    assert_null(fr_policy_find("nonsense"));
    assert_string_equal(fr_origin_name(FR_ORIGIN_REWRITTEN), "rewritten");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_names_its_policies),
        cmocka_unit_test(exact_policies_equal_plain_decoding),
        cmocka_unit_test(exact_policies_resume_from_every_step),
        cmocka_unit_test(other_policies_are_pure_functions_of_the_chain),
        cmocka_unit_test(limits_hold_for_any_depth),
        cmocka_unit_test(a_full_context_finishes_at_once),
        cmocka_unit_test(closing_in_mid_flight_is_clean),
        cmocka_unit_test(a_failed_target_is_an_error_never_a_rejection),
        cmocka_unit_test(a_missing_draft),
        cmocka_unit_test(every_failed_allocation_is_reported),
    };
    return cmocka_run_group_tests(tests, load_tokenizers, free_tokenizers);
}
