/* cublas_lt_late.h: cuBLASLt, opened late: before the first call of one of its functions fr_cublas_lt_open() must have
 * said FR_OK. */
#ifndef FR_CUBLAS_LT_LATE_H
#define FR_CUBLAS_LT_LATE_H

#include "status.h"

/* The first call opens the library, 0.5 GB: 60 ms or more. FR_EUNSUPPORTED, with the cause, where it is missing. */
fr_status fr_cublas_lt_open(void);

#endif
