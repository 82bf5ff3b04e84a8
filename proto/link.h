/* link.h: framed sockets; link.c is the only file that sees zmq/czmq. A frame is a 8-byte header
 * (magic "FRN", protocol version, body length) and one encoded message; anything else, and frames
 * over the limit, are refused by an error that names the peer, and never reach the codec. A link
 * belongs to the thread that opened it.
 *
 * Server: a ROUTER; peers are told apart by fr_peer. Client: a DEALER that reconnects by itself.
 * Endpoints are ZeroMQ's: tcp://host:port, ipc://path, inproc://name (one process; share one
 * fr_link_context). */
#ifndef FR_LINK_H
#define FR_LINK_H

#include "codec.h"

#define FR_LINK_VERSION 1
#define FR_LINK_MAX_FRAME (64u << 20) /* bytes of a frame unless the options say less */

typedef struct fr_link fr_link;

typedef struct fr_peer {
    uint8_t id[32];
    uint8_t len;
    int connection; /* of a watched link: by which the message came, while it lasts; else 0 */
} fr_peer;

/* Binds. FR_EBUSY when the port is taken (the cause names the endpoint), FR_EINVAL for a malformed
 * endpoint. A port 0 or "*" takes any free one; fr_link_endpoint() tells. max_frame 0:
 * FR_LINK_MAX_FRAME. */
fr_status fr_link_listen(const char *endpoint, size_t max_frame, fr_link **out);
/* Connects (asynchronously; a server may come later). */
fr_status fr_link_connect(const char *endpoint, size_t max_frame, fr_link **out);
/* From now on fr_link_recv() tells of every connection that closes, as when the process at its other end dies: once all
 * that came by it was received, FR_EPEER, with from->connection. A client reconnects as before. Before the first
 * fr_link_recv(). */
fr_status fr_link_watch(fr_link *l);
/* Pending frames get linger_ms to leave. NULL is fine. */
void fr_link_close(fr_link **l, int linger_ms);
const char *fr_link_endpoint(const fr_link *l); /* with the real port */

/* Sends; `to` is NULL on a client. FR_EPEER when the server's peer is gone, FR_ELIMIT for a frame
 * over the limit. */
fr_status fr_link_send(fr_link *l, const fr_peer *to, const fr_msg *m);
/* Receives one message: FR_ETIMEDOUT when none came in timeout_ms (0: only look; -1: wait).
 * FR_EPROTO for a malformed frame: `from` is set, so the server can answer, and the link stays
 * usable. FR_EPEER only of a watched link. */
fr_status fr_link_recv(fr_link *l, int timeout_ms, fr_peer *from, fr_msg *out);
int fr_peer_equal(const fr_peer *a, const fr_peer *b);

/* Waits until one of the links has a message, one of the file descriptors is readable, or the time
 * is over. ready[i] is set for links first, then descriptors. FR_ECANCELLED when a signal
 * interrupted the wait. */
fr_status fr_link_poll(fr_link *const *links, int n_links, const int *fds, int n_fds,
                       int timeout_ms, int *ready);

#endif
