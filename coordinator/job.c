/* job.c: see job.h. */
#include "job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "check.h"
#include "clock.h"
#include "log.h"
#include "prompt.h"
#include "spec.h"

/* A policy without a need for a draft group may still use one, when it says how drafts must look.
 */
static int uses_draft(const fr_policy_ops *ops)
{
    return ops->needs_draft || ops->needs_same_tokenizer;
}

int fr_job_over(const fr_job *job)
{
    return fr_record_over(&job->record);
}

double fr_job_seconds(const fr_job *job)
{
    return job->policy ? job->before_s + (fr_now_s() - job->began) : job->record.counts.seconds;
}

/* ---- checks against the models */

static fr_status check_tokenizers(const fr_policy_ops *ops, const fr_group *target,
                                  const fr_group *draft)
{
    if (!draft || !ops->needs_same_tokenizer || target->tokenizer_digest == draft->tokenizer_digest)
        return FR_OK;
    return fr_fail(
        FR_EMISMATCH,
        "policy %s needs draft and target with one tokenizer; %s and %s have different ones",
        ops->name, draft->model_name, target->model_name);
}

/* The draft of an exact policy changes nothing but the time: where its context ends the target goes on alone. */
static int bounds_chain(const fr_policy_ops *ops, const fr_group *draft)
{
    return draft && !ops->exact;
}

static fr_status check_length(const fr_policy_ops *ops, const fr_chain *chain, const fr_group *target,
                              const fr_group *draft)
{
    if ((uint32_t)chain->prompt_len + 1 > target->max_context)
        return fr_fail(FR_ELIMIT, "problem: its prompt has %d tokens, the context of %s holds %u",
                       chain->prompt_len, target->model_name, target->max_context);
    if (bounds_chain(ops, draft) && (uint32_t)chain->draft_prompt_len + 1 > draft->max_context)
        return fr_fail(FR_ELIMIT, "problem: its prompt has %d tokens, the context of %s holds %u",
                       chain->draft_prompt_len, draft->model_name, draft->max_context);
    return FR_OK;
}

static fr_status open_chain(const fr_policy_ops *ops, const fr_msg_job_spec *spec, const fr_group *target,
                            const fr_group *draft, fr_chain *chain)
{
    const fr_tokenizer *tokenizer = target->tokenizer, *drafts_in = draft ? draft->tokenizer : NULL;
    fr_buf problem = {0};
    fr_status st = FR_OK;
    if (ops->needs_same_tokenizer) /* known before the draft group is: take_draft() */
        drafts_in = tokenizer;
    FR_TRY_GOTO(st, fr_prompt_problem(spec, tokenizer, &problem), done);
    FR_TRY_GOTO(st,
                fr_chain_open(chain, tokenizer, drafts_in, fr_prompt_system(spec, tokenizer),
                              (const char *)problem.data, spec->raw),
                done);
    st = check_length(ops, chain, target, draft);
    if (st != FR_OK)
        fr_chain_close(chain);
done:
    fr_buf_free(&problem);
    return st;
}

static const fr_group *draft_of(const fr_job_env *env, const fr_policy_ops *ops)
{
    return uses_draft(ops) ? fr_registry_any(env->registry, FR_ROLE_DRAFT, 0) : NULL;
}

fr_status fr_job_check_models(const fr_job_env *env, const fr_msg_job_spec *spec)
{
    const fr_policy_ops *ops = fr_policy_find(spec->policy);
    const fr_group *target = fr_registry_any(env->registry, FR_ROLE_TARGET, 0);
    const fr_group *draft = draft_of(env, ops);
    if (!target)
        return FR_OK;
    FR_TRY(check_tokenizers(ops, target, draft));
    fr_chain chain = {0};
    FR_TRY(open_chain(ops, spec, target, draft, &chain));
    fr_chain_close(&chain);
    return FR_OK;
}

/* ---- life */

fr_job *fr_job_new(const fr_job_env *env, fr_job_record *record, double now)
{
    fr_job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    job->env = env;
    job->record = *record;
    *record = (fr_job_record){0};
    job->ops = fr_policy_find(job->record.spec.policy);
    job->grace_from = now;
    job->waits_for = "";
    return job;
}

/* Lets go of everything but the record. */
static void stop_running(fr_job *job)
{
    fr_calls_drop_job(job->env->calls, job->record.id);
    if (job->policy)
        job->ops->close(&job->policy);
    fr_chain_close(&job->chain);
    fr_ids_free(&job->tail);
}

void fr_job_free(fr_job **job)
{
    if (!*job)
        return;
    stop_running(*job);
    fr_record_free(&(*job)->record);
    free(*job);
    *job = NULL;
}

enum { LACKS_NOTHING = FR_ROLE_DRAFT + 1 }; /* beside the roles */

/* What a job waits for: a group, or none; and, in the second row, its turn. */
static const char *const reasons_to_wait[2][LACKS_NOTHING + 1] = {
    {[FR_ROLE_TARGET] = "waiting for a target group",
     [FR_ROLE_DRAFT] = "waiting for a draft group",
     [LACKS_NOTHING] = ""},
    {[FR_ROLE_TARGET] = "waiting for a running job to end and for a target group",
     [FR_ROLE_DRAFT] = "waiting for a running job to end and for a draft group",
     [LACKS_NOTHING] = "waiting for a running job to end"},
};

void fr_job_look_for_groups(fr_job *job)
{
    const fr_policy_ops *ops = job->ops;
    const int is_drafts_own = ops->needs_draft && !ops->outlives_draft && !ops->exact; /* no target has a part in it */
    const fr_role role = is_drafts_own ? FR_ROLE_DRAFT : FR_ROLE_TARGET;
    job->waits_for = reasons_to_wait[0][fr_registry_any(job->env->registry, role, 0) ? LACKS_NOTHING : (int)role];
}

/* The role of the group that a queued job cannot begin without, or LACKS_NOTHING. */
static int what_it_lacks(const fr_job *job, double now)
{
    const fr_job_env *env = job->env;
    if (!job->ops)
        return LACKS_NOTHING; /* fails at its start */
    if (!fr_registry_any(env->registry, FR_ROLE_TARGET, 0))
        return FR_ROLE_TARGET;
    if (uses_draft(job->ops) && !fr_registry_any(env->registry, FR_ROLE_DRAFT, 0)) {
        if (job->ops->needs_draft || env->draft_comes || now < fr_job_deadline(job))
            return FR_ROLE_DRAFT;
    }
    return LACKS_NOTHING;
}

void fr_job_await_target(fr_job *job, double now)
{
    if (!fr_registry_any(job->env->registry, FR_ROLE_TARGET, 0))
        job->grace_from = now;
}

int fr_job_ready(fr_job *job, int is_its_turn, double now)
{
    const int lacks = what_it_lacks(job, now);
    job->waits_for = reasons_to_wait[!is_its_turn][lacks];
    return is_its_turn && lacks == LACKS_NOTHING;
}

double fr_job_deadline(const fr_job *job)
{
    int waits = job->ops && uses_draft(job->ops) && !job->ops->needs_draft && !job->env->draft_comes &&
                fr_registry_any(job->env->registry, FR_ROLE_TARGET, 0);
    return waits ? job->grace_from + job->env->grace_s : (double)INFINITY;
}

static fr_status answer_of(fr_job *job)
{
    fr_buf answer = {0}, clean = {0};
    fr_status st = FR_OK;
    const char *text = job->chain.text.len ? (const char *)job->chain.text.data : "";
    FR_TRY_GOTO(st, fr_answer_extract(text, job->chain.text.len, &answer), done);
    /* A chain may hold bytes that are no text; a message may not. */
    FR_TRY_GOTO(st, fr_utf8_clean(answer.data, answer.len, &clean), done);
    FR_TRY_GOTO(st, fr_buf_put(&clean, "", 1), done);
    st = fr_text_set(&job->record.answer, (const char *)clean.data);
done:
    fr_buf_free(&answer);
    fr_buf_free(&clean);
    return st;
}

void fr_job_end(fr_job *job, fr_job_state state, fr_status status, const char *cause)
{
    fr_job_record *r = &job->record;
    /* The cause may be this thread's fr_cause(), which what follows may overwrite. A text that
     * finds no memory stays as it was. */
    if (cause)
        fr_text_set(&r->cause, cause);
    if (job->policy) {
        r->counts.seconds = fr_job_seconds(job);
        r->counts.passes = job->before_passes + job->terms.passes;
        r->batch_dependent |= job->terms.batch_dependent;
        answer_of(job);
    }
    r->state = state;
    r->status = status;
    r->finished_ms = fr_wall_ms();
    fr_text_set(&r->stop, state == FR_JOB_DONE ? job->finished : fr_job_state_name(state));
    if (fr_store_set_job(job->env->store, r) != FR_OK)
        fr_log(FR_LOG_ERROR, "job %llu: its end is not stored: %s", (unsigned long long)r->id,
               fr_cause());
    fr_log(FR_LOG_INFO, "job %llu %s%s%s", (unsigned long long)r->id, fr_job_state_name(state),
           r->cause[0] ? ": " : "", r->cause);
    stop_running(job);
}

fr_status fr_job_tail_text(const fr_job *job, fr_buf *out)
{
    FR_TRY(fr_detokenize(job->chain.target, job->tail.data, job->tail.len, 0, out));
    out->len -= fr_utf8_unfinished(out->data, out->len);
    return FR_OK;
}

/* ---- its groups */

/* What a job was begun with bounds its text: it does not go on with another model, nor with less context. */
static fr_status check_group(const fr_job *job, const fr_group *g)
{
    const fr_job_record *r = &job->record;
    const int is_draft = g->role == FR_ROLE_DRAFT;
    const uint64_t digest = is_draft ? r->draft_digest : r->target_digest;
    if (is_draft && !bounds_chain(job->ops, g))
        return FR_OK;
    if (digest && digest != g->model_digest)
        return fr_fail(FR_EMISMATCH,
                       "job %llu was begun with %s %s (%016llx), the cluster has %s (%016llx)",
                       (unsigned long long)r->id, fr_role_name(g->role), is_draft ? r->draft_model : r->target_model,
                       (unsigned long long)digest, g->model_name, (unsigned long long)g->model_digest);
    if (g->max_context < r->context)
        return fr_fail(FR_EMISMATCH, "job %llu was begun with a context of %u, %s group %s has %u",
                       (unsigned long long)r->id, r->context, fr_role_name(g->role), g->name, g->max_context);
    return FR_OK;
}

static fr_status adopt(fr_job *job, const fr_group *g)
{
    fr_job_record *r = &job->record;
    const int is_draft = g->role == FR_ROLE_DRAFT;
    FR_TRY(check_group(job, g));
    *(is_draft ? &r->draft_digest : &r->target_digest) = g->model_digest;
    return fr_text_set(is_draft ? &r->draft_model : &r->target_model, g->model_name);
}

/* ---- the policy's host */

/* For an exact job any draft will do that writes the target's tokens and has room, also one that came after the job
 * began. A lost one's call waits for it to come back. */
static fr_status take_draft(fr_job *job, const fr_generate_call *call)
{
    fr_call_terms *terms = &job->terms;
    const fr_group *draft = fr_registry_any(job->env->registry, FR_ROLE_DRAFT, 0);
    if (!draft)
        return terms->model[FR_ROLE_DRAFT] ? FR_OK : fr_fail(FR_EUNAVAILABLE, "no draft group is there");
    if (draft->tokenizer_digest != fr_tokenizer_digest(job->chain.target))
        return fr_fail(FR_EUNAVAILABLE, "draft group %s has another tokenizer", draft->name);
    if ((uint32_t)call->n_ids > draft->max_context)
        return fr_fail(FR_EUNAVAILABLE, "%d tokens are more than the context of draft group %s, %u", call->n_ids,
                       draft->name, draft->max_context);
    if (terms->model[FR_ROLE_DRAFT] == draft->model_digest)
        return FR_OK;
    terms->model[FR_ROLE_DRAFT] = draft->model_digest;
    return adopt(job, draft);
}

static fr_status host_generate(void *ctx, const fr_generate_call *call, uint64_t *call_out)
{
    fr_job *job = ctx;
    if (job->ops->exact && call->role == FR_ROLE_DRAFT)
        FR_TRY(take_draft(job, call));
    return fr_calls_generate(job->env->calls, &job->terms, call, call_out);
}

static fr_status host_verify(void *ctx, const fr_verify_call *call, uint64_t *call_out)
{
    fr_job *job = ctx;
    return fr_calls_verify(job->env->calls, &job->terms, call, call_out);
}

static void host_cancel(void *ctx, uint64_t call)
{
    fr_job *job = ctx;
    fr_calls_cancel(job->env->calls, call);
}

static void count_step(fr_job_counts *counts, const fr_step_record *step)
{
    counts->drafted += (uint32_t)step->drafted;
    counts->accepted += (uint32_t)step->kept;
    if (!step->accepted)
        return;
    counts->steps++;
    counts->chain_tokens += (uint32_t)step->n_ids;
    if (step->origin != FR_ORIGIN_DRAFT && step->n_ids > step->kept)
        counts->target_tokens += (uint32_t)(step->n_ids - step->kept);
}

static fr_status host_commit(void *ctx, const fr_step_record *step)
{
    fr_job *job = ctx;
    fr_job_counts *counts = &job->record.counts;
    fr_buf text = {0};
    fr_status st = FR_OK;
    FR_TRY_GOTO(st, fr_detokenize(job->chain.target, step->ids, (size_t)step->n_ids, 0, &text),
                done);
    if (step->accepted)
        FR_TRY_GOTO(st, fr_chain_append(&job->chain, step->ids, (size_t)step->n_ids), done);
    count_step(counts, step);
    counts->seconds = fr_job_seconds(job);
    counts->passes = job->before_passes + job->terms.passes;
    job->record.batch_dependent |= job->terms.batch_dependent;
    fr_store_step stored = {
        .index = job->n_records,
        .ids = step->ids,
        .n_ids = (size_t)step->n_ids,
        .origin = step->origin,
        .accepted = step->accepted,
        .score = step->score,
        .drafted = (uint32_t)step->drafted,
        .kept = (uint32_t)step->kept,
        .seconds = counts->seconds,
        .passes = counts->passes,
        .text = {text.data, text.len},
    };
    FR_TRY_GOTO(st, fr_store_add_step(job->env->store, job->record.id, &stored), done);
    FR_TRY_GOTO(st, fr_store_set_job(job->env->store, &job->record), done);
    job->n_records++;
    if (step->accepted) {
        job->tail.len = 0;
        job->tail_version++;
    }
done:
    fr_buf_free(&text);
    return st;
}

static void host_tail(void *ctx, const int32_t *ids, int n)
{
    fr_job *job = ctx;
    job->tail.len = 0;
    if (fr_ids_put(&job->tail, ids, (size_t)n) == FR_OK) /* only a display */
        job->tail_version++;
}

static void host_finish(void *ctx, const char *stop)
{
    fr_job *job = ctx;
    job->finished = stop;
}

/* ---- running */

void fr_job_event(fr_job *job, const fr_policy_event *event)
{
    if (!job->policy || job->finished)
        return;
    fr_status st = job->ops->advance(job->policy, event);
    if (st != FR_OK)
        fr_job_end(job, FR_JOB_FAILED, st, fr_cause());
    else if (job->finished)
        fr_job_end(job, FR_JOB_DONE, FR_OK, NULL);
}

void fr_job_check_groups(fr_job *job)
{
    const fr_registry *registry = job->env->registry;
    for (int role = FR_ROLE_TARGET; role <= FR_ROLE_DRAFT && job->policy; role++) {
        const fr_group *g = fr_registry_any(registry, (fr_role)role, 0);
        if (g && job->terms.model[role] && check_group(job, g) != FR_OK)
            fr_job_end(job, FR_JOB_FAILED, FR_EMISMATCH, fr_cause());
    }
}

static fr_status adopt_groups(fr_job *job, const fr_group *target, const fr_group *draft)
{
    uint32_t *context = &job->record.context;
    FR_TRY(adopt(job, target));
    if (draft)
        FR_TRY(adopt(job, draft));
    if (!*context)
        *context = bounds_chain(job->ops, draft) && draft->max_context < target->max_context ? draft->max_context
                                                                                             : target->max_context;
    return FR_OK;
}

typedef struct resume {
    fr_job *job;
    fr_job_counts pending, good; /* over all records; over those up to the last accepted one */
    uint32_t n_good;
} resume;

static fr_status resume_step(void *ctx, const fr_store_step *step)
{
    resume *r = ctx;
    const fr_step_record record = {.ids = step->ids,
                                   .n_ids = (int)step->n_ids,
                                   .origin = (fr_origin)step->origin,
                                   .accepted = step->accepted,
                                   .drafted = (int)step->drafted,
                                   .kept = (int)step->kept};
    count_step(&r->pending, &record);
    r->pending.seconds = step->seconds;
    r->pending.passes = step->passes;
    if (!step->accepted)
        return FR_OK;
    r->good = r->pending;
    r->n_good = step->index + 1;
    return fr_chain_append(&r->job->chain, step->ids, step->n_ids);
}

/* Back to the last accepted step: rejected drafts behind it will be drafted, and rejected, again.
 * A queued job has no steps in the write queue, since it never ran in this process. */
static fr_status bring_back(fr_job *job)
{
    resume r = {.job = job};
    fr_job_record *record = &job->record;
    FR_TRY(fr_store_steps(job->env->store, record->id, 0, resume_step, &r));
    FR_TRY(fr_store_trim_steps(job->env->store, record->id, r.n_good));
    record->counts = r.good;
    job->n_records = r.n_good;
    job->before_s = r.good.seconds;
    job->before_passes = r.good.passes;
    if (r.n_good)
        fr_log(FR_LOG_INFO, "job %llu goes on behind step %d, token %d",
               (unsigned long long)record->id, job->chain.n_steps, fr_chain_len(&job->chain));
    return FR_OK;
}

static int overlap_of(const fr_job_env *env)
{
    return env->overlap >= 0 ? env->overlap : !env->few_cores;
}

static void fill_terms(fr_job *job, const fr_group *target, const fr_group *draft)
{
    fr_spec_params(&job->record.spec, (int)job->record.context, overlap_of(job->env), &job->params);
    job->terms = (fr_call_terms){
        .job = job->record.id,
        .model = {[FR_ROLE_TARGET] = target->model_digest,
                  [FR_ROLE_DRAFT] = draft ? draft->model_digest : 0},
        .sampling = job->params.sampling,
        .delimiter = job->params.delimiter,
        .exact = job->ops->exact,
        .outlives_draft = job->ops->outlives_draft,
    };
    job->host = (fr_policy_host){.ctx = job,
                                 .generate = host_generate,
                                 .verify = host_verify,
                                 .cancel = host_cancel,
                                 .commit = host_commit,
                                 .tail = host_tail,
                                 .finish = host_finish};
}

static fr_status start(fr_job *job, double now)
{
    fr_job_record *r = &job->record;
    if (!job->ops) /* stored by a version that had it */
        return fr_fail(FR_EINVAL, "policy: \"%s\" is unknown; there are %s", r->spec.policy,
                       fr_policy_names());
    const fr_group *target = fr_registry_any(job->env->registry, FR_ROLE_TARGET, 0);
    const fr_group *draft = draft_of(job->env, job->ops);
    if (r->target_digest && check_tokenizers(job->ops, target, draft) != FR_OK)
        draft = NULL; /* it was begun; a draft that comes does not end it either: take_draft() */
    FR_TRY(check_tokenizers(job->ops, target, draft));
    FR_TRY(adopt_groups(job, target, draft));
    FR_TRY(open_chain(job->ops, &r->spec, target, draft, &job->chain));
    FR_TRY(bring_back(job));
    fill_terms(job, target, draft);
    FR_TRY(job->ops->open(&job->host, &job->chain, &job->params, &job->policy));
    job->began = now;
    r->state = FR_JOB_RUNNING;
    return fr_store_set_job(job->env->store, r);
}

void fr_job_start(fr_job *job, double now)
{
    fr_status st = start(job, now);
    if (st != FR_OK) {
        fr_job_end(job, FR_JOB_FAILED, st, fr_cause());
        return;
    }
    fr_log(FR_LOG_INFO, "job %llu runs, policy %s, prompt %d tokens",
           (unsigned long long)job->record.id, job->ops->name, job->chain.prompt_len);
    fr_policy_event e = {.kind = FR_EVENT_START};
    fr_job_event(job, &e);
}
