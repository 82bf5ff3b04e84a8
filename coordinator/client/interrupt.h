/* interrupt.h: Ctrl-C and its kin (SIGINT, SIGTERM, SIGHUP) as a question the waiting loops ask, so
 * that a job is cancelled and children are stopped in order. A second Ctrl-C changes nothing: the
 * stop is already under way, and bounded. */
#ifndef FR_INTERRUPT_H
#define FR_INTERRUPT_H

#include "status.h"

/* From now on these signals only set the mark (and cut waits short). */
void fr_interrupt_arm(void);
int fr_interrupted(void);
/* FR_ECANCELLED "cancelled" when the mark is set. */
fr_status fr_interrupt_check(void);

#endif
