/* comm_nccl_late.h: NCCL, opened late: before the first call of one of its functions fr_nccl_open() must have said
 * FR_OK. */
#ifndef FR_COMM_NCCL_LATE_H
#define FR_COMM_NCCL_LATE_H

#include "status.h"

/* The first call opens the library. FR_EUNAVAILABLE, with the cause, where it is missing. */
fr_status fr_nccl_open(void);

#endif
