/* remote.c: see remote.h. */
#include "remote.h"

#include "args.h"
#include "check.h"
#include "interrupt.h"

enum { OPT_CONNECT = 0x300, OPT_JSON };

static const struct argp_option options[] = {
    {"connect", OPT_CONNECT, "EP", 0,
     "the cluster (default: FORERUN_CONNECT, else " FR_DEFAULT_ENDPOINT ")", 8},
    {"json", OPT_JSON, 0, 0, "JSON on standard output", 8},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    fr_remote_options *o = state->input;
    switch (key) {
    case OPT_CONNECT:
        o->connect = arg;
        return 0;
    case OPT_JSON:
        o->json = 1;
        return 0;
    case ARGP_KEY_ARG:
        if (o->argument || !o->takes_argument)
            return fr_arg_error(fr_fail(FR_EINVAL, "'%.64s': one argument too many", arg));
        o->argument = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

const struct argp fr_remote_argp = {.options = options, .parser = parse};

fr_status fr_remote_open(const fr_remote_options *o, fr_call *out)
{
    fr_client_config config;
    *out = (fr_call){0};
    FR_TRY(fr_client_config_read(&config));
    fr_interrupt_arm();
    return fr_call_open(o->connect ? o->connect : config.connect, out);
}

fr_status fr_remote_job(const fr_remote_options *o, uint64_t *out)
{
    if (!o->argument)
        return fr_fail(FR_EINVAL, "no job given");
    FR_TRY(fr_arg_u64("JOB", o->argument, out));
    return *out ? FR_OK : fr_fail(FR_EINVAL, "JOB: '0' is not a job");
}
