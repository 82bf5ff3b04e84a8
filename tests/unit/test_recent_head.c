/* test_recent_head.c: which tokens are held, for how long, and that their rows are the table's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fault_alloc.h"
#include "recent_head.h"

enum { VOCAB = 1000, ROUGH = 300, COLS = 32 };

typedef struct fixture {
    fr_model model;
    fr_recent_head recent;
    float table[VOCAB * COLS];
    uint8_t in_rough[VOCAB];
} fixture;

/* A model of nothing but a head: the row of token t is t, 0, 0, ... This rank has tokens 0 to 899. */
static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    for (int t = 0; t < VOCAB; t++) {
        f->table[t * COLS] = (float)t;
        f->in_rough[t] = t < ROUGH;
    }
    f->model = (fr_model){.ops = &fr_ops_cpu_ref,
                          .config.n_vocab = VOCAB,
                          .slice.vocab = {0, 900},
                          .rough_vocab = ROUGH,
                          .in_rough_head = f->in_rough,
                          .head_table = {FR_F32, f->table, VOCAB, COLS, COLS * sizeof(float)}};
    assert_int_equal(f->model.ops->open(&(fr_device_options){.threads = 1}, &f->model.dev), FR_OK);
    assert_int_equal(fr_recent_head_open(&f->recent, &f->model), FR_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    fr_recent_head_close(&f->recent);
    f->model.ops->close(&f->model.dev);
    free(f);
    return 0;
}

/* Tokens `want` [n], ascending, and a weight of their rows. */
static void assert_held(fixture *f, const int32_t *want, int n)
{
    const fr_head *h = &f->recent.head;
    float x[COLS] = {1}, y[FR_RECENT] = {0};
    assert_int_equal(h->n, n);
    assert_memory_equal(h->tokens, want, (size_t)n * sizeof *want);
    assert_int_equal(f->model.ops->matmul(f->model.dev, &(fr_product){y, h->weight}, 1, x, 1), FR_OK);
    for (int i = 0; i < n; i++)
        assert_true(y[i] == (float)want[i]);
}

static void holds_what_the_rough_head_lacks(void **state)
{
    fixture *f = *state;
    const int32_t first[] = {5, 700, 299, 300, 950, 700}, second[] = {400, 6};
    assert_int_equal(f->recent.head.n, 0);
    fr_recent_head_note(&f->recent, first, 6);
    assert_held(f, (int32_t[]){300, 700}, 2); /* 950 is another rank's */
    fr_recent_head_note(&f->recent, second, 2);
    assert_held(f, (int32_t[]){300, 400, 700}, 3);
    const fr_weight *weight = f->recent.head.weight;
    fr_recent_head_note(&f->recent, first, 6);
    assert_ptr_equal(f->recent.head.weight, weight); /* nothing new, nothing done */
}

static void the_oldest_makes_room(void **state)
{
    fixture *f = *state;
    int32_t ids[FR_RECENT + 2];
    for (int i = 0; i < FR_RECENT + 2; i++)
        ids[i] = ROUGH + i;
    fr_recent_head_note(&f->recent, ids, FR_RECENT);
    assert_held(f, ids, FR_RECENT);
    fr_recent_head_note(&f->recent, ids, FR_RECENT + 2);
    assert_held(f, ids + 2, FR_RECENT);
    fr_recent_head_note(&f->recent, ids, 1); /* it can come back, for the next oldest */
    int32_t want[FR_RECENT] = {ids[0]};
    for (int i = 1; i < FR_RECENT; i++)
        want[i] = ids[i + 2];
    assert_held(f, want, FR_RECENT);
}

static void lack_of_memory_empties_it_only(void **state)
{
    fixture *f = *state;
    const int32_t a = 400, b = 500;
    fr_recent_head_note(&f->recent, &a, 1);
    fr_fault_alloc_arm(0);
    fr_recent_head_note(&f->recent, &b, 1);
    assert_true(fr_fault_alloc_disarm());
    assert_int_equal(f->recent.head.n, 0);
    fr_recent_head_note(&f->recent, (int32_t[]){450}, 1);
    assert_held(f, (int32_t[]){400, 450, 500}, 3);
}

static void without_a_rough_head_there_is_nothing_to_add(void **state)
{
    fixture *f = *state;
    fr_model plain = f->model;
    fr_recent_head r;
    plain.rough_vocab = 0;
    assert_int_equal(fr_recent_head_open(&r, &plain), FR_OK);
    fr_recent_head_note(&r, (int32_t[]){400}, 1);
    assert_int_equal(r.head.n, 0);
    fr_recent_head_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(holds_what_the_rough_head_lacks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_oldest_makes_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(lack_of_memory_empties_it_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(without_a_rough_head_there_is_nothing_to_add, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
