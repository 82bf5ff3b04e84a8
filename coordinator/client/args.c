/* args.c: see args.h. */
#include "args.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

fr_status fr_arg_int(const char *option, const char *text, int min, int max, int *out)
{
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < min || v > max)
        return fr_fail(FR_EINVAL, "%s: '%.64s' is not a whole number from %d to %d", option, text,
                       min, max);
    *out = (int)v;
    return FR_OK;
}

fr_status fr_arg_u64(const char *option, const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || end == text || *end || strchr(text, '-'))
        return fr_fail(FR_EINVAL, "%s: '%.64s' is not a whole number from 0 to 2^64 - 1", option,
                       text);
    *out = v;
    return FR_OK;
}

fr_status fr_arg_double(const char *option, const char *text, double min, double max, double *out)
{
    char *end;
    errno = 0;
    double v = strtod(text, &end);
    if (errno || end == text || *end || !isfinite(v) || v < min || v > max)
        return fr_fail(FR_EINVAL, "%s: '%.64s' is not a number from %g to %g", option, text, min,
                       max);
    *out = v;
    return FR_OK;
}

error_t fr_arg_error(fr_status st)
{
    return st == FR_OK ? 0 : EINVAL;
}

fr_status fr_args_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    error_t e = argp_parse(argp, argc, argv, 0, NULL, input);
    if (e == 0)
        return FR_OK;
    if (e == ENOMEM)
        return fr_no_memory();
    return FR_EINVAL; /* the parser function wrote the cause */
}
