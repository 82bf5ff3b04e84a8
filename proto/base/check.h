/* check.h: passing a status up without losing its cause. */
#ifndef FR_CHECK_H
#define FR_CHECK_H

#include "status.h"

/* Returns from the calling function with the status unchanged when `expr` fails. */
#define FR_TRY(expr)                 \
    do {                             \
        fr_status fr_try_ = (expr);  \
        if (fr_try_ != FR_OK)        \
            return fr_try_;          \
    } while (0)

/* In a constructor: keeps the status in `st` and jumps to the clean-up label. */
#define FR_TRY_GOTO(st, expr, label) \
    do {                             \
        (st) = (expr);               \
        if ((st) != FR_OK)           \
            goto label;              \
    } while (0)

#endif
