/* session.h: the engine's public door: one model on one group of ranks, with its KV cache, and passes over it.
 *
 * Every rank opens the session (collective). Followers then call fr_session_follow() and obey the leader until it
 * closes; only the leader calls the rest. The leader keeps the sequences (which tokens lie in which pages); a pass is
 * described by a plan that it broadcasts, so followers hold nothing but weights and pages. One thread uses a session.
 *
 * A pass: begin, then append tokens to sequences and hang branches off them, ask about rows, run, read the answers.
 * Rows of one pass see each other as their positions allow; the result of a row does not depend on the other rows. */
#ifndef FR_SESSION_H
#define FR_SESSION_H

#include "candidates.h"
#include "comm.h"
#include "draft_vocab.h"
#include "draft_weights.h"
#include "gpu_list.h"
#include "status.h"
#include "tokenizer.h"

typedef struct fr_session fr_session;

typedef struct fr_session_options {
    const char *backend;  /* NULL: the fastest here (ops.h) */
    int threads;          /* CPU threads of this rank; 0: the cores it may use, divided among the ranks sharing them */
    int place;            /* 1: the opening thread and the session's are bound to cores of their own where that helps
                           * (cpu_place.h), until the session closes; 0: they share cores with whoever runs */
    int max_rows;         /* most rows of a pass; 0: 256 */
    int max_context;      /* positions of one sequence; 0: the model's own limit */
    int64_t kv_positions; /* cache capacity in positions, all sequences together; 0: 2 * max_context, at most 64 Ki */
    int draft_vocab;      /* tokens of a rough head beside the whole one, or FR_DRAFT_VOCAB_AUTO (draft_vocab.h);
                           * 0: none */
    fr_draft_weights draft_weights; /* how the matrices are held, but for the whole head (draft_weights.h) */
    fr_gpu_list gpus;     /* of this host, which its ranks take in turn; none: all. Each rank may have its own */
    bool share_gpu;       /* ranks of a host may take the same GPU, where it has fewer than ranks: their sums go through
                           * host memory */
    int rank_timeout_ms;  /* a rank with a GPU that does not come to a sum for so long is given up
                           * (comm_device.h); 0: 30 s. At the start ranks have at least that long to connect */
    bool batch_dependent; /* what a GPU computes may depend on the batch, where that is faster; strict jobs want
                           * it not to */
} fr_session_options;

typedef struct fr_session_info {
    char model_name[64];      /* general.name, or the file's */
    char architecture[32];
    uint64_t model_digest;    /* of the file, and of draft_weights where they are not the file's */
    uint64_t tokenizer_digest;
    int n_layers, dim, n_vocab, max_context, max_rows, n_ranks, threads;
    int64_t kv_positions;
    const char *backend;
    bool batch_dependent;     /* what it computes may depend on the batch: the option, and the backend can */
    int64_t weight_bytes;     /* read by one single-token pass on this rank, with the whole head */
    int draft_vocab;          /* tokens of the rough head; 0: there is none */
    double load_s;            /* seconds that opening took, on this rank */
} fr_session_info;

/* Without a group: FR_EINVAL for a degree that the model's heads and blocks cannot be split over, naming those that
 * work; or what is wrong with the file. */
fr_status fr_session_check_ranks(const char *model_path, int n_ranks);
/* All ranks: loads this rank's slices. When one rank fails, all return its status and cause. Refuses a degree that
 * fr_session_check_ranks() refuses. The communicator stays the caller's. */
fr_status fr_session_open(const char *model_path, fr_comm *comm, const fr_session_options *options,
                          fr_session **out);
/* The same, but where it fails nothing is let go yet, which may take long: *out is then what was opened, or NULL, and
 * can only be closed, after the cause was told. */
fr_status fr_session_begin(const char *model_path, fr_comm *comm, const fr_session_options *options,
                           fr_session **out);
/* Leader: also releases the followers. */
void fr_session_close(fr_session **s);
/* Followers: returns FR_OK when the leader closes. */
fr_status fr_session_follow(fr_session *s);

/* Leader, between passes: FR_EPEER when another rank has given up or, in a group without MPI, its process has ended;
 * then the group was given up. */
fr_status fr_session_check_group(fr_session *s);

/* Leader: calls progress(ctx) after every layer of a pass, so that a long one can show that it gets on; it must not
 * touch the session. NULL: no more. */
void fr_session_on_progress(fr_session *s, void (*progress)(void *ctx), void *ctx);

const fr_session_info *fr_session_info_of(const fr_session *s);
/* For measurements, on this rank. Of devices whose memory is their own; 0 where it is the host's: milliseconds that the
 * device was at work on the last pass, and how fast it reads its memory. */
fr_status fr_session_device_ms(fr_session *s, double *out);
fr_status fr_session_read_gb_s(fr_session *s, double *out);
const fr_tokenizer *fr_session_tokenizer(const fr_session *s);

/* Sequences. Ids are small integers; -1 is none. A fork shares full pages and copies the unfinished one. */
fr_status fr_seq_new(fr_session *s, int *seq_out);
fr_status fr_seq_fork(fr_session *s, int seq, int n_positions, int *seq_out);
fr_status fr_seq_truncate(fr_session *s, int seq, int n_positions);
void fr_seq_free(fr_session *s, int seq);
int fr_seq_len(const fr_session *s, int seq);
const int32_t *fr_seq_tokens(const fr_session *s, int seq); /* fr_seq_len() ids; valid until the sequence changes */
/* The sequence that shares the longest prefix with tokens [n]; -1 when none shares any. */
int fr_seq_match(const fr_session *s, const int32_t *tokens, int n, int *n_shared_out);
/* Positions that can still be cached without freeing a sequence. */
int64_t fr_session_kv_free(const fr_session *s);

/* Building a pass. A sequence is appended to at most once a pass; branches come after its append. first_row_out: the
 * row of the first token; the others follow. FR_ELIMIT when the rows, the context or the pages do not suffice: then
 * nothing was added. */
void fr_pass_begin(fr_session *s);
int fr_pass_room(const fr_session *s); /* rows left */
fr_status fr_pass_append(fr_session *s, int seq, const int32_t *tokens, int n, int *first_row_out);
/* A branch sees the sequence's first n_positions positions (appended rows included) and itself; it is gone after the
 * pass. */
fr_status fr_pass_branch(fr_session *s, int seq, int n_positions, const int32_t *tokens, int n,
                         int *first_row_out);
/* Asks about the row's next token. query->position is the caller's (chain position), wanted as in candidates.h. */
fr_status fr_pass_ask(fr_session *s, int row, const fr_row_query *query, int *answer_out);
/* The same for a guess that will be verified: the rough head, where there is one, answers, with the rows of tokens that
 * were in the latest passes (recent_head.h). To it other tokens are impossible. */
fr_status fr_pass_ask_rough(fr_session *s, int row, const fr_row_query *query, int *answer_out);
/* Runs it on all ranks. On failure the sequences are as before the pass. An empty pass is fine. */
fr_status fr_pass_run(fr_session *s);
/* The merged answer over the whole vocabulary; valid until the next fr_pass_begin(). */
const fr_row_answer *fr_pass_answer(const fr_session *s, int answer);

#endif
