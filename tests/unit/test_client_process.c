/* test_client_process.c: starting, watching and ending child processes, and supervision. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "argv.h"
#include "clock.h"
#include "log.h"
#include "process.h"
#include "supervise.h"

static char dir[] = "/tmp/forerun-process-XXXXXX";
static char log_path[64];
static char missing[64]; /* in a folder that is not there */

static int make_dir(void **state)
{
    (void)state;
    fr_log_open("test", FR_LOG_ERROR);
    if (!mkdtemp(dir))
        return -1;
    snprintf(log_path, sizeof log_path, "%s/x.log", dir);
    snprintf(missing, sizeof missing, "%s/missing/x", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    static const char *const logs[] = {"x", "first", "group"};
    char path[64];
    for (size_t i = 0; i < sizeof logs / sizeof *logs; i++) {
        snprintf(path, sizeof path, "%s/%s.log", dir, logs[i]);
        unlink(path);
    }
    return rmdir(dir);
}

static char *const *shell(const char *script)
{
    static char *argv[4];
    argv[0] = (char *)"/bin/sh";
    argv[1] = (char *)"-c";
    argv[2] = (char *)script;
    return argv;
}

static void write_log(const char *text)
{
    FILE *f = fopen(log_path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void test_exit_codes(void **state)
{
    (void)state;
    fr_process p;
    unlink(log_path);
    assert_int_equal(fr_process_start(&p, "x", shell("echo out; echo err >&2; exit 3"), log_path),
                     FR_OK);
    assert_int_equal(fr_process_wait(&p, 5000), 1);
    assert_int_equal(p.exit_code, 3);
    assert_int_equal(fr_process_running(&p), 0);
    fr_buf last = {0};
    assert_int_equal(fr_log_first_error(log_path, 0, &last), FR_OK);
    assert_string_equal((char *)last.data, "out");
    fr_buf_free(&last);
    assert_int_equal(fr_process_start(&p, "x", shell("kill -9 $$"), log_path), FR_OK);
    assert_int_equal(fr_process_wait(&p, 5000), 1);
    assert_int_equal(p.exit_code, 128 + SIGKILL);
    assert_int_equal(p.signal, SIGKILL);
    write_log("forerun-coordinator: error: of another day\n");
    fr_buf why = {0};
    assert_int_equal(fr_process_why(&p, log_path, 0, &why), FR_OK);
    assert_string_equal((char *)why.data, "killed by signal 9 (Killed)");
    fr_buf_free(&why);
    p = (fr_process){.exit_code = 137}; /* mpirun --quiet, whose rank was killed */
    assert_int_equal(fr_process_why(&p, log_path, 0, &why), FR_OK);
    assert_string_equal((char *)why.data, "of another day");
    fr_buf_free(&why);
    write_log("");
    assert_int_equal(fr_process_why(&p, log_path, 0, &why), FR_OK);
    assert_string_equal((char *)why.data, "a process of it was killed by signal 9 (Killed)");
    fr_buf_free(&why);
}

static void test_not_there(void **state)
{
    (void)state;
    fr_process p;
    char *argv[] = {missing, NULL};
    assert_int_equal(fr_process_start(&p, "x", argv, log_path), FR_ENOTFOUND);
    assert_int_equal(p.pid, 0);
    assert_non_null(strstr(fr_cause(), missing));
    fr_process_stop(&p, 10); /* fine */
    assert_int_equal(fr_process_start(&p, "x", shell("true"), missing), FR_EIO);
}

static void test_stop(void **state)
{
    (void)state;
    fr_process p;
    assert_int_equal(fr_process_start(&p, "x", shell("sleep 60"), log_path), FR_OK);
    assert_int_equal(fr_process_running(&p), 1);
    assert_int_equal(fr_process_wait(&p, 20), 0);
    fr_process_stop(&p, 5000);
    assert_int_equal(p.exit_code, 128 + SIGTERM);
    /* One that does not listen, and its child: the whole group goes. */
    unlink(log_path);
    assert_int_equal(fr_process_start(&p, "x",
                                      shell("trap '' TERM; sleep 61 & echo $!; wait; sleep 61"),
                                      log_path),
                     FR_OK);
    int grandchild = 0;
    for (int i = 0; i < 500 && grandchild == 0; i++) {
        FILE *f = fopen(log_path, "r");
        if (!f || fscanf(f, "%d", &grandchild) != 1)
            grandchild = 0;
        if (f)
            fclose(f);
        fr_sleep_ms(10);
    }
    assert_true(grandchild > 0);
    fr_process_stop(&p, 50);
    assert_int_equal(p.exit_code, 128 + SIGKILL);
    for (int i = 0; i < 500 && kill(grandchild, 0) == 0; i++)
        fr_sleep_ms(10); /* until init has collected it */
}

/* A parent that is killed without a chance to clean up takes its children with it. */
static void test_parent_killed(void **state)
{
    (void)state;
    int pipe_fds[2];
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t parent = fork();
    if (parent == 0) {
        fr_process p;
        if (fr_process_start(&p, "x", shell("exec sleep 62"), log_path) != FR_OK ||
            write(pipe_fds[1], &p.pid, sizeof p.pid) < 0)
            _exit(1);
        pause();
        _exit(0);
    }
    pid_t child = 0;
    assert_int_equal(read(pipe_fds[0], &child, sizeof child), sizeof child);
    assert_int_equal(kill(child, 0), 0);
    kill(parent, SIGKILL);
    assert_int_equal(waitpid(parent, NULL, 0), parent);
    char path[64], text[256];
    int gone = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)child);
    for (int i = 0; i < 500 && !gone; i++) {
        FILE *f = fopen(path, "r");
        gone = !f || !fgets(text, sizeof text, f) || strstr(text, ") Z") != NULL;
        if (f)
            fclose(f);
        fr_sleep_ms(10);
    }
    assert_true(gone);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static void test_first_error(void **state)
{
    (void)state;
    const struct {
        const char *log, *want;
    } cases[] = {
        {"loading\nforerun-worker rank 1: error: /x/y.gguf: truncated\nmpirun noise\n",
         "/x/y.gguf: truncated"},
        {"a: error: first\nb: error: second\n", "first"},
        {"only this\n\n", "only this"},
        {"starting\nforerun-worker: error: /x/y.gguf: too short\n", "/x/y.gguf: too short"},
        {"forerun-worker: error: /x/y.gguf: too short\n\n-----\nmpirun: rank 1 ended\n",
         "/x/y.gguf: too short"},
        {"forerun-coordinator: listening\nforerun-coordinator: job 19 runs, policy token\n", ""},
        {"forerun-worker: warning: slow\nforerun-worker: warning: ends: rank 1: no word from x\n"
         "mpirun noise\nforerun-worker: warning: message ignored: y\n",
         "rank 1: no word from x"},
        {"forerun-worker: warning: threads run where the system puts them: no such file\n"
         "mpirun: rank 1 was killed\n",
         "mpirun: rank 1 was killed"},
        {"forerun-worker: warning: threads run where the system puts them: x: ends: y\n", ""},
        {"forerun-worker: rank 0: model loaded\n\n------\nmpirun noticed that rank 1 was killed\n"
         "------\nType 'mpirun --help' for usage.\n",
         "mpirun noticed that rank 1 was killed"},
        {"forerun-coordinator: --overlap: \"x\" is not possible\n"
         "Try `forerun-coordinator --help' or `forerun-coordinator --usage' for more "
         "information.\n",
         "--overlap: \"x\" is not possible"},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fr_buf out = {0};
        write_log(cases[i].log);
        assert_int_equal(fr_log_first_error(log_path, 0, &out), FR_OK);
        assert_string_equal((char *)out.data, cases[i].want);
        fr_buf_free(&out);
    }
    fr_buf out = {0};
    assert_int_equal(fr_log_first_error(missing, 0, &out), FR_OK);
    assert_int_equal(out.len, 0);
}

static void add(fr_supervisor *s, const char *name, const char *script)
{
    fr_argv argv = {0};
    assert_int_equal(fr_argv_words(&argv, "/bin/sh -c"), FR_OK);
    assert_int_equal(fr_argv_add(&argv, script), FR_OK);
    assert_int_equal(fr_supervisor_add(s, name, dir, &argv), FR_OK);
    assert_null(argv.v);
}

static fr_status tick_until(fr_supervisor *s, int milliseconds)
{
    fr_status st = FR_OK;
    for (int i = 0; i < milliseconds / 10 && st == FR_OK; i++) {
        st = fr_supervisor_tick(s);
        fr_sleep_ms(10);
    }
    return st;
}

static void test_supervisor(void **state)
{
    (void)state;
    fr_supervisor s = {0};
    unlink(log_path);
    add(&s, "x", "exit 0"); /* the first: its orderly end is the cluster's */
    assert_int_equal(fr_supervisor_start(&s, 0), FR_OK);
    assert_int_equal(tick_until(&s, 5000), FR_ECANCELLED);
    fr_supervisor_stop(&s, 100);

    add(&s, "x", "exec sleep 63");
    add(&s, "x", "echo 'w: error: no such file' >&2; exit 2");
    assert_int_equal(fr_supervisor_start(&s, 0), FR_OK);
    assert_int_equal(fr_supervisor_start(&s, 1), FR_OK);
    assert_int_equal(tick_until(&s, 5000),
                     FR_EINVAL); /* bad input: nothing would be better next time */
    assert_string_equal(fr_cause(), "x: no such file");
    fr_supervisor_stop(&s, 0);

    add(&s, "x", "exec sleep 63");
    add(&s, "x", "exit 9");
    s.settled = 1;
    assert_int_equal(fr_supervisor_start(&s, 0), FR_OK);
    assert_int_equal(fr_supervisor_start(&s, 1), FR_OK);
    for (int i = 0; i < 500 && s.members[1].backoff_ms < 1000; i++)
        assert_int_equal(tick_until(&s, 20), FR_OK);
    assert_int_equal(s.members[1].backoff_ms, 1000); /* ended, was started again, ended again */
    fr_supervisor_stop(&s, 0);
    assert_null(s.members);
}

enum { SILENT_MS = 200 };

/* Of the second member, whose process that note leaves alone. */
static void note_well(fr_supervisor *s, int alive, double heard_s)
{
    const pid_t pid = s->members[1].process.pid;
    assert_int_equal(fr_supervisor_note(s, "group", alive, heard_s, SILENT_MS), FR_OK);
    assert_int_equal(s->members[1].process.pid, pid);
}

static void note_end(fr_supervisor *s)
{
    const pid_t pid = s->members[1].process.pid;
    fr_sleep_ms(2 * SILENT_MS);
    assert_int_equal(fr_supervisor_note(s, "group", 0, 2e-3 * SILENT_MS, SILENT_MS), FR_OK);
    assert_int_equal(s->members[1].process.pid, 0);
    assert_int_equal(tick_until(s, 4 * FR_BACKOFF_FIRST_MS), FR_OK);
    assert_true(fr_process_running(&s->members[1].process));
    assert_int_not_equal(s->members[1].process.pid, pid);
}

/* A group that served and is gone for long is ended and started again, also when it was not seen alive; one that has
 * not served yet, whatever the one before did, or of which nobody knows anything for a while, is not. */
static void test_silent_group(void **state)
{
    (void)state;
    fr_supervisor s = {.settled = 1};
    add(&s, "first", "exec sleep 63");
    add(&s, "group", "exec sleep 63");
    assert_int_equal(fr_supervisor_start(&s, 0), FR_OK);
    assert_int_equal(fr_supervisor_start(&s, 1), FR_OK);

    for (int i = 0; i < 2; i++, fr_sleep_ms(2 * SILENT_MS)) /* it may still load its model */
        note_well(&s, 0, i == 0 ? INFINITY : 60);
    note_well(&s, 1, 0);
    note_well(&s, 0, 0);
    fr_sleep_ms(2 * SILENT_MS);
    fr_supervisor_note_nothing(&s);
    note_well(&s, 0, 2e-3 * SILENT_MS);
    note_end(&s);

    note_well(&s, 1, 60); /* the one before, not yet known to be dead */
    note_well(&s, 0, 60);
    fr_sleep_ms(2 * SILENT_MS);
    note_well(&s, 0, 60);
    note_well(&s, 0, 0); /* registered, and hung */
    note_end(&s);
    assert_int_equal(fr_supervisor_note(&s, "nobody", 0, 0, SILENT_MS), FR_OK);
    fr_supervisor_stop(&s, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exit_codes),  cmocka_unit_test(test_not_there),
        cmocka_unit_test(test_stop),        cmocka_unit_test(test_parent_killed),
        cmocka_unit_test(test_first_error), cmocka_unit_test(test_supervisor),
        cmocka_unit_test(test_silent_group),
    };
    return cmocka_run_group_tests_name("client_process", tests, make_dir, remove_dir);
}
