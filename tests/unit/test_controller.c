/* test_controller.c: how far to draft, against replies of engines whose costs are known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "controller.h"

typedef struct engines {
    /* seconds of a verification without rows, of a row, of a drafted token */
    double pass, row, draft;
} engines;

/* One round: n drafted tokens of probability p, the first `kept` of which the target keeps. */
static void round_of(fr_controller *c, const engines *e, int n, double p, int kept)
{
    fr_controller_drafted(c, &(fr_msg_generated){.n_ids = (size_t)n,
                                                 .passes = (uint32_t)n,
                                                 .rows = (uint32_t)n + 1,
                                                 .seconds = e->draft * n});
    for (int i = 0; i < n && i <= kept; i++)
        fr_controller_judged(c, (float)log(p), i < kept);
    fr_controller_verified(c,
                           &(fr_msg_verified){.n_own = (size_t)n + 1,
                                              .passes = 1,
                                              .rows = (uint32_t)n + 1,
                                              .seconds = e->pass + e->row * (n + 1)},
                           kept + 1);
}

/* The floor after many rounds of 1 to 6 drafted tokens, four of five of them kept, as promised. */
static double floor_with(const engines *e, double p)
{
    fr_controller c;
    fr_controller_init(&c);
    for (int i = 0; i < 300; i++) {
        int n = 1 + i % 6, kept = 0;
        while (kept < n && (i * 7 + kept * 3) % 5 != 0)
            kept++;
        round_of(&c, e, n, p, kept);
    }
    return fr_controller_floor(&c, 6);
}

static void begins_with_a_guess(void **state)
{
    (void)state;
    fr_controller c;
    fr_controller_init(&c);
    assert_true(fr_controller_floor(&c, 6) < -0.5 && fr_controller_floor(&c, 6) > -2);
    assert_in_range(fr_controller_match_len(&c, 16), 4, 16);
}

static void a_dear_draft_stops_sooner(void **state)
{
    (void)state;
    double cheap = floor_with(&(engines){.pass = 0.040, .row = 0.001, .draft = 0.002}, 0.8);
    double middle = floor_with(&(engines){.pass = 0.040, .row = 0.001, .draft = 0.010}, 0.8);
    double dear = floor_with(&(engines){.pass = 0.040, .row = 0.001, .draft = 0.030}, 0.8);
    assert_true(cheap < middle && middle < dear && dear < 0);
    /* Rows count too. */
    double wide = floor_with(&(engines){.pass = 0.040, .row = 0.008, .draft = 0.010}, 0.8);
    assert_true(middle < wide);
}

/* Passes that cost the same up to 8 rows, then each row its part: no more than those 8 are used. */
static void the_knee_of_the_costs_is_found(void **state)
{
    (void)state;
    fr_controller c;
    fr_controller_init(&c);
    assert_in_range(fr_controller_depth(&c, 16), 2, 8);
    for (int i = 0; i < 200; i++) {
        int n = fr_controller_depth(&c, 16);
        const engines e = {.pass = n < 8 ? 0.040 : 0.005 * (n + 1), .draft = 0.002};
        round_of(&c, &e, n, 0.95, i % 5 ? n : n / 2);
    }
    assert_in_range(fr_controller_depth(&c, 16), 5, 7);
    assert_int_equal(fr_controller_depth(&c, 3), 3);
    assert_int_equal(fr_controller_depth(&c, 1), 1);
    for (int i = 0; i < 200; i++) { /* the other jobs are gone, or another group has taken over */
        int n = fr_controller_depth(&c, 16);
        const engines e = {.pass = 0.040, .draft = 0.0005};
        round_of(&c, &e, n, 0.95, i % 5 ? n : n / 2);
    }
    assert_in_range(fr_controller_depth(&c, 16), 12, 16);
}

static void only_ratios_of_times_count(void **state)
{
    (void)state;
    double ms = floor_with(&(engines){.pass = 0.040, .row = 0.001, .draft = 0.010}, 0.8);
    double us = floor_with(&(engines){.pass = 40e-6, .row = 1e-6, .draft = 10e-6}, 0.8);
    assert_true(fabs(ms - us) < 1e-3);
}

/* At a temperature a draft's tokens are kept more often than their probabilities say. */
static void a_modest_draft_is_believed_more(void **state)
{
    (void)state;
    const engines e = {.pass = 0.040, .row = 0.001, .draft = 0.010};
    assert_true(floor_with(&e, 0.4) < 2 * floor_with(&e, 0.8));
}

static void a_prompt_or_a_hiccup_does_not_count(void **state)
{
    (void)state;
    const engines e = {.pass = 0.040, .row = 0.001, .draft = 0.010};
    fr_controller c;
    fr_controller_init(&c);
    for (int i = 0; i < 40; i++)
        round_of(&c, &e, 1 + i % 6, 0.8, 1 + i % 6);
    double before = fr_controller_floor(&c, 6);
    /* A lost cache: the prefix of 800 tokens is computed along. */
    fr_controller_verified(
        &c, &(fr_msg_verified){.n_own = 5, .passes = 4, .rows = 805, .seconds = 4}, 4);
    fr_controller_drafted(
        &c, &(fr_msg_generated){.n_ids = 4, .passes = 7, .rows = 804, .seconds = 1});
    assert_true(fabs(fr_controller_floor(&c, 6) - before) < 0.15);
    round_of(&c, &(engines){.pass = 4, .row = 0.001, .draft = 0.010}, 3, 0.8, 3);
    assert_true(fr_controller_floor(&c, 6) < 0 && fr_controller_floor(&c, 6) > 4 * before);
}

/* What a group said first does not stay for good. */
static void an_absurd_first_time_fades(void **state)
{
    (void)state;
    const engines e = {.pass = 0.040, .row = 0.001, .draft = 0.010};
    fr_controller sane, misled;
    fr_controller_init(&sane);
    fr_controller_init(&misled);
    round_of(&misled, &(engines){.pass = 1e300, .draft = 1e300}, 3, 0.8, 3);
    for (int i = 0; i < 400; i++) {
        round_of(&sane, &e, 1 + i % 6, 0.8, 1 + i % 6);
        round_of(&misled, &e, 1 + i % 6, 0.8, 1 + i % 6);
    }
    assert_int_equal(fr_controller_depth(&misled, 6), fr_controller_depth(&sane, 6));
    assert_true(fabs(fr_controller_floor(&misled, 6) - fr_controller_floor(&sane, 6)) < 1e-2);
}

/* A group that does not report its times: then the others alone say what a second is worth. */
static void one_time_alone_gives_the_scale(void **state)
{
    (void)state;
    const engines slow[] = {{0}, {.pass = 0.040, .row = 0.001}, {.draft = 0.010}};
    for (int i = 0; i < 3; i++) {
        const engines fast = {
            .pass = slow[i].pass / 1000, .row = slow[i].row / 1000, .draft = slow[i].draft / 1000};
        fr_controller a, b;
        fr_controller_init(&a);
        fr_controller_init(&b);
        for (int n = 0; n < 60; n++) {
            round_of(&a, &slow[i], 1 + n % 6, 0.8, 1 + n % 5);
            round_of(&b, &fast, 1 + n % 6, 0.8, 1 + n % 5);
        }
        assert_true(fabs(fr_controller_floor(&a, 6) - fr_controller_floor(&b, 6)) < 1e-3);
        assert_true(fr_controller_floor(&a, 6) > -7 && fr_controller_floor(&a, 6) < -0.1);
        assert_int_equal(fr_controller_depth(&a, 16), fr_controller_depth(&b, 16));
        assert_in_range(fr_controller_depth(&a, 16), 2, 16);
    }
}

static void the_longest_drafts_are_counted(void **state)
{
    (void)state;
    const engines e = {.pass = 0.040, .draft = 1e-6};
    fr_controller c;
    fr_controller_init(&c);
    for (int i = 0; i < 1000; i++)
        round_of(&c, &e, FR_DRAFT_MAX, 0.99, FR_DRAFT_MAX);
    assert_int_equal(fr_controller_depth(&c, FR_DRAFT_MAX), FR_DRAFT_MAX);
    assert_in_range(fr_controller_match_len(&c, FR_DRAFT_MAX), 1, FR_DRAFT_MAX);
    float before = fr_controller_floor(&c, FR_DRAFT_MAX);
    round_of(&c, &(engines){.pass = 1}, FR_DRAFT_MAX + 1, 0.99, 0); /* more than are ever asked */
    assert_true(before < 0 && fr_controller_floor(&c, FR_DRAFT_MAX) < 0);
    assert_int_equal(fr_controller_depth(&c, FR_DRAFT_MAX), FR_DRAFT_MAX);
}

static void matches_that_fail_are_kept_short(void **state)
{
    (void)state;
    const engines e = {.pass = 0.040, .row = 0.004, .draft = 0.010};
    fr_controller good, bad;
    fr_controller_init(&good);
    fr_controller_init(&bad);
    for (int i = 0; i < 60; i++) {
        round_of(&good, &e, 1 + i % 6, 0.8, 1);
        round_of(&bad, &e, 1 + i % 6, 0.8, 1);
        fr_controller_judged_match(&good, i % 20 != 0);
        fr_controller_judged_match(&bad, i % 3 == 0);
    }
    assert_true(fr_controller_match_len(&bad, 16) < 4);
    assert_true(fr_controller_match_len(&good, 16) > 8);
    assert_int_equal(fr_controller_match_len(&good, 3), 3);
    assert_int_equal(fr_controller_match_len(&bad, 1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(begins_with_a_guess),
        cmocka_unit_test(a_dear_draft_stops_sooner),
        cmocka_unit_test(the_knee_of_the_costs_is_found),
        cmocka_unit_test(only_ratios_of_times_count),
        cmocka_unit_test(a_modest_draft_is_believed_more),
        cmocka_unit_test(a_prompt_or_a_hiccup_does_not_count),
        cmocka_unit_test(an_absurd_first_time_fades),
        cmocka_unit_test(one_time_alone_gives_the_scale),
        cmocka_unit_test(the_longest_drafts_are_counted),
        cmocka_unit_test(matches_that_fail_are_kept_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
