/* log.c: see log.h. */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static char prefix[64] = "forerun";
static fr_log_level threshold = FR_LOG_INFO;

void fr_log_open(const char *name, fr_log_level level)
{
    snprintf(prefix, sizeof prefix, "%s", name);
    threshold = level;
}

void fr_log(fr_log_level level, const char *fmt, ...)
{
    static const char *const mark[] = {"error: ", "warning: ", "", "debug: "};
    if (level > threshold)
        return;
    char line[1024];
    int n = snprintf(line, sizeof line, "%s: %s", prefix, mark[level]);
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    va_end(ap);
    n += more < 0 ? 0 : more;
    if (n > (int)sizeof line - 2)
        n = (int)sizeof line - 2;
    line[n++] = '\n';
    /* A log that cannot be written has nowhere to complain. */
    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        return;
}
