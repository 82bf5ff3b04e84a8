/* status.h: what every fallible function of Forerun returns, and the text of the first cause.
 *
 * 0 is success, negative is an error. The first to detect an error writes its exact cause with fr_fail(); callers pass
 * the status up unchanged (check.h), so the cause reaches the user, another rank or the API as it was written.
 * The text is per thread and stays until the next fr_fail() on that thread. */
#ifndef FR_STATUS_H
#define FR_STATUS_H

#include <stdarg.h>

#define FR_STATUS_MAP(X)                                                                           \
    X(FR_OK, 0, "ok")                                                                              \
    X(FR_ENOMEM, -1, "out of memory")                                                              \
    X(FR_EFORMAT, -2, "malformed input")                                                           \
    X(FR_EUNSUPPORTED, -3, "unsupported")                                                          \
    X(FR_EINVAL, -4, "invalid argument")                                                           \
    X(FR_EIO, -5, "input/output error")                                                            \
    X(FR_ENOTFOUND, -6, "not found")                                                               \
    X(FR_ELIMIT, -7, "limit exceeded")                                                             \
    X(FR_EBUSY, -8, "in use")                                                                      \
    X(FR_EMISMATCH, -9, "mismatch")                                                                \
    X(FR_ECANCELLED, -10, "cancelled")                                                             \
    X(FR_EUNAVAILABLE, -11, "unavailable")                                                         \
    X(FR_ETIMEDOUT, -12, "timed out")                                                              \
    X(FR_EPROTO, -13, "protocol error")                                                            \
    X(FR_ENEEDPREFIX, -14, "prefix not cached")                                                    \
    X(FR_EPEER, -15, "peer lost")

#define X(name, code, text) name = code,
typedef enum { FR_STATUS_MAP(X) } fr_status;
#undef X

/* Short fixed text of a status ("out of memory"); never NULL. */
const char *fr_status_text(fr_status st);

/* Records the cause for this thread and returns `st`. `st` must not be FR_OK. */
fr_status fr_fail(fr_status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
fr_status fr_vfail(fr_status st, const char *fmt, va_list ap);

/* The cause recorded last on this thread; "" when none. Valid until the next fr_fail() on this thread. */
const char *fr_cause(void);

/* FR_ENOMEM with the standard text. */
fr_status fr_no_memory(void);

#endif
