/* grow.h: makes room in an array that doubles as it fills. */
#ifndef FR_GROW_H
#define FR_GROW_H

#include <stddef.h>

#include "status.h"

/* *array (NULL when empty) holds *cap elements of `size` bytes; afterwards at least `want`. On failure nothing changes.
 * The caller frees the array. */
fr_status fr_grow(void **array, int *cap, int want, size_t size);

#endif
