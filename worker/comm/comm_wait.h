/* comm_wait.h: one wait for other ranks and what ends it (fr_comm_patience). */
#ifndef FR_COMM_WAIT_H
#define FR_COMM_WAIT_H

#include "comm.h"

enum { FR_COMM_LOOK_MS = 200 }; /* a wait that sleeps looks at its stop so often */

typedef struct fr_comm_wait {
    fr_comm_patience patience;
    uint64_t end, stop_end; /* of the monotonic clock; 0: not set */
} fr_comm_wait;

/* It begins now. */
fr_comm_wait fr_comm_wait_begin(fr_comm_patience patience);
/* FR_ETIMEDOUT or FR_ECANCELLED when it is over: the caller knows who was waited for, and writes the cause. */
fr_status fr_comm_wait_check(fr_comm_wait *w);
/* How long it may sleep until it checks again; -1: for ever. */
int fr_comm_wait_sleep_ms(const fr_comm_wait *w);

#endif
