/* cmd_list.c: `forerun list`: the jobs of a running cluster. */
#include "client.h"

#include "args.h"
#include "check.h"
#include "json_out.h"
#include "remote.h"
#include "table.h"

typedef struct list_options {
    fr_remote_options remote;
    const char *state;
    int limit;
} list_options;

static const struct argp_option options[] = {
    {"state", 's', "STATE", 0, "only jobs in that state (queued, running, done, failed, cancelled)",
     1},
    {"limit", 'n', "N", 0, "at most N, the newest (default 100)", 1},
    {0}};

static const char doc[] = "Lists the jobs of a running cluster. With --json one object a line."
                          "\vExample:\n  forerun list --state running";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    list_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->remote;
        return 0;
    case 's':
        o->state = arg;
        return 0;
    case 'n':
        return fr_arg_error(fr_arg_int("--limit", arg, 1, 100000, &o->limit));
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static fr_status print_jobs(const fr_msg_list_reply *l, int json)
{
    if (!json) {
        fr_table t = {0};
        fr_status st = fr_table_jobs(&t, l->jobs, l->n_jobs);
        if (st == FR_OK)
            st = fr_table_print(&t);
        fr_table_free(&t);
        return st;
    }
    for (size_t i = 0; i < l->n_jobs; i++) {
        cJSON *job = NULL;
        FR_TRY(fr_json_job_brief(&l->jobs[i], &job));
        fr_status st = fr_json_print(job);
        cJSON_Delete(job);
        FR_TRY(st);
    }
    return FR_OK;
}

static fr_status list(const list_options *o)
{
    fr_call call = {0};
    fr_msg query = {.kind = FR_MSG_LIST_QUERY}, reply = {0};
    query.body.list_query =
        (fr_msg_list_query){.limit = (uint32_t)o->limit, .state = o->state ? o->state : ""};
    fr_status st = fr_remote_open(&o->remote, &call);
    if (st == FR_OK)
        st = fr_call_ask(&call, &query, FR_MSG_LIST_REPLY, FR_CALL_ANSWER_MS, &reply);
    if (st == FR_OK)
        st = print_jobs(&reply.body.list_reply, o->remote.json);
    fr_msg_free(&reply);
    fr_call_close(&call, 0);
    return st;
}

static int run(int argc, char **argv)
{
    static const struct argp_child children[] = {{&fr_remote_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse, NULL, doc, children, NULL, NULL};
    list_options o = {.limit = 100};
    fr_status st = fr_args_parse(&argp, argc, argv, &o);
    if (st == FR_OK)
        st = list(&o);
    return fr_exit_report(st);
}

const fr_command fr_command_list = {"list", "list the jobs of a running cluster", run};
