/* status.c: status texts and the per-thread cause. */
#include "status.h"

#include <stdio.h>

static _Thread_local char cause[512];

const char *fr_status_text(fr_status st)
{
    switch (st) {
#define X(name, code, text) \
    case name:              \
        return text;
        FR_STATUS_MAP(X)
#undef X
    }
    return "unknown status";
}

fr_status fr_vfail(fr_status st, const char *fmt, va_list ap)
{
    /* Through a second buffer, so that the old cause may be among the arguments. */
    char text[sizeof cause];
    vsnprintf(text, sizeof text, fmt, ap);
    snprintf(cause, sizeof cause, "%s", text);
    return st;
}

fr_status fr_fail(fr_status st, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fr_vfail(st, fmt, ap);
    va_end(ap);
    return st;
}

const char *fr_cause(void)
{
    return cause;
}

fr_status fr_no_memory(void)
{
    return fr_fail(FR_ENOMEM, "out of memory");
}
