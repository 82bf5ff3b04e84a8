/* prompt.c: see prompt.h. */
#include "prompt.h"

/* Digest of the embedded pair's, which no other model has. */
#define EMBEDDED_TOKENIZER 0xf68a54052be226b3u

#define GENERAL_SYSTEM "You are a helpful assistant."
#define GENERAL_SUFFIX                                                                                                 \
    " Please reason step by step, separate reasoning steps with two newlines, and put your final answer within "       \
    "\\boxed{}."

/* The embedded pair was trained on bare problems, and writes its steps and its answer that way unasked. */
static int is_embedded(const fr_tokenizer *t)
{
    return fr_tokenizer_digest(t) == EMBEDDED_TOKENIZER;
}

const char *fr_prompt_system(const fr_msg_job_spec *spec, const fr_tokenizer *target)
{
    if (spec->default_system)
        return is_embedded(target) ? NULL : GENERAL_SYSTEM;
    return spec->system[0] ? spec->system : NULL;
}

fr_status fr_prompt_problem(const fr_msg_job_spec *spec, const fr_tokenizer *target, fr_buf *out)
{
    const int is_bare = spec->raw || !spec->default_suffix || is_embedded(target);
    return fr_buf_printf(out, "%s%s", spec->problem, is_bare ? "" : GENERAL_SUFFIX);
}
