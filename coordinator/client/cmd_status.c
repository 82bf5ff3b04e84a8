/* cmd_status.c: `forerun status`: the groups and jobs of a running cluster, or one job in full. */
#include "client.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "check.h"
#include "json_out.h"
#include "remote.h"
#include "table.h"
#include "ui.h"

static const char doc[] =
    "Shows a running cluster: its groups and open jobs; or one JOB with its text."
    "\vExamples:\n  forerun status\n  forerun status 17 --json";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    if (key != ARGP_KEY_INIT)
        return ARGP_ERR_UNKNOWN;
    state->child_inputs[0] = state->input;
    return 0;
}

static fr_status groups_table(const fr_msg_status_reply *s, fr_table *t)
{
    FR_TRY(fr_table_row(
        t, "GROUP\tROLE\tMODEL\tBACKEND\tRANKS\tTHREADS\tALIVE\tACTIVE\tPASSES\tKV FREE\t"
           "BATCH-INVARIANT"));
    for (size_t i = 0; i < s->n_groups; i++) {
        const fr_msg_group_info *g = &s->groups[i];
        FR_TRY(fr_table_row(t, "%s\t%s\t%s\t%s\t%u\t%u\t%s\t%u\t%" PRIu64 "\t%" PRIu64 "/%" PRIu64 "\t%s",
                            g->name, g->role, g->model, g->backend, g->ranks, g->threads,
                            g->alive ? "yes" : "no", g->active, g->passes, g->kv_free,
                            g->kv_positions, g->batch_dependent ? "no" : "yes"));
    }
    return FR_OK;
}

static fr_status print_cluster(const fr_msg_status_reply *s, const char *endpoint)
{
    fr_table groups = {0}, jobs = {0};
    printf("cluster %s, version %s, up %.0f s, %u jobs running, %u queued\n", endpoint, s->version,
           s->uptime, s->running, s->queued);
    fr_status st = groups_table(s, &groups);
    if (st == FR_OK)
        st = fr_table_print(&groups);
    if (st == FR_OK && s->n_jobs) {
        putchar('\n');
        st = fr_table_jobs(&jobs, s->jobs, s->n_jobs);
        if (st == FR_OK)
            st = fr_table_print(&jobs);
    }
    fr_table_free(&groups);
    fr_table_free(&jobs);
    return st;
}

static fr_status print_job(const fr_msg_job_info *j)
{
    fr_buf text = {0};
    fr_status st = fr_buf_printf(&text, "job %" PRIu64 ": %s%s%s\n\n", j->job, j->state,
                                 j->cause[0] ? ": " : "", j->cause);
    if (st == FR_OK)
        st = fr_ui_escape(j->text.data, j->text.len, FR_UI_TEXT, &text);
    if (st == FR_OK)
        st = fr_buf_printf(&text, "\n\n");
    if (st == FR_OK)
        st = fr_ui_summary(j, &text);
    if (st == FR_OK)
        fwrite(text.data, 1, text.len, stdout);
    fr_buf_free(&text);
    return st;
}

static fr_status fill_json(cJSON *o, uint64_t job_asked, const fr_msg_status_reply *s)
{
    cJSON *groups = cJSON_AddArrayToObject(o, "groups"), *jobs = cJSON_AddArrayToObject(o, "jobs");
    if (!groups || !jobs)
        return fr_no_memory();
    for (size_t i = 0; i < s->n_groups; i++) {
        cJSON *group = NULL;
        FR_TRY(fr_json_group(&s->groups[i], &group));
        FR_TRY(fr_json_append(groups, group));
    }
    for (size_t i = 0; i < s->n_jobs; i++) {
        cJSON *job = NULL;
        FR_TRY(job_asked ? fr_json_job(NULL, &s->jobs[i], &job)
                         : fr_json_job_brief(&s->jobs[i], &job));
        FR_TRY(fr_json_append(jobs, job));
    }
    FR_TRY(fr_json_number(o, "uptime", s->uptime));
    FR_TRY(fr_json_number(o, "queued", s->queued));
    FR_TRY(fr_json_number(o, "running", s->running));
    return fr_json_text(o, "version", s->version);
}

static fr_status print_json(uint64_t job_asked, const fr_msg_status_reply *s)
{
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    fr_status st = fill_json(o, job_asked, s);
    if (st == FR_OK)
        st = fr_json_print(o);
    cJSON_Delete(o);
    return st;
}

static fr_status print_reply(const fr_remote_options *o, uint64_t job, const char *endpoint,
                             const fr_msg_status_reply *s)
{
    if (job && s->n_jobs == 0)
        return fr_fail(FR_ENOTFOUND, "no job %" PRIu64 " at %s", job, endpoint);
    if (o->json)
        return print_json(job, s);
    return job ? print_job(&s->jobs[0]) : print_cluster(s, endpoint);
}

static fr_status show_status(const fr_remote_options *o)
{
    fr_call call = {0};
    fr_msg query = {.kind = FR_MSG_STATUS_QUERY}, reply = {0};
    if (o->argument)
        FR_TRY(fr_remote_job(o, &query.body.status_query.job));
    fr_status st = fr_remote_open(o, &call);
    if (st == FR_OK)
        st = fr_call_ask(&call, &query, FR_MSG_STATUS_REPLY, FR_CALL_ANSWER_MS, &reply);
    if (st == FR_OK)
        st = print_reply(o, query.body.status_query.job, call.endpoint, &reply.body.status_reply);
    fr_msg_free(&reply);
    fr_call_close(&call, 0);
    return st;
}

static int run(int argc, char **argv)
{
    static const struct argp_child children[] = {{&fr_remote_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {NULL, parse, "[JOB]", doc, children, NULL, NULL};
    fr_remote_options o = {.takes_argument = 1};
    fr_status st = fr_args_parse(&argp, argc, argv, &o);
    if (st == FR_OK)
        st = show_status(&o);
    return fr_exit_report(st);
}

const fr_command fr_command_status = {"status", "show a running cluster, or one of its jobs", run};
