/* late.c: see late.h. */
#include "late.h"

#include <dlfcn.h>
#include <string.h>

#include "check.h"

fr_status fr_late_open(const char *library, const fr_late_symbol *symbols, size_t n)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return fr_fail(FR_EUNAVAILABLE, "%s", dlerror()); /* names it */
    for (size_t i = 0; i < n; i++) {
        void *address = dlsym(handle, symbols[i].name);
        if (!address)
            return fr_fail(FR_EUNAVAILABLE, "%s has no %s: another version than built with",
                           library, symbols[i].name);
        memcpy(symbols[i].function, &address, sizeof address);
    }
    return FR_OK;
}
