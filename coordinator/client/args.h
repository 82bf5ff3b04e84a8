/* args.h: option texts to numbers, and argp run so that every error is one line and exit code 2.
 * The readers name the option and the offending text in the cause: FR_EINVAL. */
#ifndef FR_ARGS_H
#define FR_ARGS_H

#include <argp.h>
#include <stdint.h>

#include "status.h"

fr_status fr_arg_int(const char *option, const char *text, int min, int max, int *out);
fr_status fr_arg_u64(const char *option, const char *text, uint64_t *out);
fr_status fr_arg_double(const char *option, const char *text, double min, double max, double *out);

/* Parses the command line. A parser function reports an error by returning fr_arg_error(status)
 * after fr_fail(). --help and usage errors that getopt finds end the process (0 and 2). */
fr_status fr_args_parse(const struct argp *argp, int argc, char **argv, void *input);
/* A status as argp parsers return it: 0, or an errno that argp passes up. */
error_t fr_arg_error(fr_status st);

#endif
