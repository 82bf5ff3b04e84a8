/* cmd_down.c: `forerun down`: stops the cluster that `forerun up` runs, and waits until it is
 * gone. */
#include "client.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "args.h"
#include "check.h"
#include "clock.h"
#include "conf.h"
#include "config.h"
#include "run_dir.h"

#define GONE_S 30.0

typedef struct down_options {
    const char *conf, *run_dir;
} down_options;

static const struct argp_option options[] = {
    {"run-dir", 'r', "DIR", 0, "the cluster's run folder", 1},
    {0}};

static const char doc[] =
    "Stops the cluster that `forerun up` runs: the one of the CONFIG, of a run folder, or the "
    "default one.\vExample:\n  forerun down deploy/conf/local.ini";

static error_t parse(int key, char *arg, struct argp_state *state)
{
    down_options *o = state->input;
    switch (key) {
    case 'r':
        o->run_dir = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (o->conf)
            return fr_arg_error(fr_fail(FR_EINVAL, "'%.64s': one argument too many", arg));
        o->conf = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static fr_status stop_holder(const char *dir)
{
    pid_t pid = 0, now = 0;
    FR_TRY(fr_run_dir_holder(dir, &pid));
    if (pid == 0)
        return fr_fail(FR_EUNAVAILABLE, "no cluster runs in %s", dir);
    if (kill(pid, SIGTERM) != 0 && errno != ESRCH)
        return fr_fail(FR_EIO, "%s: cannot stop pid %d: %s", dir, (int)pid, strerror(errno));
    double end = fr_now_s() + GONE_S;
    do {
        fr_sleep_ms(50);
        FR_TRY(fr_run_dir_holder(dir, &now));
        if (now != pid) {
            printf("cluster in %s stopped\n", dir);
            return FR_OK;
        }
    } while (fr_now_s() < end);
    return fr_fail(FR_EPEER, "%s: pid %d still runs %.0f s after it was asked to stop", dir,
                   (int)pid, GONE_S);
}

static fr_status down(const down_options *o)
{
    fr_client_config config;
    fr_conf conf = {0};
    FR_TRY(fr_client_config_read(&config));
    if (o->conf)
        FR_TRY(fr_conf_read(o->conf, &conf));
    const char *dir = o->run_dir ? o->run_dir : conf.run_dir ? conf.run_dir : config.run_dir;
    fr_status st = stop_holder(dir);
    fr_conf_free(&conf);
    return st;
}

static int run(int argc, char **argv)
{
    static const struct argp argp = {options, parse, "[CONFIG]", doc, NULL, NULL, NULL};
    down_options o = {0};
    fr_status st = fr_args_parse(&argp, argc, argv, &o);
    if (st == FR_OK)
        st = down(&o);
    return fr_exit_report(st);
}

const fr_command fr_command_down = {"down", "stop the cluster that `up` runs", run};
