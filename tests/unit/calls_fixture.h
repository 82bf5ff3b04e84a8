/* calls_fixture.h: engine calls of one job, and groups that exist only in a test: what was sent to them is noted, and
 * so is what came back to the job's policy. What fails here fails the test. */
#ifndef CALLS_FIXTURE_H
#define CALLS_FIXTURE_H

#include "calls.h"

enum { MAX_SENT = 64 };

typedef struct sent {
    uint32_t group;
    fr_msg_kind kind;
    uint64_t request;
    uint32_t start, sequence;
    uint64_t epoch, digest;
    size_t n_tokens;
} sent;

typedef struct fixture {
    fr_registry *r;
    fr_calls *c;
    fr_tokenizer *t;
    fr_group *a, *b; /* targets */
    fr_call_terms terms;
    sent log[MAX_SENT];
    int n_sent, n_events, n_failed;
    fr_event_kind last_event;
    uint64_t last_call;
    uint32_t last_position;
    size_t last_n_ids;
    fr_status last_status, send_status;
    char last_cause[200];
} fixture;

/* With one target group, `a`, and the terms of an exact job. */
int set_up(void **state);
int tear_down(void **state);

fr_group *add_group(fixture *f, uint8_t id, const char *role, const char *name, uint64_t model);
/* At 5 s. */
void lose_group(fixture *f, fr_group *g);

extern const int32_t ids[10];
extern const float logprobs[8];

/* Calls with ids [n], of `generate` for at most 5 tokens more; they return the call's number. */
uint64_t generate(fixture *f, fr_role role, int n);
uint64_t verify(fixture *f, int n, int position);
/* What was sent last. */
const sent *last(const fixture *f);
/* The group's reply to that request: n tokens, at the end of what was sent last. */
void reply_generated(fixture *f, fr_group *g, uint64_t request, int n);

#endif
