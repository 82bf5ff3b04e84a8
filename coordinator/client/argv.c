/* argv.c: see argv.h. */
#include "argv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

static fr_status add_owned(fr_argv *a, char *text)
{
    if (!text)
        return fr_no_memory();
    if (a->n + 2 > a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 16;
        char **grown = realloc(a->v, cap * sizeof *grown);
        if (!grown) {
            free(text);
            return fr_no_memory();
        }
        a->v = grown;
        a->cap = cap;
    }
    a->v[a->n++] = text;
    a->v[a->n] = NULL;
    return FR_OK;
}

fr_status fr_argv_add(fr_argv *a, const char *text)
{
    return add_owned(a, strdup(text));
}

fr_status fr_argv_addf(fr_argv *a, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    return add_owned(a, n < 0 ? NULL : text);
}

fr_status fr_argv_option(fr_argv *a, const char *option, const char *text)
{
    if (!text)
        return FR_OK;
    FR_TRY(fr_argv_add(a, option));
    return fr_argv_add(a, text);
}

fr_status fr_argv_option_int(fr_argv *a, const char *option, long long value)
{
    if (value == 0)
        return FR_OK;
    FR_TRY(fr_argv_add(a, option));
    return fr_argv_addf(a, "%lld", value);
}

fr_status fr_argv_words(fr_argv *a, const char *text)
{
    while (*(text += strspn(text, " \t"))) {
        size_t n = strcspn(text, " \t");
        FR_TRY(add_owned(a, strndup(text, n)));
        text += n;
    }
    return FR_OK;
}

fr_status fr_argv_mpirun(fr_argv *a, int ranks, const char *launcher)
{
    FR_TRY(fr_argv_words(
        a, "mpirun --quiet --bind-to none --oversubscribe --mca mpi_yield_when_idle 1"));
    if (geteuid() == 0) /* mpirun asks for this twice over; in containers root is the user */
        FR_TRY(fr_argv_add(a, "--allow-run-as-root"));
    if (launcher)
        FR_TRY(fr_argv_words(a, launcher));
    FR_TRY(fr_argv_add(a, "-n"));
    return fr_argv_addf(a, "%d", ranks);
}

void fr_argv_free(fr_argv *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->v[i]);
    free(a->v);
    memset(a, 0, sizeof *a);
}
