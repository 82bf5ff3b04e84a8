/* link.c: frames over ZeroMQ. The server is a ROUTER, a client a DEALER with a random routing id
 * that it keeps when it reconnects, so a short loss of the network changes nobody's address.
 *
 * Sending never blocks: a peer that does not read fills its own queue and then gives FR_EBUSY, a
 * peer that is gone gives FR_EPEER. ZeroMQ drops the connection of a peer whose frame is over the
 * limit before it is read (not over inproc, where fr_frame_parse() refuses it). CZMQ owns the one
 * context of the process, which inproc needs. */
#include "link.h"

#include <czmq.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "check.h"
#include "frame.h"

#define QUEUE_LEN 4096          /* messages that may wait for one peer */
#define KEEP_BUFFER (1u << 20)  /* a larger send buffer is given back */
#define RECONNECT_MS 50
#define RECONNECT_MAX_MS 1000
#define CLIENT_ID_LEN 16

struct fr_link {
    zsock_t *sock;
    void *handle; /* the same, as libzmq knows it */
    zsock_t *events; /* of a watched link: what ZeroMQ tells of its connections; else NULL */
    int closed;      /* a connection that has closed, which nobody was told yet; 0: none */
    int server;
    size_t max_frame;
    char endpoint[256];
    fr_buf out;
};

static pthread_once_t start_once = PTHREAD_ONCE_INIT;

static void start(void)
{
    /* CZMQ catches SIGINT and SIGTERM unless told not to, and does so on its first use. */
    setenv("ZSYS_SIGHANDLER", "false", 1);
    zsys_init();
    zsys_handler_set(NULL);
}

/* The peer for people: "peer 00a1b2...". */
static const char *peer_name(const fr_peer *p, char *text, size_t cap)
{
    size_t n = (size_t)snprintf(text, cap, "peer ");
    for (int i = 0; i < p->len && i < 8 && n + 3 < cap; i++)
        n += (size_t)snprintf(text + n, cap - n, "%02x", p->id[i]);
    return text;
}

static fr_status set_options(fr_link *l)
{
    const int queue = QUEUE_LEN, zero = 0, one = 1, idle_s = 30, interval_s = 10, probes = 3;
    const int first_ms = RECONNECT_MS, last_ms = RECONNECT_MAX_MS;
    const int64_t limit = (int64_t)l->max_frame;
    const struct {
        int option;
        const void *value;
        size_t size;
        int side; /* 0 both, 1 server, 2 client */
    } all[] = {
        {ZMQ_SNDHWM, &queue, sizeof queue, 0},
        {ZMQ_RCVHWM, &queue, sizeof queue, 0},
        {ZMQ_SNDTIMEO, &zero, sizeof zero, 0},
        {ZMQ_LINGER, &zero, sizeof zero, 0},
        {ZMQ_MAXMSGSIZE, &limit, sizeof limit, 0},
        {ZMQ_TCP_KEEPALIVE, &one, sizeof one, 0},
        {ZMQ_TCP_KEEPALIVE_IDLE, &idle_s, sizeof idle_s, 0},
        {ZMQ_TCP_KEEPALIVE_INTVL, &interval_s, sizeof interval_s, 0},
        {ZMQ_TCP_KEEPALIVE_CNT, &probes, sizeof probes, 0},
        {ZMQ_ROUTER_MANDATORY, &one, sizeof one, 1},
        {ZMQ_ROUTER_HANDOVER, &one, sizeof one, 1},
        {ZMQ_RECONNECT_IVL, &first_ms, sizeof first_ms, 2},
        {ZMQ_RECONNECT_IVL_MAX, &last_ms, sizeof last_ms, 2},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i].side == (l->server ? 2 : 1))
            continue;
        if (zmq_setsockopt(l->handle, all[i].option, all[i].value, all[i].size) != 0)
            return fr_fail(FR_EIO, "%s: cannot set socket option %d: %s", l->endpoint,
                           all[i].option, zmq_strerror(zmq_errno()));
    }
    if (l->server)
        return FR_OK;
    uint8_t id[CLIENT_ID_LEN];
    if (getrandom(id, sizeof id, 0) != (ssize_t)sizeof id)
        return fr_fail(FR_EIO, "no random bytes: %s", strerror(errno));
    id[0] |= 1; /* ids that begin with zero are the router's own */
    if (zmq_setsockopt(l->handle, ZMQ_ROUTING_ID, id, sizeof id) != 0)
        return fr_fail(FR_EIO, "%s: cannot set the routing id: %s", l->endpoint,
                       zmq_strerror(zmq_errno()));
    return FR_OK;
}

/* ZeroMQ takes the socket file of a living server away from it, so ask first whether somebody
 * answers there. */
static int ipc_in_use(const char *endpoint)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strncmp(endpoint, "ipc://", 6) != 0 || strlen(endpoint + 6) >= sizeof address.sun_path)
        return 0;
    strcpy(address.sun_path, endpoint + 6);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int in_use = fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0)
        close(fd);
    return in_use;
}

/* ZeroMQ would take a port modulo 65536. */
static fr_status check_port(const char *endpoint)
{
    const char *port = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", 6) == 0 && port && strtoul(port + 1, NULL, 10) > 65535)
        return fr_fail(FR_EINVAL, "%s: no port has the number %s", endpoint, port + 1);
    return FR_OK;
}

static fr_status bind_or_connect(fr_link *l)
{
    FR_TRY(check_port(l->endpoint));
    if (l->server && ipc_in_use(l->endpoint))
        return fr_fail(FR_EBUSY, "cannot listen on %s: %s", l->endpoint, strerror(EADDRINUSE));
    if ((l->server ? zmq_bind : zmq_connect)(l->handle, l->endpoint) == 0)
        return FR_OK;
    int error = zmq_errno();
    fr_status st = error == EADDRINUSE ? FR_EBUSY
                   : error == EMFILE || error == ENOMEM || error == ETERM ? FR_EIO : FR_EINVAL;
    return fr_fail(st, "cannot %s %s: %s", l->server ? "listen on" : "connect to", l->endpoint,
                   zmq_strerror(error));
}

static fr_status open_link(const char *endpoint, size_t max_frame, int server, fr_link **out)
{
    fr_status st;
    pthread_once(&start_once, start);
    if (strlen(endpoint) >= sizeof ((fr_link *)0)->endpoint)
        return fr_fail(FR_EINVAL, "endpoint of %zu characters is too long", strlen(endpoint));
    fr_link *l = calloc(1, sizeof *l);
    if (!l)
        return fr_no_memory();
    l->server = server;
    l->max_frame = max_frame && max_frame < FR_LINK_MAX_FRAME ? max_frame : FR_LINK_MAX_FRAME;
    strcpy(l->endpoint, endpoint);
    l->sock = zsock_new(server ? ZMQ_ROUTER : ZMQ_DEALER);
    if (!l->sock) {
        st = fr_fail(FR_EIO, "%s: no socket: %s", endpoint, zmq_strerror(zmq_errno()));
        goto fail;
    }
    l->handle = zsock_resolve(l->sock);
    FR_TRY_GOTO(st, set_options(l), fail);
    FR_TRY_GOTO(st, bind_or_connect(l), fail);
    size_t cap = sizeof l->endpoint;
    if (server)
        zmq_getsockopt(l->handle, ZMQ_LAST_ENDPOINT, l->endpoint, &cap);
    *out = l;
    return FR_OK;
fail:
    fr_link_close(&l, 0);
    return st;
}

fr_status fr_link_listen(const char *endpoint, size_t max_frame, fr_link **out)
{
    return open_link(endpoint, max_frame, 1, out);
}

fr_status fr_link_connect(const char *endpoint, size_t max_frame, fr_link **out)
{
    return open_link(endpoint, max_frame, 0, out);
}

fr_status fr_link_watch(fr_link *l)
{
    static atomic_uint n_watched; /* names are not free at once when a link is closed */
    char where[64];
    snprintf(where, sizeof where, "inproc://forerun-events-%u", atomic_fetch_add(&n_watched, 1));
    if (zmq_socket_monitor(l->handle, where, ZMQ_EVENT_DISCONNECTED) != 0 || !(l->events = zsock_new(ZMQ_PAIR)) ||
        zmq_connect(zsock_resolve(l->events), where) != 0)
        return fr_fail(FR_EIO, "%s: cannot watch its connections: %s", l->endpoint, zmq_strerror(zmq_errno()));
    return FR_OK;
}

void fr_link_close(fr_link **l, int linger_ms)
{
    if (!l || !*l)
        return;
    if ((*l)->events) {
        zmq_socket_monitor((*l)->handle, NULL, 0);
        zsock_destroy(&(*l)->events);
    }
    if ((*l)->sock) {
        zmq_setsockopt((*l)->handle, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zsock_destroy(&(*l)->sock);
    }
    fr_buf_free(&(*l)->out);
    free(*l);
    *l = NULL;
}

const char *fr_link_endpoint(const fr_link *l)
{
    return l->endpoint;
}

static fr_status send_failed(const fr_link *l, const fr_peer *to)
{
    char name[32] = "";
    int error = zmq_errno();
    if (l->server)
        peer_name(to, name, sizeof name);
    if (error == EHOSTUNREACH)
        return fr_fail(FR_EPEER, "%s: %s is gone", l->endpoint, name);
    if (error == EAGAIN && l->server)
        return fr_fail(FR_EBUSY, "%s: %s does not read its messages", l->endpoint, name);
    if (error == EAGAIN)
        return fr_fail(FR_EBUSY, "%s: the server does not read its messages", l->endpoint);
    return fr_fail(FR_EIO, "%s: cannot send: %s", l->endpoint, zmq_strerror(error));
}

fr_status fr_link_send(fr_link *l, const fr_peer *to, const fr_msg *m)
{
    fr_status st;
    l->out.len = 0;
    FR_TRY_GOTO(st, fr_frame_begin(&l->out), done);
    FR_TRY_GOTO(st, fr_msg_encode(m, &l->out), done);
    FR_TRY_GOTO(st, fr_frame_end(&l->out, 0, l->max_frame), done);
    /* With the id the router decides whether the rest can go: the frame behind it always fits. */
    if ((l->server && zmq_send(l->handle, to->id, to->len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0) ||
        zmq_send(l->handle, l->out.data, l->out.len, ZMQ_DONTWAIT) < 0)
        st = send_failed(l, to);
done:
    if (l->out.cap > KEEP_BUFFER)
        fr_buf_free(&l->out);
    return st;
}

/* Reads and drops what is left of a multi-part message; 1 when there was something. */
static int drop_parts(fr_link *l)
{
    int more = 0, any = 0;
    for (size_t size = sizeof more;; any = 1) {
        if (zmq_getsockopt(l->handle, ZMQ_RCVMORE, &more, &size) != 0 || !more)
            return any;
        if (zmq_recv(l->handle, NULL, 0, ZMQ_DONTWAIT) < 0)
            return any;
    }
}

/* Receives one part without waiting. */
static fr_status receive_part(fr_link *l, zmq_msg_t *part)
{
    if (zmq_msg_recv(part, l->handle, ZMQ_DONTWAIT) >= 0)
        return FR_OK;
    int error = zmq_errno();
    if (error == EAGAIN)
        return fr_fail(FR_ETIMEDOUT, "%s: no message", l->endpoint);
    if (error == EINTR)
        return fr_fail(FR_ECANCELLED, "%s: interrupted by a signal", l->endpoint);
    return fr_fail(FR_EIO, "%s: cannot receive: %s", l->endpoint, zmq_strerror(error));
}

/* The first part of what a router receives: who sent it. */
static fr_status receive_peer(fr_link *l, fr_peer *from)
{
    zmq_msg_t id;
    zmq_msg_init(&id);
    fr_status st = receive_part(l, &id);
    size_t n = zmq_msg_size(&id);
    if (st == FR_OK && n > sizeof from->id)
        st = fr_fail(FR_EPROTO, "a peer's id of %zu bytes is too long", n);
    if (st == FR_OK) {
        memcpy(from->id, zmq_msg_data(&id), n);
        from->len = (uint8_t)n;
    }
    zmq_msg_close(&id);
    return st;
}

static fr_status receive_body(fr_link *l, fr_peer *from, fr_msg *out)
{
    zmq_msg_t part;
    zmq_msg_init(&part);
    const uint8_t *body = NULL;
    size_t len = 0;
    fr_status st;
    FR_TRY_GOTO(st, receive_part(l, &part), done);
    if (l->events)
        from->connection = zmq_msg_get(&part, ZMQ_SRCFD); /* ZeroMQ knows connections by their file descriptors */
    if (drop_parts(l)) {
        st = fr_fail(FR_EPROTO, "a message of several frames");
        goto done;
    }
    FR_TRY_GOTO(st,
                fr_frame_parse(zmq_msg_data(&part), zmq_msg_size(&part), l->max_frame, &body, &len),
                done);
    st = fr_msg_decode(body, len, out);
done:
    zmq_msg_close(&part);
    return st;
}

static fr_status wait_readable(fr_link *l, int timeout_ms)
{
    zmq_pollitem_t items[] = {{.socket = l->handle, .events = ZMQ_POLLIN},
                              {.socket = l->events ? zsock_resolve(l->events) : NULL, .events = ZMQ_POLLIN}};
    int n = zmq_poll(items, l->events ? 2 : 1, timeout_ms);
    if (n < 0 && zmq_errno() == EINTR)
        return fr_fail(FR_ECANCELLED, "%s: interrupted by a signal", l->endpoint);
    if (n < 0)
        return fr_fail(FR_EIO, "%s: cannot wait: %s", l->endpoint, zmq_strerror(zmq_errno()));
    if (n == 0)
        return fr_fail(FR_ETIMEDOUT, "%s: no message in %d ms", l->endpoint, timeout_ms);
    return FR_OK;
}

static fr_status receive_now(fr_link *l, fr_peer *from, fr_msg *out)
{
    if (l->server) {
        fr_status st = receive_peer(l, from);
        if (st != FR_OK) {
            drop_parts(l);
            return st;
        }
    }
    fr_status st = receive_body(l, from, out);
    if (st == FR_EPROTO) {
        char name[32] = "server";
        fr_fail(st, "%s: %s: %s", l->endpoint,
                l->server ? peer_name(from, name, sizeof name) : name, fr_cause());
    }
    return st;
}

/* Takes in the next of ZeroMQ's events, if there is one: 16 bits of its kind and 32 of the connection, then where. */
static void hear_of_connections(fr_link *l)
{
    struct {
        uint16_t kind;
        int32_t connection;
    } __attribute__((packed)) event;
    zmq_msg_t part;
    zmq_msg_init(&part);
    while (!l->closed && zmq_msg_recv(&part, zsock_resolve(l->events), ZMQ_DONTWAIT) >= 0) {
        if (zmq_msg_size(&part) == sizeof event && zmq_msg_more(&part)) {
            memcpy(&event, zmq_msg_data(&part), sizeof event);
            l->closed = event.connection;
        }
    }
    zmq_msg_close(&part);
}

fr_status fr_link_recv(fr_link *l, int timeout_ms, fr_peer *from, fr_msg *out)
{
    fr_peer peer = {.len = 0};
    *out = (fr_msg){0};
    if (timeout_ms != 0 && !l->closed)
        FR_TRY(wait_readable(l, timeout_ms));
    fr_status st = receive_now(l, &peer, out);
    if (st == FR_ETIMEDOUT && l->events) {
        hear_of_connections(l);
        if (l->closed) /* the last that came by it may have come since */
            st = receive_now(l, &peer, out);
        if (st == FR_ETIMEDOUT && l->closed) {
            peer.connection = l->closed;
            l->closed = 0;
            st = fr_fail(FR_EPEER, "%s: a connection was closed", l->endpoint);
        }
    }
    if (from)
        *from = peer;
    return st;
}

int fr_peer_equal(const fr_peer *a, const fr_peer *b)
{
    return a->len == b->len && memcmp(a->id, b->id, a->len) == 0;
}

fr_status fr_link_poll(fr_link *const *links, int n_links, const int *fds, int n_fds,
                       int timeout_ms, int *ready)
{
    enum { N_INLINE = 16 };
    zmq_pollitem_t inline_items[N_INLINE], *items = inline_items;
    fr_status st = FR_OK;
    int n = n_links + n_fds;
    if (n > N_INLINE && !(items = calloc((size_t)n, sizeof *items)))
        return fr_no_memory();
    for (int i = 0; i < n; i++)
        items[i] = i < n_links
                       ? (zmq_pollitem_t){links[i]->handle, 0, ZMQ_POLLIN, 0}
                       : (zmq_pollitem_t){NULL, fds[i - n_links], ZMQ_POLLIN | ZMQ_POLLERR, 0};
    if (zmq_poll(items, n, timeout_ms) < 0)
        st = zmq_errno() == EINTR
                 ? fr_fail(FR_ECANCELLED, "interrupted by a signal")
                 : fr_fail(FR_EIO, "cannot wait for sockets: %s", zmq_strerror(zmq_errno()));
    for (int i = 0; i < n; i++)
        ready[i] = st == FR_OK && items[i].revents != 0;
    if (items != inline_items)
        free(items);
    return st;
}
