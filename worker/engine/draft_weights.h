/* draft_weights.h: how a draft's matrices are held: as its file has them, or quantised once more
 * when they are loaded (quantise.h). A draft costs the time in which its weights are read; what
 * fewer bits spoil costs a guess now and then, never a wrong token, since the target verifies every
 * guess. The draft's own text (policy draft, drafted steps) is that of another model, though. */
#ifndef FR_DRAFT_WEIGHTS_H
#define FR_DRAFT_WEIGHTS_H

#include "status.h"

typedef enum fr_draft_weights {
    FR_DRAFT_WEIGHTS_FILE, /* the default */
    FR_DRAFT_WEIGHTS_Q4_0
} fr_draft_weights;

/* The value of an option --draft-weights: "file" or "q4_0". FR_EINVAL for anything else. */
fr_status fr_draft_weights_parse(const char *text, fr_draft_weights *out);
/* That value. */
const char *fr_draft_weights_name(fr_draft_weights weights);

#endif
