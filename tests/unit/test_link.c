/* test_link.c: both ends of a link over inproc, ipc and tcp, and peers that break the rules: raw
 * ZeroMQ sockets and raw TCP connections that send what is not a frame, frames over the limit,
 * other versions, and peers that vanish. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <zmq.h>

#include "clock.h"
#include "frame.h"
#include "link.h"

#define WAIT_MS 5000

static const char *const transports[] = {"inproc://test_link_%d_%d", "tcp://127.0.0.1:*",
                                         "ipc:///tmp/test_link_%d_%d"};

/* Every listener has an endpoint of its own: ZeroMQ lets go of a closed one only after a while. */
static fr_link *listen_on(const char *endpoint, size_t max_frame)
{
    static int serial;
    char text[128];
    const char *scheme_end = strstr(endpoint, "%d");
    int head = scheme_end ? (int)(scheme_end - endpoint) : (int)strlen(endpoint);
    snprintf(text, sizeof text, "%.*s", head, endpoint);
    if (scheme_end)
        snprintf(text + head, sizeof text - (size_t)head, "%d_%d", getpid(), serial++);
    fr_link *l = NULL;
    assert_int_equal(fr_link_listen(text, max_frame, &l), FR_OK);
    return l;
}

static fr_link *connect_to(const fr_link *server)
{
    fr_link *l = NULL;
    assert_int_equal(fr_link_connect(fr_link_endpoint(server), 0, &l), FR_OK);
    return l;
}

static void send_ok(fr_link *l, const fr_peer *to, uint64_t job)
{
    assert_int_equal(fr_link_send(l, to, &(fr_msg){.kind = FR_MSG_OK, .body.ok.job = job}), FR_OK);
}

static uint64_t receive_ok(fr_link *l, fr_peer *from)
{
    fr_msg m;
    assert_int_equal(fr_link_recv(l, WAIT_MS, from, &m), FR_OK);
    assert_int_equal(m.kind, FR_MSG_OK);
    uint64_t job = m.body.ok.job;
    fr_msg_free(&m);
    return job;
}

static void test_both_ways(void **state)
{
    (void)state;
    for (size_t t = 0; t < sizeof transports / sizeof *transports; t++) {
        fr_link *server = listen_on(transports[t], 0);
        fr_link *a = connect_to(server), *b = connect_to(server);
        fr_peer from_a, from_b;
        for (uint64_t i = 0; i < 50; i++)
            send_ok(a, NULL, i);
        for (uint64_t i = 0; i < 50; i++)
            assert_int_equal(receive_ok(server, &from_a), i);
        send_ok(b, NULL, 1000);
        assert_int_equal(receive_ok(server, &from_b), 1000);
        assert_false(fr_peer_equal(&from_a, &from_b));
        assert_true(fr_peer_equal(&from_a, &from_a));
        send_ok(server, &from_b, 2);
        send_ok(server, &from_a, 1);
        assert_int_equal(receive_ok(a, NULL), 1);
        assert_int_equal(receive_ok(b, NULL), 2);
        fr_link_close(&a, 0);
        fr_link_close(&b, 0);
        fr_link_close(&server, 0);
    }
}

static void test_client_first(void **state)
{
    (void)state;
    fr_link *client = NULL, *server = NULL;
    assert_int_equal(fr_link_connect("inproc://later", 0, &client), FR_OK);
    send_ok(client, NULL, 5);
    assert_int_equal(fr_link_listen("inproc://later", 0, &server), FR_OK);
    assert_int_equal(receive_ok(server, NULL), 5);
    fr_link_close(&client, 0);
    fr_link_close(&server, 0);
}

/* A client keeps its address when the server comes back. */
static void test_server_restart(void **state)
{
    (void)state;
    fr_link *server = listen_on("tcp://127.0.0.1:*", 0);
    char endpoint[128];
    snprintf(endpoint, sizeof endpoint, "%s", fr_link_endpoint(server));
    fr_link *client = connect_to(server);
    fr_peer before, after;
    send_ok(client, NULL, 1);
    receive_ok(server, &before);
    fr_link_close(&server, 0);
    fr_sleep_ms(20);
    assert_int_equal(fr_link_listen(endpoint, 0, &server), FR_OK);
    fr_sleep_ms(200);
    send_ok(client, NULL, 2);
    assert_int_equal(receive_ok(server, &after), 2);
    assert_true(fr_peer_equal(&before, &after));
    send_ok(server, &after, 3);
    assert_int_equal(receive_ok(client, NULL), 3);
    fr_link_close(&client, 0);
    fr_link_close(&server, 0);
}

/* A watched server tells whose connection closed, once it has all that came by it; a watched client, that its own
 * did. */
static void test_watched(void **state)
{
    (void)state;
    for (int t = 1; t < 3; t++) {
        fr_link *server = listen_on(transports[t], 0);
        assert_int_equal(fr_link_watch(server), FR_OK);
        fr_link *a = connect_to(server), *b = connect_to(server);
        assert_int_equal(fr_link_watch(b), FR_OK);
        fr_peer from_a, from_b, lost;
        fr_msg m;
        send_ok(a, NULL, 1);
        assert_int_equal(receive_ok(server, &from_a), 1);
        send_ok(b, NULL, 2);
        assert_int_equal(receive_ok(server, &from_b), 2);
        assert_int_not_equal(from_a.connection, from_b.connection);
        assert_int_equal(fr_link_recv(server, 0, &lost, &m), FR_ETIMEDOUT);
        send_ok(a, NULL, 3);
        fr_link_close(&a, WAIT_MS);
        fr_sleep_ms(100); /* both are there */
        assert_int_equal(receive_ok(server, &from_a), 3);
        assert_int_equal(fr_link_recv(server, WAIT_MS, &lost, &m), FR_EPEER);
        assert_int_equal(lost.connection, from_a.connection);
        assert_int_equal(fr_link_recv(server, 0, &lost, &m), FR_ETIMEDOUT);
        send_ok(server, &from_b, 4);
        fr_link_close(&server, WAIT_MS);
        assert_int_equal(receive_ok(b, NULL), 4);
        assert_int_equal(fr_link_recv(b, WAIT_MS, NULL, &m), FR_EPEER);
        fr_link_close(&b, 0);
    }
}

static void test_timeouts(void **state)
{
    (void)state;
    fr_link *server = listen_on("tcp://127.0.0.1:*", 0);
    fr_msg m;
    fr_peer from;
    double start = fr_now_s();
    assert_int_equal(fr_link_recv(server, 0, &from, &m), FR_ETIMEDOUT);
    assert_true(fr_now_s() - start < 1);
    assert_int_equal(fr_link_recv(server, 60, &from, &m), FR_ETIMEDOUT);
    assert_true(fr_now_s() - start >= 0.055);
    fr_link_close(&server, 0);
}

static void test_endpoints_refused(void **state)
{
    (void)state;
    const char *const bad[] = {"",
                               "tcp://",
                               "nonsense",
                               "tcp://127.0.0.1",
                               "tcp://127.0.0.1:99999",
                               "xyz://a",
                               "tcp://192.0.2.1:5555",
                               "ipc:///nonexistent/folder/socket"};
    fr_link *l = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(fr_link_listen(bad[i], 0, &l), FR_EINVAL);
        assert_non_null(strstr(fr_cause(), bad[i]));
        assert_null(l);
    }
    char longer[600];
    memset(longer, 'a', sizeof longer);
    memcpy(longer, "ipc://", 6);
    longer[sizeof longer - 1] = 0;
    assert_int_equal(fr_link_listen(longer, 0, &l), FR_EINVAL);
}

static void test_busy_port(void **state)
{
    (void)state;
    for (size_t t = 0; t < sizeof transports / sizeof *transports; t++) {
        fr_link *server = listen_on(transports[t], 0), *other = NULL;
        assert_int_equal(fr_link_listen(fr_link_endpoint(server), 0, &other), FR_EBUSY);
        assert_non_null(strstr(fr_cause(), fr_link_endpoint(server)));
        assert_null(other);
        fr_link *client = connect_to(server); /* and the first server is none the worse */
        send_ok(client, NULL, 9);
        assert_int_equal(receive_ok(server, NULL), 9);
        fr_link_close(&client, 0);
        fr_link_close(&server, 0);
    }
}

static void test_gone_peer(void **state)
{
    (void)state;
    for (size_t t = 0; t < sizeof transports / sizeof *transports; t++) {
        fr_link *server = listen_on(transports[t], 0), *client = connect_to(server);
        fr_peer from, unknown = {.id = {1, 2, 3}, .len = 3};
        send_ok(client, NULL, 1);
        receive_ok(server, &from);
        fr_link_close(&client, 0);
        fr_status st = FR_OK;
        for (int i = 0; i < 200 && st == FR_OK; i++) {
            fr_sleep_ms(10);
            st = fr_link_send(server, &from, &(fr_msg){.kind = FR_MSG_OK});
        }
        assert_int_equal(st, FR_EPEER);
        assert_int_equal(fr_link_send(server, &unknown, &(fr_msg){.kind = FR_MSG_OK}), FR_EPEER);
        assert_int_equal(fr_link_send(server, &(fr_peer){.len = 0}, &(fr_msg){.kind = FR_MSG_OK}),
                         FR_EPEER);
        fr_link_close(&server, 0);
    }
}

/* A client that does not read fills its own queue; the server neither blocks nor loses its other
 * clients. */
static void test_slow_client(void **state)
{
    (void)state;
    fr_link *server = listen_on("tcp://127.0.0.1:*", 0);
    fr_link *slow = connect_to(server), *good = connect_to(server);
    fr_peer slow_peer, good_peer;
    send_ok(slow, NULL, 1);
    receive_ok(server, &slow_peer);
    send_ok(good, NULL, 2);
    receive_ok(server, &good_peer);
    char *text = calloc(1, 4096);
    assert_non_null(text);
    memset(text, 'x', 4095);
    fr_msg m = {.kind = FR_MSG_ERROR, .body.error.cause = text};
    fr_status st = FR_OK;
    for (int i = 0; i < 100000 && st == FR_OK; i++)
        st = fr_link_send(server, &slow_peer, &m);
    assert_int_equal(st, FR_EBUSY);
    send_ok(server, &good_peer, 3);
    assert_int_equal(receive_ok(good, NULL), 3);
    free(text);
    fr_link_close(&slow, 0);
    fr_link_close(&good, 0);
    fr_link_close(&server, 0);
}

static void test_frame_limit(void **state)
{
    (void)state;
    for (size_t t = 0; t < sizeof transports / sizeof *transports; t++) {
        fr_link *server = listen_on(transports[t], 4096), *client = connect_to(server),
                *small = NULL;
        static char text[8192];
        memset(text, 'x', sizeof text - 1);
        fr_msg m = {.kind = FR_MSG_ERROR, .body.error.cause = text}, in;
        fr_peer from;
        /* Over our own limit: refused before it is sent. */
        assert_int_equal(fr_link_connect(fr_link_endpoint(server), 4096, &small), FR_OK);
        assert_int_equal(fr_link_send(small, NULL, &m), FR_ELIMIT);
        /* Over the other side's: the connection is dropped (inproc: the frame is refused), the
         * server goes on. */
        assert_int_equal(fr_link_send(client, NULL, &m), FR_OK);
        fr_status st = fr_link_recv(server, 200, &from, &in);
        assert_true(st == FR_ETIMEDOUT || st == FR_EPROTO);
        send_ok(small, NULL, 4);
        assert_int_equal(receive_ok(server, NULL), 4);
        fr_link_close(&small, 0);
        fr_link_close(&client, 0);
        fr_link_close(&server, 0);
    }
}

/* Sends one raw frame and expects a refusal that names `what`, with an address to answer to. */
static void expect_refused(fr_link *server, void *raw, const void *frame, size_t n,
                           const char *what)
{
    fr_peer from;
    fr_msg m;
    assert_int_equal(zmq_send(raw, frame, n, 0), n);
    assert_int_equal(fr_link_recv(server, WAIT_MS, &from, &m), FR_EPROTO);
    assert_non_null(strstr(fr_cause(), what));
    assert_non_null(strstr(fr_cause(), "peer "));
    assert_int_equal(m.kind, FR_MSG_NONE);
    send_ok(server, &from, 77);
    char answer[64];
    assert_in_range(zmq_recv(raw, answer, sizeof answer, 0), FR_FRAME_HEADER, sizeof answer);
}

static void test_malformed_frames(void **state)
{
    (void)state;
    fr_link *server = listen_on("tcp://127.0.0.1:*", 0);
    void *context = zmq_ctx_new(), *raw = zmq_socket(context, ZMQ_DEALER);
    const int timeout = WAIT_MS, linger = 0;
    zmq_setsockopt(raw, ZMQ_RCVTIMEO, &timeout, sizeof timeout);
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof linger);
    assert_int_equal(zmq_connect(raw, fr_link_endpoint(server)), 0);
    expect_refused(server, raw, "", 0, "not Forerun's");
    expect_refused(server, raw, "FRN\1\0\0\0", 7, "not Forerun's");
    expect_refused(server, raw, "GET / HTTP/1.1\r\n\r\n", 18, "not Forerun's");
    expect_refused(server, raw, "FRN\2\2\0\0\0\x08\x01", 10, "peer speaks protocol 2, this is 1");
    expect_refused(server, raw, "FRN\1\3\0\0\0\x08\x01", 10, "says that its body has 3");
    expect_refused(server, raw, "FRN\1\xff\xff\xff\xff\x08\x01", 10,
                   "says that its body has 4294967295");
    expect_refused(server, raw, "FRN\1\0\0\0\0", 8, "without a body");
    expect_refused(server, raw, "FRN\1\4\0\0\0\xff\xff\xff\xff", 12, "malformed");
    assert_int_equal(zmq_send(raw, "FRN", 3, ZMQ_SNDMORE), 3);
    expect_refused(server, raw, "FRN\1\0\0\0\0", 8, "several frames");

    fr_link *client = connect_to(server);
    send_ok(client, NULL, 6);
    assert_int_equal(receive_ok(server, NULL), 6);
    fr_link_close(&client, 0);
    zmq_close(raw);
    zmq_ctx_term(context);
    fr_link_close(&server, 0);
}

/* An id longer than an address of ours can hold. */
static void test_long_peer_id(void **state)
{
    (void)state;
    fr_link *server = listen_on("tcp://127.0.0.1:*", 0);
    void *context = zmq_ctx_new(), *raw = zmq_socket(context, ZMQ_DEALER);
    char id[200];
    memset(id, 'i', sizeof id);
    const int linger = 0;
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(raw, ZMQ_ROUTING_ID, id, sizeof id);
    assert_int_equal(zmq_connect(raw, fr_link_endpoint(server)), 0);
    assert_int_equal(zmq_send(raw, "FRN\1\0\0\0\0", 8, 0), 8);
    fr_peer from;
    fr_msg m;
    assert_int_equal(fr_link_recv(server, WAIT_MS, &from, &m), FR_EPROTO);
    assert_int_equal(from.len, 0);
    fr_link *client = connect_to(server);
    send_ok(client, NULL, 6);
    assert_int_equal(receive_ok(server, NULL), 6);
    fr_link_close(&client, 0);
    zmq_close(raw);
    zmq_ctx_term(context);
    fr_link_close(&server, 0);
}

static void raw_tcp(const fr_link *server, const void *data, size_t n)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)atoi(strrchr(fr_link_endpoint(server), ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(send(fd, data, n, MSG_NOSIGNAL), n);
    fr_sleep_ms(50);
    close(fd);
}

static void test_raw_tcp(void **state)
{
    (void)state;
    fr_link *server = listen_on("tcp://127.0.0.1:*", 4096);
    uint8_t noise[2048];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)(i * 167 + (i >> 3));
    raw_tcp(server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27);
    raw_tcp(server, noise, sizeof noise);
    raw_tcp(server, "\xff\0\0\0\0\0\0\0\1\x7f", 10);
    raw_tcp(server, "\1\0\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11);
    fr_peer from;
    fr_msg m;
    fr_status st;
    while ((st = fr_link_recv(server, 0, &from, &m)) == FR_EPROTO)
        ;
    assert_int_equal(st, FR_ETIMEDOUT);
    fr_link *client = connect_to(server);
    send_ok(client, NULL, 8);
    assert_int_equal(receive_ok(server, NULL), 8);
    fr_link_close(&client, 0);
    fr_link_close(&server, 0);
}

static void test_poll(void **state)
{
    (void)state;
    fr_link *a = listen_on("tcp://127.0.0.1:*", 0), *b = listen_on("inproc://poll", 0),
            *client = connect_to(b);
    int fds[2], ready[3];
    assert_int_equal(pipe(fds), 0);
    fr_link *links[] = {a, b};
    assert_int_equal(fr_link_poll(links, 2, fds, 1, 10, ready), FR_OK);
    assert_int_equal(ready[0] + ready[1] + ready[2], 0);
    send_ok(client, NULL, 1);
    assert_int_equal(fr_link_poll(links, 2, fds, 1, WAIT_MS, ready), FR_OK);
    assert_true(!ready[0] && ready[1] && !ready[2]);
    receive_ok(b, NULL);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_int_equal(fr_link_poll(links, 2, fds, 1, WAIT_MS, ready), FR_OK);
    assert_true(!ready[0] && !ready[1] && ready[2]);
    close(fds[0]);
    close(fds[1]);
    fr_link_close(&client, 0);
    fr_link_close(&a, 0);
    fr_link_close(&b, 0);
}

static void on_alarm(int number)
{
    (void)number;
}

static void test_signals(void **state)
{
    (void)state;
    signal(SIGINT, SIG_DFL); /* a shell's background job ignores it */
    fr_link *server = listen_on("tcp://127.0.0.1:*", 0);
    struct sigaction now;
    sigaction(SIGINT, NULL, &now);
    assert_true(now.sa_handler == SIG_DFL); /* CZMQ left it alone */
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm}, NULL);
    int ready = 0;
    ualarm(50000, 0);
    assert_int_equal(fr_link_poll(&server, 1, NULL, 0, WAIT_MS, &ready), FR_ECANCELLED);
    fr_link_close(&server, 0);
}

static void *echo_thread(void *endpoint)
{
    fr_link *l = NULL;
    fr_msg m;
    if (fr_link_connect(endpoint, 0, &l) != FR_OK)
        return "no connection";
    for (uint64_t i = 0; i < 100; i++) {
        if (fr_link_send(l, NULL, &(fr_msg){.kind = FR_MSG_OK, .body.ok.job = i}) != FR_OK ||
            fr_link_recv(l, WAIT_MS, NULL, &m) != FR_OK || m.body.ok.job != i)
            return "no echo";
        fr_msg_free(&m);
    }
    fr_link_close(&l, WAIT_MS);
    return NULL;
}

static void test_threads_over_inproc(void **state)
{
    (void)state;
    fr_link *server = listen_on("inproc://threads", 0);
    pthread_t threads[4];
    void *wrong = NULL;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, echo_thread, "inproc://threads"), 0);
    for (int i = 0; i < 400; i++) {
        fr_peer from;
        uint64_t job = receive_ok(server, &from);
        send_ok(server, &from, job);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    fr_link_close(&server, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_ways),
        cmocka_unit_test(test_client_first),
        cmocka_unit_test(test_server_restart),
        cmocka_unit_test(test_watched),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_endpoints_refused),
        cmocka_unit_test(test_busy_port),
        cmocka_unit_test(test_gone_peer),
        cmocka_unit_test(test_slow_client),
        cmocka_unit_test(test_frame_limit),
        cmocka_unit_test(test_malformed_frames),
        cmocka_unit_test(test_long_peer_id),
        cmocka_unit_test(test_raw_tcp),
        cmocka_unit_test(test_poll),
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_threads_over_inproc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
