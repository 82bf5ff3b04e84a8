/* requests.h: the live requests of a group and their state machines. A request is made from a
 * Generate or Verify message, is given answers about rows by batch.c, and ends with one reply:
 * Generated, Verified or EngineError; or with none, when it was cancelled or belongs to the past.
 *
 * Generate: 1. rows for the ids that are not cached yet; 2. the answer about the last one gives the
 * next id, which is appended to the ids; 3. stop, or again from 1 (now one row).
 *
 * Verify: 1. rows for the ids that are not cached, those from position - 1 on with a question each;
 * 2. a branch for each probe, as soon as the ids it hangs off have rows; 3. done when every
 * question is answered. */
#ifndef FR_REQUESTS_H
#define FR_REQUESTS_H

#include "held.h"
#include "link.h"
#include "sampler.h"
#include "stop_rules.h"

typedef enum { FR_ASK_NEXT, FR_ASK_OWN, FR_ASK_PROBE } fr_ask_kind;

/* One question of a pass. */
typedef struct fr_ask {
    struct fr_request *request;
    fr_ask_kind kind;
    int index;           /* FR_ASK_OWN: the position; FR_ASK_PROBE: which one */
    int answer;          /* of the session */
    fr_row_query query;
} fr_ask;

typedef struct fr_request {
    uint64_t id;
    fr_msg message;      /* as received, for its texts and probes */
    fr_held *held;       /* its sequence; held->request is this */
    fr_sampling sampling;
    int chain_base;
    int n_given;         /* ids of the prefix, those generated not counted */
    uint32_t passes;     /* it took part in */
    uint32_t rows;       /* it had in them */
    double seconds;      /* of the passes' time, shared by rows */
    int attached;        /* its sequence is cached as far as it can be */
    int parked;          /* waits for room for all its ids (room.h) */
    int in_pass;         /* its rows in the pass being built */

    /* Generate */
    fr_stop_rules rules;
    float *logprobs;     /* [cap_logprobs], one for each id generated */
    int cap_logprobs;
    float joint_logprob; /* their sum */

    /* Verify */
    int position;
    int32_t *own;        /* [n_given - position + 1] */
    float *drafted_logprobs; /* [n_given - position] */
    int n_own;
    fr_msg_probe_result *probes; /* [n_probes]; their logprobs lie in probe_logprobs */
    float *probe_logprobs;
    char *probe_sent;    /* its branch is in this pass or was in one */
    int n_probes, n_probes_done;
} fr_request;

typedef struct fr_requests {
    fr_session *session; /* borrowed, as is the link */
    fr_link *link;
    fr_holdings held;
    fr_request **list;   /* those of the oldest job first; of one job the oldest */
    int n, cap;
    int reply_lost; /* a reply could not be sent: the coordinator has to be made to ask again */
} fr_requests;

void fr_requests_close(fr_requests *t); /* drops all without a word */

/* Makes a request of a Generate or Verify message and takes its memory over; the message is empty
 * afterwards. What is wrong with it is told to the coordinator. */
void fr_requests_add(fr_requests *t, fr_msg *m);
void fr_requests_cancel(fr_requests *t, uint64_t id);
void fr_requests_truncate(fr_requests *t, const fr_msg_truncate *m);
void fr_requests_fork(fr_requests *t, const fr_msg_fork *m);
void fr_requests_release(fr_requests *t, const fr_msg_release *m);
/* A new registration: what was asked before it is no longer wanted, and epochs begin anew. */
void fr_requests_forget(fr_requests *t);

/* Ends a request with an error; the cause is fr_cause() unless given. */
void fr_request_fail(fr_requests *t, fr_request *r, fr_status st, const char *cause);
/* Every request: the group is lost. */
void fr_requests_fail_all(fr_requests *t, fr_status st, const char *cause);

/* The most ids that a sequence may have. */
int fr_requests_capacity(const fr_requests *t);
/* The most ids that a sequence and one probe behind it may have together, wherever the one ends: the
 * probe takes pages of its own. It is the context that the coordinator may rely on. */
int fr_requests_context(const fr_requests *t);
/* Ids that need rows. */
int fr_request_todo(const fr_requests *t, const fr_request *r);
/* Takes the answer to a question of a pass. With the last one the reply is sent and the request is
 * gone. An error (of an FR_ASK_NEXT, its request's only question) leaves it to be failed. */
fr_status fr_request_answer(fr_requests *t, const fr_ask *ask, const fr_row_answer *answer);

/* Sends to the coordinator. A failure is logged, and kept in reply_lost unless the message is one
 * that may get lost. */
void fr_requests_send(fr_requests *t, const fr_msg *m);

#endif
