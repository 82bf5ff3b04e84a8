/* test_policy_behaviour.c: what single policies do beyond what all hold: that speculation saves
 * passes, what is reported, and the pitfalls of other step-level systems. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

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

static models open_models(const fr_tokenizer *draft, uint64_t seed)
{
    models m = {0};
    assert_int_equal(models_open(&m, tiny, draft, seed), FR_OK);
    m.sure = 1;
    return m;
}

static sim_options options(const char *policy, const models *m)
{
    return (sim_options){
        .policy = fr_policy_find(policy),
        .models = m,
        .order = 1,
        .params = {.max_tokens = 200,
                   .step_tokens = 20,
                   .draft_tokens = 4,
                   .lookahead = 4,
                   .delimiter = "\n\n",
                   .threshold = NAN,
                   .max_context = 4096},
    };
}

static sim_result run(const sim_options *o)
{
    sim_result r = {0};
    if (sim_run(o, &r) != FR_OK)
        fail_msg("policy %s: %s", o->policy->name, fr_cause());
    return r;
}

static int chain_tokens(const sim_result *r)
{
    int n = 0;
    for (int i = 0; i < r->n_steps; i++)
        n += r->steps[i].accepted ? r->steps[i].n : 0;
    return n;
}

/* ---- target ---- */

/* Groups of other degrees may differ in a near-tie, or hold less: the chain must then be one that a
 * single call wrote to its end. */
static void a_call_repeated_otherwise(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 80; seed++) {
        models m = open_models(tiny, seed);
        sim_options o = options("target", &m);
        o.order = seed + 1;
        o.again = 60;
        o.changes_mind = seed < 40;
        o.ends_sooner = !o.changes_mind;
        sim_result r = run(&o);
        assert_true(r.last.len > r.ids.len);
        assert_memory_equal(r.ids.data, r.last.data + (r.last.len - r.ids.len),
                            r.ids.len * sizeof(int32_t));
        sim_result_free(&r);
        models_close(&m);
    }
}

/* ---- token ---- */

static void a_perfect_draft_saves_passes(void **state)
{
    (void)state;
    for (int overlap = 0; overlap < 2; overlap++) {
        models m = open_models(tiny, 4);
        m.agree = 100;
        m.ends = 0;
        sim_options o = options("token", &m);
        o.params.overlap = overlap;
        sim_result r = run(&o);
        int drafted = 0, kept = 0;
        for (int i = 0; i < r.n_steps; i++) {
            drafted += r.steps[i].drafted;
            kept += r.steps[i].kept;
        }
        assert_int_equal(chain_tokens(&r), 200);
        assert_int_equal(r.n_verify, 40); /* four drafted and one more each */
        assert_int_equal(r.most_drafted, 4);
        assert_int_equal(drafted, 160);
        assert_int_equal(kept, drafted);
        sim_result_free(&r);
        models_close(&m);
    }
}

/* What the draft wrote behind tokens that were then rejected, or behind a wrong guess, must not
 * be offered. */
/* A guess may be rough; the draft's own text, alone or as a step, may not. */
static void only_guesses_are_rough(void **state)
{
    (void)state;
    static const char *const policies[] = {"target", "draft", "token", "step"};
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        models m = open_models(tiny, 8);
        m.never_declines = 1;
        m.accepts = 100; /* no step has to be written by the target */
        sim_options o = options(policies[i], &m);
        sim_result r = run(&o);
        assert_true(r.n_draft_calls > 0 || i == 0);
        assert_int_equal(r.n_rough_calls, i == 2 ? r.n_draft_calls : 0);
        sim_result_free(&r);
        m.accepts = 0; /* every step has to be */
        r = run(&o);
        assert_true(i < 2 ? r.n_rough_calls == 0 : r.n_rough_calls > 0);
        assert_true(i != 3 || r.n_rough_calls < r.n_draft_calls);
        sim_result_free(&r);
        models_close(&m);
    }
}

static void every_draft_is_for_its_own_prefix(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 16; seed++) {
        models m = open_models(tiny, seed);
        m.sure = seed % 2 == 0;
        m.agree = 60 + (int)seed * 2;
        sim_options o = options("token", &m);
        o.order = seed + 1;
        o.drafts_only = 1;
        o.again = 100;
        o.params.overlap = 1;
        sim_result r = run(&o);
        assert_true(r.n_draft_calls > 0);
        sim_result_free(&r);
        models_close(&m);
    }
}

static void a_useless_draft_costs_no_passes(void **state)
{
    (void)state;
    models m = open_models(tiny, 4);
    m.agree = 0;
    m.ends = 0;
    sim_options o = options("token", &m);
    sim_result r = run(&o);
    assert_true(r.n_verify <= 200);
    sim_result_free(&r);
    models_close(&m);
}

static void n_grams_alone_save_passes(void **state)
{
    (void)state;
    models m = open_models(tiny, 5);
    m.repetitive = 1;
    m.ends = 0;
    sim_options o = options("token", &m);
    o.missing = 2000; /* no draft at all */
    sim_result r = run(&o);
    assert_int_equal(r.n_draft_calls, 0);
    assert_int_equal(chain_tokens(&r), 200);
    assert_true(r.n_verify < 150);
    sim_result_free(&r);
    models_close(&m);
}

/* ---- step ---- */

static void several_steps_are_judged_in_one_pass(void **state)
{
    (void)state;
    models m = open_models(tiny, 6);
    m.accepts = 100;
    m.never_declines = 1;
    m.ends = 0;
    sim_options o = options("step", &m);
    sim_result r = run(&o);
    assert_true(r.n_steps >= 10);
    assert_int_equal(r.n_verify, (r.n_steps + 3) / 4);
    assert_int_equal(r.n_probes, r.n_steps);
    for (int i = 0; i < r.n_steps; i++) {
        assert_int_equal(r.steps[i].origin, FR_ORIGIN_DRAFT);
        assert_true(r.steps[i].score >= 7);
        assert_int_equal(r.steps[i].kept, r.steps[i].n);
    }
    sim_result_free(&r);
    o.params.judge = "logprob";
    o.params.threshold = -100;
    r = run(&o);
    assert_int_equal(r.n_probes, 0);
    assert_int_equal(r.n_verify, (r.n_steps + 3) / 4);
    sim_result_free(&r);
    models_close(&m);
}

static void a_rejected_step_is_reported_then_rewritten(void **state)
{
    (void)state;
    models m = open_models(tiny, 7);
    m.accepts = 50;
    m.ends = 0;
    sim_options o = options("step", &m);
    sim_result r = run(&o);
    int rejected = 0, rewritten = 0;
    for (int i = 0; i < r.n_steps; i++) {
        const sim_step *s = &r.steps[i];
        rewritten += s->origin == FR_ORIGIN_REWRITTEN;
        if (s->accepted)
            continue;
        rejected++;
        assert_int_equal(s->origin, FR_ORIGIN_DRAFT);
        assert_true(s->score < 7);
        assert_int_equal(s->kept, 0);
        assert_true(i + 1 < r.n_steps && r.steps[i + 1].accepted);
        assert_int_equal(r.steps[i + 1].origin, FR_ORIGIN_REWRITTEN);
        assert_true(isnan(r.steps[i + 1].score));
    }
    assert_true(rejected > 2);
    assert_int_equal(rewritten, rejected);
    sim_result_free(&r);
    models_close(&m);
}

/* Rejecting everything leaves the target's own text, in its own words and steps. */
static void rejecting_everything_is_plain_decoding(void **state)
{
    (void)state;
    const fr_tokenizer *drafts[] = {tiny, other};
    for (int i = 0; i < 2; i++) {
        models m = open_models(drafts[i], 8);
        sim_result plain = {0};
        sim_options o = options("step", &m);
        o.params.threshold = 10;
        sim_result r = run(&o);
        assert_int_equal(sim_plain(&o, &plain), FR_OK);
        int n = 0;
        for (int k = 0; k < r.n_steps; k++) {
            if (!r.steps[k].accepted)
                continue;
            assert_true(n < plain.n_steps && plain.steps[n].n == r.steps[k].n);
            assert_memory_equal(plain.ids.data + plain.steps[n].from, r.ids.data + r.steps[k].from,
                                (size_t)r.steps[k].n * sizeof(int32_t));
            n++;
        }
        assert_int_equal(n, plain.n_steps);
        sim_result_free(&plain);
        sim_result_free(&r);
        models_close(&m);
    }
}

/* What the pass that rejected a step already said is not asked again. */
static void a_rejected_step_that_was_right_costs_nothing_more(void **state)
{
    (void)state;
    models m = open_models(tiny, 9);
    m.agree = 100;
    m.ends = 0;
    sim_options o = options("step", &m);
    o.params.threshold = 10;
    o.params.lookahead = 1;
    o.params.step_tokens = 0; /* a cut step shows its end only in the tokens behind it */
    sim_result r = run(&o);
    int rewritten = 0;
    for (int i = 0; i < r.n_steps; i++)
        rewritten += r.steps[i].accepted;
    assert_int_equal(r.n_verify, rewritten); /* one pass a step */
    sim_result_free(&r);
    models_close(&m);
}

static void a_draft_that_loops_is_not_trusted(void **state)
{
    (void)state;
    models m = open_models(tiny, 10);
    m.accepts = 100;
    m.never_declines = 1;
    m.loops = 1;
    m.ends = 0;
    sim_options o = options("step", &m);
    sim_result r = run(&o);
    int in_row = 0, own = 0;
    for (int i = 0; i < r.n_steps; i++) {
        in_row = r.steps[i].origin == FR_ORIGIN_DRAFT ? in_row + 1 : 0;
        own += r.steps[i].origin == FR_ORIGIN_TARGET;
        assert_true(in_row <= 3);
    }
    assert_true(own > 2);
    sim_result_free(&r);
    models_close(&m);
}

static void an_unfinished_step_at_the_cap_is_judged_like_any_other(void **state)
{
    (void)state;
    models m = open_models(tiny, 11);
    m.accepts = 60;
    m.ends = 0;
    sim_options o = options("step", &m);
    o.params.step_tokens = 6;
    sim_result r = run(&o);
    int kept = 0, rejected = 0;
    for (int i = 0; i < r.n_steps; i++) {
        assert_true(r.steps[i].n <= 6);
        if (r.steps[i].n == 6 && r.steps[i].origin == FR_ORIGIN_DRAFT)
            *(r.steps[i].accepted ? &kept : &rejected) += 1;
    }
    assert_true(kept > 2 && rejected > 2);
    sim_result_free(&r);
    models_close(&m);
}

/* A budget is of the chain, not of the drafts that were kept, and patience has nothing to do
 * with it. */
static void a_budget_is_of_the_whole_chain(void **state)
{
    (void)state;
    for (int accepts = 0; accepts <= 100; accepts += 50) {
        models m = open_models(tiny, 12);
        m.accepts = accepts;
        m.ends = 0;
        sim_options o = options("step", &m);
        o.params.max_tokens = 333;
        sim_result r = run(&o);
        assert_int_equal(chain_tokens(&r), 333);
        assert_string_equal(r.stop, "limit");
        sim_result_free(&r);
        models_close(&m);
    }
}

/* A drafted end is an end only if the step that holds it is accepted. */
static void an_end_token_is_judged_with_its_step(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        models m = open_models(tiny, seed);
        m.ends = 60;
        sim_options o = options("step", &m);
        sim_result r = run(&o);
        for (int i = 0; i < r.n_steps; i++) {
            int end =
                fr_tokenizer_is_end(tiny, r.ids.data[r.steps[i].from + (size_t)r.steps[i].n - 1]);
            assert_int_equal(end && r.steps[i].accepted,
                             i == r.n_steps - 1 && strcmp(r.stop, "end") == 0);
        }
        sim_result_free(&r);
        models_close(&m);
    }
}

/* The target writes the steps that no draft is there for, and only those. */
static void drafts_are_used_again_when_a_draft_is_back(void **state)
{
    (void)state;
    models m = open_models(tiny, 13);
    m.accepts = 100;
    m.never_declines = 1;
    m.ends = 0;
    sim_options o = options("step", &m);
    o.params.max_tokens = 600;
    o.missing = 400;
    sim_result r = run(&o);
    int own = 0, back = 0;
    for (int i = 0; i < r.n_steps; i++) {
        own += r.steps[i].origin == FR_ORIGIN_TARGET;
        back += i && r.steps[i].origin == FR_ORIGIN_DRAFT &&
                r.steps[i - 1].origin == FR_ORIGIN_TARGET;
    }
    assert_true(own > 2 && back > 2);
    assert_int_equal(chain_tokens(&r), 600);
    sim_result_free(&r);
    models_close(&m);
}

static void refused_parameters(void **state)
{
    (void)state;
    models m = open_models(tiny, 1);
    sim_result r = {0};
    sim_options o = options("step", &m);
    o.params.judge = "nonsense";
    assert_int_equal(sim_run(&o, &r), FR_EINVAL);
    assert_string_equal(fr_cause(),
                        "unknown judge \"nonsense\"; there are: score, score-mean, logprob");
    models_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_repeated_otherwise),
        cmocka_unit_test(a_perfect_draft_saves_passes),
        cmocka_unit_test(only_guesses_are_rough),
        cmocka_unit_test(every_draft_is_for_its_own_prefix),
        cmocka_unit_test(a_useless_draft_costs_no_passes),
        cmocka_unit_test(n_grams_alone_save_passes),
        cmocka_unit_test(several_steps_are_judged_in_one_pass),
        cmocka_unit_test(a_rejected_step_is_reported_then_rewritten),
        cmocka_unit_test(rejecting_everything_is_plain_decoding),
        cmocka_unit_test(a_rejected_step_that_was_right_costs_nothing_more),
        cmocka_unit_test(a_draft_that_loops_is_not_trusted),
        cmocka_unit_test(an_unfinished_step_at_the_cap_is_judged_like_any_other),
        cmocka_unit_test(a_budget_is_of_the_whole_chain),
        cmocka_unit_test(an_end_token_is_judged_with_its_step),
        cmocka_unit_test(drafts_are_used_again_when_a_draft_is_back),
        cmocka_unit_test(refused_parameters),
    };
    return cmocka_run_group_tests(tests, load_tokenizers, free_tokenizers);
}
