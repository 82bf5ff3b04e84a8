/* policy.c: the table of policies. */
#include "policy.h"

#include <string.h>

#include "policies.h"

static const fr_policy_ops *const policies[] = {&fr_policy_target, &fr_policy_draft,
                                                &fr_policy_token, &fr_policy_step, NULL};

const fr_policy_ops *const *fr_policy_all(void)
{
    return policies;
}

const fr_policy_ops *fr_policy_find(const char *name)
{
    for (const fr_policy_ops *const *p = policies; *p; p++)
        if (strcmp((*p)->name, name) == 0)
            return *p;
    return NULL;
}

const char *fr_policy_names(void)
{
    return "target, draft, token, step";
}

const char *fr_origin_name(fr_origin o)
{
    static const char *const names[] = {"target", "draft", "token", "rewritten"};
    return (unsigned)o < sizeof names / sizeof *names ? names[o] : "unknown";
}
