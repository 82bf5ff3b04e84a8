/* rank_threads.c: see rank_threads.h. */
#include "rank_threads.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

void rank_threads_set_up(rank_thread *ranks, int n, int size, fr_status (*act)(rank_thread *r))
{
    for (int i = 0; i < n; i++)
        ranks[i] = (rank_thread){
            .act = act,
            .options = {.rank = i, .size = size, .connect_ms = LONG_MS, .wait_ms = LONG_MS}};
}

static bool is_free(int port)
{
    const struct sockaddr_in all = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_ANY),
                                    .sin_port = htons((uint16_t)port)};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    const bool bound = bind(fd, (const struct sockaddr *)&all, sizeof all) == 0;
    close(fd);
    return bound;
}

/* Rank 0 listens on its port of all addresses. Until it does, nobody else is handed one below the ephemeral ports, and
 * the tests beside this one begin elsewhere. */
static void find_endpoint(char *text, size_t cap)
{
    enum { FIRST = 20000, N_PORTS = 12000 };
    static unsigned n_tried;
    int port = 0;
    do {
        assert_true(n_tried < N_PORTS);
        port = FIRST + (int)(((unsigned)getpid() * 97 + n_tried++) % N_PORTS);
    } while (!is_free(port));
    snprintf(text, cap, "tcp://127.0.0.1:%d", port);
}

static void *run_rank(void *arg)
{
    rank_thread *r = arg;
    r->st = fr_comm_link_open(&r->options, &r->comm);
    if (r->st == FR_OK)
        r->st = r->act(r);
    snprintf(r->cause, sizeof r->cause, "%s", fr_cause());
    pthread_barrier_wait(r->end);
    if (r->comm)
        r->comm->ops->close(&r->comm);
    return NULL;
}

void rank_threads_run(rank_thread *ranks, int n)
{
    char endpoint[64];
    pthread_barrier_t end;
    find_endpoint(endpoint, sizeof endpoint);
    assert_int_equal(pthread_barrier_init(&end, NULL, (unsigned)n), 0);
    for (int i = 0; i < n; i++) {
        ranks[i].options.endpoint = endpoint;
        ranks[i].end = &end;
        assert_int_equal(pthread_create(&ranks[i].thread, NULL, run_rank, &ranks[i]), 0);
    }
    for (int i = 0; i < n; i++)
        pthread_join(ranks[i].thread, NULL);
    pthread_barrier_destroy(&end);
}

void rank_thread_ended(const rank_thread *r, fr_status st, const char *cause)
{
    if (r->st != st || !strstr(r->cause, cause))
        fail_msg("rank %d: status %d, \"%s\"; want %d, \"%s\"", r->options.rank, r->st, r->cause, st, cause);
}

void rank_threads_ended(const rank_thread *ranks, int n, fr_status st, const char *cause)
{
    for (int i = 0; i < n; i++)
        rank_thread_ended(&ranks[i], st, cause);
}
