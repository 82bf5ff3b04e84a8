/* watch.h: clients that watch jobs. A watcher is a cursor into the job's stored steps: what is new
 * in the store is sent, so replay and live steps are the same thing, everything shown is durable,
 * and a slow client costs no memory: it is simply behind, skips progress messages, and is dropped
 * when it does not read for long. It ends with Done. */
#ifndef FR_WATCH_H
#define FR_WATCH_H

#include "jobs.h"
#include "link.h"

typedef struct fr_client {
    int link;
    fr_peer peer;
    uint64_t tag; /* of the request; copied into every reply */
} fr_client;

typedef struct fr_watchers fr_watchers;

/* send: FR_EBUSY when the client does not read, any other error when it is gone. */
typedef fr_status (*fr_watch_send)(void *ctx, const fr_client *to, const fr_msg *m);

fr_status fr_watchers_new(fr_jobs *jobs, fr_store *store, fr_watch_send send, void *ctx,
                          fr_watchers **out);
void fr_watchers_free(fr_watchers **w);
/* FR_ELIMIT when there are too many. */
fr_status fr_watchers_add(fr_watchers *w, const fr_client *client, uint64_t job,
                          uint32_t from_step);
/* Sends what is new. held: the last flush failed, so only what was stored before it counts: its steps, and the ends of
 * jobs whose end is stored. */
void fr_watchers_pump(fr_watchers *w, int held, double now);
/* When there is something to send without a message coming in. */
double fr_watchers_deadline(const fr_watchers *w);
/* Tells all that the coordinator leaves, and forgets them. */
void fr_watchers_dismiss(fr_watchers *w, const char *why);
int fr_watchers_count(const fr_watchers *w);

/* The stored job as Done tells it: calls fn with an info that borrows everything, text included.
 * FR_ENOTFOUND. */
typedef fr_status (*fr_info_fn)(void *ctx, const fr_msg_job_info *info);
fr_status fr_stored_info(fr_store *store, uint64_t job, fr_info_fn fn, void *ctx);

#endif
