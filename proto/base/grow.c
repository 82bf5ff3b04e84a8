/* grow.c: see grow.h. */
#include "grow.h"

#include <limits.h>
#include <stdlib.h>

fr_status fr_grow(void **array, int *cap, int want, size_t size)
{
    if (want <= *cap)
        return FR_OK;
    if (want > INT_MAX / 2)
        return fr_no_memory();
    int n = *cap ? *cap : 16;
    while (n < want)
        n *= 2;
    void *p = realloc(*array, (size_t)n * size);
    if (!p)
        return fr_no_memory();
    *array = p;
    *cap = n;
    return FR_OK;
}
