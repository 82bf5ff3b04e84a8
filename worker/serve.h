/* serve.h: engine requests in, batches out: the one serving code for draft and target. The leader
 * of a group runs it, in the worker program or in a thread of the coordinator. It connects to the
 * coordinator, registers, and batches all requests continuously: chunked prefill, decode and
 * verification of all jobs share a pass.
 *
 * Idle, it sleeps on its socket. It returns when told to shut down, when *stop becomes non-zero, or
 * on an error of the group, also an idle one's (which it reports to the coordinator first). */
#ifndef FR_SERVE_H
#define FR_SERVE_H

#include <stdatomic.h>

#include "session.h"

typedef struct fr_serve_options {
    const char *endpoint;    /* of the coordinator */
    const char *role;        /* "target" or "draft" */
    const char *name;        /* of the group; NULL: host and pid */
    int prefill_chunk;       /* most prompt rows a pass when others wait; 0: 64 */
    int give_up_ms;          /* end when the coordinator was not heard from for so long; 0: never */
    const atomic_int *stop;  /* may be NULL; looked at at least every 200 ms */
} fr_serve_options;

/* Leader only; the session stays the caller's. */
fr_status fr_serve(fr_session *session, const fr_serve_options *options);

#endif
