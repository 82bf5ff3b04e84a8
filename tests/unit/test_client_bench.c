/* test_client_bench.c: the benchmark's data files, what its numbers come to, and the command itself
 * against coordinators that never answer a submission. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench_data.h"
#include "bench_report.h"
#include "client.h"
#include "fault_alloc.h"
#include "link.h"

static char dir[] = "/tmp/forerun-bench-XXXXXX";
static char path[64];
static char missing[64];      /* in a folder that is not there */
static char cannot_write[96]; /* what is told of it */

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/x", dir);
    snprintf(missing, sizeof missing, "%s/missing/x", dir);
    snprintf(cannot_write, sizeof cannot_write, "%s: cannot be written: ", missing);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static void write_data(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static const char good[] = "{\"id\":\"a\",\"question\":\"1+1?\",\"answer\":\"2\",\"more\":[1]}\n\n"
                           "{\"id\":\"b\",\"question\":\"2+2?\",\"answer\":4}\n";

static void test_good(void **state)
{
    (void)state;
    fr_problems p = {0};
    write_data(good);
    assert_int_equal(fr_problems_read(path, 0, &p), FR_OK);
    assert_int_equal(p.n, 2);
    assert_string_equal(p.data[0].question, "1+1?");
    assert_string_equal(p.data[1].answer, "4");
    fr_problems_free(&p);
    assert_int_equal(fr_problems_read(path, 1, &p), FR_OK);
    assert_int_equal(p.n, 1);
    fr_problems_free(&p);
}

static void test_bad(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int line;
    } cases[] = {
        {"{\"id\":\"a\",\"question\":\"q\"}\n", 1},
        {"{\"id\":\"a\",\"question\":\"q\",\"answer\":\"1\"}\nnot json\n", 2},
        {"[1]\n", 1},
        {"{\"id\":\"a\",\"question\":[],\"answer\":\"1\"}\n", 1},
        {"\n\n{\"id\":\"a\",\"question\":\"\xff\",\"answer\":\"1\"}\n", 3},
        {"\n", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fr_problems p = {0};
        char where[64];
        write_data(cases[i].text);
        assert_int_equal(fr_problems_read(path, 0, &p), FR_EFORMAT);
        snprintf(where, sizeof where, cases[i].line ? "%s:%d: " : "%s: ", path, cases[i].line);
        if (strncmp(fr_cause(), where, strlen(where)) != 0)
            fail_msg("case %zu: %s", i, fr_cause());
    }
    fr_problems p = {0};
    assert_int_equal(fr_problems_read(missing, 0, &p), FR_ENOTFOUND);
}

static void test_no_memory(void **state)
{
    (void)state;
    write_data(good);
    for (long n = 0;; n++) {
        fr_problems p = {0};
        fr_fault_alloc_arm(n);
        fr_status st = fr_problems_read(path, 0, &p);
        int failed = fr_fault_alloc_disarm();
        fr_problems_free(&p);
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        if (!failed)
            break;
    }
}

static void test_report(void **state)
{
    (void)state;
    fr_bench_result target[] = {
        {.text = (char *)"x", .right = 1, .chain_tokens = 100, .passes = 100, .seconds = 5},
        {.text = (char *)"y", .right = 0, .chain_tokens = 60, .passes = 60, .seconds = 3}};
    fr_bench_result token[] = {{.text = (char *)"x",
                                .right = 1,
                                .chain_tokens = 100,
                                .drafted = 80,
                                .accepted = 60,
                                .passes = 40,
                                .seconds = 2},
                               {.text = NULL}};
    fr_bench_policy policies[] = {{"target", 8, target}, {"token", 4, token}};
    fr_bench_report r = {.data = "d<&>.jsonl",
                         .target = "t",
                         .draft = "",
                         .concurrency = 1,
                         .ranks = 2,
                         .n_problems = 2,
                         .n_policies = 2,
                         .policies = policies,
                         .machine = {.cpu = "c", .cores = 2}};
    fr_bench_sum s;
    fr_bench_sum_up(&r, 0, &s);
    assert_true(fabs(s.accuracy - 0.5) < 1e-12 && fabs(s.speedup - 1) < 1e-12 &&
                isnan(s.accepted_share));
    fr_bench_sum_up(&r, 1, &s);
    assert_true(fabs(s.speedup - 2) < 1e-12 && fabs(s.accepted_share - 0.75) < 1e-12);
    assert_true(fabs(s.tokens_per_pass - 2.5) < 1e-12 && fabs(s.identical - 0.5) < 1e-12 &&
                s.failed == 1);
    r.n_policies = 1;
    r.policies = &policies[1];
    fr_bench_sum_up(&r, 0, &s);
    assert_true(isnan(s.speedup) && isnan(s.identical)); /* nothing to compare with */

    cJSON *o = NULL;
    assert_int_equal(fr_bench_json(&r, &o), FR_OK);
    const cJSON *p = cJSON_GetObjectItem(cJSON_GetObjectItem(o, "policies"), "token");
    const char *const keys[] = {
        "accuracy",       "wall_s",          "chain_tokens", "tok_s",
        "accepted_share", "tokens_per_pass", "speedup",      "identical_to_target"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        assert_non_null(cJSON_GetObjectItem(p, keys[i]));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(p, "speedup")));
    assert_non_null(cJSON_GetObjectItem(cJSON_GetObjectItem(o, "machine"), "models"));
    assert_non_null(cJSON_GetObjectItem(o, "data"));
    assert_non_null(cJSON_GetObjectItem(o, "limit"));
    cJSON_Delete(o);

    assert_int_equal(fr_bench_html(&r, path), FR_OK);
    char page[8192];
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    page[fread(page, 1, sizeof page - 1, f)] = 0;
    fclose(f);
    assert_non_null(strstr(page, "d&lt;&amp;&gt;.jsonl"));
    assert_non_null(strstr(page, "</html>"));
    assert_int_equal(fr_bench_html(&r, missing), FR_EIO);
}

/* The clock of the program under test (linked with --wrap): it runs fast once a submission came. */
static _Atomic double fast_from_s;
double __real_fr_now_s(void);
double __wrap_fr_now_s(void);
double __wrap_fr_now_s(void)
{
    double now = __real_fr_now_s(), from = atomic_load(&fast_from_s);
    return from > 0 ? now + 100 * (now - from) : now;
}

static int is_there(const char *file)
{
    return access(file, F_OK) == 0;
}

static void test_outputs(void **state)
{
    (void)state;
    char fresh[sizeof path + 4];
    write_data("old");
    assert_int_equal(fr_bench_check_output(path), FR_OK);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fgetc(f), 'o'); /* an old report stays */
    fclose(f);
    snprintf(fresh, sizeof fresh, "%s.new", path);
    assert_int_equal(fr_bench_check_output(fresh), FR_OK);
    assert_false(is_there(fresh));
    assert_int_equal(fr_bench_check_output(missing), FR_EINVAL);
    assert_non_null(strstr(fr_cause(), cannot_write));
    assert_int_equal(fr_bench_check_output("/"), FR_EINVAL);
}

typedef struct deaf_coordinator {
    char endpoint[128];
    atomic_int ready, stop, submissions;
} deaf_coordinator;

/* Gives signs of life, and no answer to a submission. */
static void *serve_deaf(void *arg)
{
    deaf_coordinator *s = arg;
    fr_link *l = NULL;
    if (fr_link_listen("tcp://127.0.0.1:0", 0, &l) != FR_OK)
        return NULL;
    snprintf(s->endpoint, sizeof s->endpoint, "%s", fr_link_endpoint(l));
    atomic_store(&s->ready, 1);
    while (!atomic_load(&s->stop)) {
        fr_peer from;
        fr_msg m = {0};
        if (fr_link_recv(l, 50, &from, &m) != FR_OK)
            continue;
        fr_msg out = {.kind = FR_MSG_STATUS_REPLY, .tag = m.tag};
        out.body.status_reply = (fr_msg_status_reply){.version = "v"};
        if (m.kind == FR_MSG_STATUS_QUERY)
            fr_link_send(l, &from, &out);
        if (m.kind == FR_MSG_SUBMIT && atomic_fetch_add(&s->submissions, 1) == 0)
            atomic_store(&fast_from_s, __real_fr_now_s());
        fr_msg_free(&m);
    }
    fr_link_close(&l, 100);
    return NULL;
}

static int run_bench(const char *endpoint, const char *option, const char *value)
{
    const char *argv[] = {"bench",      "--connect", endpoint, "--data", path,
                          "--policies", "target",    option,   value,    NULL};
    return fr_command_bench.run(option ? 9 : 7, (char **)argv);
}

/* What is wrong with the command line is told before anything is asked of the cluster. */
static void test_refused(void **state)
{
    (void)state;
    const char nobody[] = "tcp://127.0.0.1:1";
    const struct {
        const char *option, *value, *cause;
    } cases[] = {
        {"--policies", "target,foo", "'foo' is unknown; there are target, "},
        {"--policies", "target,token,target", "'target' is there twice"},
        {"--json", missing, cannot_write},
        {"--html", missing, cannot_write},
    };
    write_data(good);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(run_bench(nobody, cases[i].option, cases[i].value), FR_EXIT_USAGE);
        if (!strstr(fr_cause(), cases[i].cause))
            fail_msg("case %zu: %s", i, fr_cause());
    }
}

static void test_unanswered(void **state)
{
    (void)state;
    deaf_coordinator s = {0};
    pthread_t thread;
    write_data(good);
    assert_int_equal(pthread_create(&thread, NULL, serve_deaf, &s), 0);
    while (!atomic_load(&s.ready))
        sched_yield();
    assert_int_equal(run_bench(s.endpoint, NULL, NULL), FR_EXIT_NO_CLUSTER);
    assert_non_null(strstr(fr_cause(), "a, policy target: no answer from tcp://"));
    atomic_store(&s.stop, 1);
    pthread_join(thread, NULL);
    atomic_store(&fast_from_s, 0);
    assert_int_equal(atomic_load(&s.submissions), 1); /* a job must not run twice */
}

enum { FIRST_JOB = 5, SECOND_JOB };

/* Confirms the first submission. When asked how it is, it tells what that job and the second's confirmation wait for;
 * when asked again, it interrupts the client. */
static void *serve_waiting(void *arg)
{
    deaf_coordinator *s = arg;
    fr_link *l = NULL;
    uint64_t second_tag = 0;
    int queries = 0;
    if (fr_link_listen("tcp://127.0.0.1:0", 0, &l) != FR_OK)
        return NULL;
    snprintf(s->endpoint, sizeof s->endpoint, "%s", fr_link_endpoint(l));
    atomic_store(&s->ready, 1);
    while (!atomic_load(&s->stop)) {
        fr_peer from;
        fr_msg m = {0};
        if (fr_link_recv(l, 50, &from, &m) != FR_OK)
            continue;
        const int is_first = m.kind == FR_MSG_SUBMIT && atomic_fetch_add(&s->submissions, 1) == 0;
        const uint64_t asked_for = m.kind == FR_MSG_STATUS_QUERY ? m.body.status_query.job : 0;
        fr_msg_job_info job = {.job = asked_for, .state = "queued", .cause = "waiting for a draft group"};
        fr_msg out = {.kind = FR_MSG_STATUS_REPLY, .tag = m.tag, .body.status_reply = {.jobs = &job, .n_jobs = 1}};
        if (is_first) {
            atomic_store(&fast_from_s, __real_fr_now_s());
            out.kind = FR_MSG_SUBMITTED;
            out.body.submitted = (fr_msg_submitted){.job = FIRST_JOB};
        } else if (m.kind == FR_MSG_SUBMIT) {
            second_tag = m.tag;
        }
        if (is_first || m.kind == FR_MSG_STATUS_QUERY)
            fr_link_send(l, &from, &out);
        if (asked_for == FIRST_JOB && queries++ > 0)
            raise(SIGINT);
        if (second_tag) {
            out.tag = second_tag;
            job = (fr_msg_job_info){.job = SECOND_JOB, .cause = "waiting for the store to be written"};
            fr_link_send(l, &from, &out);
        }
        fr_msg_free(&m);
    }
    fr_link_close(&l, 100);
    return NULL;
}

/* What has been written to stderr meanwhile. */
static void read_stderr(int before, char *text, size_t cap)
{
    fflush(stderr);
    dup2(before, STDERR_FILENO);
    close(before);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    text[fread(text, 1, cap - 1, f)] = 0;
    fclose(f);
}

/* The last one: there is no way back from an interrupt. */
static void test_waits_and_interrupted(void **state)
{
    (void)state;
    deaf_coordinator s = {0};
    pthread_t thread;
    char told[4096], data[sizeof path + 8];
    write_data(good);
    snprintf(data, sizeof data, "%s.jsonl", path);
    assert_int_equal(rename(path, data), 0);
    assert_int_equal(pthread_create(&thread, NULL, serve_waiting, &s), 0);
    while (!atomic_load(&s.ready))
        sched_yield();
    const int before = dup(STDERR_FILENO);
    assert_non_null(freopen(path, "w", stderr));
    const char *argv[] = {"bench",      "--connect", s.endpoint,      "--data", data,
                          "--policies", "draft",     "--concurrency", "2",      NULL};
    const int code = fr_command_bench.run(9, (char **)argv);
    read_stderr(before, told, sizeof told);
    atomic_store(&s.stop, 1);
    pthread_join(thread, NULL);
    atomic_store(&fast_from_s, 0);
    unlink(data);
    assert_int_equal(code, FR_EXIT_FAILED);
    assert_non_null(strstr(told, "forerun: job 5: waiting for a draft group\n"));
    assert_null(strstr(told, "job 6")); /* the oldest speaks for all */
    assert_non_null(strstr(fr_cause(), "cancelled before the cluster at tcp://"));
    assert_non_null(strstr(fr_cause(), "said that it has 1 of the jobs, which may run"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),       cmocka_unit_test(test_bad),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_report),
        cmocka_unit_test(test_outputs),    cmocka_unit_test(test_refused),
        cmocka_unit_test(test_unanswered), cmocka_unit_test(test_waits_and_interrupted),
    };
    return cmocka_run_group_tests_name("client_bench", tests, make_dir, remove_dir);
}
