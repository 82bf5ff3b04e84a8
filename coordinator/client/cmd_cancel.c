/* cmd_cancel.c: `forerun cancel`: ends a job of a running cluster. */
#include "client.h"

#include <inttypes.h>
#include <stdio.h>

#include "args.h"
#include "check.h"
#include "json_out.h"
#include "remote.h"

static const char doc[] = "Cancels a job of a running cluster.\vExample:\n  forerun cancel 17";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    if (key != ARGP_KEY_INIT)
        return ARGP_ERR_UNKNOWN;
    state->child_inputs[0] = state->input;
    return 0;
}

static fr_status print_cancelled(uint64_t job, int json)
{
    if (!json) {
        printf("job %" PRIu64 " cancelled\n", job);
        return FR_OK;
    }
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    fr_status st = fr_json_u64(o, "job", job);
    if (st == FR_OK)
        st = fr_json_bool(o, "cancelled", 1);
    if (st == FR_OK)
        st = fr_json_print(o);
    cJSON_Delete(o);
    return st;
}

static fr_status cancel(const fr_remote_options *o)
{
    fr_call call = {0};
    fr_msg request = {.kind = FR_MSG_CANCEL_JOB}, reply = {0};
    FR_TRY(fr_remote_job(o, &request.body.cancel_job.job));
    fr_status st = fr_remote_open(o, &call);
    if (st == FR_OK)
        st = fr_call_ask(&call, &request, FR_MSG_OK, FR_CALL_ANSWER_MS, &reply);
    if (st == FR_ECANCELLED)
        st = fr_fail(st, "interrupted before the cluster at %s said that job %" PRIu64 " is cancelled, which it may be",
                     call.endpoint, request.body.cancel_job.job);
    if (st == FR_OK)
        st = print_cancelled(request.body.cancel_job.job, o->json);
    fr_msg_free(&reply);
    fr_call_close(&call, 0);
    return st;
}

static int run(int argc, char **argv)
{
    static const struct argp_child children[] = {{&fr_remote_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {NULL, parse, "JOB", doc, children, NULL, NULL};
    fr_remote_options o = {.takes_argument = 1};
    fr_status st = fr_args_parse(&argp, argc, argv, &o);
    if (st == FR_OK)
        st = cancel(&o);
    return fr_exit_report(st);
}

const fr_command fr_command_cancel = {"cancel", "end a job of a running cluster", run};
