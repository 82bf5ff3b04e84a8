/* loop.h: the coordinator: one poll loop that owns all state (jobs, groups, calls, store) and both
 * links: the bound endpoint, where engines and clients come in and are told apart by what they say,
 * and one inside the process for the drafter. It sleeps on its sockets; timers exist only for what
 * is waited for. One thread opens, runs and closes it. */
#ifndef FR_LOOP_H
#define FR_LOOP_H

#include "status.h"

typedef struct fr_coordinator fr_coordinator;

typedef struct fr_coordinator_options {
    const char *bind;  /* endpoint; port 0 or * takes a free one */
    const char *inner; /* inproc:// endpoint of a drafter in this process; NULL: none */
    const char *store; /* file; NULL: jobs end with the process */
    int heartbeat_ms;  /* of groups */
    int dead_after_ms; /* 0: three heartbeats */
    int max_running;   /* jobs at once */
    int overlap;  /* draft while the target verifies: 0, 1; -1: when there are cores for both */
    int grace_ms; /* how long a job that can do without a draft group waits for one */
    int wake_fd;  /* readable: woken() is called; -1: none */
    void (*woken)(void *ctx);
    void *ctx;
} fr_coordinator_options;

#define FR_COORDINATOR_OPTIONS                                                                 \
    {                                                                                          \
        .bind = "tcp://127.0.0.1:7077", .heartbeat_ms = 1000, .max_running = 8, .overlap = -1, \
        .grace_ms = 2000, .wake_fd = -1                                                        \
    }

/* FR_EBUSY when the port or the store is taken; also what fr_store_open and fr_link_listen say. */
fr_status fr_coordinator_open(const fr_coordinator_options *options, fr_coordinator **out);
const char *fr_coordinator_endpoint(const fr_coordinator *c); /* with the real port */
/* Returns FR_OK when told to stop, by a client or by fr_coordinator_stop(). */
fr_status fr_coordinator_run(fr_coordinator *c);
/* From woken(): leave at the end of this turn. */
void fr_coordinator_stop(fr_coordinator *c);
/* From woken(): the drafter of this process is gone for good; nobody waits for it any more. */
void fr_coordinator_no_drafter(fr_coordinator *c);
/* Tells groups to shut down and watchers that it leaves; running jobs stay stored as such. For
 * close, or before it, when something is to happen between the two. NULL is fine. */
void fr_coordinator_farewell(fr_coordinator *c);
void fr_coordinator_close(fr_coordinator **c);

#endif
