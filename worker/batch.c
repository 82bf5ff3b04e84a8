/* batch.c: see batch.h.
 *
 * Order within a pass: 1. one row for every generation that writes; 2. verifications; 3. prompts,
 * in chunks when others wait. Each round begins with another request, and writers leave a quarter
 * of the rows to the rest, so none starves.
 *
 * When the cache is full a request takes room of those who have to give way to it (room.h), or waits
 * with what it has. One whose prefix has to be computed, at first or again, waits until there is room
 * for all of it. So the oldest always gets on, and a request that does not fit though it is alone is
 * refused. When all wait for an older job that is idle, there is no pass for a while. */
#include "batch.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "clock.h"
#include "ops.h"

void fr_batch_close(fr_batch *b)
{
    free(b->asks);
    *b = (fr_batch){0};
}

static int is_verify(const fr_request *r)
{
    return r->message.kind == FR_MSG_VERIFY;
}

/* Rows that are only there to be seen by later ones. */
static int prompt_rows(const fr_requests *t, const fr_request *r)
{
    return fr_request_todo(t, r) - (is_verify(r) ? r->n_given - r->position + 1 : 1);
}

/* ---- room in the cache */

/* Something was freed for r: try again. */
static int free_some(fr_batch *b, fr_requests *t, fr_request *r)
{
    if (fr_room_make(t, r, &b->time))
        return 1;
    if (!b->hungry)
        b->hungry = r;
    return 0;
}

static fr_status append(fr_batch *b, fr_requests *t, fr_request *r, int n, int *row_out)
{
    const int32_t *ids = r->held->ids.data + fr_held_cached(&t->held, r->held);
    fr_status st;
    while ((st = fr_pass_append(t->session, r->held->seq, ids, n, row_out)) == FR_ELIMIT &&
           free_some(b, t, r))
        ;
    return st;
}

static fr_status branch(fr_batch *b, fr_requests *t, fr_request *r, const fr_msg_probe *p,
                        int *row_out)
{
    fr_status st;
    while ((st = fr_pass_branch(t->session, r->held->seq, (int)p->at, p->tokens, (int)p->n_tokens,
                                row_out)) == FR_ELIMIT &&
           free_some(b, t, r))
        ;
    return st;
}

/* ---- building */

static fr_status ask(fr_batch *b, fr_requests *t, fr_request *r, fr_ask_kind kind, int index,
                     int row, const fr_row_query *query)
{
    if (b->n_asks == b->cap_asks) {
        int cap = b->cap_asks ? 2 * b->cap_asks : 64;
        fr_ask *asks = realloc(b->asks, (size_t)cap * sizeof *asks);
        if (!asks)
            return fr_no_memory();
        b->asks = asks;
        b->cap_asks = cap;
    }
    fr_ask *a = &b->asks[b->n_asks];
    *a = (fr_ask){.request = r, .kind = kind, .index = index, .query = *query};
    int rough = kind == FR_ASK_NEXT && r->message.body.generate.rough;
    FR_TRY((rough ? fr_pass_ask_rough : fr_pass_ask)(t->session, row, query, &a->answer));
    b->n_asks++;
    return FR_OK;
}

/* Asks for the request's own token at a position, of the row before it. */
static fr_status ask_token(fr_batch *b, fr_requests *t, fr_request *r, int position, int row)
{
    fr_row_query q;
    fr_sampling_query(&r->sampling, (uint32_t)(position - r->chain_base),
                      fr_tokenizer_n_vocab(fr_session_tokenizer(t->session)), &q);
    if (!is_verify(r))
        return ask(b, t, r, FR_ASK_NEXT, position, row, &q);
    if (position < r->n_given) {
        q.n_wanted = 1;
        q.wanted[0] = r->held->ids.data[position];
    }
    return ask(b, t, r, FR_ASK_OWN, position, row, &q);
}

/* The next rows of the request's ids, at most `most`. */
static fr_status put_ids(fr_batch *b, fr_requests *t, fr_request *r, int most)
{
    int from = fr_held_cached(&t->held, r->held), n = (int)r->held->ids.len - from, row = 0;
    if (n > most)
        n = most;
    if (n <= 0)
        return FR_OK;
    FR_TRY(append(b, t, r, n, &row));
    r->in_pass += n;
    int first_asked = is_verify(r) ? r->position : (int)r->held->ids.len;
    for (int position = first_asked > from + 1 ? first_asked : from + 1; position <= from + n;
         position++)
        FR_TRY(ask_token(b, t, r, position, row + position - 1 - from));
    return FR_OK;
}

static fr_status put_probes(fr_batch *b, fr_requests *t, fr_request *r)
{
    const fr_msg_verify *m = &r->message.body.verify;
    const fr_sampling greedy = {.top_p = 1};
    int cached = fr_held_cached(&t->held, r->held);
    for (int i = 0; i < r->n_probes; i++) {
        const fr_msg_probe *p = &m->probes[i];
        int row = 0;
        if (r->probe_sent[i] || (int)p->at > cached || (int)p->n_tokens > fr_pass_room(t->session))
            continue;
        FR_TRY(branch(b, t, r, p, &row));
        r->in_pass += (int)p->n_tokens;
        r->probe_sent[i] = 1;
        fr_row_query q;
        fr_sampling_query(&greedy, 0, fr_tokenizer_n_vocab(fr_session_tokenizer(t->session)), &q);
        for (size_t k = 0; k < p->n_wanted; k++)
            q.wanted[q.n_wanted++] = p->wanted[k];
        FR_TRY(ask(b, t, r, FR_ASK_PROBE, i, row + (int)p->n_tokens - 1, &q));
    }
    return FR_OK;
}

/* Gives a request its rows of this pass. Too little cache means waiting; another error ends the
 * pass's building, since the request may be half in it. */
static fr_status put(fr_batch *b, fr_requests *t, fr_request *r, int most)
{
    int room = fr_pass_room(t->session);
    fr_status st = r->in_pass || r->parked ? FR_OK : put_ids(b, t, r, most < room ? most : room);
    if (st == FR_OK && is_verify(r) && !r->parked)
        st = put_probes(b, t, r);
    return st == FR_ELIMIT ? FR_OK : st;
}

typedef enum { WRITERS, VERIFICATIONS, PROMPTS } phase;

static int belongs(const fr_batch *b, const fr_requests *t, const fr_request *r, phase p)
{
    if (p == PROMPTS)
        return 1;
    int prompt = prompt_rows(t, r);
    return is_verify(r) ? p == VERIFICATIONS && prompt <= b->prefill_chunk
                        : p == WRITERS && prompt <= 0;
}

static int any_waits(const fr_requests *t, const fr_request *other)
{
    for (int i = 0; i < t->n; i++)
        if (t->list[i] != other && !t->list[i]->parked)
            return 1;
    return 0;
}

/* Fills the pass. *failed_out: the request whose own failure stopped it. */
static fr_status build(fr_batch *b, fr_requests *t, fr_request **failed_out)
{
    const int max_rows = fr_session_info_of(t->session)->max_rows;
    fr_request *first = b->hungry;
    b->hungry = NULL;
    for (int i = 0; i < t->n; i++)
        if (t->list[i] == first)
            FR_TRY(put(b, t, *failed_out = first, b->prefill_chunk));
    for (phase p = WRITERS; p <= PROMPTS; p++)
        for (int i = 0; i < t->n; i++) {
            fr_request *r = t->list[(int)((b->turn + (uint64_t)i) % (uint64_t)t->n)];
            int keep_back = p == WRITERS && t->n > max_rows ? max_rows / 4 : 0;
            if (r->in_pass || r->parked || !belongs(b, t, r, p) ||
                fr_pass_room(t->session) <= keep_back)
                continue;
            int most = p == PROMPTS && any_waits(t, r) ? b->prefill_chunk : INT_MAX;
            FR_TRY(put(b, t, *failed_out = r, most));
        }
    return FR_OK;
}

/* Caches what is known of every request's ids. */
static void attach_all(fr_requests *t)
{
    for (int i = t->n - 1; i >= 0; i--) {
        fr_request *r = t->list[i];
        if (r->attached)
            continue;
        /* The rows that are asked about must be computed. */
        const int n = is_verify(r) ? r->position - 1 : (int)r->held->ids.len - 1;
        fr_status st = fr_held_attach(&t->held, r->held, n);
        if (st != FR_OK) {
            fr_request_fail(t, r, st, NULL);
            continue;
        }
        r->attached = 1;
        r->parked = fr_held_cached(&t->held, r->held) < n;
        r->n_own = 0; /* asked again from the first one, if it was parked half-way */
    }
}

/* ---- running */

static void deliver(fr_batch *b, fr_requests *t, int rows, double seconds)
{
    for (int i = 0; i < t->n; i++) {
        fr_request *r = t->list[i];
        r->passes += r->in_pass > 0;
        r->rows += (uint32_t)r->in_pass;
        r->seconds += seconds * r->in_pass / rows;
    }
    for (int i = 0; i < b->n_asks; i++) {
        fr_ask *a = &b->asks[i];
        fr_status st = fr_request_answer(t, a, fr_pass_answer(t->session, a->answer));
        if (st != FR_OK)
            fr_request_fail(t, a->request, st, NULL);
    }
}

/* Drops what was built, and the request that could not be. */
static void abandon(fr_batch *b, fr_requests *t, fr_request *failed, fr_status st)
{
    fr_pass_begin(t->session);
    for (int i = 0; i < b->n_asks; i++)
        if (b->asks[i].kind == FR_ASK_PROBE)
            b->asks[i].request->probe_sent[b->asks[i].index] = 0;
    fr_request_fail(t, failed, st, NULL);
}

/* Nothing could be put into the pass. Unless it waits for an idle sequence, the oldest request does
 * not fit though all others gave way. */
static void wait_or_refuse(fr_batch *b, fr_requests *t)
{
    b->wait_s = fr_room_wait_s(t, t->list[0], &b->time);
    if (b->wait_s > 0)
        return;
    fr_request *r = t->list[0];
    char cause[160];
    snprintf(cause, sizeof cause,
             "%zu tokens with their probes do not fit the cache of %lld positions",
             r->held->ids.len, (long long)fr_session_info_of(t->session)->kv_positions);
    fr_request_fail(t, r, FR_ELIMIT, cause);
}

/* Alone a row may take as long as many together. */
static double seconds_of_row(const fr_batch *b)
{
    return b->wide_rows ? b->wide_seconds / (double)b->wide_rows : b->busy_seconds / fmax((double)b->rows, 1);
}

fr_status fr_batch_pass(fr_batch *b, fr_requests *t)
{
    b->wait_s = 0;
    b->time = (fr_room_time){.now_s = fr_now_s(), .row_s = seconds_of_row(b)};
    attach_all(t);
    if (t->n == 0)
        return FR_OK;
    for (int i = 0; i < t->n; i++)
        t->list[i]->in_pass = 0;
    fr_room_admit(t, &b->time);
    b->n_asks = 0;
    b->turn++;
    fr_pass_begin(t->session);
    fr_request *failed = NULL;
    fr_status st = build(b, t, &failed);
    if (st != FR_OK) {
        abandon(b, t, failed, st);
        return FR_OK;
    }
    int rows = fr_session_info_of(t->session)->max_rows - fr_pass_room(t->session);
    if (rows == 0) {
        wait_or_refuse(b, t);
        return FR_OK;
    }
    double start = fr_now_s();
    FR_TRY(fr_pass_run(t->session));
    double seconds = fr_now_s() - start;
    b->busy_seconds += seconds;
    b->passes++;
    b->rows += (uint64_t)rows;
    if (rows >= FR_PAGE) {
        b->wide_seconds += seconds;
        b->wide_rows += (uint64_t)rows;
    }
    deliver(b, t, rows, seconds);
    return FR_OK;
}
