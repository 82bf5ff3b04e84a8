/* codec.h: messages as C structs, to bytes and back. codec.c is the only file that sees protobuf-c.
 *
 * The structs mirror forerun.proto name by name: message Foo is fr_msg_foo, its fields keep their
 * names; a repeated field x is a pointer x and a count n_x; a string is a char * (never NULL after
 * decoding, "" when absent); bytes are fr_bytes; a sub-message is held by value. Which member of
 * fr_msg.body is set is told by fr_msg.kind, FR_MSG_FOO.
 *
 * Encoding borrows everything. Decoding fills a message that owns its memory; release it with
 * fr_msg_free(). */
#ifndef FR_CODEC_H
#define FR_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "buf.h"
#include "status.h"

typedef struct fr_bytes {
    const uint8_t *data;
    size_t len;
} fr_bytes;

typedef struct fr_msg_sampling {
    float temperature, top_p;
    uint32_t top_k;
    uint64_t seed;
    uint32_t sample;
} fr_msg_sampling;

typedef struct fr_msg_register {
    const char *role, *name;
    uint64_t model_digest, tokenizer_digest;
    const char *model_name;
    uint32_t ranks, threads, max_context;
    uint64_t kv_positions;
    const char *backend;
    uint32_t pid;
    int batch_dependent;
} fr_msg_register;

typedef struct fr_msg_heartbeat {
    uint64_t kv_free;
    uint32_t active;
    uint64_t passes, rows;
    double busy_seconds;
} fr_msg_heartbeat;

typedef struct fr_msg_tokenizer_blob {
    fr_bytes blob;
} fr_msg_tokenizer_blob;

typedef struct fr_msg_tokens {
    uint64_t request;
    uint32_t position;
    const int32_t *ids;
    size_t n_ids;
} fr_msg_tokens;

typedef struct fr_msg_generated {
    uint64_t request;
    uint32_t position;
    const int32_t *ids;
    size_t n_ids;
    const float *logprobs;
    size_t n_logprobs;
    const char *stop;
    uint32_t passes, rows;
    double seconds;
} fr_msg_generated;

typedef struct fr_msg_probe_result {
    uint32_t at;
    const float *logprobs;
    size_t n_logprobs;
    int32_t best;
} fr_msg_probe_result;

typedef struct fr_msg_verified {
    uint64_t request;
    uint32_t position;
    const int32_t *own;
    size_t n_own;
    const float *drafted_logprobs;
    size_t n_drafted_logprobs;
    const fr_msg_probe_result *probes;
    size_t n_probes;
    uint32_t passes, rows;
    double seconds;
} fr_msg_verified;

typedef struct fr_msg_engine_error {
    uint64_t request;
    int32_t status;
    const char *cause;
    uint32_t have;
} fr_msg_engine_error;

typedef struct fr_msg_goodbye {
    const char *reason;
} fr_msg_goodbye;

typedef struct fr_msg_welcome {
    uint32_t group;
    uint64_t epoch;
    int want_tokenizer;
    uint32_t heartbeat_ms;
} fr_msg_welcome;

typedef struct fr_msg_prefix {
    uint64_t job;
    uint32_t sequence;
    uint64_t epoch;
    uint32_t start;
    uint64_t digest;
    const int32_t *tokens;
    size_t n_tokens;
    uint32_t chain_base;
} fr_msg_prefix;

typedef struct fr_msg_generate {
    uint64_t request;
    fr_msg_prefix prefix;
    fr_msg_sampling sampling;
    uint32_t max_tokens;
    int stop_at_step;
    const char *delimiter;
    uint32_t step_from;
    float min_joint_logprob;
    int stream;
    const char *const *stops;
    size_t n_stops;
    int rough;
} fr_msg_generate;

typedef struct fr_msg_probe {
    uint32_t at;
    const int32_t *tokens;
    size_t n_tokens;
    const int32_t *wanted;
    size_t n_wanted;
} fr_msg_probe;

typedef struct fr_msg_verify {
    uint64_t request;
    fr_msg_prefix prefix;
    fr_msg_sampling sampling;
    uint32_t position;
    const fr_msg_probe *probes;
    size_t n_probes;
} fr_msg_verify;

typedef struct fr_msg_truncate {
    uint64_t job;
    uint32_t sequence, position;
} fr_msg_truncate;

typedef struct fr_msg_fork {
    uint64_t job;
    uint32_t from, to, position;
} fr_msg_fork;

typedef struct fr_msg_release {
    uint64_t job;
    uint32_t sequence;
    int all;
} fr_msg_release;

typedef struct fr_msg_cancel_request {
    uint64_t request;
} fr_msg_cancel_request;

typedef struct fr_msg_shutdown {
    const char *reason;
} fr_msg_shutdown;

typedef struct fr_msg_job_spec {
    const char *problem, *system, *policy, *judge;
    double threshold;
    uint32_t draft_tokens, lookahead;
    fr_msg_sampling sampling;
    uint32_t max_tokens, step_tokens;
    const char *delimiter, *name;
    int raw, default_system, default_suffix;
} fr_msg_job_spec;

typedef struct fr_msg_submit {
    fr_msg_job_spec spec;
    int watch;
} fr_msg_submit;

typedef struct fr_msg_watch {
    uint64_t job;
    uint32_t from_step;
} fr_msg_watch;

typedef struct fr_msg_status_query {
    uint64_t job;
} fr_msg_status_query;

typedef struct fr_msg_list_query {
    uint32_t limit;
    const char *state;
} fr_msg_list_query;

typedef struct fr_msg_cancel_job {
    uint64_t job;
} fr_msg_cancel_job;

typedef struct fr_msg_stop_cluster {
    int drain;
} fr_msg_stop_cluster;

typedef struct fr_msg_submitted {
    uint64_t job;
} fr_msg_submitted;

typedef struct fr_msg_step {
    uint64_t job;
    uint32_t index;
    const char *origin, *verdict;
    float score;
    fr_bytes text;
    uint32_t tokens, drafted, accepted;
    double seconds;
} fr_msg_step;

typedef struct fr_msg_progress {
    uint64_t job;
    uint32_t chain_tokens, drafted, accepted;
    uint64_t passes;
    double seconds;
    fr_bytes tail;
} fr_msg_progress;

typedef struct fr_msg_job_info {
    uint64_t job;
    const char *state;
    fr_msg_job_spec spec;
    uint32_t steps, chain_tokens, drafted, accepted, target_tokens;
    uint64_t passes;
    double seconds;
    fr_bytes text;
    const char *answer;
    int32_t status;
    const char *cause, *stop;
    int64_t submitted_ms, finished_ms;
    int batch_dependent;
} fr_msg_job_info;

typedef struct fr_msg_done {
    fr_msg_job_info job;
} fr_msg_done;

typedef struct fr_msg_group_info {
    uint32_t group;
    const char *name, *role, *model;
    uint32_t ranks, threads;
    int alive;
    uint64_t kv_positions, kv_free;
    uint32_t active;
    uint64_t passes;
    double last_seen_s;
    const char *backend;
    uint64_t model_digest;
    uint32_t pid;
    double busy_seconds;
    int batch_dependent;
} fr_msg_group_info;

typedef struct fr_msg_status_reply {
    const fr_msg_group_info *groups;
    size_t n_groups;
    const fr_msg_job_info *jobs;
    size_t n_jobs;
    double uptime;
    uint32_t queued, running;
    const char *version;
} fr_msg_status_reply;

typedef struct fr_msg_list_reply {
    const fr_msg_job_info *jobs;
    size_t n_jobs;
} fr_msg_list_reply;

typedef struct fr_msg_error {
    int32_t status;
    const char *cause;
    uint64_t job;
} fr_msg_error;

typedef struct fr_msg_ok {
    uint64_t job;
} fr_msg_ok;

typedef struct fr_msg_rank_word {
    uint32_t rank, ranks, kind;
    uint64_t number;
    fr_bytes data;
} fr_msg_rank_word;

/* X(KIND, member, envelope field number) */
#define FR_MSG_MAP(X)                       \
    X(REGISTER, register_, 10)              \
    X(HEARTBEAT, heartbeat, 11)             \
    X(TOKENIZER_BLOB, tokenizer_blob, 12)   \
    X(TOKENS, tokens, 13)                   \
    X(GENERATED, generated, 14)             \
    X(VERIFIED, verified, 15)               \
    X(ENGINE_ERROR, engine_error, 16)       \
    X(GOODBYE, goodbye, 17)                 \
    X(WELCOME, welcome, 30)                 \
    X(GENERATE, generate, 31)               \
    X(VERIFY, verify, 32)                   \
    X(TRUNCATE, truncate, 33)               \
    X(FORK, fork, 34)                       \
    X(RELEASE, release, 35)                 \
    X(CANCEL_REQUEST, cancel_request, 36)   \
    X(SHUTDOWN, shutdown, 37)               \
    X(SUBMIT, submit, 50)                   \
    X(WATCH, watch, 51)                     \
    X(STATUS_QUERY, status_query, 52)       \
    X(LIST_QUERY, list_query, 53)           \
    X(CANCEL_JOB, cancel_job, 54)           \
    X(STOP_CLUSTER, stop_cluster, 55)       \
    X(SUBMITTED, submitted, 70)             \
    X(STEP, step, 71)                       \
    X(PROGRESS, progress, 72)               \
    X(DONE, done, 73)                       \
    X(STATUS_REPLY, status_reply, 74)       \
    X(LIST_REPLY, list_reply, 75)           \
    X(ERROR, error, 76)                     \
    X(OK, ok, 77)                           \
    X(RANK_WORD, rank_word, 90)

#define X(kind, member, number) FR_MSG_##kind = number,
typedef enum { FR_MSG_NONE = 0, FR_MSG_MAP(X) } fr_msg_kind;
#undef X

typedef struct fr_msg {
    fr_msg_kind kind;
    uint64_t tag;
    union {
        fr_msg_register register_;
        fr_msg_heartbeat heartbeat;
        fr_msg_tokenizer_blob tokenizer_blob;
        fr_msg_tokens tokens;
        fr_msg_generated generated;
        fr_msg_verified verified;
        fr_msg_engine_error engine_error;
        fr_msg_goodbye goodbye;
        fr_msg_welcome welcome;
        fr_msg_generate generate;
        fr_msg_verify verify;
        fr_msg_truncate truncate;
        fr_msg_fork fork;
        fr_msg_release release;
        fr_msg_cancel_request cancel_request;
        fr_msg_shutdown shutdown;
        fr_msg_submit submit;
        fr_msg_watch watch;
        fr_msg_status_query status_query;
        fr_msg_list_query list_query;
        fr_msg_cancel_job cancel_job;
        fr_msg_stop_cluster stop_cluster;
        fr_msg_submitted submitted;
        fr_msg_step step;
        fr_msg_progress progress;
        fr_msg_done done;
        fr_msg_status_reply status_reply;
        fr_msg_list_reply list_reply;
        fr_msg_error error;
        fr_msg_ok ok;
        fr_msg_rank_word rank_word;
    } body;
    void *owned; /* the decoder's memory; NULL in a message that borrows */
} fr_msg;

const char *fr_msg_kind_name(fr_msg_kind kind); /* "generate"; "unknown" */

/* Appends the encoded envelope to out. */
fr_status fr_msg_encode(const fr_msg *m, fr_buf *out);
/* Untrusted bytes: FR_EPROTO for anything malformed, for an envelope without a body, and for text
 * that is not UTF-8. */
fr_status fr_msg_decode(const void *data, size_t n, fr_msg *out);
/* Frees what decoding allocated and zeroes the message. A borrowing or zeroed message is fine. */
void fr_msg_free(fr_msg *m);

#endif
