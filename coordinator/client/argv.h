/* argv.h: the argument vector of a program to start, built piece by piece. */
#ifndef FR_ARGV_H
#define FR_ARGV_H

#include <stddef.h>

#include "status.h"

/* Zero-initialise. v is NULL-terminated once anything was added; the strings are owned. */
typedef struct fr_argv {
    char **v;
    size_t n, cap;
} fr_argv;

fr_status fr_argv_add(fr_argv *a, const char *text);
fr_status fr_argv_addf(fr_argv *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds "option" "text" when text is not NULL. */
fr_status fr_argv_option(fr_argv *a, const char *option, const char *text);
/* Adds "option" "value" when the value is not 0. */
fr_status fr_argv_option_int(fr_argv *a, const char *option, long long value);
/* Adds the words of text, split at blanks. */
fr_status fr_argv_words(fr_argv *a, const char *text);
/* Begins `mpirun -n ranks`, with what Forerun's groups need: ranks not bound and, beyond the cores,
 * yielding instead of spinning; as root where the user is. `launcher`: more mpirun arguments, split
 * at blanks; may be NULL. */
fr_status fr_argv_mpirun(fr_argv *a, int ranks, const char *launcher);
void fr_argv_free(fr_argv *a);

#endif
