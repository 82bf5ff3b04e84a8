/* log_limit.h: keeps what peers can cause as often as they like from filling the log: the first few
 * lines of a second are written, the others counted. The caller writes the lines and the count.
 * Times are seconds of the monotonic clock. */
#ifndef FR_LOG_LIMIT_H
#define FR_LOG_LIMIT_H

#include <stdint.h>

#define FR_LOG_LIMIT_LINES 5 /* a second */

typedef struct fr_log_limit { /* all zero at first */
    double since;             /* the second began */
    int written;
    uint64_t left_out;
} fr_log_limit;

/* 1: the line may be written. 0: it is left out, and counted. */
int fr_log_limit_pass(fr_log_limit *l, double now);
/* How many were left out, once the second is over; each is counted once. No line passes before. */
uint64_t fr_log_limit_count(fr_log_limit *l, double now);
/* When the count is due; INFINITY: nothing was left out. */
double fr_log_limit_deadline(const fr_log_limit *l);

#endif
