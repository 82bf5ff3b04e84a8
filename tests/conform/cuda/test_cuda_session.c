/* test_cuda_session.c: a model on a GPU that is too small, or not there, and how much a pass asks of it, over the
 * CUDA that runs on the CPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fake_cuda.h"
#include "session.h"

#define TARGET FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-target.gguf"

static fr_status open_session(const char *backend, fr_session **out)
{
    fr_comm *self = NULL;
    assert_int_equal(fr_comm_self_open(&self), FR_OK);
    const fr_session_options o = {.backend = backend, .threads = 1, .max_context = 512, .kv_positions = 512};
    fr_status st = fr_session_open(TARGET, self, &o, out);
    if (st == FR_OK)
        fr_session_close(out);
    self->ops->close(&self);
    return st;
}

/* What it needs is told with the number of ranks that would do; with as much it opens. */
static void test_too_little_memory(void **state)
{
    (void)state;
    fr_session *s = NULL;
    double need = 0;
    int ranks = 0, open = 0;
    for (size_t mib = 1; mib < 64 && !open; mib++) {
        fake_cuda_reset();
        fake_cuda_set_total_memory(mib << 20);
        fr_status st = open_session("cuda", &s);
        if (st == FR_OK) {
            open = (int)mib;
        } else if (strstr(fr_cause(), "GPU memory (weights")) {
            assert_int_equal(st, FR_ENOMEM);
            const char *says = strstr(fr_cause(), "needs ");
            assert_int_equal(sscanf(says, "needs %lf MiB", &need), 1);
            const char *advice = strstr(fr_cause(), "are free: ");
            assert_non_null(advice);
            ranks = sscanf(advice, "are free: %d ranks, each with a GPU like this, fit", &ranks) == 1 ? ranks : 0;
        }
    }
    assert_true(ranks == 2 && need > 2); /* the last one that was refused */
    assert_true(open >= need && open <= need + 12); /* the queue's blocks and the pass's scratch come on top */
    fake_cuda_reset();
    assert_true(fake_cuda_all_freed());
}

static void test_no_gpu(void **state)
{
    (void)state;
    fr_session *s = NULL;
    fake_cuda_reset();
    fake_cuda_set_devices(0);
    assert_int_equal(open_session("cuda", &s), FR_EUNSUPPORTED);
    assert_string_equal(fr_cause(), "this machine cannot run backend cuda: it has no GPU, or no driver for one");
    assert_int_equal(open_session(NULL, &s), FR_OK); /* on the CPU */
    fake_cuda_reset();
}

/* Kernels of a pass that appends n tokens and asks about all of them. */
static int kernels_of_a_pass(fr_session *s, int seq, int n)
{
    const int32_t tokens[8] = {11, 48, 85, 122, 159, 196, 233, 270};
    const fr_row_query greedy = {0};
    int row = 0, answer = 0;
    const int before = fake_cuda_count().kernels_run;
    fr_pass_begin(s);
    assert_int_equal(fr_pass_append(s, seq, tokens, n, &row), FR_OK);
    for (int i = 0; i < n; i++)
        assert_int_equal(fr_pass_ask(s, row + i, &greedy, &answer), FR_OK);
    assert_int_equal(fr_pass_run(s), FR_OK);
    return fake_cuda_count().kernels_run - before;
}

/* Their number, so that it does not grow unnoticed: small kernels cost a GPU more in gaps than in work. A layer:
 * norm with the sum before it and what q, k and v need of it; q, k, v; heads; attention (to 512 positions, one more
 * beyond); what the product behind it needs; that product; norm likewise; gate and up; SiLU likewise; down. */
static void test_kernels_of_a_pass(void **state)
{
    (void)state;
    enum { A_LAYER = 10, EMBED = 1, NORM_AND_HEAD = 2, CANDIDATES = 4 };
    fr_comm *self = NULL;
    fr_session *s = NULL;
    int seq = -1;
    fake_cuda_reset();
    assert_int_equal(fr_comm_self_open(&self), FR_OK);
    const fr_session_options o = {.backend = "cuda", .threads = 1, .max_context = 512, .kv_positions = 512};
    assert_int_equal(fr_session_open(TARGET, self, &o, &s), FR_OK);
    const int want = EMBED + fr_session_info_of(s)->n_layers * A_LAYER + NORM_AND_HEAD + CANDIDATES;
    assert_int_equal(fr_seq_new(s, &seq), FR_OK);
    (void)kernels_of_a_pass(s, seq, 5); /* the first one still gets its memory, and in between waits */
    assert_int_equal(kernels_of_a_pass(s, seq, 1), want);
    assert_int_equal(kernels_of_a_pass(s, seq, 8), want);
    assert_int_equal(kernels_of_a_pass(s, seq, 1), want);
    fr_session_close(&s);
    self->ops->close(&self);
    assert_true(fake_cuda_all_freed());
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_too_little_memory), cmocka_unit_test(test_no_gpu),
                                       cmocka_unit_test(test_kernels_of_a_pass)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
