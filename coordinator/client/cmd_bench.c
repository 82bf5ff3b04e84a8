/* cmd_bench.c: `forerun bench`: all problems of a file under each of several policies, on one
 * cluster, some at once; accuracy, time and acceptance are reported. */
#include "client.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "answer.h"
#include "args.h"
#include "bench_data.h"
#include "bench_report.h"
#include "check.h"
#include "clock.h"
#include "interrupt.h"
#include "job_options.h"
#include "json_out.h"
#include "policy.h"

#define MAX_POLICIES 16
#define SILENCE_S 3.0
#define GIVE_UP_S 120.0

typedef struct bench_options {
    fr_job_options job;
    fr_place_options place;
    const char *data, *json, *html, *policies;
    int limit, concurrency;
} bench_options;

/* The slot of one problem in flight. */
typedef struct slot {
    int problem;  /* -1: free */
    uint64_t tag; /* of its submission */
    uint64_t job; /* 0: not confirmed yet */
    double heard_s; /* of the submission: when it was sent, or what its answer waits for was told */
} slot;

typedef struct benching {
    const bench_options *o;
    fr_place place;
    fr_problems problems;
    char *policy_names; /* the option's text, cut at its commas */
    fr_bench_policy policies[MAX_POLICIES];
    int n_policies;
    slot *slots; /* [o->concurrency] */
    fr_bench_policy *now;
    int next, finished, told;
    double heard_s, asked_s;
    fr_waits waits; /* of the oldest job in flight */
} benching;

enum { OPT_DATA = 0x200, OPT_POLICIES, OPT_LIMIT, OPT_CONCURRENCY, OPT_JSON, OPT_HTML };

static const struct argp_option options[] = {
    {.doc = "Benchmark:", .group = 0},
    {"data", OPT_DATA, "F.jsonl", 0, "problems: JSON lines {\"id\",\"question\",\"answer\"}", 0},
    {"policies", OPT_POLICIES, "A,B,C", 0, "policies to compare; with `target` speed-ups are told",
     0},
    {"limit", OPT_LIMIT, "N", 0, "only the first N problems", 0},
    {"concurrency", OPT_CONCURRENCY, "N", 0, "problems in flight (default 1)", 0},
    {"json", OPT_JSON, "OUT", 0,
     "write the numbers there (- for standard output, instead of the table)", 0},
    {"html", OPT_HTML, "OUT", 0, "write a page there", 0},
    {0}};

static const char doc[] =
    "Runs all problems of a file under several policies and compares them."
    "\vExample:\n"
    "  forerun bench --data problems.jsonl --policies target,draft,token,step \\\n"
    "      --limit 20 --json out.json --html out.html";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    bench_options *o = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->job;
        state->child_inputs[1] = &o->place;
        return 0;
    case OPT_DATA:
        o->data = arg;
        return 0;
    case OPT_POLICIES:
        o->policies = arg;
        return 0;
    case OPT_LIMIT:
        return fr_arg_error(fr_arg_int("--limit", arg, 1, 1 << 30, &o->limit));
    case OPT_CONCURRENCY:
        return fr_arg_error(fr_arg_int("--concurrency", arg, 1, 4096, &o->concurrency));
    case OPT_JSON:
        o->json = arg;
        return 0;
    case OPT_HTML:
        o->html = arg;
        return 0;
    case ARGP_KEY_ARG:
        return fr_arg_error(fr_fail(FR_EINVAL, "'%.64s': unexpected argument", arg));
    case ARGP_KEY_END:
        if (!o->data || !o->policies)
            return fr_arg_error(fr_fail(FR_EINVAL, "--data and --policies are needed"));
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static fr_status split_policies(benching *b)
{
    b->policy_names = strdup(b->o->policies);
    if (!b->policy_names)
        return fr_no_memory();
    char *rest = b->policy_names, *name;
    while ((name = strsep(&rest, ","))) {
        if (!*name)
            return fr_fail(FR_EINVAL, "--policies: an empty name in '%.100s'", b->o->policies);
        if (!fr_policy_find(name))
            return fr_fail(FR_EINVAL, "--policies: '%.64s' is unknown; there are %s", name,
                           fr_policy_names());
        FR_TRY(fr_place_check_policy(&b->o->place, name));
        for (int i = 0; i < b->n_policies; i++)
            if (strcmp(b->policies[i].name, name) == 0)
                return fr_fail(FR_EINVAL, "--policies: '%.64s' is there twice", name);
        if (b->n_policies == MAX_POLICIES)
            return fr_fail(FR_EINVAL, "--policies: more than %d", MAX_POLICIES);
        fr_bench_policy *p = &b->policies[b->n_policies];
        p->results = calloc((size_t)b->problems.n, sizeof *p->results);
        if (!p->results)
            return fr_no_memory();
        p->name = name;
        b->n_policies++;
    }
    return FR_OK;
}

/* Hours of work may stand before the first word is written. */
static fr_status check_outputs(const bench_options *o)
{
    if (o->json && strcmp(o->json, "-") != 0)
        FR_TRY(fr_bench_check_output(o->json));
    return o->html ? fr_bench_check_output(o->html) : FR_OK;
}

static fr_status submit_next(benching *b, slot *s)
{
    const fr_problem *p = &b->problems.data[b->next];
    fr_buf text = {0};
    fr_msg m = {.kind = FR_MSG_SUBMIT};
    fr_status st = fr_job_spec(&b->o->job, &b->o->place, p->question, strlen(p->question), &text,
                               &m.body.submit.spec);
    if (st == FR_OK) {
        m.body.submit.watch = 1;
        m.body.submit.spec.policy = b->now->name;
        m.body.submit.spec.name = p->id;
        st = fr_call_send(b->place.call, &m);
    }
    if (st == FR_OK)
        *s = (slot){.problem = b->next++, .tag = m.tag, .heard_s = fr_now_s()};
    fr_buf_free(&text);
    return st;
}

static void print_progress(const benching *b)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r\033[K%s: %d of %d", b->now->name, b->finished, b->problems.n);
}

static fr_status on_done(benching *b, slot *s, const fr_msg_job_info *job)
{
    fr_bench_result *r = &b->now->results[s->problem];
    const fr_problem *p = &b->problems.data[s->problem];
    b->finished++;
    s->problem = -1;
    if (job->status != FR_OK) {
        fprintf(stderr, "\rforerun: %s, policy %s: %s\n", p->id, b->now->name, job->cause);
        return FR_OK;
    }
    r->chain_tokens = job->chain_tokens;
    r->drafted = job->drafted;
    r->accepted = job->accepted;
    r->steps = job->steps;
    r->passes = job->passes;
    r->seconds = job->seconds;
    r->right = fr_answer_equal(job->answer, p->answer);
    r->text = job->text.len ? strndup((const char *)job->text.data, job->text.len) : strdup("");
    return r->text ? FR_OK : fr_no_memory();
}

/* NULL: none is in flight. */
static const slot *oldest_slot(const benching *b)
{
    const slot *oldest = NULL;
    for (int i = 0; i < b->o->concurrency; i++)
        if (b->slots[i].problem >= 0 && (!oldest || b->slots[i].tag < oldest->tag))
            oldest = &b->slots[i];
    return oldest;
}

/* The answer to a question of on_silence(), or what the answer to a submission waits for. */
static void on_status(benching *b, uint64_t tag, const fr_msg_status_reply *reply)
{
    const slot *oldest = oldest_slot(b);
    const uint64_t first = reply->n_jobs > 0 ? reply->jobs[0].job : 0;
    if (!oldest || first == 0 || (tag != oldest->tag && first != oldest->job))
        return;
    if (isatty(STDERR_FILENO)) /* the line of print_progress() */
        fputs("\r\033[K", stderr);
    fr_waits_hear(&b->waits, first, reply);
}

static fr_status on_message(benching *b, const fr_msg *m)
{
    if (m->kind == FR_MSG_STATUS_REPLY)
        on_status(b, m->tag, &m->body.status_reply);
    for (int i = 0; i < b->o->concurrency; i++) {
        slot *s = &b->slots[i];
        if (s->problem < 0)
            continue;
        if (m->kind == FR_MSG_SUBMITTED && m->tag == s->tag) {
            s->job = m->body.submitted.job;
            if (!b->told++) /* not before: a refused job is one line on stderr */
                fr_place_tell(&b->place);
        }
        if (m->kind == FR_MSG_STATUS_REPLY && m->tag == s->tag)
            s->heard_s = fr_now_s();
        if (m->kind == FR_MSG_DONE && s->job && m->body.done.job.job == s->job)
            return on_done(b, s, &m->body.done.job);
        if (m->kind == FR_MSG_ERROR && m->tag == s->tag)
            return fr_fail(m->body.error.status ? (fr_status)m->body.error.status : FR_EPROTO,
                           "%s, policy %s: %s", b->problems.data[s->problem].id, b->now->name,
                           m->body.error.cause);
    }
    return FR_OK;
}

/* A coordinator that dies between a submission and its answer never gives it, however alive its
 * successor is. The submission is not sent again: the job may be stored, and would run twice. */
static fr_status check_answers(const benching *b)
{
    double now = fr_now_s();
    for (int i = 0; i < b->o->concurrency; i++) {
        const slot *s = &b->slots[i];
        if (s->problem >= 0 && s->job == 0 && now - s->heard_s > GIVE_UP_S)
            return fr_fail(FR_EUNAVAILABLE,
                           "%s, policy %s: no answer from %s to its submission in %.0f s; `forerun "
                           "list` shows whether it was taken",
                           b->problems.data[s->problem].id, b->now->name, b->place.call->endpoint,
                           GIVE_UP_S);
    }
    return FR_OK;
}

/* Asks again for the ends of all jobs in flight, steps left out: the coordinator may have been
 * restarted. */
static fr_status on_silence(benching *b)
{
    FR_TRY(fr_place_check(&b->place));
    double now = fr_now_s();
    if (now - b->heard_s > GIVE_UP_S)
        return fr_fail(FR_EUNAVAILABLE, "no cluster at %s (silent for %.0f s)",
                       b->place.call->endpoint, GIVE_UP_S);
    if (now - b->heard_s < SILENCE_S || now - b->asked_s < SILENCE_S)
        return FR_OK;
    b->asked_s = now;
    for (int i = 0; i < b->o->concurrency; i++) {
        if (b->slots[i].problem < 0 || b->slots[i].job == 0)
            continue;
        fr_msg watch = {.kind = FR_MSG_WATCH};
        watch.body.watch = (fr_msg_watch){.job = b->slots[i].job, .from_step = UINT32_MAX};
        FR_TRY(fr_call_send(b->place.call, &watch));
    }
    const slot *oldest = oldest_slot(b);
    fr_msg query = {.kind = FR_MSG_STATUS_QUERY}; /* its answer is a sign of life, too */
    query.body.status_query.job = oldest ? oldest->job : 0;
    return fr_call_send(b->place.call, &query);
}

static fr_status run_policy(benching *b, int policy)
{
    b->now = &b->policies[policy];
    b->next = b->finished = 0;
    for (int i = 0; i < b->o->concurrency; i++)
        b->slots[i].problem = -1;
    double start = b->heard_s = fr_now_s();
    while (b->finished < b->problems.n) {
        for (int i = 0; i < b->o->concurrency && b->next < b->problems.n; i++)
            if (b->slots[i].problem < 0)
                FR_TRY(submit_next(b, &b->slots[i]));
        FR_TRY(check_answers(b));
        fr_msg m = {0};
        fr_status st = fr_call_next(b->place.call, 200, &m);
        if (st == FR_ETIMEDOUT) {
            FR_TRY(on_silence(b));
            continue;
        }
        FR_TRY(st);
        b->heard_s = fr_now_s();
        st = on_message(b, &m);
        fr_msg_free(&m);
        FR_TRY(st);
        print_progress(b);
    }
    b->now->wall_s = fr_now_s() - start;
    return FR_OK;
}

/* Nobody waits for them any more. */
static void cancel_all(benching *b)
{
    for (int i = 0; b->now && i < b->o->concurrency; i++) {
        if (b->slots[i].problem < 0 || b->slots[i].job == 0)
            continue;
        fr_msg cancel = {.kind = FR_MSG_CANCEL_JOB};
        cancel.body.cancel_job.job = b->slots[i].job;
        if (fr_call_send(b->place.call, &cancel) != FR_OK)
            return;
    }
}

/* What an interrupt did to the jobs in flight. A private cluster ends, and they with it. */
static fr_status interrupted(const benching *b)
{
    int unconfirmed = 0;
    for (int i = 0; !b->place.own && i < b->o->concurrency; i++)
        unconfirmed += b->slots[i].problem >= 0 && b->slots[i].job == 0;
    if (!unconfirmed)
        return fr_fail(FR_ECANCELLED, "cancelled");
    return fr_fail(FR_ECANCELLED, "cancelled before the cluster at %s said that it has %d of the jobs, which may run",
                   b->place.call->endpoint, unconfirmed);
}

static fr_status write_report(benching *b)
{
    fr_bench_report r = {.data = b->o->data,
                         .target = b->place.models.target,
                         .draft = b->place.models.draft,
                         .limit = b->o->limit,
                         .concurrency = b->o->concurrency,
                         .ranks = b->place.ranks,
                         .threads = b->place.threads,
                         .n_problems = b->problems.n,
                         .n_policies = b->n_policies,
                         .policies = b->policies};
    int json_to_stdout = b->o->json && strcmp(b->o->json, "-") == 0;
    fr_machine_read(&r.machine);
    if (!json_to_stdout)
        FR_TRY(fr_bench_print(&r));
    if (b->o->json) {
        cJSON *o = NULL;
        FR_TRY(fr_bench_json(&r, &o));
        fr_status st = json_to_stdout ? fr_json_print(o) : fr_json_save(o, b->o->json);
        cJSON_Delete(o);
        FR_TRY(st);
    }
    return b->o->html ? fr_bench_html(&r, b->o->html) : FR_OK;
}

static fr_status check_failures(const benching *b)
{
    int failed = 0;
    for (int p = 0; p < b->n_policies; p++)
        for (int i = 0; i < b->problems.n; i++)
            failed += b->policies[p].results[i].text == NULL;
    return failed ? fr_fail(FR_EPEER, "%d jobs failed", failed) : FR_OK;
}

static fr_status run_all(benching *b)
{
    int want_draft = 0;
    for (int i = 0; i < b->n_policies; i++)
        want_draft |= strcmp(b->policies[i].name, "target") != 0;
    fr_client_config config;
    FR_TRY(fr_client_config_read(&config));
    fr_interrupt_arm();
    FR_TRY(fr_place_open(&config, &b->o->place, want_draft, &b->place));
    for (int i = 0; i < b->n_policies; i++) {
        fr_status st = run_policy(b, i);
        if (isatty(STDERR_FILENO))
            fputs("\r\033[K", stderr);
        if (st == FR_ECANCELLED)
            st = interrupted(b);
        if (st != FR_OK) {
            char cause[512];
            snprintf(cause, sizeof cause, "%s", fr_cause());
            cancel_all(b);
            return fr_fail(st, "%s", cause);
        }
    }
    FR_TRY(write_report(b));
    return check_failures(b);
}

static fr_status bench(const bench_options *o)
{
    benching b = {.o = o};
    fr_status st;
    FR_TRY_GOTO(st, fr_problems_read(o->data, o->limit, &b.problems), out);
    FR_TRY_GOTO(st, split_policies(&b), out);
    FR_TRY_GOTO(st, check_outputs(o), out);
    b.slots = calloc((size_t)o->concurrency, sizeof *b.slots);
    if (!b.slots)
        FR_TRY_GOTO(st, fr_no_memory(), out);
    st = run_all(&b);
out:
    fr_place_close(&b.place);
    for (int p = 0; p < b.n_policies; p++) {
        for (int i = 0; i < b.problems.n; i++)
            free(b.policies[p].results[i].text);
        free(b.policies[p].results);
    }
    free(b.slots);
    free(b.policy_names);
    fr_problems_free(&b.problems);
    return st;
}

static int run(int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&fr_job_argp, 0, NULL, 0}, {&fr_place_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {options, parse, NULL, doc, children, NULL, NULL};
    bench_options o = {.concurrency = 1};
    fr_status st = fr_args_parse(&argp, argc, argv, &o);
    o.place.max_running = o.concurrency; /* of a private cluster */
    if (st == FR_OK)
        st = bench(&o);
    return fr_exit_report(st);
}

const fr_command fr_command_bench = {"bench", "compare policies on a file of problems", run};
