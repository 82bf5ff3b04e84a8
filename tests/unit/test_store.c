/* test_store.c: the store of jobs and steps: what goes in comes out, after kill -9 at any moment
 * too; files that are none of its own, or damaged, or in use; a full disk; and every allocation
 * that can fail. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "check.h"
#include "fault_alloc.h"
#include "store.h"

static char path[64];

static void remove_store(void)
{
    char name[80];
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    for (size_t i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s%s", path, ends[i]);
        unlink(name);
    }
}

static int set_up(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/test_store_%d.db", getpid());
    remove_store();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_store();
    return 0;
}

static fr_store *open_store(void)
{
    fr_store *s = NULL;
    if (fr_store_open(path, &s) != FR_OK)
        fail_msg("%s", fr_cause());
    return s;
}

static fr_job_record record_of(uint64_t id)
{
    return (fr_job_record){.id = id,
                           .state = FR_JOB_RUNNING,
                           .spec = {.problem = "What?\n\"'; DROP TABLE jobs; --",
                                    .system = "",
                                    .policy = "step",
                                    .judge = "score",
                                    .threshold = NAN,
                                    .draft_tokens = 8,
                                    .lookahead = 3,
                                    .sampling = {.temperature = 0.7f,
                                                 .top_p = 0.9f,
                                                 .top_k = 40,
                                                 .seed = UINT64_MAX,
                                                 .sample = 2},
                                    .max_tokens = 512,
                                    .step_tokens = 64,
                                    .delimiter = "\n\n",
                                    .name = "n\xc3\xa4me",
                                    .raw = 1,
                                    .default_system = 1,
                                    .default_suffix = 1},
                           .counts = {.steps = 1,
                                      .chain_tokens = 2,
                                      .drafted = 3,
                                      .accepted = 4,
                                      .target_tokens = 5,
                                      .passes = 6,
                                      .seconds = 7.5},
                           .target_digest = 0xfedcba9876543210u,
                           .draft_digest = 1,
                           .target_model = "big",
                           .draft_model = "small",
                           .cause = "",
                           .stop = "",
                           .context = 2048,
                           .answer = "42",
                           .submitted_ms = 1234567890123,
                           .batch_dependent = 1};
}

static fr_store_step step_of(uint32_t index, const int32_t *ids, size_t n_ids, int accepted)
{
    static const uint8_t text[] = {'a', 0, 0xff, 'b'};
    return (fr_store_step){.index = index,
                           .ids = ids,
                           .n_ids = n_ids,
                           .origin = 1,
                           .accepted = accepted,
                           .score = index % 2 ? NAN : 7.25f,
                           .drafted = 5,
                           .kept = 4,
                           .seconds = 0.5,
                           .passes = 9,
                           .text = {text, sizeof text}};
}

/* Field by field: what lies between the fields is anybody's. */
static void assert_same_sampling(const fr_msg_sampling *a, const fr_msg_sampling *b)
{
    assert_true(a->temperature == b->temperature && a->top_p == b->top_p);
    assert_int_equal(a->top_k, b->top_k);
    assert_int_equal(a->seed, b->seed);
    assert_int_equal(a->sample, b->sample);
}

static void assert_same_counts(const fr_job_counts *a, const fr_job_counts *b)
{
    assert_int_equal(a->steps, b->steps);
    assert_int_equal(a->chain_tokens, b->chain_tokens);
    assert_int_equal(a->drafted, b->drafted);
    assert_int_equal(a->accepted, b->accepted);
    assert_int_equal(a->target_tokens, b->target_tokens);
    assert_int_equal(a->passes, b->passes);
    assert_true(a->seconds == b->seconds);
}

static fr_status same_record(void *ctx, const fr_job_record *r)
{
    fr_job_record want = record_of(r->id);
    ++*(int *)ctx;
    assert_int_equal(r->state, want.state);
    assert_string_equal(r->spec.problem, want.spec.problem);
    assert_string_equal(r->spec.policy, want.spec.policy);
    assert_string_equal(r->spec.judge, want.spec.judge);
    assert_true(isnan(r->spec.threshold));
    assert_int_equal(r->spec.draft_tokens, want.spec.draft_tokens);
    assert_int_equal(r->spec.lookahead, want.spec.lookahead);
    assert_same_sampling(&r->spec.sampling, &want.spec.sampling);
    assert_int_equal(r->spec.max_tokens, want.spec.max_tokens);
    assert_int_equal(r->spec.step_tokens, want.spec.step_tokens);
    assert_string_equal(r->spec.delimiter, want.spec.delimiter);
    assert_string_equal(r->spec.name, want.spec.name);
    assert_int_equal(r->spec.raw, 1);
    assert_int_equal(r->spec.default_system, 1);
    assert_int_equal(r->spec.default_suffix, 1);
    assert_same_counts(&r->counts, &want.counts);
    assert_int_equal(r->target_digest, want.target_digest);
    assert_string_equal(r->draft_model, want.draft_model);
    assert_string_equal(r->answer, want.answer);
    assert_int_equal(r->submitted_ms, want.submitted_ms);
    assert_int_equal(r->batch_dependent, 1);
    assert_int_equal(r->context, want.context);
    return FR_OK;
}

static fr_status same_step(void *ctx, const fr_store_step *step)
{
    uint32_t *next = ctx;
    assert_int_equal(step->index, *next);
    ++*next;
    assert_int_equal(step->n_ids, step->index);
    for (size_t i = 0; i < step->n_ids; i++)
        assert_int_equal(step->ids[i], (int)i - 1);
    assert_int_equal(isnan(step->score) != 0, step->index % 2);
    assert_int_equal(step->text.len, 4);
    assert_memory_equal(step->text.data,
                        "a\0\xff"
                        "b",
                        4);
    assert_int_equal(step->passes, 9);
    return FR_OK;
}

static void keeps_what_it_is_given(void **state)
{
    static const int32_t ids[] = {-1, 0, 1, 2, 3};
    int n = 0;
    uint32_t next = 0;
    (void)state;
    fr_store *s = open_store();
    assert_int_equal(fr_store_next_job(s), 1);
    fr_job_record r = record_of(1);
    assert_int_equal(fr_store_add_job(s, &r), FR_OK);
    for (uint32_t i = 0; i < 5; i++) {
        fr_store_step step = step_of(i, ids, i, 1);
        assert_int_equal(fr_store_add_step(s, 1, &step), FR_OK);
    }
    assert_int_equal(fr_store_pending(s), 6);
    assert_int_equal(fr_store_job(s, 1, same_record, &n), FR_ENOTFOUND); /* not before the flush */
    assert_int_equal(fr_store_new_job(s, 1, same_record, &n), FR_OK);
    assert_int_equal(fr_store_new_job(s, 2, same_record, &n), FR_ENOTFOUND);
    assert_int_equal(n, 1);
    assert_int_equal(fr_store_flush(s), FR_OK);
    assert_int_equal(fr_store_pending(s), 0);
    assert_int_equal(fr_store_new_job(s, 1, same_record, &n), FR_ENOTFOUND);
    fr_store_close(&s);
    s = open_store();
    n = 0;
    assert_int_equal(fr_store_next_job(s), 2);
    assert_int_equal(fr_store_job(s, 1, same_record, &n), FR_OK);
    assert_int_equal(fr_store_open_jobs(s, same_record, &n), FR_OK);
    assert_int_equal(n, 2);
    assert_int_equal(fr_store_steps(s, 1, 0, same_step, &next), FR_OK);
    assert_int_equal(next, 5);
    next = 3;
    assert_int_equal(fr_store_steps(s, 1, 3, same_step, &next), FR_OK);
    assert_int_equal(next, 5);
    assert_int_equal(fr_store_trim_steps(s, 1, 2), FR_OK);
    next = 0;
    assert_int_equal(fr_store_steps(s, 1, 0, same_step, &next), FR_OK);
    assert_int_equal(next, 2); /* nobody reads what is to go */
    r.state = FR_JOB_FAILED;
    r.cause = "because";
    assert_int_equal(fr_store_set_job(s, &r), FR_OK);
    assert_int_equal(fr_store_flush(s), FR_OK);
    next = 0;
    assert_int_equal(fr_store_steps(s, 1, 0, same_step, &next), FR_OK);
    assert_int_equal(next, 2);
    n = 0;
    assert_int_equal(fr_store_open_jobs(s, same_record, &n), FR_OK);
    assert_int_equal(n, 0);
    fr_store_close(&s);
}

static fr_status count_job(void *ctx, const fr_job_record *r)
{
    uint64_t *last = ctx;
    assert_true(*last == 0 || r->id < *last); /* newest first */
    *last = r->id;
    return FR_OK;
}

static void lists_by_state(void **state)
{
    (void)state;
    fr_store *s = NULL;
    assert_int_equal(fr_store_open(NULL, &s), FR_OK); /* in memory */
    for (uint64_t i = 1; i <= 6; i++) {
        fr_job_record r = record_of(fr_store_next_job(s));
        r.state = i % 2 ? FR_JOB_DONE : FR_JOB_QUEUED;
        assert_int_equal(fr_store_add_job(s, &r), FR_OK);
    }
    uint64_t last = 0;
    assert_int_equal(fr_store_new_jobs(s, count_job, &last), FR_OK);
    assert_int_equal(last, 1);
    assert_int_equal(fr_store_flush(s), FR_OK);
    last = 0;
    assert_int_equal(fr_store_new_jobs(s, count_job, &last), FR_OK);
    assert_int_equal(last, 0); /* none */
    assert_int_equal(fr_store_jobs(s, -1, 4, count_job, &last), FR_OK);
    assert_int_equal(last, 3);
    last = 0;
    assert_int_equal(fr_store_jobs(s, FR_JOB_DONE, 100, count_job, &last), FR_OK);
    assert_int_equal(last, 1);
    fr_store_close(&s);
}

static fr_status whole_step(void *ctx, const fr_store_step *step)
{
    uint32_t *n = ctx;
    assert_int_equal(step->index, *n);
    assert_int_equal(step->n_ids, 3);
    assert_int_equal(step->text.len, 4);
    ++*n;
    return FR_OK;
}

static fr_status steps_match(void *ctx, const fr_job_record *r)
{
    assert_int_equal(r->counts.steps, *(uint32_t *)ctx - 1); /* one transaction wrote both */
    return FR_OK;
}

/* A child commits steps, reporting each through a pipe after its flush, until it is killed: all it
 * reported are there, and nothing is torn. */
static void survives_kill_9(void **state)
{
    static const int32_t ids[] = {-1, 0, 1, 2, 3};
    (void)state;
    for (int round = 0; round < 5; round++) {
        int fds[2];
        remove_store();
        assert_int_equal(pipe(fds), 0);
        pid_t child = fork();
        if (child == 0) {
            fr_store *s = NULL;
            fr_job_record r = record_of(1);
            if (fr_store_open(path, &s) != FR_OK || fr_store_add_job(s, &r) != FR_OK)
                _exit(1);
            for (uint32_t i = 0;; i++) {
                fr_store_step step = step_of(i, ids, 3, 1);
                r.counts.steps = i;
                if (fr_store_add_step(s, 1, &step) != FR_OK || fr_store_set_job(s, &r) != FR_OK ||
                    fr_store_flush(s) != FR_OK || write(fds[1], &i, sizeof i) != sizeof i)
                    _exit(1);
            }
        }
        assert_true(child > 0);
        close(fds[1]);
        uint32_t last = 0, got;
        for (int i = 0; i < 3 + 7 * round; i++)
            assert_int_equal(read(fds[0], &last, sizeof last), sizeof last);
        kill(child, SIGKILL);
        while (read(fds[0], &got, sizeof got) == sizeof got)
            last = got;
        close(fds[0]);
        int status = 0;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        fr_store *s = open_store();
        uint32_t n = 0;
        assert_int_equal(fr_store_steps(s, 1, 0, whole_step, &n), FR_OK);
        assert_true(n == last + 1 ||
                    n == last + 2); /* perhaps one that was flushed and not reported */
        assert_int_equal(fr_store_job(s, 1, steps_match, &n), FR_OK);
        fr_store_close(&s);
    }
}

static void write_file(const char *text, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, n), (ssize_t)n);
    close(fd);
}

static void expect_refused(fr_status want, const char *part)
{
    fr_store *s = NULL;
    assert_int_equal(fr_store_open(path, &s), want);
    assert_null(s);
    if (!strstr(fr_cause(), part) || !strstr(fr_cause(), path))
        fail_msg("cause \"%s\" does not name \"%s\"", fr_cause(), part);
}

static void run_sql(const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void refuses_what_is_no_store(void **state)
{
    static char junk[20000];
    (void)state;
    memset(junk, 'x', sizeof junk);
    write_file(junk, sizeof junk);
    expect_refused(FR_EFORMAT, "no store");
    /* Damaged in the middle. */
    remove_store();
    fr_store *s = open_store();
    for (uint64_t i = 1; i < 50; i++) {
        fr_job_record r = record_of(i);
        assert_int_equal(fr_store_add_job(s, &r), FR_OK);
    }
    assert_int_equal(fr_store_flush(s), FR_OK);
    fr_store_close(&s);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, junk, 9000, 8192), 9000);
    close(fd);
    expect_refused(FR_EFORMAT, "damaged");
    remove_store();
    run_sql("CREATE TABLE t (x)");
    expect_refused(FR_EFORMAT, "another program");
    remove_store();
    s = open_store();
    fr_store_close(&s);
    run_sql("PRAGMA user_version=9");
    expect_refused(FR_EUNSUPPORTED, "version 9");
    snprintf(path, sizeof path, "/nonexistent/folder/jobs.db");
    expect_refused(FR_EINVAL, "cannot open it");
    set_up(NULL);
}

typedef struct earlier { /* a version that is still read */
    const char *undo; /* SQL that makes it of the present one */
    int batch_dependent; /* what it says of a job that has 1 there */
} earlier;

static fr_status of_earlier_version(void *ctx, const fr_job_record *r)
{
    const fr_job_record want = record_of(r->id);
    assert_int_equal(r->submitted_ms, want.submitted_ms);
    assert_string_equal(r->answer, want.answer);
    assert_int_equal(r->spec.raw, 1);
    assert_int_equal(r->spec.default_system, 0); /* its clients chose the prompt */
    assert_int_equal(r->spec.default_suffix, 0);
    assert_int_equal(r->context, 0); /* the first group's, when it begins */
    assert_int_equal(r->batch_dependent, ((const earlier *)ctx)->batch_dependent);
    return FR_OK;
}

static void read_earlier(earlier *version)
{
    int n = 0;
    set_up(NULL);
    fr_store *s = open_store();
    fr_job_record r = record_of(1);
    assert_int_equal(fr_store_add_job(s, &r), FR_OK);
    assert_int_equal(fr_store_flush(s), FR_OK);
    fr_store_close(&s);
    run_sql(version->undo);
    s = open_store();
    assert_int_equal(fr_store_job(s, 1, of_earlier_version, version), FR_OK);
    r = record_of(2);
    assert_int_equal(fr_store_add_job(s, &r), FR_OK);
    assert_int_equal(fr_store_flush(s), FR_OK);
    fr_store_close(&s);
    s = open_store();
    assert_int_equal(fr_store_job(s, 2, same_record, &n), FR_OK);
    assert_int_equal(n, 1);
    fr_store_close(&s);
}

/* A store whose coordinator was replaced by a newer one goes on. */
static void reads_earlier_versions(void **state)
{
    (void)state;
#define UNDO_3                                                                                       \
    "ALTER TABLE jobs DROP COLUMN default_system; ALTER TABLE jobs DROP COLUMN default_suffix;"      \
    "ALTER TABLE jobs DROP COLUMN context;"
    earlier one = {UNDO_3 "ALTER TABLE jobs DROP COLUMN batch_dependent; PRAGMA user_version=1", 0},
            two = {UNDO_3 "PRAGMA user_version=2", 1};
    read_earlier(&one);
    read_earlier(&two);
}

static void belongs_to_one_coordinator(void **state)
{
    (void)state;
    fr_store *s = open_store();
    pid_t child = fork();
    if (child == 0) {
        fr_store *second = NULL;
        _exit(fr_store_open(path, &second) == FR_EBUSY && strstr(fr_cause(), "another coordinator")
                  ? 0
                  : 1);
    }
    int status = 1;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    fr_store_close(&s);
}

/* A disk that takes no more: nothing is lost, and all is written once it does. */
static void waits_for_a_full_disk(void **state)
{
    static int32_t ids[20000];
    (void)state;
    fr_store *s = open_store();
    fr_job_record r = record_of(1);
    assert_int_equal(fr_store_add_job(s, &r), FR_OK);
    assert_int_equal(fr_store_flush(s), FR_OK);
    struct rlimit before, tight;
    getrlimit(RLIMIT_FSIZE, &before);
    tight = before;
    tight.rlim_cur = 100000;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    fr_store_step step = step_of(0, ids, 20000, 1);
    for (uint32_t i = 0; i < 3; i++) {
        step.index = i;
        assert_int_equal(fr_store_add_step(s, 1, &step), FR_OK);
    }
    assert_int_equal(fr_store_flush(s), FR_EIO);
    assert_int_equal(fr_store_flush(s), FR_EIO);
    assert_int_equal(fr_store_pending(s), 3);
    int n = 0;
    assert_int_equal(fr_store_job(s, 1, same_record, &n), FR_OK); /* reading needs no room */
    assert_int_equal(n, 1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(fr_store_flush(s), FR_OK);
    assert_int_equal(fr_store_pending(s), 0);
    fr_store_close(&s);
}

static fr_status all_at_once(fr_store *s)
{
    static const int32_t ids[] = {-1, 0, 1};
    fr_job_record r = record_of(fr_store_next_job(s));
    fr_store_step step = step_of(0, ids, 3, 1);
    fr_status st = fr_store_add_job(s, &r);
    FR_TRY(st);
    FR_TRY(fr_store_add_step(s, r.id, &step));
    FR_TRY(fr_store_set_job(s, &r));
    return fr_store_trim_steps(s, r.id, 1);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    for (long n = 0;; n++) {
        fr_store *s = NULL;
        fr_fault_alloc_arm(n);
        fr_status st = fr_store_open(NULL, &s);
        if (st == FR_OK)
            st = all_at_once(s);
        int failed = fr_fault_alloc_disarm();
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        if (s) /* what is queued is whole, and can be written */
            assert_int_equal(fr_store_flush(s), FR_OK);
        fr_store_close(&s);
        if (!failed)
            break;
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(keeps_what_it_is_given),
        T(lists_by_state),
        T(survives_kill_9),
        T(refuses_what_is_no_store),
        T(reads_earlier_versions),
        T(belongs_to_one_coordinator),
        T(waits_for_a_full_disk),
        T(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
