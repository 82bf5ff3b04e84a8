/* finite.h: finds weights that are no numbers. A NaN in one matrix makes every logit NaN, far from
 * its cause; so what a rank is about to hold is looked through once, where its tensor's name is known. */
#ifndef FR_FINITE_H
#define FR_FINITE_H

#include <stdint.h>

#include "dtype.h"

/* The first of n values (a multiple of the block) at src that is infinite or NaN, or whose block has
 * such a scale; -1 when all are finite. */
int64_t fr_first_not_finite(fr_dtype t, const void *src, int64_t n);

#endif
