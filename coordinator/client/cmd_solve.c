/* cmd_solve.c: `forerun solve`: one problem to its answer, on a running cluster or a private one,
 * streamed. With --compare the plain target solves it again afterwards, on the same cluster. */
#include "client.h"

#include <stdio.h>
#include <string.h>

#include "args.h"
#include "check.h"
#include "interrupt.h"
#include "job_options.h"
#include "show.h"

typedef struct solve_options {
    fr_job_options job;
    fr_place_options place;
    int compare, json;
    const char *problem;
} solve_options;

typedef struct solving {
    const solve_options *o;
    fr_place place;
    fr_show show;
} solving;

enum { OPT_COMPARE = 0x200, OPT_JSON };

static const struct argp_option options[] = {
    {.doc = "Output:", .group = 4},
    {"compare", OPT_COMPARE, 0, 0, "also solve with policy target and print the speed-up", 4},
    {"json", OPT_JSON, 0, 0, "one JSON object a line; the last is \"done\" or \"failed\"", 4},
    {0}};

static const char doc[] =
    "Solves one problem and streams the chain of thought."
    "\vExamples:\n"
    "  forerun solve \"Take 17. (1) Multiply it by 3. (2) Add 4 to it. What is the result?\"\n"
    "  forerun solve --ranks 2 --compare --target qwen2.5-coder-1.5b-instruct-q4_k_m \\\n"
    "      --draft qwen2.5-coder-0.5b-instruct-q4_k_m - < problem.txt\n"
    "  forerun solve --connect tcp://127.0.0.1:7077 --policy step --json \"...\"\n"
    "On a terminal drafted steps that were kept are green, rewritten ones yellow, rejected ones "
    "struck "
    "through. Ctrl-C cancels the job (exit code 1).";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    solve_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->job;
        state->child_inputs[1] = &o->place;
        return 0;
    case OPT_COMPARE:
        o->compare = 1;
        return 0;
    case OPT_JSON:
        o->json = 1;
        return 0;
    case ARGP_KEY_ARG:
        return fr_arg_error(fr_arg_problem(arg, &o->problem));
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static fr_status show_step(void *ctx, const fr_msg_step *step)
{
    return fr_show_step(&((solving *)ctx)->show, step);
}

static fr_status show_progress(void *ctx, const fr_msg_progress *progress)
{
    return fr_show_progress(&((solving *)ctx)->show, progress);
}

static fr_status idle(void *ctx)
{
    return fr_place_check(&((solving *)ctx)->place);
}

/* Submits and follows one job to its end. When that is cut short the job is cancelled: nobody waits
 * for it any more. */
static fr_status run_job(solving *s, const fr_msg_job_spec *spec, fr_msg *done)
{
    fr_call *call = s->place.call;
    uint64_t job = 0;
    FR_TRY(fr_call_submit(call, spec, 1, &job));
    if (!s->show.quiet)
        fr_place_tell(&s->place);
    fr_follower follower = {.ctx = s, .step = show_step, .progress = show_progress, .idle = idle};
    fr_status st = fr_call_follow(call, job, 0, 1, &follower, done);
    if (st != FR_OK) {
        fr_msg cancel = {.kind = FR_MSG_CANCEL_JOB};
        cancel.body.cancel_job.job = job;
        char cause[256];
        snprintf(cause, sizeof cause, "%s", fr_cause());
        if (fr_call_send(call, &cancel) != FR_OK)
            return fr_fail(st, "%s",
                           cause); /* the coordinator is gone as well: the first cause counts */
        return st;
    }
    return fr_job_status(&done->body.done.job);
}

static fr_status solve(solving *s, const fr_buf *problem)
{
    fr_buf text = {0};
    fr_msg done = {0}, base = {0};
    fr_msg_job_spec spec;
    fr_status st = fr_job_spec(&s->o->job, &s->o->place, (const char *)problem->data, problem->len, &text, &spec);
    if (st == FR_OK)
        st = run_job(s, &spec, &done);
    if (st == FR_OK && s->o->compare) {
        if (s->show.ui)
            fr_ui_finish(s->show.ui);
        s->show.quiet = 1; /* the steps of the comparison are not the user's */
        spec.policy = "target";
        st = run_job(s, &spec, &base);
    }
    if (st == FR_OK)
        st =
            fr_show_done(&s->show, &done.body.done.job, s->o->compare ? &base.body.done.job : NULL);
    fr_msg_free(&done);
    fr_msg_free(&base);
    fr_buf_free(&text);
    return st;
}

static fr_status run_solve(const solve_options *o)
{
    fr_client_config config;
    fr_buf problem = {0};
    solving s = {.o = o};
    const char *policy = o->job.policy ? o->job.policy : fr_default_policy(&o->place);
    const int wants_draft = strcmp(policy, "target") != 0;
    fr_status st;
    FR_TRY_GOTO(st, fr_place_check_policy(&o->place, policy), out);
    FR_TRY_GOTO(st, fr_read_problem(o->problem, &problem), out);
    FR_TRY_GOTO(st, fr_client_config_read(&config), out);
    FR_TRY_GOTO(st, fr_show_open(o->json, config.colours, &s.show), out);
    fr_interrupt_arm();
    FR_TRY_GOTO(st, fr_place_open(&config, &o->place, wants_draft, &s.place), out);
    st = solve(&s, &problem);
out:
    fr_show_close(&s.show);
    fr_place_close(&s.place);
    fr_buf_free(&problem);
    return st;
}

static int run(int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&fr_job_argp, 0, NULL, 0}, {&fr_place_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse, "PROBLEM | -", doc, children, NULL, NULL};
    solve_options o = {0};
    fr_status st = fr_args_parse(&argp, argc, argv, &o);
    if (st == FR_OK)
        st = run_solve(&o);
    if (st != FR_OK && o.json)
        fr_show_failed_json(st);
    return fr_exit_report(st);
}

const fr_command fr_command_solve = {"solve", "solve one problem and stream its chain of thought",
                                     run};
