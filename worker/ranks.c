/* ranks.c: see ranks.h.
 *
 * Numbered steps of opening:
 *   1. every follower sends HELLO, which waits in its socket until rank 0 listens;
 *   2. rank 0 takes a HELLO of each, and so learns their addresses;
 *   3. rank 0 sends WELCOME to all; a follower that has it knows that the group is whole.
 * A HELLO that does not fit, or comes later, is answered by REFUSED. Other words of strangers are passed over. A
 * follower may be ahead of the others by words that want no answer, so what comes before its turn is kept, a queue a
 * rank. */
#include "ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "clock.h"
#include "grow.h"
#include "link.h"
#include "log.h"

enum {
    LINGER_MS = 2000,
    LIST_MS = 1000, /* how much later than a roll call's end rank 0's list may come */
};

typedef struct peer {
    fr_peer address; /* rank 0: of a follower */
    bool known;
    uint64_t n_sent, n_received;
    fr_msg *words;   /* [n_words] not received by the caller yet */
    int n_words, cap_words;
    bool rolled;     /* it gave up */
    bool gone;       /* its connection has closed */
} peer;

struct fr_ranks {
    fr_link *link;
    int rank, size;
    peer *peers;     /* [size]; of a follower only rank 0's is used */
    bool whole;      /* this rank knows that all are there */
    bool rolled;     /* this rank told the others that it gives up */
    char why[FR_COMM_WHY]; /* what the first rank that gave up and knew a reason had noticed */
};

static uint64_t in_ms(int ms)
{
    return fr_now_ns() + (uint64_t)ms * 1000000;
}

static int ms_until(uint64_t end)
{
    const uint64_t now = fr_now_ns();
    return now < end ? (int)((end - now) / 1000000) + 1 : 0;
}

/* ---- sending */

static fr_msg word_of(const fr_ranks *g, fr_ranks_kind kind, uint64_t number, const void *data, size_t bytes)
{
    return (fr_msg){.kind = FR_MSG_RANK_WORD,
                    .body.rank_word = {.rank = (uint32_t)g->rank, .ranks = (uint32_t)g->size, .kind = (uint32_t)kind,
                                       .number = number, .data = {data, bytes}}};
}

static fr_status send_word(fr_ranks *g, int to, fr_ranks_kind kind, const void *data, size_t bytes)
{
    peer *p = &g->peers[to];
    const fr_msg word = word_of(g, kind, ++p->n_sent, data, bytes);
    return fr_link_send(g->link, g->rank == 0 ? &p->address : NULL, &word);
}

/* Tells all that this rank gives up. Some may be gone. */
static void say_why(fr_ranks *g, const char *why)
{
    if (g->rolled)
        return;
    g->rolled = true;
    if (!g->why[0])
        snprintf(g->why, sizeof g->why, "%.*s", FR_COMM_WHY - 1, why);
    for (int r = 0; r < g->size; r++)
        if (r != g->rank && (g->rank == 0 ? g->peers[r].known : r == 0))
            send_word(g, r, FR_RANKS_ROLL, why, strlen(why));
}

/* Gives up with the cause of the last error, which stays the last: to tell it may fail. */
static fr_status give_up(fr_ranks *g, fr_status st)
{
    char why[512];
    snprintf(why, sizeof why, "%s", fr_cause());
    say_why(g, why);
    return fr_fail(st, "%s", why);
}

/* Before an exchange: a group that this rank gave up can only be closed. */
static fr_status check_group(const fr_ranks *g)
{
    return g->rolled ? fr_fail(FR_EPEER, "%s", g->why[0] ? g->why : "the group was given up") : FR_OK;
}

fr_status fr_ranks_send(fr_ranks *g, int to, fr_ranks_kind kind, const void *data, size_t bytes)
{
    if (bytes > FR_RANKS_MOST_BYTES)
        return fr_fail(FR_ELIMIT, "a word of %zu bytes to rank %d is too large", bytes, to);
    FR_TRY(check_group(g));
    fr_status st = send_word(g, to, kind, data, bytes);
    if (st == FR_EPEER)
        return give_up(g, fr_fail(FR_EPEER, "rank %d: rank %d is gone", g->rank, to));
    return st;
}

/* ---- receiving */

/* Which rank a word is of; -1: it is a stranger's. */
static int sender(const fr_ranks *g, const fr_peer *from, const fr_msg_rank_word *w)
{
    if (w->rank >= (uint32_t)g->size || (int)w->rank == g->rank)
        return -1;
    if (g->rank != 0)
        return w->rank == 0 ? 0 : -1;
    const peer *p = &g->peers[w->rank];
    return p->known && fr_peer_equal(&p->address, from) ? (int)w->rank : -1;
}

static fr_status meet(fr_ranks *g, const fr_peer *from, const fr_msg_rank_word *w)
{
    if (w->ranks != (uint32_t)g->size)
        return fr_fail(FR_EMISMATCH, "rank %u was started as one of %u ranks, rank 0 as one of %d", w->rank, w->ranks,
                       g->size);
    if (w->rank == 0 || w->rank >= w->ranks)
        return fr_fail(FR_EMISMATCH, "a rank %u came to the group of %d", w->rank, g->size);
    peer *p = &g->peers[w->rank];
    if (p->known)
        return fr_fail(FR_EMISMATCH, "two processes came as rank %u", w->rank);
    p->known = true;
    p->address = *from;
    p->n_received = w->number;
    return FR_OK;
}

/* Tells a process that said HELLO the cause of st, which stays the last one. It is the first word that it gets. */
static fr_status refuse(fr_ranks *g, const fr_peer *process, fr_status st)
{
    char why[512];
    snprintf(why, sizeof why, "%s", fr_cause());
    const fr_msg word = word_of(g, FR_RANKS_REFUSED, 1, why, strlen(why));
    fr_link_send(g->link, process, &word); /* it may be gone */
    return fr_fail(st, "%s", why);
}

/* Rank 0 takes a HELLO. A group that is whole goes on, whoever comes. */
static fr_status greet(fr_ranks *g, const fr_peer *from, const fr_msg_rank_word *w)
{
    fr_status st;
    if (g->whole)
        st = fr_fail(FR_EMISMATCH, "a process came as rank %u of %u, but the group of %d is whole", w->rank, w->ranks,
                     g->size);
    else
        st = meet(g, from, w);
    if (st == FR_OK)
        return FR_OK;
    refuse(g, from, st);
    if (!g->whole)
        return st;
    fr_log(FR_LOG_WARN, "%s", fr_cause());
    return FR_OK;
}

/* Takes over *m when it is kept. */
static fr_status file_word(fr_ranks *g, const fr_peer *from, fr_msg *m)
{
    const fr_msg_rank_word *w = &m->body.rank_word;
    if (m->kind == FR_MSG_RANK_WORD && w->kind == FR_RANKS_HELLO && g->rank == 0)
        return greet(g, from, w);
    const int r = m->kind == FR_MSG_RANK_WORD ? sender(g, from, w) : -1;
    if (r < 0)
        return FR_OK;
    peer *p = &g->peers[r];
    if (w->number != ++p->n_received)
        return fr_fail(FR_EPEER, "rank %d: a word of rank %d was lost before number %llu", g->rank, r,
                       (unsigned long long)w->number);
    if (w->kind == FR_RANKS_REFUSED)
        return fr_fail(FR_EMISMATCH, "%.*s", (int)w->data.len, (const char *)w->data.data);
    if (w->kind == FR_RANKS_ROLL) {
        p->rolled = true;
        if (!g->why[0])
            snprintf(g->why, sizeof g->why, "%.*s", (int)w->data.len, (const char *)w->data.data);
        return FR_OK;
    }
    FR_TRY(fr_grow((void **)&p->words, &p->cap_words, p->n_words + 1, sizeof *p->words));
    p->words[p->n_words++] = *m;
    *m = (fr_msg){0};
    return FR_OK;
}

/* Whose connection it was, if a rank's at all. The reason that a rank gave before it went counts more. Before the group
 * is whole the connection that a follower had may have been with another that ended there. */
static void note_gone(fr_ranks *g, int connection)
{
    if (!g->whole && g->rank != 0)
        return;
    for (int r = 0; r < g->size; r++) {
        peer *p = &g->peers[r];
        if (r == g->rank || (g->rank == 0 ? !p->known || p->address.connection != connection : r != 0))
            continue;
        p->gone = true;
        if (!g->why[0])
            snprintf(g->why, sizeof g->why, "rank %d: rank %d is gone", g->rank, r);
    }
}

/* Waits for one message and files it. Not getting one is no error. */
static fr_status listen_once(fr_ranks *g, int timeout_ms)
{
    fr_peer from;
    fr_msg m;
    fr_status st = fr_link_recv(g->link, timeout_ms, &from, &m);
    if (st == FR_OK) {
        st = file_word(g, &from, &m);
    } else if (st == FR_EPEER) {
        note_gone(g, from.connection);
        st = FR_OK;
    } else if (st == FR_ETIMEDOUT || st == FR_ECANCELLED || st == FR_EPROTO) {
        st = FR_OK;
    }
    fr_msg_free(&m);
    return st;
}

static bool rolled(const fr_ranks *g)
{
    bool any = false;
    for (int r = 0; r < g->size; r++)
        any = any || g->peers[r].rolled;
    return any;
}

static const char *why_of(const fr_ranks *g)
{
    return g->why[0] ? g->why : "a rank gave the group up";
}

/* Only the rank that is waited for counts as gone: another may have done all that was asked of it. */
static fr_status await_word(fr_ranks *g, int from, fr_comm_wait *wait)
{
    const peer *p = &g->peers[from];
    while (p->n_words == 0) {
        if (rolled(g) || p->gone)
            return fr_fail(FR_EPEER, "%s", why_of(g));
        const fr_status over = fr_comm_wait_check(wait);
        if (over == FR_ECANCELLED)
            return fr_fail(over, "rank %d: stopped while it waited for rank %d", g->rank, from);
        if (over != FR_OK)
            return fr_fail(FR_EPEER, "rank %d: no word from rank %d in %d ms", g->rank, from,
                           wait->patience.ms);
        FR_TRY(listen_once(g, fr_comm_wait_sleep_ms(wait)));
    }
    return FR_OK;
}

static fr_status take_word(fr_ranks *g, int from, fr_ranks_kind kind, fr_comm_wait *wait, fr_msg *word_out)
{
    peer *p = &g->peers[from];
    FR_TRY(check_group(g));
    fr_status st = await_word(g, from, wait);
    if (st != FR_OK)
        return give_up(g, st);
    if (p->words[0].body.rank_word.kind != (uint32_t)kind)
        return give_up(g, fr_fail(FR_EPROTO, "rank %d: rank %d is at an exchange of kind %u, not %d", g->rank, from,
                                  p->words[0].body.rank_word.kind, kind));
    *word_out = p->words[0];
    p->n_words--;
    memmove(p->words, p->words + 1, (size_t)p->n_words * sizeof *p->words);
    return FR_OK;
}

fr_status fr_ranks_receive(fr_ranks *g, int from, fr_ranks_kind kind, size_t bytes, fr_comm_wait *wait,
                           fr_msg *word_out)
{
    FR_TRY(take_word(g, from, kind, wait, word_out));
    const size_t got = word_out->body.rank_word.data.len;
    if (got == bytes)
        return FR_OK;
    fr_msg_free(word_out);
    return give_up(g, fr_fail(FR_EPROTO, "rank %d: rank %d came with %zu bytes to an exchange of %zu", g->rank, from,
                              got, bytes));
}

fr_status fr_ranks_idle(fr_ranks *g, int from, fr_ranks_kind kind, const atomic_int *stop, fr_msg *word_out)
{
    fr_comm_wait wait = fr_comm_wait_begin((fr_comm_patience){.stop = stop});
    return take_word(g, from, kind, &wait, word_out);
}

/* ---- giving up */

void fr_ranks_give_up(fr_ranks *g)
{
    give_up(g, FR_EPEER);
}

fr_status fr_ranks_look(fr_ranks *g)
{
    FR_TRY(check_group(g));
    FR_TRY(listen_once(g, 0));
    bool any = rolled(g);
    for (int r = 0; r < g->size; r++)
        any = any || g->peers[r].gone;
    return any ? fr_fail(FR_EPEER, "%s", why_of(g)) : FR_OK;
}

/* Who has called the roll, or will not. */
static int count_done(const fr_ranks *g)
{
    int n = 1;
    for (int r = 0; r < g->size; r++)
        n += g->peers[r].rolled || g->peers[r].gone;
    return n;
}

/* Rank 0 hears all and tells them whom; the others hear rank 0. */
fr_status fr_ranks_roll_call(fr_ranks *g, int wait_ms, char *why, bool *heard_out)
{
    const uint64_t end = in_ms(wait_ms);
    const int n_wanted = g->rank == 0 ? g->size : 2;
    if (!why[0]) /* rank 0 passes on what another noticed */
        memcpy(why, g->why, sizeof g->why);
    say_why(g, why);
    while (count_done(g) < n_wanted && ms_until(end) > 0)
        FR_TRY(listen_once(g, ms_until(end)));
    for (int r = 0; r < g->size; r++)
        heard_out[r] = r == g->rank || g->peers[r].rolled;
    if (!why[0])
        memcpy(why, g->why, sizeof g->why);
    if (g->rank == 0) {
        for (int r = 1; r < g->size; r++)
            if (heard_out[r])
                send_word(g, r, FR_RANKS_HEARD, heard_out, (size_t)g->size * sizeof *heard_out);
        return FR_OK;
    }
    peer *leader = &g->peers[0];
    const uint64_t list_end = end + LIST_MS * (uint64_t)1000000;
    while (leader->rolled && leader->n_words == 0 && ms_until(list_end) > 0)
        FR_TRY(listen_once(g, ms_until(list_end)));
    const fr_msg_rank_word *list = leader->n_words > 0 ? &leader->words[leader->n_words - 1].body.rank_word : NULL;
    if (list && list->kind == FR_RANKS_HEARD && list->data.len == (size_t)g->size * sizeof *heard_out)
        memcpy(heard_out, list->data.data, list->data.len);
    return FR_OK;
}

/* ---- opening and closing */

/* "ranks 1, 3" */
static void name_missing(const fr_ranks *g, char *text, size_t cap)
{
    size_t at = 0;
    for (int r = 1; r < g->size && at < cap; r++)
        if (!g->peers[r].known)
            at += (size_t)snprintf(text + at, cap - at, "%s%d", at > 0 ? ", " : "rank ", r);
}

static fr_status meet_all(fr_ranks *g, int connect_ms)
{
    const uint64_t end = in_ms(connect_ms);
    int n_known = 1;
    while (n_known < g->size) {
        char missing[128] = "";
        name_missing(g, missing, sizeof missing);
        if (ms_until(end) == 0)
            return fr_fail(FR_EPEER, "%s: no word from %s in %d ms", fr_link_endpoint(g->link), missing, connect_ms);
        FR_TRY(listen_once(g, ms_until(end)));
        n_known = 1;
        for (int r = 1; r < g->size; r++)
            n_known += g->peers[r].known;
    }
    g->whole = true;
    for (int r = 1; r < g->size; r++)
        FR_TRY(fr_ranks_send(g, r, FR_RANKS_WELCOME, NULL, 0));
    return FR_OK;
}

static fr_status join(fr_ranks *g, int connect_ms)
{
    fr_msg welcome = {0};
    FR_TRY(fr_ranks_send(g, 0, FR_RANKS_HELLO, NULL, 0));
    fr_comm_wait wait = fr_comm_wait_begin((fr_comm_patience){.ms = connect_ms});
    fr_status st = take_word(g, 0, FR_RANKS_WELCOME, &wait, &welcome);
    fr_msg_free(&welcome);
    g->whole = st == FR_OK;
    return st;
}

/* Rank 0's end of tcp://host:port is that port of every interface: ZeroMQ binds to no names. */
static fr_status listen_at(const char *endpoint, fr_link **out)
{
    char all[300];
    const char *port = strrchr(endpoint, ':');
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return fr_link_listen(endpoint, 0, out);
    if (port == endpoint + 3)
        return fr_fail(FR_EINVAL, "%s: an endpoint is tcp://host:port", endpoint);
    snprintf(all, sizeof all, "tcp://*%s", port);
    return fr_link_listen(all, 0, out);
}

fr_status fr_ranks_open(const fr_ranks_options *o, fr_ranks **out)
{
    fr_status st = FR_OK;
    fr_ranks *g = calloc(1, sizeof *g);
    if (!g)
        return fr_no_memory();
    g->rank = o->rank;
    g->size = o->size;
    g->peers = calloc((size_t)o->size, sizeof *g->peers);
    if (!g->peers) {
        st = fr_no_memory();
        goto fail;
    }
    FR_TRY_GOTO(st, o->rank == 0 ? listen_at(o->endpoint, &g->link) : fr_link_connect(o->endpoint, 0, &g->link), fail);
    FR_TRY_GOTO(st, fr_link_watch(g->link), fail);
    st = o->rank == 0 ? meet_all(g, o->connect_ms) : join(g, o->connect_ms);
    if (st != FR_OK) {
        give_up(g, st);
        goto fail;
    }
    *out = g;
    return FR_OK;
fail:
    fr_ranks_close(&g);
    return st;
}

void fr_ranks_close(fr_ranks **p)
{
    fr_ranks *g = *p;
    if (!g)
        return;
    fr_link_close(&g->link, LINGER_MS);
    for (int r = 0; g->peers && r < g->size; r++) {
        for (int i = 0; i < g->peers[r].n_words; i++)
            fr_msg_free(&g->peers[r].words[i]);
        free(g->peers[r].words);
    }
    free(g->peers);
    free(g);
    *p = NULL;
}
