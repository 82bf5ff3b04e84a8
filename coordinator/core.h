/* core.h: the parts of a coordinator, for the files that handle messages (engines.c, api.c,
 * watch.c). The loop owns it all; there is one thread. */
#ifndef FR_CORE_H
#define FR_CORE_H

#include "jobs.h"
#include "link.h"
#include "log_limit.h"
#include "watch.h"

enum {
    FR_LINK_OUTER,
    FR_LINK_INNER,
    FR_N_LINKS
}; /* the bound endpoint; the in-process drafter's */

/* A reply that must wait until what it tells is durable. */
typedef struct fr_ack {
    fr_msg_kind kind; /* FR_MSG_SUBMITTED, FR_MSG_OK */
    fr_client client;
    uint64_t job;
} fr_ack;

typedef struct fr_core {
    fr_link *links[FR_N_LINKS];
    int n_links;
    fr_registry *registry;
    fr_calls *calls;
    fr_store *store;
    fr_jobs *jobs;
    fr_watchers *watchers;
    fr_job_env env;
    fr_ack *acks;
    size_t n_acks, cap_acks;
    double started;        /* monotonic */
    int draining;          /* no new jobs; ends when none runs */
    int stop;              /* leave the loop */
    uint64_t malformed;    /* frames */
    fr_log_limit warnings; /* that any peer can cause */
} fr_core;

/* To any peer; a failure is the caller's to judge. */
fr_status fr_core_send(fr_core *core, int link, const fr_peer *to, const fr_msg *m);
/* To a client, with its tag; a client that is gone or does not read loses the reply. */
void fr_core_reply(fr_core *core, const fr_client *to, fr_msg *m);
void fr_core_reply_error(fr_core *core, const fr_client *to, fr_status status, const char *cause,
                         uint64_t job);
/* After the next successful flush. Until then the client is told what its reply waits for. */
fr_status fr_core_ack(fr_core *core, const fr_ack *ack);
/* Makes durable what is queued, and sends the replies that waited for that. What fr_store_flush() fails of; then all is
 * still queued. */
fr_status fr_core_flush(fr_core *core);
/* The group is dead; its calls wait for another. */
void fr_core_lose_group(fr_core *core, fr_group *g, const char *why, double now);

/* Message handlers; each tells whether the kind was its own. */
int fr_engines_handle(fr_core *core, int link, const fr_peer *from, const fr_msg *m, double now);
int fr_api_handle(fr_core *core, const fr_client *from, const fr_msg *m, double now);

#endif
