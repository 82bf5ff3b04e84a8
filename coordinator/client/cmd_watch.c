/* cmd_watch.c: `forerun watch`: follows a job of a running cluster, from any step, and goes on when
 * the coordinator was restarted meanwhile. */
#include "client.h"

#include "args.h"
#include "check.h"
#include "remote.h"
#include "show.h"

typedef struct watch_options {
    fr_remote_options remote;
    int from_step;
} watch_options;

static const struct argp_option options[] = {
    {"from-step", 's', "N", 0, "leave out the steps before it (default 0)", 1},
    {0}};

static const char doc[] =
    "Follows a job from a step to its end. Ctrl-C ends the watching, not the job."
    "\vExample:\n  forerun watch 17 --from-step 4";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    watch_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->remote;
        return 0;
    case 's':
        return fr_arg_error(fr_arg_int("--from-step", arg, 0, 1 << 30, &o->from_step));
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* A first question, so that a cluster that is not there is told at once, and a job that is not
 * there by its name. */
static fr_status find_job(fr_call *call, uint64_t job)
{
    fr_msg query = {.kind = FR_MSG_STATUS_QUERY}, reply = {0};
    query.body.status_query.job = job;
    FR_TRY(fr_call_ask(call, &query, FR_MSG_STATUS_REPLY, FR_CALL_ANSWER_MS, &reply));
    int found = reply.body.status_reply.n_jobs > 0;
    fr_msg_free(&reply);
    return found ? FR_OK
                 : fr_fail(FR_ENOTFOUND, "no job %llu at %s", (unsigned long long)job,
                           call->endpoint);
}

/* *is_left_out: the user ended the watching, which is no end of the job. */
static fr_status watch(const watch_options *o, int *is_left_out)
{
    fr_client_config config;
    fr_show show = {0};
    fr_call call = {0};
    fr_msg done = {0};
    uint64_t job = 0;
    fr_status st;
    FR_TRY_GOTO(st, fr_remote_job(&o->remote, &job), out);
    FR_TRY_GOTO(st, fr_client_config_read(&config), out);
    FR_TRY_GOTO(st, fr_remote_open(&o->remote, &call), out);
    FR_TRY_GOTO(st, find_job(&call, job), out);
    FR_TRY_GOTO(st, fr_show_open(o->remote.json, config.colours, &show), out);
    fr_follower follower = {.ctx = &show, .step = fr_show_step, .progress = fr_show_progress};
    FR_TRY_GOTO(st, fr_call_follow(&call, job, (uint32_t)o->from_step, 0, &follower, &done), out);
    FR_TRY_GOTO(st, fr_job_status(&done.body.done.job), out);
    st = fr_show_done(&show, &done.body.done.job, NULL);
out:
    *is_left_out = st == FR_ECANCELLED && done.kind == FR_MSG_NONE;
    if (*is_left_out)
        st = fr_fail(st, "the watching of job %llu is ended; the job is left as it is", (unsigned long long)job);
    fr_show_close(&show);
    fr_msg_free(&done);
    fr_call_close(&call, 0);
    return st;
}

static int run(int argc, char **argv)
{
    static const struct argp_child children[] = {{&fr_remote_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse, "JOB", doc, children, NULL, NULL};
    watch_options o = {.remote = {.takes_argument = 1}};
    int is_left = 0;
    fr_status st = fr_args_parse(&argp, argc, argv, &o);
    if (st == FR_OK)
        st = watch(&o, &is_left);
    if (st != FR_OK && !is_left && o.remote.json)
        fr_show_failed_json(st);
    return fr_exit_report(st);
}

const fr_command fr_command_watch = {"watch", "follow a job of a running cluster", run};
