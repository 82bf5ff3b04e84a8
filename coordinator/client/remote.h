/* remote.h: what the commands on a running cluster share: --connect, --json and at most one
 * argument. */
#ifndef FR_REMOTE_H
#define FR_REMOTE_H

#include <argp.h>

#include "call.h"
#include "config.h"

typedef struct fr_remote_options {
    const char *connect; /* NULL: FORERUN_CONNECT, else the default endpoint */
    int json;
    int takes_argument;  /* set by the command before parsing */
    const char *argument;
} fr_remote_options;

/* Input: fr_remote_options *. */
extern const struct argp fr_remote_argp;

/* Connects to the cluster of the options. */
fr_status fr_remote_open(const fr_remote_options *o, fr_call *out);
/* The argument as a job's number: FR_EINVAL when it is none, or missing. */
fr_status fr_remote_job(const fr_remote_options *o, uint64_t *out);

#endif
