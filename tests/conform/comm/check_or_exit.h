/* check_or_exit.h: CHECK for programs that run as ranks: the first check that fails says so and ends its process; the
 * launcher or a time-out ends the others. */
#ifndef FR_CHECK_OR_EXIT_H
#define FR_CHECK_OR_EXIT_H

#include <stdio.h>
#include <stdlib.h>

#include "status.h"

#define CHECK(condition, ...)                                               \
    do {                                                                    \
        if (!(condition)) {                                                 \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
            fprintf(stderr, __VA_ARGS__);                                   \
            fprintf(stderr, " (cause: %s)\n", fr_cause());                  \
            exit(1);                                                        \
        }                                                                   \
    } while (0)

#endif
