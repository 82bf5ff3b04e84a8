/* draft_weights.c: see draft_weights.h. */
#include "draft_weights.h"

#include <string.h>

static const char *const names[] = {[FR_DRAFT_WEIGHTS_FILE] = "file", [FR_DRAFT_WEIGHTS_Q4_0] = "q4_0"};

fr_status fr_draft_weights_parse(const char *text, fr_draft_weights *out)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = (fr_draft_weights)i;
            return FR_OK;
        }
    return fr_fail(FR_EINVAL, "--draft-weights: '%.64s' is not file or q4_0", text);
}

const char *fr_draft_weights_name(fr_draft_weights weights)
{
    return names[weights];
}
