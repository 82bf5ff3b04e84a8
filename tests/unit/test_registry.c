/* test_registry.c: groups that come, fall silent and come back; models and tokenizers that do not
 * fit; the choice among groups; what their caches are believed to hold; and every allocation that
 * can fail. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fake_engine.h"
#include "fault_alloc.h"
#include "mirror.h"
#include "registry.h"
#include "scheduler.h"

typedef struct fixture {
    fr_registry *r;
    fr_tokenizer *t;
    fr_buf blob;
} fixture;

static int set_up(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    f->t = fake_tokenizer();
    assert_int_equal(fr_tokenizer_pack(f->t, &f->blob), FR_OK);
    assert_int_equal(fr_registry_new(1000, 3000, 100, 0, &f->r), FR_OK);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    fixture *f = *state;
    fr_registry_free(&f->r);
    fr_buf_free(&f->blob);
    fr_tokenizer_free(&f->t);
    free(f);
    return 0;
}

static fr_peer peer(uint8_t id)
{
    return (fr_peer){.id = {id}, .len = 1};
}

static fr_msg_register message(const fixture *f, const char *role, const char *name, uint64_t model)
{
    return (fr_msg_register){.role = role,
                             .name = name,
                             .model_digest = model,
                             .model_name = "m",
                             .backend = "b",
                             .tokenizer_digest = fr_tokenizer_digest(f->t),
                             .max_context = 100,
                             .ranks = 1};
}

static fr_status enter(fixture *f, uint8_t id, const char *role, const char *name, uint64_t model,
                       double now, fr_registered *out)
{
    fr_peer p = peer(id);
    fr_msg_register m = message(f, role, name, model);
    return fr_registry_register(f->r, 0, &p, &m, now, out);
}

static void give_tokenizer(fixture *f, fr_group *g)
{
    assert_int_equal(fr_registry_tokenizer(f->r, g, (fr_bytes){f->blob.data, f->blob.len}), FR_OK);
}

static void knows_who_is_there(void **state)
{
    fixture *f = *state;
    fr_registered a, b;
    assert_int_equal(enter(f, 1, "target", "a", 5, 10, &a), FR_OK);
    assert_true(a.welcome.want_tokenizer);
    assert_int_equal(a.welcome.heartbeat_ms, 1000);
    assert_int_equal(a.welcome.epoch, 101);
    assert_false(
        fr_group_usable(a.group, FR_ROLE_TARGET, 0)); /* not before its tokenizer is known */
    assert_null(fr_registry_any(f->r, FR_ROLE_TARGET, 0));
    give_tokenizer(f, a.group);
    assert_true(fr_group_usable(a.group, FR_ROLE_TARGET, 5));
    assert_false(fr_group_usable(a.group, FR_ROLE_TARGET, 6));
    assert_false(fr_group_usable(a.group, FR_ROLE_DRAFT, 0));
    assert_true(isinf(fr_registry_absent_since(f->r, FR_ROLE_TARGET)));
    assert_true(fr_registry_absent_since(f->r, FR_ROLE_DRAFT) == 0);
    assert_int_equal(enter(f, 2, "target", "b", 5, 11, &b), FR_OK);
    assert_false(b.welcome.want_tokenizer); /* known by its digest */
    assert_true(b.welcome.epoch > a.welcome.epoch);
    fr_peer p = peer(2);
    assert_ptr_equal(fr_registry_by_peer(f->r, 0, &p), b.group);
    assert_null(fr_registry_by_peer(f->r, 1, &p)); /* another link */
}

static void notices_silence(void **state)
{
    fixture *f = *state;
    fr_registered a, b;
    assert_int_equal(enter(f, 1, "target", "a", 5, 10, &a), FR_OK);
    give_tokenizer(f, a.group);
    assert_int_equal(enter(f, 2, "target", "b", 5, 12, &b), FR_OK);
    assert_true(fr_registry_deadline(f->r) == 13);
    assert_null(fr_registry_silent(f->r, 12.9));
    assert_ptr_equal(fr_registry_silent(f->r, 13), a.group);
    fr_registry_lose(f->r, a.group, 13);
    assert_null(fr_registry_silent(f->r, 13));
    assert_true(fr_registry_deadline(f->r) == 15);
    assert_null(fr_registry_by_id(f->r, a.group->id));
    fr_registry_lose(f->r, b.group, 14);
    assert_true(isinf(fr_registry_deadline(f->r)));
    assert_true(fr_registry_absent_since(f->r, FR_ROLE_TARGET) == 14);
    assert_int_equal(fr_registry_count(f->r), 2); /* the dead stay listed */
}

static void takes_them_back(void **state)
{
    fixture *f = *state;
    fr_registered a, again;
    assert_int_equal(enter(f, 1, "target", "a", 5, 10, &a), FR_OK);
    uint32_t id = a.group->id;
    assert_int_equal(enter(f, 2, "target", "a", 5, 11, &again),
                     FR_OK); /* its name, from a new process */
    assert_int_equal(again.replaced[0], id);
    assert_int_equal(again.replaced[1], 0);
    assert_int_not_equal(again.group->id, id);
    assert_int_equal(fr_registry_count(f->r), 1);
    id = again.group->id;
    assert_int_equal(enter(f, 2, "target", "a", 5, 12, &again),
                     FR_OK); /* its name and peer: it had lost us */
    assert_int_equal(again.replaced[0], id);
    assert_int_equal(fr_registry_count(f->r), 1);
    /* It may come back with another model when it is the only one. */
    assert_int_equal(enter(f, 3, "target", "a", 6, 13, &again), FR_OK);
    for (int i = 0; i < 1000; i++) { /* many names, all dead: the list does not grow for ever */
        char name[16];
        snprintf(name, sizeof name, "g%d", i);
        assert_int_equal(enter(f, 9, "draft", name, 7, 14 + i, &again), FR_OK);
    }
    assert_true(fr_registry_count(f->r) <= 256);
}

static void refuses_what_does_not_fit(void **state)
{
    fixture *f = *state;
    fr_registered a, b;
    assert_int_equal(enter(f, 1, "target", "a", 5, 10, &a), FR_OK);
    assert_int_equal(enter(f, 2, "target", "b", 6, 10, &b), FR_EMISMATCH);
    assert_non_null(
        strstr(fr_cause(), "group b serves m (0000000000000006), but target group a serves m"));
    assert_int_equal(enter(f, 2, "draft", "b", 6, 10, &b), FR_OK); /* another role */
    const fr_peer other = peer(4);
    fr_msg_register m = message(f, "target", "c", 5);
    m.max_context = 99;
    assert_int_equal(fr_registry_register(f->r, 0, &other, &m, 10, &b), FR_EMISMATCH);
    assert_non_null(strstr(fr_cause(), "group c has a context of 99, but target group a has 100"));
    m.name = "a"; /* but it may come back so when it is the only one */
    assert_int_equal(fr_registry_register(f->r, 0, &other, &m, 10, &a), FR_OK);
    assert_int_equal(fr_registry_count(f->r), 2);
    assert_int_equal(enter(f, 3, "judge", "c", 6, 10, &b), FR_EINVAL);
    assert_int_equal(enter(f, 3, "draft", "", 6, 10, &b), FR_EINVAL);
    fr_registry_lose(f->r, a.group, 11);
    assert_int_equal(enter(f, 3, "target", "b2", 6, 12, &b), FR_OK); /* the dead do not count */
    /* A tokenizer that is none, or not the announced one. */
    assert_int_equal(fr_registry_tokenizer(f->r, b.group, (fr_bytes){(const uint8_t *)"junk", 4}),
                     FR_EFORMAT);
    b.group->tokenizer_digest++;
    assert_int_equal(fr_registry_tokenizer(f->r, b.group, (fr_bytes){f->blob.data, f->blob.len}),
                     FR_EMISMATCH);
}

static void every_allocation_may_fail(void **state)
{
    fixture *f = *state;
    for (long n = 0;; n++) {
        fr_registry *r = NULL;
        fr_registered g;
        fr_peer p = peer(1);
        fr_msg_register m = message(f, "target", "a", 5);
        fr_fault_alloc_arm(n);
        fr_status st = fr_registry_new(1000, 3000, 0, 0, &r);
        if (st == FR_OK)
            st = fr_registry_register(r, 0, &p, &m, 1, &g);
        if (st == FR_OK)
            st = fr_registry_tokenizer(r, g.group, (fr_bytes){f->blob.data, f->blob.len});
        int failed = fr_fault_alloc_disarm();
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        fr_registry_free(&r);
        if (!failed || n > 400) /* the rest is the tokenizer's own, and tested there */
            break;
    }
}

static void schedules(void **state)
{
    (void)state;
    fr_choice c[] = {{.group = 3, .n_calls = 2, .kv_free = 10},
                     {.group = 4, .n_calls = 1, .kv_free = 5},
                     {.group = 5, .n_calls = 1, .kv_free = 6},
                     {.group = 2, .n_calls = 1, .kv_free = 6}};
    assert_int_equal(fr_schedule(c, 0, 0), -1);
    assert_int_equal(fr_schedule(c, 4, 3), 0); /* it stays */
    assert_int_equal(fr_schedule(c, 4, 99),
                     3); /* its group is gone: the least loaded, emptiest, oldest */
    assert_int_equal(fr_schedule(c, 3, 0), 2);
    assert_int_equal(fr_schedule(c, 2, 0), 1);
}

static void mirrors_caches(void **state)
{
    static const int32_t ids[] = {1, 2, 3, 4, 5}, other[] = {1, 2, 9, 9, 9};
    fr_mirror m = {0};
    fr_mirror_entry *a = NULL, *b = NULL, *c = NULL;
    int shared = -1;
    (void)state;
    assert_int_equal(fr_mirror_take(&m, 1, 7, ids, 5, &a, &shared), FR_OK);
    assert_int_equal(shared, 0);
    fr_mirror_set(a, ids, 4, ids + 4, 1);
    assert_int_equal(fr_mirror_take(&m, 1, 7, other, 5, &b, &shared),
                     FR_OK); /* the first is busy */
    assert_int_equal(shared, 0);
    assert_int_not_equal(a->sequence, b->sequence);
    fr_mirror_set(b, other, 5, NULL, 0);
    a->busy = b->busy = 0;
    assert_int_equal(fr_mirror_take(&m, 1, 7, ids, 3, &c, &shared), FR_OK); /* the better of two */
    assert_ptr_equal(c, a);
    assert_int_equal(shared, 3);
    c->busy = 0;
    assert_int_equal(fr_mirror_take(&m, 2, 7, ids, 3, &c, &shared), FR_OK); /* another group */
    assert_int_equal(shared, 0);
    fr_mirror_drop(&m, 1, 0);
    assert_false(fr_mirror_has(&m, 1, 7));
    assert_true(fr_mirror_has(&m, 2, 7));
    fr_mirror_drop(&m, 0, 7);
    assert_int_equal(m.n, 0);
    fr_mirror_free(&m);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(knows_who_is_there),
        T(notices_silence),
        T(takes_them_back),
        T(refuses_what_does_not_fit),
        T(every_allocation_may_fail),
        cmocka_unit_test(schedules),
        cmocka_unit_test(mirrors_caches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
