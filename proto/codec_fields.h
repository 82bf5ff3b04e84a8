/* codec_fields.h: the fields of every message, once. codec_encode.c and codec_decode.c expand these
 * lists into one function a message; a field that is missing here is neither sent nor read.
 *
 * A list is a macro over F(KIND, field, ...):
 *   PLAIN  number             FLAG   bool                TEXT  string, must be UTF-8
 *   CAUSE  string for people: bytes that are not UTF-8 are sent as '?', so no error stays untold, and
 *          no group unregistered for its model's name
 *   BYTES  fr_bytes           NUMS   packed numbers      TEXTS repeated string
 *   SUB    message, by value  REP    repeated message    (both name the message's type last)
 * FR_CODEC_MESSAGES(M) names each message M(name in C, name in forerun.proto, list), the inner ones
 * first. */
#ifndef FR_CODEC_FIELDS_H
#define FR_CODEC_FIELDS_H

#define SAMPLING_FIELDS(F) \
    F(PLAIN, temperature) F(PLAIN, top_p) F(PLAIN, top_k) F(PLAIN, seed) F(PLAIN, sample)
#define REGISTER_FIELDS(F)                                                                      \
    F(TEXT, role) F(CAUSE, name) F(PLAIN, model_digest) F(PLAIN, tokenizer_digest)              \
    F(CAUSE, model_name) F(PLAIN, ranks) F(PLAIN, threads) F(PLAIN, max_context)                \
    F(PLAIN, kv_positions) F(TEXT, backend) F(PLAIN, pid) F(FLAG, batch_dependent)
#define HEARTBEAT_FIELDS(F) \
    F(PLAIN, kv_free) F(PLAIN, active) F(PLAIN, passes) F(PLAIN, rows) F(PLAIN, busy_seconds)
#define TOKENIZER_BLOB_FIELDS(F) F(BYTES, blob)
#define TOKENS_FIELDS(F) F(PLAIN, request) F(PLAIN, position) F(NUMS, ids)
#define GENERATED_FIELDS(F)                                                      \
    F(PLAIN, request) F(PLAIN, position) F(NUMS, ids) F(NUMS, logprobs)          \
    F(TEXT, stop) F(PLAIN, passes) F(PLAIN, rows) F(PLAIN, seconds)
#define PROBE_RESULT_FIELDS(F) F(PLAIN, at) F(NUMS, logprobs) F(PLAIN, best)
#define VERIFIED_FIELDS(F)                                                       \
    F(PLAIN, request) F(PLAIN, position) F(NUMS, own) F(NUMS, drafted_logprobs)  \
    F(REP, probes, probe_result) F(PLAIN, passes) F(PLAIN, rows) F(PLAIN, seconds)
#define ENGINE_ERROR_FIELDS(F) F(PLAIN, request) F(PLAIN, status) F(CAUSE, cause) F(PLAIN, have)
#define GOODBYE_FIELDS(F) F(CAUSE, reason)

#define WELCOME_FIELDS(F) \
    F(PLAIN, group) F(PLAIN, epoch) F(FLAG, want_tokenizer) F(PLAIN, heartbeat_ms)
#define PREFIX_FIELDS(F)                                                         \
    F(PLAIN, job) F(PLAIN, sequence) F(PLAIN, epoch) F(PLAIN, start)             \
    F(PLAIN, digest) F(NUMS, tokens) F(PLAIN, chain_base)
#define GENERATE_FIELDS(F)                                                                   \
    F(PLAIN, request) F(SUB, prefix, prefix) F(SUB, sampling, sampling)                      \
    F(PLAIN, max_tokens) F(FLAG, stop_at_step) F(TEXT, delimiter) F(PLAIN, step_from)        \
    F(PLAIN, min_joint_logprob) F(FLAG, stream) F(TEXTS, stops) F(FLAG, rough)
#define PROBE_FIELDS(F) F(PLAIN, at) F(NUMS, tokens) F(NUMS, wanted)
#define VERIFY_FIELDS(F)                                                         \
    F(PLAIN, request) F(SUB, prefix, prefix) F(SUB, sampling, sampling)          \
    F(PLAIN, position) F(REP, probes, probe)
#define TRUNCATE_FIELDS(F) F(PLAIN, job) F(PLAIN, sequence) F(PLAIN, position)
#define FORK_FIELDS(F) F(PLAIN, job) F(PLAIN, from) F(PLAIN, to) F(PLAIN, position)
#define RELEASE_FIELDS(F) F(PLAIN, job) F(PLAIN, sequence) F(FLAG, all)
#define CANCEL_REQUEST_FIELDS(F) F(PLAIN, request)
#define SHUTDOWN_FIELDS(F) F(CAUSE, reason)

#define JOB_SPEC_FIELDS(F)                                                       \
    F(TEXT, problem) F(TEXT, system) F(TEXT, policy) F(TEXT, judge)              \
    F(PLAIN, threshold) F(PLAIN, draft_tokens) F(PLAIN, lookahead)               \
    F(SUB, sampling, sampling) F(PLAIN, max_tokens) F(PLAIN, step_tokens)        \
    F(TEXT, delimiter) F(TEXT, name) F(FLAG, raw) F(FLAG, default_system)        \
    F(FLAG, default_suffix)
#define SUBMIT_FIELDS(F) F(SUB, spec, job_spec) F(FLAG, watch)
#define WATCH_FIELDS(F) F(PLAIN, job) F(PLAIN, from_step)
#define STATUS_QUERY_FIELDS(F) F(PLAIN, job)
#define LIST_QUERY_FIELDS(F) F(PLAIN, limit) F(TEXT, state)
#define CANCEL_JOB_FIELDS(F) F(PLAIN, job)
#define STOP_CLUSTER_FIELDS(F) F(FLAG, drain)

#define SUBMITTED_FIELDS(F) F(PLAIN, job)
#define STEP_FIELDS(F)                                                           \
    F(PLAIN, job) F(PLAIN, index) F(TEXT, origin) F(TEXT, verdict)               \
    F(PLAIN, score) F(BYTES, text) F(PLAIN, tokens) F(PLAIN, drafted)            \
    F(PLAIN, accepted) F(PLAIN, seconds)
#define PROGRESS_FIELDS(F)                                                       \
    F(PLAIN, job) F(PLAIN, chain_tokens) F(PLAIN, drafted) F(PLAIN, accepted)    \
    F(PLAIN, passes) F(PLAIN, seconds) F(BYTES, tail)
#define JOB_INFO_FIELDS(F)                                                             \
    F(PLAIN, job) F(TEXT, state) F(SUB, spec, job_spec) F(PLAIN, steps)                \
    F(PLAIN, chain_tokens) F(PLAIN, drafted) F(PLAIN, accepted)                        \
    F(PLAIN, target_tokens) F(PLAIN, passes) F(PLAIN, seconds) F(BYTES, text)          \
    F(CAUSE, answer) F(PLAIN, status) F(CAUSE, cause) F(TEXT, stop)                    \
    F(PLAIN, submitted_ms) F(PLAIN, finished_ms) F(FLAG, batch_dependent)
#define DONE_FIELDS(F) F(SUB, job, job_info)
#define GROUP_INFO_FIELDS(F)                                                           \
    F(PLAIN, group) F(TEXT, name) F(TEXT, role) F(TEXT, model) F(PLAIN, ranks)         \
    F(PLAIN, threads) F(FLAG, alive) F(PLAIN, kv_positions) F(PLAIN, kv_free)          \
    F(PLAIN, active) F(PLAIN, passes) F(PLAIN, last_seen_s) F(TEXT, backend)           \
    F(PLAIN, model_digest) F(PLAIN, pid) F(PLAIN, busy_seconds)                           \
    F(FLAG, batch_dependent)
#define STATUS_REPLY_FIELDS(F)                                                   \
    F(REP, groups, group_info) F(REP, jobs, job_info) F(PLAIN, uptime)           \
    F(PLAIN, queued) F(PLAIN, running) F(TEXT, version)
#define LIST_REPLY_FIELDS(F) F(REP, jobs, job_info)
#define ERROR_FIELDS(F) F(PLAIN, status) F(CAUSE, cause) F(PLAIN, job)
#define OK_FIELDS(F) F(PLAIN, job)

#define RANK_WORD_FIELDS(F) \
    F(PLAIN, rank) F(PLAIN, ranks) F(PLAIN, kind) F(PLAIN, number) F(BYTES, data)

#define FR_CODEC_MESSAGES(M)                              \
    M(sampling, Sampling, SAMPLING_FIELDS)                \
    M(register, Register, REGISTER_FIELDS)                \
    M(heartbeat, Heartbeat, HEARTBEAT_FIELDS)             \
    M(tokenizer_blob, TokenizerBlob, TOKENIZER_BLOB_FIELDS) \
    M(tokens, Tokens, TOKENS_FIELDS)                      \
    M(generated, Generated, GENERATED_FIELDS)             \
    M(probe_result, ProbeResult, PROBE_RESULT_FIELDS)     \
    M(verified, Verified, VERIFIED_FIELDS)                \
    M(engine_error, EngineError, ENGINE_ERROR_FIELDS)     \
    M(goodbye, Goodbye, GOODBYE_FIELDS)                   \
    M(welcome, Welcome, WELCOME_FIELDS)                   \
    M(prefix, Prefix, PREFIX_FIELDS)                      \
    M(generate, Generate, GENERATE_FIELDS)                \
    M(probe, Probe, PROBE_FIELDS)                         \
    M(verify, Verify, VERIFY_FIELDS)                      \
    M(truncate, Truncate, TRUNCATE_FIELDS)                \
    M(fork, Fork, FORK_FIELDS)                            \
    M(release, Release, RELEASE_FIELDS)                   \
    M(cancel_request, CancelRequest, CANCEL_REQUEST_FIELDS) \
    M(shutdown, Shutdown, SHUTDOWN_FIELDS)                \
    M(job_spec, JobSpec, JOB_SPEC_FIELDS)                 \
    M(submit, Submit, SUBMIT_FIELDS)                      \
    M(watch, Watch, WATCH_FIELDS)                         \
    M(status_query, StatusQuery, STATUS_QUERY_FIELDS)     \
    M(list_query, ListQuery, LIST_QUERY_FIELDS)           \
    M(cancel_job, CancelJob, CANCEL_JOB_FIELDS)           \
    M(stop_cluster, StopCluster, STOP_CLUSTER_FIELDS)     \
    M(submitted, Submitted, SUBMITTED_FIELDS)             \
    M(step, Step, STEP_FIELDS)                            \
    M(progress, Progress, PROGRESS_FIELDS)                \
    M(job_info, JobInfo, JOB_INFO_FIELDS)                 \
    M(done, Done, DONE_FIELDS)                            \
    M(group_info, GroupInfo, GROUP_INFO_FIELDS)           \
    M(status_reply, StatusReply, STATUS_REPLY_FIELDS)     \
    M(list_reply, ListReply, LIST_REPLY_FIELDS)           \
    M(error, Error, ERROR_FIELDS)                         \
    M(ok, Ok, OK_FIELDS)                                  \
    M(rank_word, RankWord, RANK_WORD_FIELDS)

#endif
