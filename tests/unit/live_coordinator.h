/* live_coordinator.h: for tests of a whole coordinator: one in a thread, engines and clients that
 * talk to it over TCP. The engines are fake ones whose text is a pure function of the prefix
 * (fake_engine.h): whatever happens on the way, the text must be that one. What fails here fails
 * the test. */
#ifndef LIVE_COORDINATOR_H
#define LIVE_COORDINATOR_H

#include <pthread.h>

#include "fake_engine.h"
#include "loop.h"

#define PROBLEM "What is 2 + 3?"

typedef struct server {
    fr_coordinator_options options;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t opened;
    int is_open;
    fr_status open_status;
    char cause[256]; /* why it is not open */
    fr_status status;
    char endpoint[256];
    fr_coordinator *c;
} server;

typedef struct fixture { /* the cluster that most tests want */
    server server;
    fr_tokenizer *tokenizer;
    fake_engine *target, *draft;
    fr_link *client;
    fr_buf expected;
} fixture;

/* Returns when it is open, or failed to: open_status. store: NULL for none. */
void server_start(server *s, const char *bind, const char *store);
/* At a port that was bound a moment ago, which ZeroMQ gives back in a thread of its own. */
void server_start_again(server *s, const char *bind, const char *store);
/* Waits for its own end. */
void server_join(server *s);
void server_stop(server *s);

/* A coordinator and a client, no engines; what tests add to the fixture ends with it. */
int set_up(void **state);
int tear_down(void **state);
/* An engine for it, with the model of its role. */
fake_engine *engine(fixture *f, const char *role, const char *name, int token_ms);

void tell(fr_link *l, const fr_msg *m);
void hear(fr_link *l, fr_msg *m);
/* The next message of that kind; others are dropped, but an error fails the test unless it is what
 * is waited for. */
void hear_kind(fr_link *l, fr_msg_kind kind, fr_msg *m);
/* The same of those with that tag. */
void hear_reply(fr_link *l, uint64_t tag, fr_msg_kind kind, fr_msg *m);
fr_msg submit_msg(const char *policy, int watch);
/* Submits PROBLEM; the job's number. */
uint64_t submit(fr_link *l, const char *policy, int watch);
void watch(fr_link *l, uint64_t job, uint32_t from);
/* Watches to the end: the steps' numbers have no gap, and accepted ones add up to the text. */
void follow(fr_link *l, uint32_t from, fr_buf *text, fr_msg *done);
void assert_text(const fr_buf *expected, const void *data, size_t n);
void assert_done(const fr_msg *done, const fr_buf *expected);
/* Watches from the beginning to the end, which is that text. */
void follow_to(fr_link *l, const fr_buf *expected);
/* Sends the message; the reply is an error whose cause holds the part. */
void expect_error(fr_link *l, const fr_msg *m, fr_status status, const char *part);
fr_msg status_of(fr_link *l, uint64_t job);
/* Waits until the cluster counts so many live groups. */
void await_groups(fr_link *l, size_t want);

#endif
