/* drafting.h: a step from the draft model: asking for it, and turning the reply into the
 * target's ids.
 *
 * With one tokenizer the ids travel as they are. With two, the drafted text is tokenised for the
 * target by itself. An unfinished character at its end is left out (it was cut there), other
 * bytes that are no UTF-8 become U+FFFD. Either way the step is cut by the rule of step_scan.h
 * and by the chain's limits, so it depends on nothing but `ahead`. */
#ifndef FR_DRAFTING_H
#define FR_DRAFTING_H

#include "policy.h"

/* Asks for the step that follows `ahead`. *call_out is 0 when the draft cannot write one there:
 * no room in its context, or no draft group. */
fr_status fr_drafting_ask(const fr_policy_host *host, const fr_chain *ahead,
                          const fr_policy_params *params, int stream, uint64_t *call_out);
/* Appends the drafted step to `out`: nothing when the reply holds no usable text. */
fr_status fr_drafting_take(const fr_chain *ahead, const fr_policy_params *params,
                           const fr_msg_generated *reply, fr_ids *out);

/* host->generate; a draft group that is not there is no error: *call_out is 0. */
fr_status fr_ask_generate(const fr_policy_host *host, const fr_generate_call *call,
                          uint64_t *call_out);

#endif
