/* policy.h: the policy table. A policy decides what to draft and what to keep; it sees chains
 * and verdicts, never a tensor, a socket or a clock: given the same replies it commits the same
 * steps, in whatever order the replies come.
 *
 * The host (job.c; a simulation in the tests) gives a policy its chain and carries its calls to
 * the engines; it repeats a call on another group when one dies, so a policy sees only replies.
 * What is streamed for a repeated call begins again at the call's first token, and may be other
 * tokens than before: groups of other backends or degrees may compute a near-tie differently. A
 * policy must not join the two.
 * All of it runs on the coordinator's one loop. */
#ifndef FR_POLICY_H
#define FR_POLICY_H

#include "chain.h"
#include "codec.h"
#include "sampler.h"

typedef enum { FR_ROLE_TARGET, FR_ROLE_DRAFT } fr_role;

typedef struct fr_policy_params {
    fr_sampling sampling;      /* of both models: the draft is coupled to the target's noise */
    int max_tokens;            /* of the chain: never exceeded, speculation included */
    int step_tokens;           /* of one step: a longer one is cut there */
    int draft_tokens;          /* K: most tokens drafted for one strict verification */
    int lookahead;             /* k: drafted steps in one verification */
    int overlap;               /* 1: go on drafting while the target verifies */
    const char *delimiter;     /* of steps; default "\n\n" */
    const char *judge;         /* "score", "score-mean" (expectation), "logprob" */
    double threshold;          /* NaN: the judge's default */
    int max_context;           /* of the target; where the text is the draft's too, the smaller of both models' */
} fr_policy_params;

typedef enum { FR_ORIGIN_TARGET, FR_ORIGIN_DRAFT, FR_ORIGIN_TOKEN, FR_ORIGIN_REWRITTEN } fr_origin;
const char *fr_origin_name(fr_origin o); /* "target", "draft", "token", "rewritten" */

/* One step as committed, or as drafted and rejected (reported, not appended). */
typedef struct fr_step_record {
    const int32_t *ids;   /* the target's ids (draft's step re-tokenised when tokenizers differ) */
    int n_ids;
    fr_origin origin;
    int accepted;         /* 1: it is in the chain; 0: a drafted step the judge rejected */
    float score;          /* the judge's; NaN without */
    int drafted, kept;    /* drafted tokens proposed and kept for this step */
} fr_step_record;

typedef struct fr_generate_call {
    fr_role role;
    const int32_t *ids;   /* the whole sequence in that role's ids; copied by the host */
    int n_ids;
    int chain_base;       /* where the chain begins in ids */
    int max_tokens;
    int stop_at_step;     /* with the delimiter, sought from step_from on */
    int step_from;
    float min_joint_logprob; /* stop once the tokens are less likely than this together; 0: off */
    int stream;           /* FR_EVENT_TOKENS as they come */
    int rough;            /* a guess that will be verified: the engine may approximate */
} fr_generate_call;

typedef struct fr_verify_call { /* always the target */
    const int32_t *ids;   /* the whole sequence, drafted tokens last; copied by the host */
    int n_ids;
    int chain_base;
    int position;         /* of the first drafted token; n_ids: one token only */
    const fr_msg_probe *probes;
    int n_probes;
} fr_verify_call;

typedef enum {
    FR_EVENT_START,
    FR_EVENT_TOKENS,
    FR_EVENT_GENERATED,
    FR_EVENT_VERIFIED,
    FR_EVENT_FAILED
} fr_event_kind;

typedef struct fr_policy_event {
    fr_event_kind kind;
    uint64_t call;                     /* which call this answers */
    const fr_msg_tokens *tokens;
    const fr_msg_generated *generated;
    const fr_msg_verified *verified;
    /* FR_EVENT_FAILED: FR_EUNAVAILABLE when no draft group is there; other failures of the
     * target end the job before the policy sees them. */
    fr_status status;
    const char *cause;
} fr_policy_event;

typedef struct fr_policy_host {
    void *ctx;
    fr_status (*generate)(void *ctx, const fr_generate_call *call, uint64_t *call_out);
    fr_status (*verify)(void *ctx, const fr_verify_call *call, uint64_t *call_out);
    void (*cancel)(void *ctx, uint64_t call);             /* no event comes for it any more */
    /* Accepted steps are appended to the chain and stored, rejected ones only reported. */
    fr_status (*commit)(void *ctx, const fr_step_record *step);
    /* The target-approved text not yet committed, for display. */
    void (*tail)(void *ctx, const int32_t *ids, int n);
    /* "end", "limit", "context": the chain is complete. */
    void (*finish)(void *ctx, const char *stop);
} fr_policy_host;

typedef struct fr_policy fr_policy;

typedef struct fr_policy_ops {
    const char *name;
    int exact;                /* output equals plain decoding of the target; tested as such */
    int needs_draft;          /* a draft group must be there to begin */
    int outlives_draft;       /* the target goes on alone when the draft group is lost later */
    int needs_same_tokenizer;
    /* The chain may already hold steps (a resumed job). Host, chain and params outlive the
     * policy. */
    fr_status (*open)(const fr_policy_host *host, fr_chain *chain, const fr_policy_params *params,
                      fr_policy **out);
    fr_status (*advance)(fr_policy *p, const fr_policy_event *event); /* an error fails the job */
    void (*close)(fr_policy **p); /* outstanding calls are the host's to drop */
} fr_policy_ops;

struct fr_policy {
    const fr_policy_ops *ops;
};

/* NULL when there is none of that name. */
const fr_policy_ops *fr_policy_find(const char *name);
/* "target, draft, token, step", for error texts. */
const char *fr_policy_names(void);
const fr_policy_ops *const *fr_policy_all(void); /* NULL-terminated */

#endif
