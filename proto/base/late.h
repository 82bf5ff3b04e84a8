/* late.h: a shared library that is opened when it is first needed, so that a program starts, and costs nothing, where
 * nobody needs it or it is missing. Libraries are looked for as the linker's are: the program's rpath, LD_LIBRARY_PATH,
 * the system's folders. They are never closed. */
#ifndef FR_LATE_H
#define FR_LATE_H

#include <stddef.h>

#include "status.h"

typedef struct fr_late_symbol {
    const char *name;
    void *function; /* of a function pointer: where the address goes */
} fr_late_symbol;

/* Opens `library` ("libx.so.2") and finds all of symbols [n]. FR_EUNAVAILABLE: it is missing, or one of them is. */
fr_status fr_late_open(const char *library, const fr_late_symbol *symbols, size_t n);

#endif
