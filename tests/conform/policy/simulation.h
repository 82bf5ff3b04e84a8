/* simulation.h: a policy's host without engines: calls are answered by models.h, one event at a
 * time, in an order drawn from a seed, with tokens streamed in pieces and sometimes from the
 * beginning again, and drafts that go missing.
 *
 * It asserts what a host relies on: sequences that begin with the chain, limits that hold with
 * speculation included, one finish, nothing asked or left open after it. */
#ifndef FR_TEST_SIMULATION_H
#define FR_TEST_SIMULATION_H

#include "models.h"
#include "policy.h"

typedef struct sim_step {
    size_t from;       /* into sim_result.ids */
    int n, accepted, drafted, kept;
    fr_origin origin;
    float score;
} sim_step;

typedef struct sim_result {
    fr_ids ids;        /* of all steps, one behind the other, rejected ones too */
    fr_ids last;       /* the target's last complete Generate: its prefix and what it wrote */
    sim_step *steps;
    int n_steps, cap_steps;
    const char *stop;  /* NULL: not finished */
    int n_verify, n_probes, n_events, n_draft_calls, n_rough_calls;
    int most_drafted;  /* in one Verify */
} sim_result;

typedef struct sim_options {
    const fr_policy_ops *policy;
    const models *models;
    fr_policy_params params;
    uint64_t order;        /* seed of the order of events */
    int slow_draft;        /* per cent of turns in which the draft does not move */
    int missing;           /* per mille of draft calls that fail: at once, or later */
    int again;             /* per mille of streamed pieces that start from the call's beginning */
    int changes_mind;      /* 1: then by a group that writes something else */
    int ends_sooner;       /* 1: then by one whose context ends sooner */
    int rough_errors;      /* per mille of the tokens of a rough draft that are any other word */
    int times;             /* 1: replies report times, any */
    int drafts_only;       /* 1: every drafted token must be the draft model's (no n-grams) */
    int close_after;       /* events after which the policy is closed, finished or not; 0: never */
    int bad_target;        /* number of the target's reply that is a failure; 0: none */
    const sim_result *resume; /* steps of an earlier run that are in the chain from the start */
    int resume_steps;      /* so many of its accepted ones */
} sim_options;

/* FR_OK, also when the policy was closed early; else the policy's or memory's failure. */
fr_status sim_run(const sim_options *o, sim_result *out);
void sim_result_free(sim_result *r);
/* The target's plain chain, cut into steps by a second, plain implementation of the rule. */
fr_status sim_plain(const sim_options *o, sim_result *out);

#endif
