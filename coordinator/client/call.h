/* call.h: the client's side of the coordinator's API: requests with their replies, and the events
 * of one job. One thread; waits end early with FR_ECANCELLED when the user interrupts
 * (interrupt.h). */
#ifndef FR_CALL_H
#define FR_CALL_H

#include "link.h"

#define FR_CALL_ANSWER_MS 3000 /* a cluster that is there answers within this */

typedef struct fr_call {
    fr_link *link;
    char endpoint[256];
    uint64_t last_tag;
} fr_call;

/* Connects; whether somebody is there shows with the first request. */
fr_status fr_call_open(const char *endpoint, fr_call *out);
void fr_call_close(fr_call *c, int linger_ms); /* a zeroed one is fine */

/* Sends a request under a tag of its own (left in m->tag). */
fr_status fr_call_send(fr_call *c, fr_msg *m);
/* The next message of any kind: FR_ETIMEDOUT when none came. Release it with fr_msg_free(). */
fr_status fr_call_next(fr_call *c, int timeout_ms, fr_msg *out);
/* Sends and waits for the reply, which is of kind `want`; what else comes meanwhile is dropped. While the coordinator
 * tells what the reply waits for, that is logged, and timeout_ms begins anew. Its Error becomes the returned status and
 * cause; silence FR_EUNAVAILABLE "no cluster at ENDPOINT". */
fr_status fr_call_ask(fr_call *c, fr_msg *m, fr_msg_kind want, int timeout_ms, fr_msg *reply_out);
/* Submits a job. watch: its events follow, as fr_call_follow() takes them. */
fr_status fr_call_submit(fr_call *c, const fr_msg_job_spec *spec, int watch, uint64_t *job_out);

/* What a job waits for, as it was logged last; zero-initialise. */
typedef struct fr_waits {
    uint64_t job;
    char told[80]; /* "": for nothing */
} fr_waits;

/* Logs what that job, if it is in the reply and not over, waits for, unless that was logged last. */
void fr_waits_hear(fr_waits *w, uint64_t job, const fr_msg_status_reply *reply);

/* What to do with the events of a job; an error ends the following. NULL members are skipped. */
typedef struct fr_follower {
    void *ctx;
    fr_status (*step)(void *ctx, const fr_msg_step *step);
    fr_status (*progress)(void *ctx, const fr_msg_progress *progress);
    fr_status (*idle)(void *ctx); /* some times a second while nothing comes */
} fr_follower;

/* Follows a job to its end. subscribed: the job was submitted with `watch`. Steps before from_step
 * are left out, none comes twice. When the coordinator falls silent it is asked again, and again
 * after it was restarted; after a minute without a word FR_EUNAVAILABLE. What a job that does not
 * begin waits for is logged. done_out->body.done is the end, of a failed job too; release with
 * fr_msg_free(). */
fr_status fr_call_follow(fr_call *c, uint64_t job, uint32_t from_step, int subscribed,
                         const fr_follower *f, fr_msg *done_out);

/* The status a finished job ended with, its cause recorded: FR_OK when it is done. */
fr_status fr_job_status(const fr_msg_job_info *job);

#endif
