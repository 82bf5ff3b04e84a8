/* engine_call.h: one outstanding call, and the message that makes it; calls.c keeps them. */
#ifndef FR_ENGINE_CALL_H
#define FR_ENGINE_CALL_H

#include "calls.h"
#include "mirror.h"

typedef struct fr_engine_call {
    uint64_t id;
    fr_call_terms *terms;
    fr_role role;
    int verify;   /* else generate */
    int32_t *ids; /* owned */
    int n_ids, chain_base;
    fr_generate_call generate; /* verify 0; its ids are not used */
    int position;              /* verify 1: of the first drafted token */
    fr_msg_probe *probes;      /* owned, with their arrays */
    int n_probes;
    uint32_t group; /* 0: waiting */
    uint64_t wire;
    fr_mirror_entry *entry;
    int whole; /* the group asked for the whole prefix */
    int losses;       /* groups lost since it last got on, with the call on them */
    int losses_alone; /* of these, with no other call on them */
    uint32_t awaits;  /* a suspect that waits (calls.c): for this group to be idle; 0: for none */
    int next_position; /* of the next token that its group streams */
    int furthest;      /* behind all tokens that any group streamed for it */
} fr_engine_call;

/* Copies what the call holds, ids and probes; the terms are borrowed. Waiting, without a number. */
fr_status fr_engine_call_generate(fr_call_terms *terms, const fr_generate_call *g,
                                  fr_engine_call **out);
fr_status fr_engine_call_verify(fr_call_terms *terms, const fr_verify_call *v,
                                fr_engine_call **out);
void fr_engine_call_free(fr_engine_call *k);
/* What goes to its group, with the ids from `start` on; it borrows everything. */
fr_msg fr_engine_call_message(const fr_engine_call *k, const fr_group *g, int start);

#endif
