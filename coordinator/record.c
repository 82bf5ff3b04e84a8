/* record.c: see record.h. */
#include "record.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

static const char *const state_names[] = {"queued", "running", "done", "failed", "cancelled"};

const char *fr_job_state_name(fr_job_state state)
{
    return state_names[state];
}

fr_status fr_job_state_parse(const char *name, fr_job_state *out)
{
    for (int i = 0; i <= FR_JOB_CANCELLED; i++) {
        if (!strcmp(name, state_names[i])) {
            *out = (fr_job_state)i;
            return FR_OK;
        }
    }
    return fr_fail(FR_EINVAL,
                   "state \"%s\" is unknown; there are queued, running, done, failed, cancelled",
                   name);
}

int fr_record_over(const fr_job_record *r)
{
    return r->state != FR_JOB_QUEUED && r->state != FR_JOB_RUNNING;
}

fr_status fr_text_set(const char **text, const char *value)
{
    char *copy = strdup(value ? value : "");
    if (!copy)
        return fr_no_memory();
    free((char *)*text);
    *text = copy;
    return FR_OK;
}

fr_status fr_spec_copy(const fr_msg_job_spec *spec, fr_msg_job_spec *out)
{
    const char *const from[] = {spec->problem, spec->system,    spec->policy,
                                spec->judge,   spec->delimiter, spec->name};
    *out = *spec;
    const char **const to[] = {&out->problem, &out->system,    &out->policy,
                               &out->judge,   &out->delimiter, &out->name};
    for (size_t i = 0; i < sizeof to / sizeof *to; i++)
        *to[i] = NULL;
    for (size_t i = 0; i < sizeof to / sizeof *to; i++) {
        fr_status st = fr_text_set(to[i], from[i]);
        if (st != FR_OK) {
            fr_spec_free(out);
            return st;
        }
    }
    return FR_OK;
}

void fr_spec_free(fr_msg_job_spec *spec)
{
    const char *const texts[] = {spec->problem, spec->system,    spec->policy,
                                 spec->judge,   spec->delimiter, spec->name};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        free((char *)texts[i]);
    *spec = (fr_msg_job_spec){0};
}

fr_status fr_record_copy(const fr_job_record *r, fr_job_record *out)
{
    fr_status st = FR_OK;
    *out = *r;
    out->target_model = out->draft_model = out->cause = out->stop = out->answer = NULL;
    out->spec = (fr_msg_job_spec){0};
    FR_TRY_GOTO(st, fr_spec_copy(&r->spec, &out->spec), fail);
    FR_TRY_GOTO(st, fr_text_set(&out->target_model, r->target_model), fail);
    FR_TRY_GOTO(st, fr_text_set(&out->draft_model, r->draft_model), fail);
    FR_TRY_GOTO(st, fr_text_set(&out->cause, r->cause), fail);
    FR_TRY_GOTO(st, fr_text_set(&out->stop, r->stop), fail);
    FR_TRY_GOTO(st, fr_text_set(&out->answer, r->answer), fail);
    return FR_OK;
fail:
    fr_record_free(out);
    return st;
}

void fr_record_free(fr_job_record *r)
{
    fr_spec_free(&r->spec);
    free((char *)r->target_model);
    free((char *)r->draft_model);
    free((char *)r->cause);
    free((char *)r->stop);
    free((char *)r->answer);
    *r = (fr_job_record){0};
}

void fr_record_info(const fr_job_record *r, fr_msg_job_info *out)
{
    *out = (fr_msg_job_info){
        .job = r->id,
        .state = fr_job_state_name(r->state),
        .spec = r->spec,
        .steps = r->counts.steps,
        .chain_tokens = r->counts.chain_tokens,
        .drafted = r->counts.drafted,
        .accepted = r->counts.accepted,
        .target_tokens = r->counts.target_tokens,
        .passes = r->counts.passes,
        .seconds = r->counts.seconds,
        .answer = r->answer ? r->answer : "",
        .status = r->status,
        .cause = r->cause ? r->cause : "",
        .stop = r->stop ? r->stop : "",
        .submitted_ms = r->submitted_ms,
        .finished_ms = r->finished_ms,
        .batch_dependent = r->batch_dependent,
    };
}
