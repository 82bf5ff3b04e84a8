/* test_client_options.c: numbers of options, command lines of programs, exit codes, model look-up,
 * job specs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "args.h"
#include "argv.h"
#include "client.h"
#include "draft_weights.h"
#include "fault_alloc.h"
#include "gpu_list.h"
#include "job_options.h"
#include "programs.h"

static void test_numbers(void **state)
{
    (void)state;
    int i = 5;
    uint64_t u = 5;
    double d = 5;
    assert_int_equal(fr_arg_int("--n", "12", 1, 20, &i), FR_OK);
    assert_int_equal(i, 12);
    const char *const bad_ints[] = {"", "x", "1x", "0", "21", "99999999999999999999", "1.5"};
    for (size_t k = 0; k < sizeof bad_ints / sizeof bad_ints[0]; k++)
        assert_int_equal(fr_arg_int("--n", bad_ints[k], 1, 20, &i), FR_EINVAL);
    assert_int_equal(i, 12);
    assert_non_null(strstr(fr_cause(), "--n"));
    assert_int_equal(fr_arg_u64("--s", "18446744073709551615", &u), FR_OK);
    assert_true(u == UINT64_MAX);
    assert_int_equal(fr_arg_u64("--s", "-1", &u), FR_EINVAL);
    assert_int_equal(fr_arg_u64("--s", "18446744073709551616", &u), FR_EINVAL);
    assert_int_equal(fr_arg_double("--t", "0.7", 0, 1, &d), FR_OK);
    assert_int_equal(fr_arg_double("--t", "nan", 0, 1, &d), FR_EINVAL);
    assert_int_equal(fr_arg_double("--t", "1e999", 0, 1, &d), FR_EINVAL);
    assert_true(d > 0.69 && d < 0.71);
}

static void test_draft_weights(void **state)
{
    (void)state;
    fr_draft_weights weights = FR_DRAFT_WEIGHTS_FILE;
    assert_int_equal(fr_draft_weights_parse("q4_0", &weights), FR_OK);
    assert_int_equal(weights, FR_DRAFT_WEIGHTS_Q4_0);
    const char *const bad[] = {"", "Q4_0", "q4", "q4_0 ", "1"};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++)
        assert_int_equal(fr_draft_weights_parse(bad[k], &weights), FR_EINVAL);
    assert_non_null(strstr(fr_cause(), "--draft-weights: '1'"));
    assert_int_equal(weights, FR_DRAFT_WEIGHTS_Q4_0);
    assert_int_equal(fr_draft_weights_parse("file", &weights), FR_OK);
    assert_int_equal(weights, FR_DRAFT_WEIGHTS_FILE);
}

static void test_gpu_list(void **state)
{
    (void)state;
    char most[4 * FR_GPU_LIST_MAX + 8] = "1000";
    fr_gpu_list gpus = {.n = 0};
    assert_int_equal(fr_gpu_list_parse("--gpus", "1", &gpus), FR_OK);
    assert_true(gpus.n == 1 && gpus.numbers[0] == 1);
    assert_int_equal(fr_gpu_list_parse("--gpus", "2,0,1023", &gpus), FR_OK);
    assert_true(gpus.n == 3 && gpus.numbers[0] == 2 && gpus.numbers[1] == 0 && gpus.numbers[2] == FR_GPU_HIGHEST);
    const char *const bad[] = {"",   ",",   "0,",   ",0",   "0,,1", "0, 1", " 0", "0 ",
                               "+1", "-1",  "0;1",  "0-2",  "0x1",  "all",  "1024", "99999999999999999999"};
    for (size_t k = 0; k < sizeof bad / sizeof bad[0]; k++) {
        assert_int_equal(fr_gpu_list_parse("--gpus", bad[k], &gpus), FR_EINVAL);
        assert_non_null(strstr(fr_cause(), "--gpus: '"));
        assert_non_null(strstr(fr_cause(), "' is not a list of numbers from 0 to 1023, such as 0,2"));
    }
    assert_int_equal(fr_gpu_list_parse("--gpus", "0,2,00", &gpus), FR_EINVAL);
    assert_string_equal(fr_cause(), "--gpus: '0,2,00' has GPU 0 twice");
    assert_int_equal(gpus.n, 3); /* as it was */
    for (int i = 1; i < FR_GPU_LIST_MAX; i++)
        snprintf(most + strlen(most), sizeof most - strlen(most), ",%d", i);
    assert_int_equal(fr_gpu_list_parse("--gpus", most, &gpus), FR_OK);
    assert_int_equal(gpus.n, FR_GPU_LIST_MAX);
    assert_int_equal(gpus.numbers[FR_GPU_LIST_MAX - 1], FR_GPU_LIST_MAX - 1);
    strcat(most, ",0");
    assert_int_equal(fr_gpu_list_parse("--gpus", most, &gpus), FR_EINVAL);
    assert_non_null(strstr(fr_cause(), "more than 64 GPUs"));
}

static void join(const fr_argv *a, char *out, size_t cap)
{
    out[0] = 0;
    for (size_t i = 0; i < a->n; i++)
        snprintf(out + strlen(out), cap - strlen(out), "%s%s", i ? "|" : "", a->v[i]);
}

static void test_argv(void **state)
{
    (void)state;
    char text[256];
    fr_argv a = {0};
    assert_int_equal(fr_argv_words(&a, "  one two\tthree "), FR_OK);
    assert_int_equal(fr_argv_option(&a, "--x", NULL), FR_OK);
    assert_int_equal(fr_argv_option(&a, "--y", "a b"), FR_OK);
    assert_int_equal(fr_argv_option_int(&a, "--z", 0), FR_OK);
    assert_int_equal(fr_argv_option_int(&a, "--w", 1LL << 40), FR_OK);
    join(&a, text, sizeof text);
    assert_string_equal(text, "one|two|three|--y|a b|--w|1099511627776");
    assert_null(a.v[a.n]);
    fr_argv_free(&a);
}

static int has(const fr_argv *a, const char *word)
{
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->v[i], word) == 0)
            return 1;
    return 0;
}

/* A folder with programs in it that do nothing. */
static void fake_programs(fr_client_config *c)
{
    char path[PATH_MAX + 32];
    memset(c, 0, sizeof *c);
    strcpy(c->exe_dir, "/tmp/forerun-bin-XXXXXX");
    assert_non_null(mkdtemp(c->exe_dir));
    const char *const names[] = {"forerun-worker", "forerun-coordinator"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", c->exe_dir, names[i]);
        assert_int_equal(symlink("/bin/true", path), 0);
    }
}

static void remove_programs(const fr_client_config *c)
{
    char path[PATH_MAX + 32];
    const char *const names[] = {"forerun-worker", "forerun-coordinator"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", c->exe_dir, names[i]);
        unlink(path);
    }
    rmdir(c->exe_dir);
}

static void test_programs(void **state)
{
    (void)state;
    static fr_client_config c;
    fake_programs(&c);
    fr_argv a = {0};
    fr_group_args g = {.endpoint = "tcp://h:1", .role = "target", .model = "m.gguf", .ranks = 1};
    assert_int_equal(fr_group_command(&c, &g, &a), FR_OK);
    assert_false(has(&a, "mpirun"));
    assert_true(has(&a, "--connect") && has(&a, "tcp://h:1") && !has(&a, "--threads"));
    fr_argv_free(&a);
    g.ranks = 3;
    g.hosts = "n1,n2";
    g.threads = 2;
    g.draft_vocab = "0";
    g.draft_weights = "q4_0";
    g.placement = "off";
    g.gpus = "0,2";
    assert_int_equal(fr_group_command(&c, &g, &a), FR_OK);
    assert_true(has(&a, "--draft-vocab") && has(&a, "0"));
    assert_true(has(&a, "--draft-weights") && has(&a, "q4_0"));
    assert_true(has(&a, "--placement") && has(&a, "off"));
    assert_true(has(&a, "--gpus") && has(&a, "0,2"));
    assert_string_equal(a.v[0], "mpirun");
    assert_true(has(&a, "--host") && has(&a, "n1,n2") && has(&a, "3") &&
                has(&a, "mpi_yield_when_idle"));
    fr_argv_free(&a);
    for (long n = 0;; n++) {
        fr_fault_alloc_arm(n);
        fr_status st = fr_group_command(&c, &g, &a);
        int failed = fr_fault_alloc_disarm();
        fr_argv_free(&a);
        if (!failed) {
            assert_int_equal(st, FR_OK);
            break;
        }
        assert_int_equal(st, FR_ENOMEM);
    }
    fr_coordinator_args o = {.bind = "tcp://h:1"};
    assert_int_equal(fr_coordinator_command(&c, &o, &a), FR_OK);
    assert_false(has(&a, "--draft-gpu"));
    fr_argv_free(&a);
    o.draft_gpu = "0";
    assert_int_equal(fr_coordinator_command(&c, &o, &a), FR_OK);
    assert_true(has(&a, "--draft-gpu") && has(&a, "0"));
    fr_argv_free(&a);
    remove_programs(&c);
    assert_int_equal(fr_group_command(&c, &g, &a), FR_ENOTFOUND);
    fr_argv_free(&a);
}

static void make_empty_file(const char *path)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
}

static void test_model_lookup(void **state)
{
    (void)state;
    static fr_client_config c;
    static char out[PATH_MAX], want[PATH_MAX + 32];
    memset(&c, 0, sizeof c);
    strcpy(c.models_dir, "/tmp/forerun-models-XXXXXX");
    assert_non_null(mkdtemp(c.models_dir));
    snprintf(want, sizeof want, "%s/some-model.gguf", c.models_dir);
    make_empty_file(want);
    assert_int_equal(fr_client_config_model(&c, "some-model", out, sizeof out), FR_OK);
    assert_string_equal(out, want);
    assert_int_equal(fr_client_config_model(&c, "some-model.gguf", out, sizeof out), FR_OK);
    assert_string_equal(out, want);
    assert_int_equal(fr_client_config_model(&c, "./no/such.gguf", out, sizeof out),
                     FR_OK); /* told when opened */
    assert_int_equal(fr_client_config_model(&c, "other-model", out, sizeof out), FR_ENOTFOUND);
    assert_non_null(strstr(fr_cause(), "other-model"));
    unlink(want);
    /* A folder is a model when it says so; another is told when opened, and stands behind files. */
    char config[PATH_MAX + 64];
    snprintf(want, sizeof want, "%s/other-model", c.models_dir);
    snprintf(config, sizeof config, "%s/config.json", want);
    assert_int_equal(mkdir(want, 0700), 0);
    assert_int_equal(fr_client_config_model(&c, "other-model", out, sizeof out), FR_OK);
    assert_string_equal(out, want);
    char file[PATH_MAX + 64];
    snprintf(file, sizeof file, "%s.gguf", want);
    make_empty_file(file);
    assert_int_equal(fr_client_config_model(&c, "other-model", out, sizeof out), FR_OK);
    assert_string_equal(out, file);
    unlink(file);
    make_empty_file(config);
    assert_int_equal(fr_client_config_model(&c, "other-model", out, sizeof out), FR_OK);
    assert_string_equal(out, want);
    unlink(config);
    rmdir(want);
    rmdir(c.models_dir);
    assert_int_equal(fr_client_config_tiny(&c, "target", out, sizeof out),
                     FR_OK); /* of the source tree */
}

static void test_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(fr_exit_of(FR_OK), 0);
    assert_int_equal(fr_exit_of(FR_ECANCELLED), 1);
    assert_int_equal(fr_exit_of(FR_ENOMEM), 1);
    assert_int_equal(fr_exit_of(FR_EPEER), 1);
    assert_int_equal(fr_exit_of(FR_EINVAL), 2);
    assert_int_equal(fr_exit_of(FR_EFORMAT), 2);
    assert_int_equal(fr_exit_of(FR_EMISMATCH), 2);
    assert_int_equal(fr_exit_of(FR_EUNAVAILABLE), 3);
}

static void test_spec(void **state)
{
    (void)state;
    fr_job_options o = {.threshold = NAN, .top_p = 1};
    fr_place_options where = {.ranks = 1};
    fr_msg_job_spec spec;
    fr_buf text = {0};
    assert_int_equal(fr_job_spec(&o, &where, "Take 3.", 7, &text, &spec), FR_OK);
    assert_string_equal(spec.problem, "Take 3.");
    assert_string_equal(spec.system, "");
    assert_true(spec.default_system && spec.default_suffix);
    assert_string_equal(spec.policy, "token");
    fr_buf_free(&text);
    o.prompt_suffix = " Be brief.";
    assert_int_equal(fr_job_spec(&o, &where, "Take 3.", 7, &text, &spec), FR_OK);
    assert_string_equal(spec.problem, "Take 3. Be brief.");
    assert_true(spec.default_system && !spec.default_suffix);
    fr_buf_free(&text);
    o.system = o.prompt_suffix = ""; /* none, and not the default */
    assert_int_equal(fr_job_spec(&o, &where, "Take 3.", 7, &text, &spec), FR_OK);
    assert_string_equal(spec.problem, "Take 3.");
    assert_true(!spec.default_system && !spec.default_suffix);
    fr_buf_free(&text);
    o = (fr_job_options){.threshold = NAN, .top_p = 1, .raw = 1, .policy = "step"};
    assert_int_equal(fr_job_spec(&o, &where, "Take 3.", 7, &text, &spec), FR_OK);
    assert_string_equal(spec.problem, "Take 3.");
    assert_true(spec.raw && !spec.default_system && !spec.default_suffix);
    assert_string_equal(spec.policy, "step");
    fr_buf_free(&text);
    where.target = "big.gguf"; /* and no draft model: there is nothing to speculate with */
    assert_string_equal(fr_default_policy(&where), "target");
}

static void test_problem(void **state)
{
    (void)state;
    fr_buf b = {0};
    const char *problem = NULL;
    assert_int_equal(fr_arg_problem("x", &problem), FR_OK);
    assert_int_equal(fr_arg_problem("y", &problem), FR_EINVAL);
    assert_string_equal(problem, "x");
    assert_int_equal(fr_read_problem("x\xc3\xbc", &b), FR_OK);
    assert_int_equal(b.len, 3);
    fr_buf_free(&b);
    assert_int_equal(fr_read_problem(NULL, &b), FR_EINVAL);
    assert_int_equal(fr_read_problem("", &b), FR_EINVAL);
    assert_int_equal(fr_read_problem("ab\xff", &b), FR_EFORMAT);
    assert_non_null(strstr(fr_cause(), "byte 2"));
    fr_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),      cmocka_unit_test(test_draft_weights),
        cmocka_unit_test(test_gpu_list),
        cmocka_unit_test(test_argv),         cmocka_unit_test(test_programs),
        cmocka_unit_test(test_model_lookup), cmocka_unit_test(test_exit_codes),
        cmocka_unit_test(test_spec),         cmocka_unit_test(test_problem),
    };
    return cmocka_run_group_tests_name("client_options", tests, NULL, NULL);
}
