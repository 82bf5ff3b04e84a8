/* suite.c: one model over one, two, three or four ranks answers alike. Run under mpirun; rank 0 also holds the model
 * by itself and compares: the same tokens, log-probabilities within a stated tolerance (sums over ranks associate
 * differently), by the whole head and by the rough one, and on any one degree the same bits however the rows are
 * batched.
 *
 *     suite MODEL          compares this many ranks with one, with the file's weights and with those quantised to Q4_0
 *     suite MODEL refused  expects the degree to be refused, on all ranks, with those that work
 *     suite MODEL BACKEND  this many ranks on that backend, where they may share a GPU, against one on cpu_ref
 *     suite MODEL BACKEND own  expects ranks that may not share to be refused
 *     suite MODEL mixed    expects ranks of different backends to be refused */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sampler.h"
#include "session.h"

#define PROMPT                                                                                      \
    "<|im_start|>user\nStart with 47. (1) Add 385. (2) Take away 96. (3) Double it.<|im_end|>\n" \
    "<|im_start|>assistant\n"
#define TOLERANCE 0.02f /* of a log-probability: int8 activations round differently for other slices */
#define TOLERANCE_BACKENDS 0.1f /* between int8 activations and cpu_ref's, which are not rounded */
enum { TOKENS = 40, DRAFT_VOCAB = 300 };

static int failures;
static float tolerance = TOLERANCE;

static void check(int fine, const char *what, const char *detail)
{
    if (!fine) {
        fprintf(stderr, "FAILED: %s: %s\n", what, detail);
        failures++;
    }
}

static void need(fr_status st)
{
    if (st != FR_OK) {
        fprintf(stderr, "FAILED: %s\n", fr_cause());
        exit(1); /* a test program's own end; mpirun ends the other ranks */
    }
}

typedef fr_status (*asking)(fr_session *s, int row, const fr_row_query *query, int *answer_out);

/* Greedy continuation; logprobs of what was chosen. Tokens are fed one a pass after the prompt. */
static void decode(fr_session *s, const fr_ids *prompt, const int32_t *forced, asking ask, int32_t *tokens,
                   float *logprobs)
{
    int seq = -1, row = 0, a = 0;
    need(fr_seq_new(s, &seq));
    int32_t last = 0;
    for (int i = 0; i < TOKENS; i++) {
        fr_pass_begin(s);
        int n = i ? 1 : (int)prompt->len;
        need(fr_pass_append(s, seq, i ? &last : prompt->data, n, &row));
        fr_row_query q = {.n_wanted = forced ? 1 : 0};
        if (forced)
            q.wanted[0] = forced[i];
        need(ask(s, row + n - 1, &q, &a));
        need(fr_pass_run(s));
        const fr_row_answer *answer = fr_pass_answer(s, a);
        tokens[i] = answer->winner;
        last = forced ? forced[i] : answer->winner;
        logprobs[i] = fr_answer_logprob(answer, forced ? answer->wanted_logit[0] : answer->winner_logit);
    }
    fr_seq_free(s, seq);
}

/* The whole text in one pass: the same bits as token by token. */
static void verify(fr_session *s, const fr_ids *prompt, const int32_t *tokens, const float *logprobs)
{
    int seq = -1, row = 0, more = 0, a = 0;
    fr_ids all = {0};
    need(fr_ids_put(&all, prompt->data, prompt->len));
    need(fr_ids_put(&all, tokens, TOKENS - 1));
    need(fr_seq_new(s, &seq));
    fr_pass_begin(s);
    need(fr_pass_append(s, seq, all.data, 9, &row));
    need(fr_pass_run(s));
    fr_pass_begin(s);
    need(fr_pass_append(s, seq, all.data + 9, (int)all.len - 9, &more));
    const fr_row_query q = {0};
    for (int i = 0; i < TOKENS; i++)
        need(fr_pass_ask(s, (int)prompt->len - 10 + i, &q, &a));
    need(fr_pass_run(s));
    for (int i = 0; i < TOKENS; i++) {
        const fr_row_answer *answer = fr_pass_answer(s, i);
        float logprob = fr_answer_logprob(answer, answer->winner_logit);
        check(answer->winner == tokens[i], "verification", "another token than by decoding");
        check(memcmp(&logprob, &logprobs[i], sizeof logprob) == 0, "verification", "other bits than by decoding");
    }
    fr_seq_free(s, seq);
    fr_ids_free(&all);
}

/* The same tokens' log-probabilities by one rank and by many. */
static void compare_by(asking ask, const char *what, fr_session *one, fr_session *many, const fr_ids *prompt,
                       const int32_t *tokens)
{
    int32_t again[TOKENS];
    float lp_one[TOKENS], lp_many[TOKENS];
    decode(one, prompt, tokens, ask, again, lp_one);
    decode(many, prompt, tokens, ask, again, lp_many);
    for (int i = 0; i < TOKENS; i++) {
        char text[96];
        snprintf(text, sizeof text, "token %d: %f by one rank, %f by %d", i, lp_one[i], lp_many[i],
                 fr_session_info_of(many)->n_ranks);
        check(fabsf(lp_one[i] - lp_many[i]) <= tolerance, what, text);
    }
}

static void compare(fr_session *many, const char *model, const fr_session_options *o)
{
    fr_comm *self = NULL;
    fr_session *one = NULL;
    fr_ids prompt = {0};
    int32_t tokens[TOKENS];
    float own[TOKENS];
    need(fr_comm_self_open(&self));
    need(fr_session_open(model, self, o, &one));
    need(fr_tokenize(fr_session_tokenizer(one), PROMPT, strlen(PROMPT), 1, &prompt));
    decode(many, &prompt, NULL, fr_pass_ask, tokens, own);
    verify(many, &prompt, tokens, own);
    compare_by(fr_pass_ask, "log-probability", one, many, &prompt, tokens);
    decode(one, &prompt, NULL, fr_pass_ask_rough, tokens, own); /* only tokens that the rough head has */
    compare_by(fr_pass_ask_rough, "log-probability by the rough head", one, many, &prompt, tokens);
    fr_ids_free(&prompt);
    fr_session_close(&one);
    self->ops->close(&self);
}

static void expect_refusal(fr_comm *comm, fr_status st, const char *words)
{
    check((st == FR_EINVAL || st == FR_EMISMATCH) && strstr(fr_cause(), words), "refusal", fr_cause());
    if (comm->rank == 0)
        printf("refused: %s\n", fr_cause());
}

/* refused: words of the refusal that is expected; NULL: none is. */
static void run(fr_comm *comm, const char *model, const char *backend, const char *refused, fr_draft_weights weights)
{
    fr_session *s = NULL;
    fr_session_options o = {.backend = backend, .share_gpu = !refused, .threads = 1, .max_rows = 128,
                            .max_context = 512, .kv_positions = 512, .draft_vocab = DRAFT_VOCAB,
                            .draft_weights = weights};
    fr_status st = fr_session_open(model, comm, &o, &s);
    if (refused) {
        expect_refusal(comm, st, refused);
    } else {
        need(st);
        o.backend = backend ? "cpu_ref" : NULL;
        if (comm->rank == 0)
            compare(s, model, &o);
        else
            need(fr_session_follow(s));
    }
    fr_session_close(&s);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    fr_comm *comm = NULL;
    need(fr_comm_mpi_open(1, &comm));
    int splits = argc == 2 || strcmp(argv[2], "refused") != 0;
    const char *backend = argc > 2 && splits ? argv[2] : NULL;
    const char *refused = !splits ? "ranks work" : argc > 3 ? "have the same GPU" : NULL;
    if (backend && strcmp(backend, "mixed") == 0) {
        backend = comm->rank == comm->size - 1 ? "cpu_ref" : NULL;
        refused = "computes by backend cpu_ref, rank 0 by";
    }
    tolerance = backend ? TOLERANCE_BACKENDS : TOLERANCE;
    run(comm, argv[1], backend, refused, FR_DRAFT_WEIGHTS_FILE);
    run(comm, argv[1], backend, refused, FR_DRAFT_WEIGHTS_Q4_0);
    int rank = comm->rank, size = comm->size;
    comm->ops->close(&comm);
    if (rank == 0)
        printf("%d ranks: %s\n", size, failures ? "FAILED" : "ok");
    return failures != 0;
}
