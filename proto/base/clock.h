/* clock.h: monotonic time. */
#ifndef FR_CLOCK_H
#define FR_CLOCK_H

#include <stdint.h>

/* Nanoseconds of the monotonic clock. */
uint64_t fr_now_ns(void);
/* Seconds of the monotonic clock. */
double fr_now_s(void);
/* Milliseconds since the Unix epoch, for records that outlive the process. */
int64_t fr_wall_ms(void);
/* Sleeps; signals may cut it short. */
void fr_sleep_ms(unsigned ms);

#endif
