/* test_cuda_ranks.c: one model over ranks that have a GPU each and sum over NCCL, over the CUDA and the NCCL that run
 * on the CPU, ranks as threads: the same bits as by sums through host memory, passes as graphs on all ranks at once
 * (the fake NCCL ends the program when ranks do not capture alike), and what the leader says when another fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "check.h"
#include "clock.h"
#include "comm_device.h"
#include "fake_cuda.h"
#include "gpu_ranks.h"
#include "ops_cuda.h"
#include "session.h"

#define MODEL FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-draft.gguf"

/* LONG: that the leader embeds it for all. ROUGH: tokens of the rough head. */
enum { ROUGH = 300, PROMPT = 20, LONG = 66, PROMPTS = 2 };
enum { DECODED = 6, VERIFIED = 4, ANSWERS = DECODED + 2 * VERIFIED + PROMPTS };

/* What the model answered; the bits count. */
typedef struct outcome {
    int32_t tokens[ANSWERS], guesses[ANSWERS]; /* guesses: of the rough head, of a pass's last row */
    float logits[ANSWERS], guess_logits[ANSWERS];
} outcome;

/* A call that fails on one rank, from the first layer of a pass on; or, without one, how long the rank stands
 * still there. */
typedef struct trouble {
    const char *call;
    int nth; /* or milliseconds */
    const char *cause;
    int pass; /* from 0 */
} trouble;

typedef struct plan {
    bool share_gpu, long_prompts;
    fr_gpu_list gpus; /* of all ranks */
    outcome *out;
    const trouble *trouble; /* NULL: none */
    int failing;            /* the rank that has it */
    int timeout_ms;
} plan;

/* ---- sessions */

/* Rows behind `row` onwards are asked about. */
static fr_status pass(fr_session *s, int seq, const int32_t *tokens, int n, int n_asked, outcome *out, int at)
{
    int row = 0, answers[VERIFIED] = {0}, guess = 0;
    fr_pass_begin(s);
    FR_TRY(fr_pass_append(s, seq, tokens, n, &row));
    for (int i = 0; i < n_asked; i++)
        FR_TRY(fr_pass_ask(s, row + n - n_asked + i, &(fr_row_query){0}, &answers[i]));
    FR_TRY(fr_pass_ask_rough(s, row + n - 1, &(fr_row_query){.n_top = 2}, &guess));
    FR_TRY(fr_pass_run(s));
    out->guesses[at] = fr_pass_answer(s, guess)->top[1].token;
    out->guess_logits[at] = fr_pass_answer(s, guess)->top[1].logit;
    for (int i = 0; i < n_asked; i++) {
        out->tokens[at + i] = fr_pass_answer(s, answers[i])->winner;
        out->logits[at + i] = fr_pass_answer(s, answers[i])->winner_logit;
    }
    return FR_OK;
}

/* A prompt, some tokens one by one, two verifications of the last of these, and the prompt again, twice. */
static fr_status lead(fr_session *s, int n_prompt, outcome *out)
{
    int32_t prompt[LONG];
    int seq = 0, at = DECODED;
    for (int i = 0; i < n_prompt; i++)
        prompt[i] = i % 8 == 7 ? ROUGH + i : 5 + 3 * i; /* some are among no rank's rough head, but recent */
    FR_TRY(fr_seq_new(s, &seq));
    FR_TRY(pass(s, seq, prompt, n_prompt, 1, out, 0));
    for (int i = 1; i < DECODED; i++)
        FR_TRY(pass(s, seq, &out->tokens[i - 1], 1, 1, out, i));
    for (; at < DECODED + 2 * VERIFIED; at += VERIFIED) {
        FR_TRY(fr_seq_truncate(s, seq, n_prompt + 1));
        FR_TRY(pass(s, seq, &out->tokens[1], VERIFIED, VERIFIED, out, at));
    }
    for (; at < ANSWERS; at++) {
        FR_TRY(fr_seq_truncate(s, seq, 0));
        FR_TRY(pass(s, seq, prompt, n_prompt, 1, out, at));
    }
    return FR_OK;
}

typedef struct trouble_maker {
    fr_session *session;
    const plan *plan;
    int n_layers; /* that passes went through so far */
} trouble_maker;

static void make_trouble(void *ctx)
{
    trouble_maker *t = ctx;
    const trouble *what = t->plan->trouble;
    if (t->n_layers++ < what->pass * fr_session_info_of(t->session)->n_layers)
        return;
    fr_session_on_progress(t->session, NULL, NULL);
    if (!what->call)
        fr_sleep_ms(what->nth);
    else
        fake_cuda_fail_on(t->plan->failing, what->call, what->nth, cudaErrorLaunchFailure);
}

static fr_status act(rank_thread *r)
{
    const plan *p = r->input;
    fr_session *s = NULL;
    char cause[512];
    const fr_session_options o = {.backend = "cuda", .threads = 1, .max_context = 256, .kv_positions = 256,
                                  .gpus = p->gpus, .share_gpu = p->share_gpu, .draft_vocab = ROUGH,
                                  .rank_timeout_ms = p->timeout_ms ? p->timeout_ms : LONG_MS};
    FR_TRY(fr_session_open(MODEL, r->comm, &o, &s));
    assert_int_equal(fr_session_info_of(s)->draft_vocab, ROUGH);
    trouble_maker t = {s, p, 0};
    if (p->trouble && p->failing == r->comm->rank)
        fr_session_on_progress(s, make_trouble, &t);
    fr_status st = r->comm->rank == 0 ? lead(s, p->long_prompts ? LONG : PROMPT, p->out) : fr_session_follow(s);
    snprintf(cause, sizeof cause, "%s", fr_cause());
    fr_session_close(&s);
    return st == FR_OK ? st : fr_fail(st, "%s", cause);
}

static void same(const outcome *a, const outcome *b)
{
    assert_memory_equal(a->tokens, b->tokens, sizeof a->tokens);
    assert_memory_equal(a->logits, b->logits, sizeof a->logits);
    assert_memory_equal(a->guesses, b->guesses, sizeof a->guesses);
    assert_memory_equal(a->guess_logits, b->guess_logits, sizeof a->guess_logits);
}

/* How often a kernel ran since the start, on all devices. */
static long runs_of(const char *kernel)
{
    char *text = NULL, name[128];
    size_t n = 0;
    long runs = 0, all = 0;
    FILE *f = open_memstream(&text, &n);
    assert_non_null(f);
    fake_cuda_print_kernels(f);
    fclose(f);
    for (char *rest = NULL, *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        if (sscanf(line, "%127s %ld", name, &runs) == 2 && strcmp(name, kernel) == 0)
            all += runs;
    free(text);
    return all;
}

static void test_same_bits_in_graphs(void **state)
{
    (void)state;
    for (int n = 2; n <= 3; n++) {
        outcome staged = {0}, nccl = {0};
        const long at_start = runs_of("embed");
        gpu_ranks_reset(1);
        gpu_ranks_run_well(n, act, &(plan){.share_gpu = true, .long_prompts = n == 2, .out = &staged});
        gpu_ranks_reset(n);
        gpu_ranks_run_well(n, act, &(plan){.long_prompts = n == 2, .out = &nccl});
        same(&staged, &nccl);
        const long passes = DECODED + 2 + PROMPTS, shared = n == 2 ? 1 + PROMPTS : 0; /* by rank 0 for rank 1 */
        assert_int_equal(runs_of("embed") - at_start, 2 * n * passes - shared);
        for (int i = 0; i < VERIFIED; i++)
            assert_true(memcmp(&nccl.logits[2 + i], &nccl.logits[DECODED + i], sizeof(float)) == 0);
        for (int i = 0; i < PROMPTS; i++)
            assert_true(memcmp(&nccl.logits[0], &nccl.logits[ANSWERS - 1 - i], sizeof(float)) == 0);
        /* Of decoding (its second sight on), of the verification and of the prompt, on every rank. */
        assert_int_equal(fake_cuda_count().captures, 3 * n);
        assert_int_equal(fake_cuda_count().graph_launches, (DECODED - 2 + 1 + PROMPTS) * n);
    }
}

/* One rank cannot make a graph: then none does, and the group goes on. */
static void test_a_rank_without_graphs(void **state)
{
    (void)state;
    outcome staged = {0}, nccl = {0};
    gpu_ranks_reset(1);
    gpu_ranks_run_well(2, act, &(plan){.share_gpu = true, .out = &staged});
    gpu_ranks_reset(2);
    fake_cuda_fail_on(1, "cudaGraphInstantiate", 1, cudaErrorMemoryAllocation);
    gpu_ranks_run_well(2, act, &(plan){.out = &nccl});
    same(&staged, &nccl);
    assert_int_equal(fake_cuda_count().graph_launches, 2 * (1 + PROMPTS)); /* of the others */
}

/* The same when a kernel does not go into the graph: the sums behind it may not be asked to, either. */
static void test_a_capture_that_breaks(void **state)
{
    static const trouble in_capture = {.call = "kernel", .nth = 5, .pass = 2};
    (void)state;
    outcome staged = {0}, nccl = {0};
    gpu_ranks_reset(1);
    gpu_ranks_run_well(2, act, &(plan){.share_gpu = true, .out = &staged});
    gpu_ranks_reset(2);
    gpu_ranks_run_well(2, act, &(plan){.out = &nccl, .trouble = &in_capture, .failing = 1});
    same(&staged, &nccl);
    assert_int_equal(fake_cuda_count().graph_launches, 2 * (1 + PROMPTS)); /* of the others */
}

/* Each of them is asked for memory, and no other GPU. */
static void test_named_gpus(void **state)
{
    static const fr_gpu_list gpus = {.n = 2, .numbers = {2, 0}};
    (void)state;
    for (int without = 0; without < 3; without++) { /* memory */
        outcome out = {0};
        rank_thread ranks[2];
        gpu_ranks_reset(3);
        fake_cuda_fail_on(without, "cudaMalloc", 1, cudaErrorMemoryAllocation);
        gpu_ranks_run(ranks, 2, act, &(plan){.gpus = gpus, .out = &out});
        rank_threads_ended(ranks, 2, without == 1 ? FR_OK : FR_ENOMEM, without == 1 ? "" : "out of memory");
    }
}

/* Fewer than ranks: then two have the same one, though the host has enough. */
static void test_too_few_named_gpus(void **state)
{
    static const fr_gpu_list gpus = {.n = 1, .numbers = {1}};
    (void)state;
    outcome out = {0};
    rank_thread ranks[2];
    gpu_ranks_reset(3);
    gpu_ranks_run(ranks, 2, act, &(plan){.gpus = gpus, .out = &out});
    rank_threads_ended(ranks, 2, FR_EINVAL, "ranks 0 and 1 have the same GPU");
    gpu_ranks_run_well(2, act, &(plan){.gpus = gpus, .share_gpu = true, .out = &out});
}

/* ---- out of step */

enum { SUMS = 12, PASSES = 13, VALUES = 5 };

/* In two passes of three the ranks wait for their GPUs where each likes, as one does whose memory has to grow. */
static bool waits_here(int pass, int rank, int sum)
{
    return pass % 3 != 0 && (7 * pass + 3 * rank + sum) % 5 == 0;
}

/* VALUES ones become n, n^2, ... */
static fr_status sum_in_passes(fr_comm *c, fr_device *dev, float *x)
{
    float ones[VALUES], got[VALUES], want = 1;
    for (int i = 0; i < VALUES; i++)
        ones[i] = 1;
    for (int i = 0; i < SUMS; i++)
        want *= (float)c->size;
    for (int p = 0; p < PASSES; p++) {
        FR_TRY(fr_ops_cuda.upload(dev, x, ones, sizeof ones));
        for (int i = 0; i < SUMS; i++) {
            FR_TRY(c->ops->all_reduce_sum(c, x, VALUES));
            FR_TRY(waits_here(p, c->rank, i) ? fr_ops_cuda.sync(dev) : FR_OK);
        }
        FR_TRY(fr_ops_cuda.download(dev, got, x, sizeof got));
        for (int i = 0; i < VALUES; i++)
            if (got[i] != want)
                return fr_fail(FR_EMISMATCH, "pass %d: value %d is %g, want %g", p, i, (double)got[i], (double)want);
    }
    return FR_OK;
}

static fr_status act_apart(rank_thread *r)
{
    const fr_comm_device_options o = {.batch_invariant = true, .timeout_ms = LONG_MS};
    fr_device *dev = NULL;
    fr_comm *c = NULL;
    void *x = NULL;
    FR_TRY(fr_ops_cuda.open(&(fr_device_options){.local_rank = r->options.rank}, &dev));
    FR_TRY(fr_comm_nccl_open(r->comm, &fr_ops_cuda, dev, &o, &c));
    FR_TRY(fr_ops_cuda.mem_alloc(dev, VALUES * sizeof(float), &x));
    fr_status st = sum_in_passes(c, dev, x);
    fr_ops_cuda.mem_free(dev, x);
    c->ops->close(&c);
    fr_ops_cuda.close(&dev);
    return st;
}

static void test_ranks_out_of_step(void **state)
{
    (void)state;
    for (int n = 2; n <= MOST_RANKS; n++) {
        gpu_ranks_reset(n);
        gpu_ranks_run_well(n, act_apart, NULL);
        assert_int_equal(fake_cuda_count().captures, n);
        assert_int_equal(fake_cuda_count().graph_launches, n * ((PASSES - 1) / 3)); /* in step, but for the first */
    }
}

/* ---- failures */

/* Before a rank's sums, at the second copy (after what is staged, the leader's is of the answers, behind the sums; the
 * others have none but of what the next pass stages), and where a graph is launched: all learn which rank it was and
 * why. (In a long prompt one emulated kernel may take longer than the others have to say that they are there.) */
static void test_failing_rank(void **state)
{
    static const trouble cases[] = {{"kernel", 9, "GPU: starting ", 0},
                                    {"cudaMemcpyAsync", 2, "GPU: starting ", 0},
                                    {"cudaGraphLaunch", 2, "GPU: a graph of ", 0}};
    static const char *const copy_of_follower = "GPU: a copy of ";
    (void)state;
    for (int failing = 0; failing < 3; failing += 2) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            outcome out = {0};
            const bool long_prompts = failing == 0 && i == 0;
            rank_thread ranks[3];
            char name[24];
            gpu_ranks_reset(3);
            snprintf(name, sizeof name, "rank %d: GPU", failing);
            gpu_ranks_run(ranks, 3, act, &(plan){.out = &out, .trouble = &cases[i], .failing = failing,
                                                 .long_prompts = long_prompts});
            for (int r = 0; r < 3; r++) {
                const fr_status st = r == failing ? FR_EIO : FR_EPEER;
                rank_thread_ended(&ranks[r], st, name);
                rank_thread_ended(&ranks[r], st, failing > 0 && i == 1 ? copy_of_follower : cases[i].cause);
                if (!long_prompts)
                    rank_thread_ended(&ranks[r], st, "; every rank is still there");
            }
        }
    }
}

/* Before it could say that it is there: the others do not wait for ever. */
static void test_stalled_rank(void **state)
{
    static const trouble stands_still = {.nth = 9000};
    (void)state;
    outcome out = {0};
    rank_thread ranks[3];
    gpu_ranks_reset(3);
    gpu_ranks_run(ranks, 3, act, &(plan){.out = &out, .trouble = &stands_still, .failing = 2, .timeout_ms = 3000});
    rank_threads_ended(ranks, 3, FR_EPEER, "rank 0: no word from rank 2 in 3000 ms");
    rank_thread_ended(&ranks[0], FR_EPEER, "; no word from rank 2");
}

static fr_status open_and_close(rank_thread *r)
{
    const fr_session_options o = {.backend = "cuda", .threads = 1, .max_context = 256, .kv_positions = 256,
                                  .rank_timeout_ms = SHORT_MS};
    fr_session *s = NULL;
    FR_TRY(fr_session_open(MODEL, r->comm, &o, &s));
    fr_session_close(&s);
    return FR_OK;
}

/* How long a rank may be late for a sum does not bound how long NCCL may take to connect the ranks. */
static void test_slow_connection(void **state)
{
    (void)state;
    gpu_ranks_reset(2);
    fake_nccl_slow(FAKE_NCCL_INIT, 1, 2 * SHORT_MS);
    gpu_ranks_run_well(2, open_and_close, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_bits_in_graphs),
                                       cmocka_unit_test(test_a_rank_without_graphs),
                                       cmocka_unit_test(test_a_capture_that_breaks),
                                       cmocka_unit_test(test_named_gpus), cmocka_unit_test(test_too_few_named_gpus),
                                       cmocka_unit_test(test_ranks_out_of_step),
                                       cmocka_unit_test(test_failing_rank), cmocka_unit_test(test_stalled_rank),
                                       cmocka_unit_test(test_slow_connection)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
