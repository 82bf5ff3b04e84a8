/* room.h: who gives way when the cache is full.
 *
 * Jobs have an order: the smaller number is the older one, and requests are listed in it. Room is taken from the
 * youngest job, whether its sequence is worked on or idle, a page at a time from its end, and never from an older one:
 * a job whose sequence is idle between two verifications would have to compute it again, and take the room back, again
 * and again. So the oldest jobs that fit keep their places, and the others wait.
 *
 * An idle sequence whose job does not come back gives way to everyone once it has been idle for about as long as it
 * would take to compute it, and that of whoever takes its room, again. Then waiting has cost as much as the mistake
 * would. */
#ifndef FR_ROOM_H
#define FR_ROOM_H

#include "requests.h"

/* The moment of a pass, and what the group's passes took up to it. */
typedef struct fr_room_time {
    double now_s, row_s; /* row_s: seconds of one row among many */
} fr_room_time;

/* Frees a page, or what shares one, for r; not of requests in the pass. 0: none gives way to r. */
int fr_room_make(fr_requests *t, const fr_request *r, const fr_room_time *time);
/* Parked requests go on where there is room for all their ids, and some for older jobs to grow. Before a pass is
 * built. */
void fr_room_admit(fr_requests *t, const fr_room_time *time);
/* Seconds until another older job's idle sequence gives way to r; 0: there is none to wait for. */
double fr_room_wait_s(const fr_requests *t, const fr_request *r, const fr_room_time *time);

#endif
