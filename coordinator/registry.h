/* registry.h: the engine groups: who is there, with which model, how loaded, and since when not
 * heard from. It holds state and decides; the loop receives and sends. A group belongs to the peer
 * that registered it and is alive until it is silent for too long, unreachable, or says goodbye; a
 * dead group stays listed until it comes back under its name.
 *
 * All live groups of one role serve the same model with the same context, else a chain would depend
 * on which of them came first. Tokenizers are kept for the life of the registry, since chains borrow
 * them. Times are seconds of the monotonic clock, given by the caller. */
#ifndef FR_REGISTRY_H
#define FR_REGISTRY_H

#include "codec.h"
#include "link.h"
#include "policy.h"
#include "tokenizer.h"

#define FR_GROUPS_MAX 256 /* dead ones counted; then the longest dead is forgotten */

typedef struct fr_group {
    uint32_t id;
    uint64_t epoch; /* of its latest registration */
    int link;       /* which of the loop's links its peer is behind */
    fr_peer peer;
    fr_role role;
    int alive;
    char *name, *model_name, *backend;
    uint64_t model_digest, tokenizer_digest, kv_positions;
    uint32_t ranks, threads, max_context, pid;
    int batch_dependent; /* what it computes may depend on what else is in the batch */
    const fr_tokenizer
        *tokenizer; /* NULL: its blob did not come yet; the group takes no calls before */
    double last_seen;
    fr_msg_heartbeat load;
    int n_calls; /* outstanding there; kept by calls.c */
} fr_group;

typedef struct fr_registry fr_registry;

/* first_epoch: epochs of this coordinator start behind it, so that those of a predecessor are never
 * repeated. */
fr_status fr_registry_new(int heartbeat_ms, int dead_after_ms, uint64_t first_epoch, double now,
                          fr_registry **out);
void fr_registry_free(fr_registry **r);

typedef struct fr_registered {
    fr_group *group;
    fr_msg_welcome welcome;
    uint32_t replaced[2]; /* groups that this one takes the place of (same peer, same name); 0:
                             none. Dead now. */
} fr_registered;

/* FR_EINVAL names the field; FR_EMISMATCH when the live groups of the role serve another model or context. */
fr_status fr_registry_register(fr_registry *r, int link, const fr_peer *peer,
                               const fr_msg_register *m, double now, fr_registered *out);
/* FR_EFORMAT, or FR_EMISMATCH when it is not the tokenizer that was announced. */
fr_status fr_registry_tokenizer(fr_registry *r, fr_group *g, fr_bytes blob);
/* The group is dead from now on. */
void fr_registry_lose(fr_registry *r, fr_group *g, double now);

/* Live groups only; NULL: none. */
fr_group *fr_registry_by_peer(const fr_registry *r, int link, const fr_peer *peer);
fr_group *fr_registry_by_id(const fr_registry *r, uint32_t id);
/* A live group that was silent for too long; NULL: none. */
fr_group *fr_registry_silent(const fr_registry *r, double now);
/* When fr_registry_silent() may next find one; INFINITY without groups. */
double fr_registry_deadline(const fr_registry *r);

/* Takes calls: alive, with a tokenizer, and of that model (0: any). */
int fr_group_usable(const fr_group *g, fr_role role, uint64_t model_digest);
/* The first usable one; NULL: none. */
const fr_group *fr_registry_any(const fr_registry *r, fr_role role, uint64_t model_digest);
/* Since when the role has had no usable group; INFINITY while it has one. */
double fr_registry_absent_since(const fr_registry *r, fr_role role);

/* All groups, dead ones too. */
int fr_registry_count(const fr_registry *r);
fr_group *fr_registry_at(const fr_registry *r, int i);

const char *fr_role_name(fr_role role); /* "target", "draft" */

#endif
