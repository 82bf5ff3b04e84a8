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

#include "own_loopback.h"

void rank_threads_set_up(rank_thread *ranks, int n, int size, fr_status (*act)(rank_thread *r))
{
    for (int i = 0; i < n; i++)
        ranks[i] = (rank_thread){
            .act = act,
            .options = {.rank = i, .size = size, .connect_ms = LONG_MS, .wait_ms = LONG_MS}};
}

static void find_endpoint(char *text, size_t cap)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(own_loopback())};
    socklen_t len = sizeof address;
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    close(fd);
    snprintf(text, cap, "tcp://%s:%d", inet_ntoa(address.sin_addr), ntohs(address.sin_port));
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
