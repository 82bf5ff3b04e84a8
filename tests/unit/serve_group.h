/* serve_group.h: for tests of serving: a group of one rank in a thread, serving the embedded target
 * over inproc to a coordinator played by the test, and the same model's texts written by a plain
 * loop over the session's door. */
#ifndef SERVE_GROUP_H
#define SERVE_GROUP_H

#include <pthread.h>

#include "link.h"
#include "sampler.h"
#include "serve.h"

#define MAX_GENERATED 256

typedef struct group {
    fr_comm *comm;
    fr_session *session;
    fr_link *server;
    fr_peer peer;
    pthread_t thread;
    fr_serve_options options;
    atomic_int stop;
    fr_status ended;
    char cause[256];
    uint64_t next_request;
} group;

typedef struct text {
    fr_ids ids;
    int n_prompt;
    float logprobs[MAX_GENERATED];
} text;

extern const fr_sampling greedy, warm, hot;

/* Fails the test with the cause. */
void ok(fr_status st);
/* The next message that is no heartbeat; m is freed before. */
void group_receive(group *g, fr_msg *m);
/* The next one must be of this kind. */
void expect(group *g, fr_msg_kind kind, fr_msg *m);
void group_tell(group *g, const fr_msg *m);
void group_welcome(group *g, int want_tokenizer);
/* A coordinator's socket and a session, used by this thread until group_run(). Sizes as in
 * session.h. */
void group_open(group *g, int context, int kv_positions, int max_rows);
/* The same with a rough head, of about so many tokens. */
void group_open_rough(group *g, int draft_vocab);
/* Starts the thread that serves. */
void group_run(group *g);
/* Starts it and answers its registration. */
void group_begin(group *g);
/* group_open() and group_begin(). */
void group_start(group *g, int context, int kv_positions, int max_rows);
/* Frees all of a group that does not serve. */
void group_close(group *g);
/* Waits for the end of serving, and frees all. */
void group_join(group *g);
/* Shuts it down, which must work. */
void group_stop(group *g);
/* One of many prompts. */
void prompt(const group *g, int number, text *t);
/* Appends what the model writes, by a plain loop over the session; before group_run(). */
void write_plainly(group *g, text *t, const fr_sampling *sampling, int n);
/* The same by its rough head. */
void write_roughly(group *g, text *t, const fr_sampling *sampling, int n);
fr_msg_sampling sampling_msg(const fr_sampling *s);
/* The first n ids, sent from `start` on. */
fr_msg_prefix prefix_of(const text *t, uint64_t job, int start, int n);
/* Generates behind the prompt. */
fr_msg generate_msg(group *g, const text *t, uint64_t job, const fr_sampling *s, int max_tokens);
/* Verifies the ids from `position` to n. */
fr_msg verify_msg(group *g, const text *t, uint64_t job, const fr_sampling *s, int position, int n);
/* What comes is the first n ids behind the prompt, with the same log-probabilities to the bit. */
void expect_generated(group *g, uint64_t request, const text *t, int n, const char *why);
void expect_verified(group *g, uint64_t request, fr_msg *m);
/* The cause holds the words. */
void expect_error(group *g, uint64_t request, fr_status st, const char *words);
/* The group still does its work. t holds two greedy ids behind its prompt. */
void expect_alive(group *g, const text *t);

#endif
