/* gpu_host.c: what the host does of a pass on a GPU, the GPU itself being idle (idle_gpu.h).
 *
 *     gpu_host MODEL WIDTH CONTEXT PASSES
 *
 * After a context of CONTEXT tokens each pass appends WIDTH tokens and asks about all of them, greedily; half of
 * more than one are cut off again, as where a verification keeps half. So no pass has the pages of the one before,
 * as in decoding. Prints medians of the microseconds up to the launch of the pass's graph and of the whole pass, and
 * how many kernels and calls of the GPU's library a pass takes. */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "comm.h"
#include "idle_gpu.h"
#include "session.h"

enum { APPEND = 256, WIDTH_MAX = 32, PASSES_MAX = 10000 };

typedef struct times {
    double launch_us[PASSES_MAX], pass_us[PASSES_MAX]; /* of passes that were a graph */
    int n, kernels, calls;
} times;

static fr_status one_pass(fr_session *s, int seq, const int32_t *tokens, int n, int asked)
{
    const fr_row_query greedy = {0};
    int row = 0, answer = 0;
    fr_pass_begin(s);
    FR_TRY(fr_pass_append(s, seq, tokens, n, &row));
    for (int i = 0; i < asked; i++)
        FR_TRY(fr_pass_ask(s, row + i, &greedy, &answer));
    return fr_pass_run(s);
}

static void note(times *t, const idle_gpu_counts *before, double begun_us)
{
    const idle_gpu_counts after = idle_gpu_count();
    const double ended_us = idle_gpu_now_us();
    if (after.graph_launches == before->graph_launches) { /* seen for the first time */
        t->kernels = after.kernels - before->kernels;
        return;
    }
    t->launch_us[t->n] = after.started_us - begun_us;
    t->pass_us[t->n++] = ended_us - begun_us;
    t->calls = after.calls - before->calls;
}

/* A function of its own under any compiler's wits, for counting what happens in it. */
__attribute__((noipa)) static fr_status run_passes(fr_session *s, int seq, const int32_t *tokens, int width, int passes,
                                                   times *out)
{
    for (int i = 0; i < passes; i++) {
        const idle_gpu_counts before = idle_gpu_count();
        const double begun_us = idle_gpu_now_us();
        FR_TRY(one_pass(s, seq, tokens, width, width));
        note(out, &before, begun_us);
        FR_TRY(fr_seq_truncate(s, seq, fr_seq_len(s, seq) - width / 2));
    }
    return FR_OK;
}

static fr_status run(fr_session *s, int width, int context, int passes, times *out)
{
    int32_t tokens[APPEND];
    int seq = -1;
    for (int i = 0; i < APPEND; i++)
        tokens[i] = (i * 37 + 11) % fr_session_info_of(s)->n_vocab;
    FR_TRY(fr_seq_new(s, &seq));
    idle_gpu_begin();
    for (int left = context; left > 0; left -= APPEND)
        FR_TRY(one_pass(s, seq, tokens, left < APPEND ? left : APPEND, 0));
    return run_passes(s, seq, tokens, width, passes, out);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof *values, ascending);
    return n > 0 ? values[n / 2] : 0;
}

static void print(times *t, int width, int context, int passes)
{
    printf("width %d, context %d: launched after %.1f us, done after %.1f us (medians of %d), %d kernels, %d calls; "
           "%d of %d passes new\n", width, context, median(t->launch_us, t->n), median(t->pass_us, t->n), t->n,
           t->kernels, t->calls, passes - t->n, passes);
}

int main(int argc, char **argv)
{
    static times t;
    const int width = argc == 5 ? atoi(argv[2]) : 0, context = argc == 5 ? atoi(argv[3]) : -1,
              passes = argc == 5 ? atoi(argv[4]) : 0;
    if (width < 1 || width > WIDTH_MAX || context < 0 || passes < 1 || passes > PASSES_MAX) {
        fprintf(stderr, "usage: gpu_host MODEL WIDTH CONTEXT PASSES\n");
        return 2;
    }
    const int positions = context + width * (passes + 1);
    const fr_session_options options = {.backend = "cuda", .threads = 1, .max_context = positions,
                                        .kv_positions = positions + APPEND};
    fr_comm *comm = NULL;
    fr_session *session = NULL;
    fr_status st = fr_comm_self_open(&comm);
    if (st == FR_OK)
        st = fr_session_open(argv[1], comm, &options, &session);
    if (st == FR_OK)
        st = run(session, width, context, passes, &t);
    if (st == FR_OK)
        print(&t, width, context, passes);
    else
        fprintf(stderr, "gpu_host: %s\n", fr_cause());
    fr_session_close(&session);
    if (comm)
        comm->ops->close(&comm);
    return st == FR_OK ? 0 : 1;
}
