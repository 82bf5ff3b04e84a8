/* prompt.h: what a job asks its target model: the client's texts or, where the client leaves one to the model
 * (default_system, default_suffix of its spec), the model's own. Those depend on the target's tokenizer alone, so on
 * the model and not on what its file is called: a job that waited for its target, one that began at once and one that
 * goes on after a restart ask the same, and only that it was left open need be stored. */
#ifndef FR_PROMPT_H
#define FR_PROMPT_H

#include "codec.h"
#include "tokenizer.h"

/* Borrowed from the spec, or constant; NULL: none. */
const char *fr_prompt_system(const fr_msg_job_spec *spec, const fr_tokenizer *target);
/* Appends the problem and what goes behind it, and a zero byte that is not counted. */
fr_status fr_prompt_problem(const fr_msg_job_spec *spec, const fr_tokenizer *target, fr_buf *out);

#endif
