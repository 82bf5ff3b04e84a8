/* fixed_passes.c: loads a model and runs the same passes over and over, for counting instructions
 * (tests/bench/callgrind collects inside fr_model_load or run_passes only).
 *
 *     fixed_passes MODEL BACKEND WIDTH PASSES
 *
 * One thread. Each pass appends WIDTH tokens to a context of CONTEXT and asks about every one of
 * them, greedily, as a verification does; then they are cut off again. Exits 77 when this machine
 * cannot run the backend. */
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "comm.h"
#include "session.h"

enum { CONTEXT = 64, WIDTH_MAX = 128, SKIPPED = 77 };

static fr_status one_pass(fr_session *s, int seq, const int32_t *tokens, int n)
{
    const fr_row_query greedy = {0};
    int row = 0, answer = 0;
    fr_pass_begin(s);
    FR_TRY(fr_pass_append(s, seq, tokens, n, &row));
    for (int i = 0; i < n; i++)
        FR_TRY(fr_pass_ask(s, row + i, &greedy, &answer));
    return fr_pass_run(s);
}

/* A function of its own under any compiler's wits: collection starts and ends with it. */
__attribute__((noipa)) static fr_status run_passes(fr_session *s, int seq, const int32_t *tokens,
                                                   int width, int passes)
{
    for (int i = 0; i < passes; i++) {
        FR_TRY(one_pass(s, seq, tokens, width));
        FR_TRY(fr_seq_truncate(s, seq, CONTEXT));
    }
    return FR_OK;
}

static fr_status run(fr_session *s, int width, int passes)
{
    int32_t tokens[WIDTH_MAX];
    int seq = -1;
    for (int i = 0; i < WIDTH_MAX; i++)
        tokens[i] = (i * 37 + 11) % fr_session_info_of(s)->n_vocab;
    FR_TRY(fr_seq_new(s, &seq));
    FR_TRY(one_pass(s, seq, tokens, CONTEXT));
    return run_passes(s, seq, tokens, width, passes);
}

int main(int argc, char **argv)
{
    int width = argc == 5 ? atoi(argv[3]) : 0, passes = argc == 5 ? atoi(argv[4]) : 0;
    if (width < 1 || width > WIDTH_MAX || passes < 1) {
        fprintf(stderr, "usage: fixed_passes MODEL BACKEND WIDTH PASSES\n");
        return 2;
    }
    const fr_session_options options = {.backend = argv[2], .threads = 1};
    fr_comm *comm = NULL;
    fr_session *session = NULL;
    fr_status st = fr_comm_self_open(&comm);
    if (st == FR_OK)
        st = fr_session_open(argv[1], comm, &options, &session);
    if (st == FR_OK)
        st = run(session, width, passes);
    if (st != FR_OK)
        fprintf(stderr, "fixed_passes: %s\n", fr_cause());
    fr_session_close(&session);
    if (comm)
        comm->ops->close(&comm);
    return st == FR_OK ? 0 : st == FR_EUNSUPPORTED ? SKIPPED : 1;
}
