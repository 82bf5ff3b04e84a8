/* calls.h: the outstanding engine calls of all jobs, from a policy's wish to its answer.
 *
 * A call waits until a group of its role and model is there, is sent with the part of its prefix
 * that the group does not hold yet, and ends with one event. A lost group's calls wait again, and
 * go to another one from their beginning. So does their stream: the policy is given those tokens
 * again, since the other group may have other ones (policy.h). Each sending has a number of its own
 * on the wire, so late replies of an earlier one match nothing.
 *
 * A call over which groups are lost again and again ends its job; others that were there are not
 * blamed for it (calls.c). To find out which, suspects have a group to themselves; where it is the
 * role's only one, the other calls wait meanwhile.
 *
 * An exact job's target calls go to groups that compute independently of the batch while there is
 * one; else to any, and the job is marked.
 *
 * Making or cancelling a call only takes note of it; fr_calls_dispatch() sends. So nothing here
 * ever calls a policy from within a policy. Easy to get wrong: an event may end the job and all its
 * calls, so no call is touched after its event. */
#ifndef FR_CALLS_H
#define FR_CALLS_H

#include "registry.h"

/* What the calls of one job share; it outlives them. */
typedef struct fr_call_terms {
    uint64_t job;
    uint64_t model[2]; /* by role: the only model whose groups may serve it */
    uint32_t group[2]; /* by role: the group it stays with; kept by calls.c, 0 at first */
    fr_sampling sampling;
    const char *delimiter;
    int exact;          /* the draft is a help only: when its calls fail the job goes on */
    int outlives_draft; /* if not exact: it goes on when the draft group is lost, and only then */
    uint64_t passes;    /* target passes that its calls took part in; counted by calls.c */
    int batch_dependent; /* 1: a group that the text depends on is; kept by calls.c */
} fr_call_terms;

typedef struct fr_calls_host {
    void *ctx;
    /* FR_EPEER, FR_EBUSY, FR_EIO: the group is lost. */
    fr_status (*send)(void *ctx, const fr_group *g, const fr_msg *m);
    void (*event)(void *ctx, uint64_t job, const fr_policy_event *event);
    void (*fail)(void *ctx, uint64_t job, fr_status status, const char *cause); /* ends the job */
    void (*lost)(void *ctx, fr_group *g,
                 const char *why); /* calls fr_calls_group_lost() and the registry */
} fr_calls_host;

typedef struct fr_calls fr_calls;

/* A draft role without a group for grace_s fails the draft calls of jobs that go on without. */
fr_status fr_calls_new(fr_registry *registry, const fr_calls_host *host, double grace_s,
                       fr_calls **out);
void fr_calls_free(fr_calls **c);

fr_status fr_calls_generate(fr_calls *c, fr_call_terms *terms, const fr_generate_call *call,
                            uint64_t *call_out);
fr_status fr_calls_verify(fr_calls *c, fr_call_terms *terms, const fr_verify_call *call,
                          uint64_t *call_out);
void fr_calls_cancel(fr_calls *c, uint64_t call);
/* The job is over: its calls end without events, and the groups release its sequences. */
void fr_calls_drop_job(fr_calls *c, uint64_t job);
int fr_calls_count(const fr_calls *c);

/* Replies of a live group. Those that match no call are ignored. */
void fr_calls_tokens(fr_calls *c, fr_group *g, const fr_msg_tokens *m);
void fr_calls_generated(fr_calls *c, fr_group *g, const fr_msg_generated *m);
void fr_calls_verified(fr_calls *c, fr_group *g, const fr_msg_verified *m);
void fr_calls_error(fr_calls *c, fr_group *g, const fr_msg_engine_error *m);
/* Its calls wait again. */
void fr_calls_group_lost(fr_calls *c, uint32_t group);

/* Sends what waits and has a group; fails what has waited in vain. */
void fr_calls_dispatch(fr_calls *c, double now);
/* When the next dispatch is due: 0 at once, INFINITY when nothing but a message can change
 * anything. */
double fr_calls_deadline(const fr_calls *c);

#endif
