/* writer.h: takes the tokens of a chain one by one, commits each step as it completes, and says
 * when the chain is complete. What every policy writes token by token goes through here, so all
 * of them keep the same limits. */
#ifndef FR_WRITER_H
#define FR_WRITER_H

#include "step_scan.h"

typedef struct fr_writer {
    const fr_policy_host *host; /* borrowed, as are chain and params */
    fr_chain *chain;
    const fr_policy_params *params;
    fr_step_scan scan;
    fr_ids pending;             /* the step under way, not yet in the chain */
    fr_origin origin;           /* of the steps it commits */
    int drafted, kept;          /* the caller's count for the step under way */
    int n_committed;            /* steps, since the last restart */
    const char *stop;           /* NULL, or why the chain is complete: "end", "limit", "context" */
} fr_writer;

/* Why the chain is complete as it stands; NULL when it is not. */
const char *fr_chain_stop(const fr_chain *chain, const fr_policy_params *params);
/* How many tokens may still follow the chain and `more` tokens behind it. */
int fr_chain_room(const fr_chain *chain, const fr_policy_params *params, int more);

void fr_writer_init(fr_writer *w, const fr_policy_host *host, fr_chain *chain,
                    const fr_policy_params *params);
void fr_writer_free(fr_writer *w);
/* Back to the end of the committed chain. */
void fr_writer_restart(fr_writer *w, fr_origin origin);
/* Takes a token; there must be room and no stop. */
fr_status fr_writer_put(fr_writer *w, int32_t id);
/* Commits an unfinished step as the last one: the engine could not go on. */
fr_status fr_writer_finish(fr_writer *w, const char *stop);
/* Shows the host the step under way. */
void fr_writer_show(const fr_writer *w);

#endif
