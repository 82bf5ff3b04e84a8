/* room.c: see room.h. */
#include "room.h"

#include <math.h>

#include "ops.h"

#define LEAST_PATIENCE_S 0.1 /* a job's next request may be late, however little there is to compute */

static int pages_for(int64_t positions)
{
    return (int)((positions + FR_PAGE - 1) / FR_PAGE);
}

static int pages_of(const fr_requests *t, const fr_held *e)
{
    return pages_for(fr_held_cached(&t->held, e));
}

/* Seconds until an idle one gives way to everyone. */
static double patience_left(const fr_requests *t, const fr_held *e, const fr_room_time *time)
{
    const double again_s = 2 * fr_held_cached(&t->held, e) * time->row_s;
    return e->used_s + fmax(again_s, LEAST_PATIENCE_S) - time->now_s;
}

static int is_stale(const fr_requests *t, const fr_held *e, const fr_room_time *time)
{
    return patience_left(t, e, time) <= 0;
}

static int is_idle_and_cached(const fr_held *e)
{
    return !e->request && e->seq >= 0;
}

/* An idle one's, to r. */
static int gives_way(const fr_requests *t, const fr_held *e, const fr_request *r, const fr_room_time *time)
{
    return is_idle_and_cached(e) && (e->job >= r->held->job || is_stale(t, e, time));
}

/* Of two idle ones: a has to give way before b. */
static int goes_before(const fr_requests *t, const fr_held *a, const fr_held *b, const fr_room_time *time)
{
    const int a_stale = is_stale(t, a, time), b_stale = is_stale(t, b, time);
    if (a_stale != b_stale)
        return a_stale;
    return a_stale || a->job == b->job ? a->used_s < b->used_s : a->job > b->job;
}

int fr_room_make(fr_requests *t, const fr_request *r, const fr_room_time *time)
{
    fr_held *idle = NULL;
    for (int i = 0; i < t->held.n; i++) {
        fr_held *e = t->held.list[i];
        if (gives_way(t, e, r, time) && (!idle || goes_before(t, e, idle, time)))
            idle = e;
    }
    fr_request *youngest = NULL;
    for (int i = t->n - 1; t->list[i] != r && !youngest; i--)
        if (!t->list[i]->in_pass && t->list[i]->held->seq >= 0)
            youngest = t->list[i];
    if (idle && (!youngest || idle->job >= youngest->held->job || is_stale(t, idle, time))) {
        fr_held_shrink(&t->held, idle);
        return 1;
    }
    if (!youngest)
        return 0;
    fr_held_shrink(&t->held, youngest->held);
    youngest->attached = 0;
    youngest->parked = 1;
    return 1;
}

/* What its ids need beside what is cached of them. */
static int pages_missing(const fr_requests *t, const fr_request *r)
{
    return pages_for((int64_t)r->held->ids.len) - pages_of(t, r->held);
}

/* Pages that are free for r, or others would have to give it, less those that older requests are about to take. Each
 * older job that has its place may want another page soon: room that it would take back at once is none. Shared pages
 * count more than once, so it may be too many; then r waits for the rest. */
static int64_t pages_within_reach(const fr_requests *t, const fr_request *r, const fr_room_time *time)
{
    int64_t n = fr_session_kv_free(t->session) / FR_PAGE;
    for (int i = 0; i < t->held.n; i++)
        if (gives_way(t, t->held.list[i], r, time))
            n += pages_of(t, t->held.list[i]);
        else if (is_idle_and_cached(t->held.list[i]))
            n--;
    int is_older = 1;
    for (int i = 0; i < t->n; i++) {
        const fr_request *other = t->list[i];
        if (other == r)
            is_older = 0;
        else if (!is_older)
            n += pages_of(t, other->held);
        else if (!other->parked)
            n -= pages_missing(t, other) + 1;
    }
    return n;
}

void fr_room_admit(fr_requests *t, const fr_room_time *time)
{
    for (int i = 0; i < t->n; i++) {
        fr_request *r = t->list[i];
        const int missing = r->parked ? pages_missing(t, r) : 0;
        if (missing <= 0 || missing <= pages_within_reach(t, r, time)) /* it may have all its pages already */
            r->parked = 0;
    }
}

double fr_room_wait_s(const fr_requests *t, const fr_request *r, const fr_room_time *time)
{
    double wait_s = INFINITY;
    for (int i = 0; i < t->held.n; i++) {
        const fr_held *e = t->held.list[i];
        if (is_idle_and_cached(e) && !gives_way(t, e, r, time))
            wait_s = fmin(wait_s, patience_left(t, e, time));
    }
    return isinf(wait_s) ? 0 : wait_s;
}
