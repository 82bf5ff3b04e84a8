/* test_client_conf.c: the configuration file of `forerun up`, its run folder, and the pauses
 * between restarts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conf.h"
#include "fault_alloc.h"
#include "run_dir.h"
#include "supervise.h"

static char dir[] = "/tmp/forerun-conf-XXXXXX";
static char path[64];
static char missing[64]; /* is not there */

static int make_dir(void **state)
{
    (void)state;
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/x.ini", dir);
    snprintf(missing, sizeof missing, "%s/missing.ini", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    char pid_path[64];
    snprintf(pid_path, sizeof pid_path, "%s/up.pid", dir);
    unlink(pid_path);
    unlink(path);
    return rmdir(dir);
}

static void write_conf(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static const char good[] =
    "; comment\n[cluster]\nbind = tcp://127.0.0.1:0\nheartbeat_ms = 250\n"
    "[coordinator]\ndraft = small.gguf ; beside it\ndraft_threads = 1\ndraft_vocab = 0\n"
    "draft_weights = q4_0\ndraft_gpu = 0\n"
    "[group a]\nrole = target\nmodel = big.gguf\nranks = 2\nlauncher = --mca btl tcp,self\n"
    "placement = off\ngpus = 1,0\nshare_gpu = on\nbatch_invariant = off\n"
    "[group b]\nrole=draft\nmodel=embedded\nkv_positions = 4096\ndraft_vocab = 8192\n"
    "draft_weights = file\n";

static void test_good(void **state)
{
    (void)state;
    fr_conf c = {0};
    write_conf(good);
    assert_int_equal(fr_conf_read(path, &c), FR_OK);
    assert_string_equal(c.bind, "tcp://127.0.0.1:0");
    assert_int_equal(c.heartbeat_ms, 250);
    assert_null(c.store);
    assert_string_equal(c.draft, "small.gguf");
    assert_string_equal(c.draft_vocab, "0");
    assert_string_equal(c.draft_weights, "q4_0");
    assert_string_equal(c.draft_gpu, "0");
    assert_int_equal(c.n_groups, 2);
    assert_string_equal(c.groups[0].name, "a");
    assert_null(c.groups[0].draft_vocab);
    assert_null(c.groups[0].draft_weights);
    assert_int_equal(c.groups[0].ranks, 2);
    assert_string_equal(c.groups[0].placement, "off");
    assert_null(c.groups[1].placement);
    assert_string_equal(c.groups[0].gpus, "1,0");
    assert_null(c.groups[1].gpus);
    assert_string_equal(c.groups[0].share_gpu, "on");
    assert_string_equal(c.groups[0].batch_invariant, "off");
    assert_string_equal(c.groups[0].launcher, "--mca btl tcp,self");
    assert_string_equal(c.groups[1].role, "draft");
    assert_int_equal(c.groups[1].kv_positions, 4096);
    assert_string_equal(c.groups[1].draft_vocab, "8192");
    assert_string_equal(c.groups[1].draft_weights, "file");
    fr_conf_free(&c);
}

static void test_example(void **state)
{
    (void)state;
    fr_conf c = {0};
    assert_int_equal(fr_conf_read(FORERUN_SOURCE_DIR "/deploy/conf/local.ini", &c), FR_OK);
    assert_string_equal(c.groups[0].model, "embedded");
    fr_conf_free(&c);
}

/* Each is refused, and the cause names the line (0: the file) and the thing. */
static void test_bad(void **state)
{
    (void)state;
    static char long_line[400];
    memset(long_line, 'x', sizeof long_line - 1);
    memcpy(long_line, "[cluster]\nbind=", 15);
    const struct {
        const char *text;
        int line;
        const char *what;
    } cases[] = {
        {"[cluster]\nspeed = 3\n", 2, "speed"},
        {"[clusters]\nbind = x\n", 2, "clusters"},
        {"bind = x\n", 1, "section"},
        {"[cluster]\nheartbeat_ms = soon\n", 2, "soon"},
        {"[cluster]\nheartbeat_ms = 250\n\nheartbeat_ms = 251\n", 4, "twice"},
        {"[cluster]\nbind = a\nbind = b\n", 3, "twice"},
        {"[cluster]\nbind =\n", 2, "no value"},
        {"[cluster]\nnonsense\n", 2, "key = value"},
        {"[group a/b]\nrole = target\n", 2, "a/b"},
        {"[group coordinator]\nrole = target\n", 2, "coordinator"},
        {"[group a]\nrole = target\nmodel = m\nranks = 0\n", 4, "ranks"},
        {"[group a]\nrole = target\n", 0, "no model"},
        {"[group a]\nrole = boss\nmodel = m\n", 0, "role"},
        {"[group a]\nrole = draft\nmodel = m\n", 0, "no group"},
        {"[group a]\nrole = target\nmodel = m\nplacement = left\n", 0, "placement = left"},
        {"[group a]\nrole = target\nmodel = m\nshare_gpu = yes\n", 0, "share_gpu = yes"},
        {"[group a]\nrole = target\nmodel = m\nbatch_invariant = no\n", 0, "batch_invariant = no"},
        {"[group a]\nrole = target\nmodel = m\ngpus = 0,\n", 0, "[group a] gpus: '0,' is not a list"},
        {"[group a]\nrole = target\nmodel = m\ngpus = 1,1\n", 0, "[group a] gpus: '1,1' has GPU 1 twice"},
        {"[coordinator]\ndraft_gpu = 0,1\n[group a]\nrole = target\nmodel = m\n", 0, "draft_gpu: '0,1'"},
        {"", 0, "no group"},
        {long_line, 2, "line of more than"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fr_conf c = {0};
        char where[96];
        write_conf(cases[i].text);
        assert_int_equal(fr_conf_read(path, &c), FR_EINVAL);
        snprintf(where, sizeof where, cases[i].line ? "%s:%d: " : "%s: ", path, cases[i].line);
        if (strncmp(fr_cause(), where, strlen(where)) != 0 || !strstr(fr_cause(), cases[i].what))
            fail_msg("case %zu: %s", i, fr_cause());
    }
    fr_conf c = {0};
    assert_int_equal(fr_conf_read(missing, &c), FR_ENOTFOUND);
    assert_int_equal(fr_conf_read(dir, &c), FR_EINVAL);
    if (strncmp(fr_cause(), dir, strlen(dir)) != 0 || !strstr(fr_cause(), "Is a directory"))
        fail_msg("%s", fr_cause());
}

static void test_no_memory(void **state)
{
    (void)state;
    write_conf(good);
    for (long n = 0;; n++) {
        fr_conf c = {0};
        fr_fault_alloc_arm(n);
        fr_status st = fr_conf_read(path, &c);
        int failed = fr_fault_alloc_disarm();
        fr_conf_free(&c);
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        if (!failed)
            break;
    }
}

static void test_lock(void **state)
{
    (void)state;
    int fd = -1;
    pid_t pid = -1;
    assert_int_equal(fr_run_dir_make(dir), FR_OK);
    assert_int_equal(fr_run_dir_holder(dir, &pid), FR_OK);
    assert_int_equal(pid, 0);
    assert_int_equal(fr_run_dir_lock(dir, &fd), FR_OK);
    pid_t child = fork(); /* locks are a process's: only another one sees them */
    if (child == 0) {
        int second = -1;
        _exit(fr_run_dir_holder(dir, &pid) == FR_OK && pid == getppid() &&
                      fr_run_dir_lock(dir, &second) == FR_EBUSY
                  ? 0
                  : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(fd);
    assert_int_equal(fr_run_dir_make("/dev/null"), FR_EINVAL);
}

static void test_backoff(void **state)
{
    (void)state;
    int ms = 0;
    const int want[] = {500, 1000, 2000, 4000, 8000, 16000, 30000, 30000};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        ms = fr_backoff_ms(ms, 1.0);
        assert_int_equal(ms, want[i]);
    }
    assert_int_equal(fr_backoff_ms(ms, 61.0), 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good), cmocka_unit_test(test_example),
        cmocka_unit_test(test_bad),  cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_lock), cmocka_unit_test(test_backoff),
    };
    return cmocka_run_group_tests_name("client_conf", tests, make_dir, remove_dir);
}
