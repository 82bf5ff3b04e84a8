/* test_speculate.c: the strict engine's book-keeping, against engines played by the test. What it
 * writes is tested in tests/conform/policy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "models.h"
#include "speculate.h"

typedef struct engines {
    uint64_t calls, generate, verify; /* so many; the last of each kind */
} engines;

static fr_status on_generate(void *ctx, const fr_generate_call *call, uint64_t *call_out)
{
    engines *e = ctx;
    (void)call;
    *call_out = e->generate = ++e->calls;
    return FR_OK;
}

static fr_status on_verify(void *ctx, const fr_verify_call *call, uint64_t *call_out)
{
    engines *e = ctx;
    (void)call;
    *call_out = e->verify = ++e->calls;
    return FR_OK;
}

static void on_tail(void *ctx, const int32_t *ids, int n)
{
    (void)ctx, (void)ids, (void)n;
}

static void tell_generated(fr_speculation *s, const engines *e, const int32_t *ids,
                           const float *logprobs, size_t n)
{
    const fr_msg_generated m = {
        .ids = ids, .n_ids = n, .logprobs = logprobs, .n_logprobs = n, .stop = "limit"};
    assert_int_equal(fr_speculate_advance(s, &(fr_policy_event){.kind = FR_EVENT_GENERATED,
                                                                .call = e->generate,
                                                                .generated = &m}),
                     FR_OK);
}

/* The draft guesses the bonus token, then two for the next verification: they are judged by what it
 * said about them, not about the guess. */
static void a_guess_has_its_own_logprob(void **state)
{
    (void)state;
    static const int32_t first[] = {101, 102}, ahead[] = {103, 104, 105}, own[] = {101, 102, 103};
    static const float told[] = {-0.125f, -0.25f, -0.5f};
    engines e = {0};
    const fr_policy_host host = {
        .ctx = &e, .generate = on_generate, .verify = on_verify, .tail = on_tail};
    const fr_policy_params params = {.max_tokens = 200,
                                     .step_tokens = 100,
                                     .draft_tokens = 4,
                                     .overlap = 1,
                                     .delimiter = "\n\n",
                                     .max_context = 400};
    fr_tokenizer *t = NULL;
    fr_chain chain = {0};
    fr_speculation s;
    assert_int_equal(models_tiny_tokenizer(&t), FR_OK);
    assert_int_equal(fr_chain_open(&chain, t, t, NULL, "47 + 385", 1), FR_OK);
    fr_speculate_init(&s, &host, &chain, &params);
    assert_int_equal(fr_speculate_begin(&s, FR_ORIGIN_TOKEN, 0), FR_OK);
    assert_int_equal(fr_speculate_pump(&s), FR_OK);
    assert_int_equal(e.calls, 1);
    tell_generated(&s, &e, first, told, 2);
    assert_true(s.told[0] == told[0] && s.told[1] == told[1]);
    assert_int_equal(e.calls, 3); /* a verification, and the draft ahead of it */
    tell_generated(&s, &e, ahead, told, 3);
    const fr_msg_verified m = {.own = own, .n_own = 3};
    assert_int_equal(
        fr_speculate_advance(
            &s, &(fr_policy_event){.kind = FR_EVENT_VERIFIED, .call = e.verify, .verified = &m}),
        FR_OK);
    assert_int_equal(s.seq.len - s.n_approved, 2);
    assert_memory_equal(s.seq.data + s.n_approved, ahead + 1, 2 * sizeof *ahead);
    assert_false(s.from_ngrams);
    assert_true(s.told[0] == told[1] && s.told[1] == told[2]);
    fr_speculate_free(&s);
    fr_chain_close(&chain);
    fr_tokenizer_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_guess_has_its_own_logprob),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
