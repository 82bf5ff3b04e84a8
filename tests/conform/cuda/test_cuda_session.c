/* test_cuda_session.c: a model on a GPU that is too small, or not there, and how much a pass asks of it, over the
 * CUDA that runs on the CPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_cuda.h"
#include "hf_writer.h"
#include "memory_need.h"
#include "ops_cuda.h"
#include "session.h"

#define TARGET FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-target.gguf"
#define DRAFT FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-draft.gguf"

enum {
    MAX_ROWS = 16,
    CONTEXT = 528,  /* three chunks of attention, whose partial results are merged */
    QUESTIONS = 33, /* one more than go through the head at a time */
};

static fr_comm *self;
static fr_session *session;

static fr_status open_session(const char *model, const fr_session_options *o)
{
    assert_int_equal(fr_comm_self_open(&self), FR_OK);
    fr_status st = fr_session_open(model, self, o, &session);
    if (st != FR_OK)
        self->ops->close(&self);
    return st;
}

static void close_session(void)
{
    fr_session_close(&session);
    self->ops->close(&self);
}

/* What it needs is told with the number of ranks that would do; with as much it opens. */
static void test_too_little_memory(void **state)
{
    (void)state;
    const fr_session_options o = {.backend = "cuda", .threads = 1, .max_rows = MAX_ROWS, .kv_positions = 1 << 20};
    double need = 0, free_mib = 0;
    int ranks = 0;
    fake_cuda_reset();
    fake_cuda_set_total_memory((size_t)2 << 30);
    assert_int_equal(open_session(TARGET, &o), FR_ENOMEM);
    const char *says = strstr(fr_cause(), "a rank of 1 needs"), *advice = strstr(fr_cause(), "), and ");
    assert_true(says && advice);
    assert_int_equal(sscanf(says, "a rank of 1 needs %lf MiB of GPU memory (weights ", &need), 1);
    assert_int_equal(sscanf(advice, "), and %lf are free: %d ranks, each with a GPU like this", &free_mib, &ranks), 2);
    assert_true(need > free_mib && free_mib > 2000); /* 6 layers of a million keys and values of 128 halves: 3 GiB */
    assert_int_equal(ranks, 4);                      /* two would do, were there nothing but the cache */
    assert_true(fake_cuda_all_freed());
}

/* Opens on a GPU of so much memory; closed again. */
static fr_status try_memory(const char *model, const fr_session_options *o, size_t total)
{
    fake_cuda_reset();
    fake_cuda_set_total_memory(total);
    fr_status st = open_session(model, o);
    if (st == FR_OK)
        close_session();
    assert_true(fake_cuda_all_freed());
    return st;
}

/* The least total memory with which it opens, to the kilobyte. With a little less the check refuses it. */
static size_t least_memory(const char *model, const fr_session_options *o)
{
    size_t too_little = 0, enough = (size_t)1 << 30;
    while (enough - too_little > 1024) {
        const size_t middle = too_little + (enough - too_little) / 2;
        if (try_memory(model, o, middle) == FR_OK)
            enough = middle;
        else
            too_little = middle;
    }
    assert_int_equal(try_memory(model, o, too_little), FR_ENOMEM);
    assert_non_null(strstr(fr_cause(), "MiB of GPU memory (weights"));
    return enough;
}

/* As many rows as a pass may have, at the end of as long a context as there may be, and questions to every head. */
static void run_largest_pass(void)
{
    int32_t tokens[MAX_ROWS];
    int seq = 0, row = 0, answer = 0;
    const int context = fr_session_info_of(session)->max_context, n_vocab = fr_session_info_of(session)->n_vocab;
    const fr_row_query query = {.n_top = 1};
    assert_int_equal(context % MAX_ROWS, 0);
    assert_int_equal(fr_seq_new(session, &seq), FR_OK);
    for (int at = 0; at < context; at += MAX_ROWS) {
        for (int i = 0; i < MAX_ROWS; i++)
            tokens[i] = (at + i) % n_vocab;
        fr_pass_begin(session);
        assert_int_equal(fr_pass_append(session, seq, tokens, MAX_ROWS, &row), FR_OK);
        for (int i = 0; i < QUESTIONS && at + MAX_ROWS == context; i++) {
            assert_int_equal(fr_pass_ask(session, row, &query, &answer), FR_OK);
            assert_int_equal(fr_pass_ask_rough(session, row, &query, &answer), FR_OK);
        }
        assert_int_equal(fr_pass_run(session), FR_OK);
    }
}

/* What the check takes for enough is enough, also without what it leaves to the driver; and it is hardly more than is
 * used: by `spare` bytes of the recent head, which fills while passes run. */
static void run_in_least_memory(const char *model, const fr_session_options *o, size_t spare)
{
    const size_t least = least_memory(model, o), counted = least - (size_t)FR_MEMORY_DRIVER;
    fake_cuda_reset();
    fake_cuda_set_total_memory(least);
    assert_int_equal(open_session(model, o), FR_OK);
    fake_cuda_set_total_memory(counted);
    const size_t opened = fake_cuda_count().device_bytes;
    run_largest_pass();
    const size_t used = fake_cuda_count().device_bytes;
    assert_true(spare > 0 ? used > opened : used == opened);
    assert_in_range(used, counted - 4096 - spare, counted); /* small allocations are rounded up */
    close_session();
    fake_cuda_reset();
    assert_true(fake_cuda_all_freed());
}

static void test_least_memory(void **state)
{
    (void)state;
    const fr_session_options o = {.backend = "cuda", .threads = 1, .max_rows = MAX_ROWS, .max_context = CONTEXT,
                                  .kv_positions = CONTEXT};
    run_in_least_memory(DRAFT, &o, 0);
}

static void test_least_memory_with_a_rough_head(void **state)
{
    (void)state;
    const fr_session_options o = {.backend = "cuda", .threads = 1, .max_rows = MAX_ROWS, .max_context = CONTEXT,
                                  .kv_positions = CONTEXT, .draft_vocab = 300};
    run_in_least_memory(DRAFT, &o, 16 << 10); /* of 256 rows of 256 bytes all but 44 are filled */
}

/* Its weights in other bits than the file's. */
static void test_least_memory_of_a_draft(void **state)
{
    (void)state;
    char folder[] = "/tmp/fr-cuda-session-XXXXXX", path[sizeof folder + 16];
    const hf_model f16 = {.family = "llama", .dtype = FR_F16};
    const fr_session_options o = {.backend = "cuda", .threads = 1, .max_rows = MAX_ROWS, .max_context = CONTEXT,
                                  .kv_positions = CONTEXT, .draft_vocab = 260, .draft_weights = FR_DRAFT_WEIGHTS_Q4_0};
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/f16.gguf", folder);
    hf_write_gguf(path, &f16);
    run_in_least_memory(path, &o, 256 * HF_HIDDEN * sizeof(uint16_t)); /* of 256 rows it fills a few */
    hf_remove_folder(folder);
}

/* What a session that is not told a backend writes to stderr when it opens. */
static void read_warning(char *text, size_t size)
{
    const fr_session_options o = {.threads = 1, .max_context = 512, .kv_positions = 512};
    FILE *log = tmpfile();
    const int err = dup(STDERR_FILENO);
    assert_non_null(log);
    assert_true(err >= 0 && dup2(fileno(log), STDERR_FILENO) >= 0);
    fr_status st = open_session(TARGET, &o);
    assert_true(dup2(err, STDERR_FILENO) >= 0);
    close(err);
    assert_int_equal(st, FR_OK);
    assert_true(fr_session_info_of(session)->backend != fr_ops_cuda.name);
    close_session();
    rewind(log);
    text[fread(text, 1, size - 1, log)] = 0;
    fclose(log);
}

/* Why none can be used is told; without --backend on the way to the CPU. */
static void test_no_gpu(void **state)
{
    (void)state;
    const struct {
        int devices, driver;
        cudaError_t error;
        const char *cause;
    } cases[] = {
        {0, 13000, cudaSuccess, "it has no GPU, or no driver for one"},
        {0, 0, cudaSuccess, "it has no GPU, or no driver for one"},
        {1, 12040, cudaSuccess, "its GPU driver is for CUDA 12.4, and this program was built with CUDA 13.0"},
        {1, 13000, cudaErrorInitializationError, "its GPU driver says: initialization error"},
    };
    const fr_session_options o = {.backend = "cuda", .threads = 1, .max_context = 512, .kv_positions = 512};
    char text[512] = "", want[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake_cuda_reset();
        fake_cuda_set_devices(cases[i].devices);
        fake_cuda_set_driver(cases[i].driver);
        if (cases[i].error != cudaSuccess)
            fake_cuda_fail("cudaGetDeviceCount", 1, cases[i].error);
        assert_int_equal(open_session(TARGET, &o), FR_EUNSUPPORTED);
        snprintf(want, sizeof want, "this machine cannot run backend cuda: %s", cases[i].cause);
        assert_string_equal(fr_cause(), want);
    }
    fake_cuda_reset();
    fake_cuda_set_driver(12040);
    read_warning(text, sizeof text);
    assert_non_null(strstr(text, "warning: computing on the CPU: this machine cannot run backend cuda: its GPU driver "
                                 "is for CUDA 12.4"));
    read_warning(text, sizeof text);
    assert_string_equal(text, ""); /* once */
    fake_cuda_reset();
}

/* Of those that were named: its first, or an error that says how many there are. */
static void test_named_gpu(void **state)
{
    (void)state;
    fr_session_options o = {.backend = "cuda", .threads = 1, .max_context = 512, .kv_positions = 512,
                            .gpus = {.n = 1, .numbers = {1}}};
    fake_cuda_reset();
    fake_cuda_set_devices(2);
    fake_cuda_fail_on(0, "cudaMalloc", 1, cudaErrorMemoryAllocation); /* which nobody asks */
    assert_int_equal(open_session(TARGET, &o), FR_OK);
    close_session();
    o.gpus.numbers[0] = 2;
    assert_int_equal(open_session(TARGET, &o), FR_EINVAL);
    assert_string_equal(fr_cause(), "backend cuda: there is no GPU 2 here: it can use 2, counted from 0");
    fake_cuda_reset();
    assert_true(fake_cuda_all_freed());
}

/* Appends n tokens and asks about all of them; the last one's answer. */
static int32_t run_pass(fr_session *s, int seq, int n)
{
    const int32_t tokens[8] = {11, 48, 85, 122, 159, 196, 233, 270};
    const fr_row_query greedy = {0};
    int row = 0, answer = 0;
    fr_pass_begin(s);
    assert_int_equal(fr_pass_append(s, seq, tokens, n, &row), FR_OK);
    for (int i = 0; i < n; i++)
        assert_int_equal(fr_pass_ask(s, row + i, &greedy, &answer), FR_OK);
    assert_int_equal(fr_pass_run(s), FR_OK);
    return fr_pass_answer(s, answer)->winner;
}

/* Two models of one thread, each on a GPU of its own, as a target and its draft are measured: either computes on its
 * own, whichever was opened or used last. */
static void test_two_gpus_of_a_thread(void **state)
{
    (void)state;
    enum { PASSES = 3 }; /* from the second on by a graph */
    fr_session_options o = {.backend = "cuda", .threads = 1, .max_context = 512, .kv_positions = 512,
                            .gpus = {.n = 1}};
    fr_session *on[2] = {NULL};
    int seq[2] = {-1, -1};
    int32_t answers[2][PASSES];
    double gb_s = 0;
    fake_cuda_reset();
    fake_cuda_set_devices(2);
    assert_int_equal(fr_comm_self_open(&self), FR_OK);
    for (int gpu = 0; gpu < 2; gpu++) {
        o.gpus.numbers[0] = gpu;
        assert_int_equal(fr_session_open(TARGET, self, &o, &on[gpu]), FR_OK);
        assert_int_equal(fr_seq_new(on[gpu], &seq[gpu]), FR_OK);
    }
    for (int i = 0; i < PASSES; i++)
        for (int gpu = 0; gpu < 2; gpu++)
            answers[gpu][i] = run_pass(on[gpu], seq[gpu], 3 + i);
    assert_memory_equal(answers[0], answers[1], sizeof answers[0]);
    fake_cuda_set_total_memory(fake_cuda_count().device_bytes / 2 + (1 << 20)); /* half of what is free is measured */
    fake_cuda_fail_on(1, "cudaMalloc", 1, cudaErrorMemoryAllocation); /* which nobody asks from here on */
    assert_int_equal(fr_session_read_gb_s(on[0], &gb_s), FR_OK);
    for (int gpu = 0; gpu < 2; gpu++)
        fr_session_close(&on[gpu]);
    self->ops->close(&self);
    fake_cuda_reset();
    assert_true(fake_cuda_all_freed());
}

/* Kernels of a pass that appends n tokens and asks about all of them. */
static int kernels_of_a_pass(int seq, int n)
{
    const int before = fake_cuda_count().kernels_run;
    (void)run_pass(session, seq, n);
    return fake_cuda_count().kernels_run - before;
}

/* Their number, so that it does not grow unnoticed: small kernels cost a GPU more in gaps than in work. A layer:
 * norm with the sum before it and what q, k and v need of it; q, k, v; heads; attention (to 512 positions, one more
 * beyond); what the product behind it needs; that product; norm likewise; gate and up; SiLU likewise; down. */
static void test_kernels_of_a_pass(void **state)
{
    (void)state;
    enum { A_LAYER = 10, EMBED = 1, NORM_AND_HEAD = 2, CANDIDATES = 4 };
    const fr_session_options o = {.backend = "cuda", .threads = 1, .max_context = 512, .kv_positions = 512};
    int seq = -1;
    fake_cuda_reset();
    assert_int_equal(open_session(TARGET, &o), FR_OK);
    const int want = EMBED + fr_session_info_of(session)->n_layers * A_LAYER + NORM_AND_HEAD + CANDIDATES;
    assert_int_equal(fr_seq_new(session, &seq), FR_OK);
    for (int n = 8; n > 0; n /= 2)
        assert_int_equal(kernels_of_a_pass(seq, n), want);
    close_session();
    assert_true(fake_cuda_all_freed());
}

/* Told of a GPU that was let, and of nothing else. */
static void test_batch_dependent(void **state)
{
    (void)state;
    const struct {
        const char *backend;
        bool asked, told;
    } cases[] = {{"cuda", true, true}, {"cuda", false, false}, {"cpu_ref", true, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const fr_session_options o = {.backend = cases[i].backend, .threads = 1, .max_context = 512,
                                      .kv_positions = 512, .batch_dependent = cases[i].asked};
        fake_cuda_reset();
        assert_int_equal(open_session(TARGET, &o), FR_OK);
        assert_int_equal(fr_session_info_of(session)->batch_dependent, cases[i].told);
        close_session();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_too_little_memory), cmocka_unit_test(test_least_memory),
                                       cmocka_unit_test(test_least_memory_with_a_rough_head),
                                       cmocka_unit_test(test_least_memory_of_a_draft), cmocka_unit_test(test_no_gpu),
                                       cmocka_unit_test(test_named_gpu),
                                       cmocka_unit_test(test_two_gpus_of_a_thread),
                                       cmocka_unit_test(test_kernels_of_a_pass),
                                       cmocka_unit_test(test_batch_dependent)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
