/* spec.h: what a submitted job must look like: defaults for what the client left open, and one
 * clear error for the first thing that cannot be. What depends on the models (length of the prompt,
 * tokenizers) is checked in job.c. */
#ifndef FR_SPEC_H
#define FR_SPEC_H

#include "codec.h"
#include "policy.h"

#define FR_SPEC_MAX_PROBLEM (1u << 20) /* bytes of the problem, and of the system text */
#define FR_SPEC_MAX_TOKENS (1u << 20)

/* Fills the defaults into an owned spec (record.h), then checks it. FR_EINVAL names the field;
 * FR_ELIMIT the number. */
fr_status fr_spec_check(fr_msg_job_spec *spec);
/* The policy's parameters; the spec outlives them. */
void fr_spec_params(const fr_msg_job_spec *spec, int max_context, int overlap,
                    fr_policy_params *out);

#endif
