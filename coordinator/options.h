/* options.h: the command line of forerun-coordinator. */
#ifndef FR_OPTIONS_H
#define FR_OPTIONS_H

#include "draft_weights.h"
#include "gpu_list.h"
#include "log.h"
#include "loop.h"

typedef struct fr_options {
    fr_coordinator_options coordinator;
    const char *draft, *draft_backend; /* path of a model; NULL: no drafter here */
    int draft_threads, draft_context, draft_vocab;
    fr_draft_weights draft_weights;
    fr_gpu_list draft_gpu; /* one, or as it comes */
    const char *ready_file;
    const char *advertise; /* host that others reach this one by */
    fr_log_level log;
} fr_options;

/* Bad usage prints a line; a value that is not possible then ends the process with status 2, and
 * an option that is not known, or has no value, is FR_EINVAL. --help and --version end it with
 * 0. */
fr_status fr_options_parse(int argc, char **argv, fr_options *out);

#endif
