/* cmd_submit.c: `forerun submit`: hands a problem to a running cluster and prints the job's
 * number. */
#include "client.h"

#include <inttypes.h>
#include <stdio.h>

#include "args.h"
#include "check.h"
#include "interrupt.h"
#include "job_options.h"
#include "json_out.h"

typedef struct submit_options {
    fr_job_options job;
    fr_place_options place;
    int json;
    const char *problem;
} submit_options;

enum { OPT_CONNECT = 0x200, OPT_JSON };

static const struct argp_option options[] = {
    {.doc = "Cluster and output:", .group = 4},
    {"connect", OPT_CONNECT, "EP", 0,
     "the cluster (default: FORERUN_CONNECT, else " FR_DEFAULT_ENDPOINT ")", 4},
    {"json", OPT_JSON, 0, 0, "print {\"job\": N}", 4},
    {0}};

static const char doc[] =
    "Submits a problem to a running cluster and prints the job's number. The job outlives the "
    "client."
    "\vExamples:\n"
    "  forerun submit --connect tcp://127.0.0.1:7077 --policy step - < problem.txt\n"
    "  forerun watch $(forerun submit \"How much is 17 times 23?\")";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    submit_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->job;
        return 0;
    case OPT_CONNECT:
        o->place.connect = arg;
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

static fr_status print_job(uint64_t job, int json)
{
    if (!json) {
        printf("%" PRIu64 "\n", job);
        return FR_OK;
    }
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    fr_status st = fr_json_u64(o, "job", job);
    if (st == FR_OK)
        st = fr_json_print(o);
    cJSON_Delete(o);
    return st;
}

static fr_status submit(const submit_options *o, fr_place *place, const fr_buf *problem)
{
    fr_buf text = {0};
    fr_msg_job_spec spec;
    uint64_t job = 0;
    fr_status st = fr_job_spec(&o->job, &o->place, (const char *)problem->data, problem->len, &text, &spec);
    if (st == FR_OK)
        st = fr_call_submit(place->call, &spec, 0, &job);
    if (st == FR_OK)
        st = print_job(job, o->json);
    fr_buf_free(&text);
    return st;
}

static fr_status run_submit(submit_options *o)
{
    fr_client_config config;
    fr_buf problem = {0};
    fr_place place = {0};
    fr_status st;
    FR_TRY_GOTO(st, fr_client_config_read(&config), out);
    FR_TRY_GOTO(st, fr_read_problem(o->problem, &problem), out);
    if (!o->place.connect)
        o->place.connect = config.connect;
    fr_interrupt_arm();
    FR_TRY_GOTO(st, fr_place_open(&config, &o->place, 0, &place), out);
    st = submit(o, &place, &problem);
out:
    fr_place_close(&place);
    fr_buf_free(&problem);
    return st;
}

static int run(int argc, char **argv)
{
    static const struct argp_child children[] = {{&fr_job_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse, "PROBLEM | -", doc, children, NULL, NULL};
    submit_options o = {0};
    fr_status st = fr_args_parse(&argp, argc, argv, &o);
    if (st == FR_OK)
        st = run_submit(&o);
    return fr_exit_report(st);
}

const fr_command fr_command_submit = {"submit", "hand a problem to a running cluster", run};
