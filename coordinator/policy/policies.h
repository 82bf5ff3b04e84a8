/* policies.h: the policies there are; only policy.c needs to know. */
#ifndef FR_POLICIES_H
#define FR_POLICIES_H

#include "policy.h"

extern const fr_policy_ops fr_policy_target;
extern const fr_policy_ops fr_policy_draft;
extern const fr_policy_ops fr_policy_token;
extern const fr_policy_ops fr_policy_step;

#endif
