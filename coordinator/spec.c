/* spec.c: see spec.h. */
#include "spec.h"

#include <string.h>

#include "check.h"
#include "controller.h"
#include "judge.h"
#include "record.h"

enum {
    DEFAULT_MAX_TOKENS = 2048,
    DEFAULT_STEP_TOKENS = 128,
    DEFAULT_DRAFT_TOKENS = 16, /* at most: policy/controller.h stops sooner */
    DEFAULT_LOOKAHEAD = 3,
    MAX_STEP_TOKENS = 65536,
    MAX_LOOKAHEAD = 64,
    MAX_DELIMITER = 64,
    MAX_NAME = 256,
};

/* That it is UTF-8 the codec and the chain make sure of. */
static fr_status check_text(const char *field, const char *text, size_t most)
{
    size_t n = strlen(text);
    return n <= most
               ? FR_OK
               : fr_fail(FR_ELIMIT, "%s: %zu bytes, at most %zu are possible", field, n, most);
}

/* 0 means the default. */
static fr_status check_count(const char *field, uint32_t *value, uint32_t preset, uint32_t most)
{
    if (*value == 0)
        *value = preset;
    if (*value > most)
        return fr_fail(FR_EINVAL, "%s: %u is out of range, 1 to %u are possible", field, *value,
                       most);
    return FR_OK;
}

static fr_status check_judge(fr_msg_job_spec *spec)
{
    if (!spec->judge[0])
        FR_TRY(fr_text_set(&spec->judge, "score"));
    const fr_judge_ops *judge = fr_judge_find(spec->judge);
    if (!judge)
        return fr_fail(FR_EINVAL, "judge: \"%s\" is unknown; there are %s", spec->judge,
                       fr_judge_names());
    /* Ratings are digits, the others log-probabilities. NaN, the judge's own default, passes. */
    const double least = judge->probes ? 0 : -1000, most = judge->probes ? 9 : 0;
    if (spec->threshold < least || spec->threshold > most)
        return fr_fail(FR_EINVAL,
                       "threshold: %g is out of range for judge %s, %g to %g are possible",
                       spec->threshold, spec->judge, least, most);
    return FR_OK;
}

static fr_status check_sampling(fr_msg_sampling *s)
{
    if (s->top_p == 0.0f)
        s->top_p = 1.0f;
    if (s->temperature != 0.0f && !(s->temperature >= FR_TEMPERATURE_MIN && s->temperature <= 100.0f))
        return fr_fail(FR_EINVAL, "temperature: %g is out of range, 0 (greedy) and %g to 100 are possible",
                       (double)s->temperature, (double)FR_TEMPERATURE_MIN);
    if (!(s->top_p > 0.0f && s->top_p <= 1.0f))
        return fr_fail(FR_EINVAL, "top_p: %g is out of range, above 0 to 1 are possible",
                       (double)s->top_p);
    if (s->top_k > FR_TOP_MAX)
        return fr_fail(FR_EINVAL, "top_k: %u is out of range, 0 (off) to %d are possible", s->top_k,
                       FR_TOP_MAX);
    return FR_OK;
}

fr_status fr_spec_check(fr_msg_job_spec *spec)
{
    FR_TRY(check_text("problem", spec->problem, FR_SPEC_MAX_PROBLEM));
    if (!spec->problem[strspn(spec->problem, " \t\r\n")])
        return fr_fail(FR_EINVAL, "problem: it is empty");
    FR_TRY(check_text("system", spec->system, FR_SPEC_MAX_PROBLEM));
    FR_TRY(check_text("name", spec->name, MAX_NAME));
    FR_TRY(check_text("delimiter", spec->delimiter, MAX_DELIMITER));
    if (!spec->delimiter[0])
        FR_TRY(fr_text_set(&spec->delimiter, "\n\n"));
    if (!spec->policy[0])
        FR_TRY(fr_text_set(&spec->policy, "target"));
    if (!fr_policy_find(spec->policy))
        return fr_fail(FR_EINVAL, "policy: \"%s\" is unknown; there are %s", spec->policy,
                       fr_policy_names());
    FR_TRY(check_judge(spec));
    FR_TRY(check_sampling(&spec->sampling));
    FR_TRY(check_count("max_tokens", &spec->max_tokens, DEFAULT_MAX_TOKENS, FR_SPEC_MAX_TOKENS));
    FR_TRY(check_count("step_tokens", &spec->step_tokens, DEFAULT_STEP_TOKENS, MAX_STEP_TOKENS));
    FR_TRY(check_count("draft_tokens", &spec->draft_tokens, DEFAULT_DRAFT_TOKENS, FR_DRAFT_MAX));
    return check_count("lookahead", &spec->lookahead, DEFAULT_LOOKAHEAD, MAX_LOOKAHEAD);
}

void fr_spec_params(const fr_msg_job_spec *spec, int max_context, int overlap,
                    fr_policy_params *out)
{
    const fr_msg_sampling *s = &spec->sampling;
    *out = (fr_policy_params){
        .sampling = {.temperature = s->temperature,
                     .top_p = s->top_p,
                     .top_k = (int32_t)s->top_k,
                     .seed = s->seed,
                     .sample = s->sample},
        .max_tokens = (int)spec->max_tokens,
        .step_tokens = (int)spec->step_tokens,
        .draft_tokens = (int)spec->draft_tokens,
        .lookahead = (int)spec->lookahead,
        .overlap = overlap,
        .delimiter = spec->delimiter,
        .judge = spec->judge,
        .threshold = spec->threshold,
        .max_context = max_context,
    };
}
