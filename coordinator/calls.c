/* calls.c: see calls.h.
 *
 * A call is 1. waiting (group 0), 2. sent (group, wire number, mirror entry), 3. gone, with its
 * event. From 2 it falls back to 1 when the group is lost, or asks for the whole prefix.
 *
 * A call may be what brings its groups down, and then the others that are there are lost with it
 * again and again. So one that lost several groups without getting on is a suspect: it is sent to a
 * group that has nothing else to do, and no other call joins it there. Only what happens to it alone
 * is held against it. */
#include "calls.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "engine_call.h"
#include "log.h"
#include "scheduler.h"

/* Groups that a call loses before it is a suspect. */
#define SUSPECT_LOSSES 3
/* Groups that may be lost over a call that is alone on them, before it is blamed for it. */
#define MAX_LOSSES_ALONE 8
/* What rounding may add to the log-probability of a token that is certain. */
#define LOGPROB_ROUNDING 1e-3f

struct fr_calls {
    fr_registry *registry;
    fr_calls_host host;
    double grace_s;
    fr_engine_call **list;
    int n, cap;
    uint64_t next_id, next_wire;
    uint64_t seen; /* calls from this number on were made since the last dispatch began */
    fr_mirror mirror;
};

fr_status fr_calls_new(fr_registry *registry, const fr_calls_host *host, double grace_s,
                       fr_calls **out)
{
    fr_calls *c = calloc(1, sizeof *c);
    if (!c)
        return fr_no_memory();
    *c = (fr_calls){
        .registry = registry, .host = *host, .grace_s = grace_s, .next_id = 1, .next_wire = 1};
    *out = c;
    return FR_OK;
}

void fr_calls_free(fr_calls **c)
{
    if (!*c)
        return;
    for (int i = 0; i < (*c)->n; i++)
        fr_engine_call_free((*c)->list[i]);
    free((*c)->list);
    fr_mirror_free(&(*c)->mirror);
    free(*c);
    *c = NULL;
}

int fr_calls_count(const fr_calls *c)
{
    return c->n;
}

/* ---- making calls */

/* Lists a new call, or frees it when there is no room. */
static fr_status add(fr_calls *c, fr_engine_call *k, uint64_t *call_out)
{
    if (c->n == c->cap) {
        int cap = c->cap ? 2 * c->cap : 16;
        fr_engine_call **list = realloc(c->list, (size_t)cap * sizeof *list);
        if (!list) {
            fr_engine_call_free(k);
            return fr_no_memory();
        }
        c->list = list;
        c->cap = cap;
    }
    k->id = c->next_id++;
    c->list[c->n++] = k;
    *call_out = k->id;
    return FR_OK;
}

fr_status fr_calls_generate(fr_calls *c, fr_call_terms *terms, const fr_generate_call *g,
                            uint64_t *call_out)
{
    fr_engine_call *k = NULL;
    FR_TRY(fr_engine_call_generate(terms, g, &k));
    return add(c, k, call_out);
}

fr_status fr_calls_verify(fr_calls *c, fr_call_terms *terms, const fr_verify_call *v,
                          uint64_t *call_out)
{
    fr_engine_call *k = NULL;
    FR_TRY(fr_engine_call_verify(terms, v, &k));
    return add(c, k, call_out);
}

/* ---- ends of calls */

static int find(const fr_calls *c, uint64_t id)
{
    for (int i = 0; i < c->n; i++)
        if (c->list[i]->id == id)
            return i;
    return -1;
}

static fr_engine_call *find_wire(const fr_calls *c, const fr_group *g, uint64_t wire)
{
    for (int i = 0; i < c->n; i++)
        if (c->list[i]->group == g->id && c->list[i]->wire == wire)
            return c->list[i];
    return NULL;
}

static int is_suspect(const fr_engine_call *k)
{
    return k->losses >= SUSPECT_LOSSES;
}

static int count_on_group(const fr_calls *c, uint32_t group)
{
    int n = 0;
    for (int i = 0; i < c->n; i++)
        n += c->list[i]->group == group;
    return n;
}

static void count_loss(fr_engine_call *k, int is_alone)
{
    k->losses++;
    k->losses_alone += is_alone;
}

/* The call leaves its group. */
static void leave_group(fr_calls *c, fr_engine_call *k)
{
    fr_group *g = k->group ? fr_registry_by_id(c->registry, k->group) : NULL;
    if (g && g->n_calls > 0)
        g->n_calls--;
    if (k->entry)
        k->entry->busy = 0;
    k->entry = NULL;
    k->group = 0;
    k->wire = 0;
    k->next_position = k->n_ids;
}

/* Takes the call off the list; the caller frees it. */
static void unlist(fr_calls *c, fr_engine_call *k)
{
    int at = find(c, k->id);
    leave_group(c, k);
    memmove(&c->list[at], &c->list[at + 1], (size_t)(c->n - at - 1) * sizeof *c->list);
    c->n--;
}

/* A message that no one waits for an answer to. A group that does not get it is noticed at the next
 * call or heartbeat. */
static void notify(fr_calls *c, uint32_t group, const fr_msg *m)
{
    const fr_group *g = fr_registry_by_id(c->registry, group);
    if (g && c->host.send(c->host.ctx, g, m) != FR_OK)
        fr_log(FR_LOG_DEBUG, "%s to group %s: %s", fr_msg_kind_name(m->kind), g->name, fr_cause());
}

static void cancel_at(fr_calls *c, int at)
{
    fr_engine_call *k = c->list[at];
    if (k->group) {
        fr_msg m = {.kind = FR_MSG_CANCEL_REQUEST, .body.cancel_request.request = k->wire};
        notify(c, k->group, &m);
    }
    unlist(c, k);
    fr_engine_call_free(k);
}

void fr_calls_cancel(fr_calls *c, uint64_t id)
{
    int at = find(c, id);
    if (at >= 0)
        cancel_at(c, at);
}

void fr_calls_drop_job(fr_calls *c, uint64_t job)
{
    for (int i = c->n - 1; i >= 0; i--)
        if (c->list[i]->terms->job == job)
            cancel_at(c, i);
    for (int i = 0; i < fr_registry_count(c->registry); i++) {
        const fr_group *g = fr_registry_at(c->registry, i);
        if (!g->alive || !fr_mirror_has(&c->mirror, g->id, job))
            continue;
        fr_msg m = {.kind = FR_MSG_RELEASE, .body.release = {.job = job, .all = 1}};
        notify(c, g->id, &m);
    }
    fr_mirror_drop(&c->mirror, 0, job);
}

/* The job goes on without a draft group. */
static int outlives_draft(const fr_engine_call *k)
{
    return k->role == FR_ROLE_DRAFT && (k->terms->exact || k->terms->outlives_draft);
}

/* Ends a call: with an event that says it failed, or with its job. A draft that answers with an
 * error is not lost: a job whose text would change does not go on without it. */
static void fail_call(fr_calls *c, fr_engine_call *k, fr_status status, const char *cause)
{
    uint64_t job = k->terms->job;
    fr_policy_event e = {.kind = FR_EVENT_FAILED, .call = k->id, .status = status, .cause = cause};
    int is_lost = status == FR_EUNAVAILABLE || status == FR_EPEER;
    int goes_on = outlives_draft(k) && (k->terms->exact || is_lost);
    unlist(c, k);
    fr_engine_call_free(k);
    if (goes_on)
        c->host.event(c->host.ctx, job, &e);
    else
        c->host.fail(c->host.ctx, job, status, cause);
}

/* ---- replies */

/* All of it is text to this side. */
static fr_status check_ids(const fr_group *g, const int32_t *ids, size_t n)
{
    const int32_t n_vocab = fr_tokenizer_n_vocab(g->tokenizer);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= n_vocab)
            return fr_fail(FR_EPROTO,
                           "group %s generated token %d, which is outside its vocabulary of %d",
                           g->name, ids[i], n_vocab);
    return FR_OK;
}

/* Policies reckon with these numbers. -inf is one: a token may have no probability at all. */
static fr_status check_numbers(const fr_group *g, double seconds, const float *logprobs, size_t n)
{
    if (!isfinite(seconds) || seconds < 0)
        return fr_fail(FR_EPROTO, "group %s says its reply took %g seconds", g->name, seconds);
    for (size_t i = 0; i < n; i++)
        if (isnan(logprobs[i]) || logprobs[i] > LOGPROB_ROUNDING)
            return fr_fail(FR_EPROTO, "group %s sent %g as a log-probability", g->name,
                           (double)logprobs[i]);
    return FR_OK;
}

static fr_status check_tokens(const fr_engine_call *k, const fr_group *g, const fr_msg_tokens *m)
{
    const size_t end = (size_t)m->position + m->n_ids;
    const size_t most = (size_t)k->n_ids + (size_t)k->generate.max_tokens;
    if (end > most)
        return fr_fail(FR_EPROTO, "group %s streamed tokens up to position %zu, asked was %zu",
                       g->name, end, most);
    return check_ids(g, m->ids, m->n_ids);
}

void fr_calls_tokens(fr_calls *c, fr_group *g, const fr_msg_tokens *m)
{
    fr_engine_call *k = find_wire(c, g, m->request);
    if (!k || k->verify || !k->generate.stream)
        return;
    fr_status st = check_tokens(k, g, m);
    if (st != FR_OK) {
        fail_call(c, k, st, fr_cause());
        return;
    }
    const int end = (int)m->position + (int)m->n_ids;
    if ((int)m->position > k->next_position || end <= k->next_position)
        return; /* a gap, which the complete reply fills, or nothing new */
    k->next_position = end;
    if (end > k->furthest) { /* it gets on */
        k->furthest = end;
        k->losses = k->losses_alone = 0;
    }
    fr_policy_event e = {.kind = FR_EVENT_TOKENS, .call = k->id, .tokens = m};
    c->host.event(c->host.ctx, k->terms->job, &e);
}

/* The reply is what the call asked for. */
static fr_status check_generated(const fr_engine_call *k, const fr_group *g,
                                 const fr_msg_generated *m)
{
    if (m->position != (uint32_t)k->n_ids)
        return fr_fail(FR_EPROTO, "group %s generated from position %u, asked was %d", g->name,
                       m->position, k->n_ids);
    if (m->n_ids == 0 || m->n_ids > (size_t)k->generate.max_tokens)
        return fr_fail(FR_EPROTO, "group %s generated %zu tokens, asked were 1 to %d", g->name,
                       m->n_ids, k->generate.max_tokens);
    if (m->n_logprobs != m->n_ids)
        return fr_fail(FR_EPROTO, "group %s sent %zu log-probabilities for %zu tokens", g->name,
                       m->n_logprobs, m->n_ids);
    FR_TRY(check_numbers(g, m->seconds, m->logprobs, m->n_logprobs));
    return check_ids(g, m->ids, m->n_ids);
}

void fr_calls_generated(fr_calls *c, fr_group *g, const fr_msg_generated *m)
{
    fr_engine_call *k = find_wire(c, g, m->request);
    if (!k || k->verify)
        return;
    fr_status st = check_generated(k, g, m);
    if (st != FR_OK) {
        fail_call(c, k, st, fr_cause());
        return;
    }
    uint64_t job = k->terms->job;
    fr_policy_event e = {.kind = FR_EVENT_GENERATED, .call = k->id, .generated = m};
    k->terms->passes += k->role == FR_ROLE_TARGET ? m->passes : 0;
    /* The last token was sampled, not read: it is not cached. */
    fr_mirror_set(k->entry, k->ids, k->n_ids, m->ids, m->n_ids ? (int)m->n_ids - 1 : 0);
    unlist(c, k);
    fr_engine_call_free(k);
    c->host.event(c->host.ctx, job, &e);
}

static fr_status check_verified(const fr_engine_call *k, const fr_group *g,
                                const fr_msg_verified *m)
{
    const size_t n_drafted = (size_t)(k->n_ids - k->position);
    if (m->n_own != n_drafted + 1 || m->n_probes != (size_t)k->n_probes ||
        m->n_drafted_logprobs != n_drafted)
        return fr_fail(FR_EPROTO,
                       "group %s verified %zu tokens and %zu probes, asked were %zu and %d",
                       g->name, m->n_own, m->n_probes, n_drafted + 1, k->n_probes);
    FR_TRY(check_numbers(g, m->seconds, m->drafted_logprobs, m->n_drafted_logprobs));
    return check_ids(g, m->own, m->n_own);
}

void fr_calls_verified(fr_calls *c, fr_group *g, const fr_msg_verified *m)
{
    fr_engine_call *k = find_wire(c, g, m->request);
    if (!k || !k->verify)
        return;
    fr_status st = check_verified(k, g, m);
    if (st != FR_OK) {
        fail_call(c, k, st, fr_cause());
        return;
    }
    uint64_t job = k->terms->job;
    k->terms->passes += m->passes;
    fr_policy_event e = {.kind = FR_EVENT_VERIFIED, .call = k->id, .verified = m};
    fr_mirror_set(k->entry, k->ids, k->n_ids, NULL, 0);
    unlist(c, k);
    fr_engine_call_free(k);
    c->host.event(c->host.ctx, job, &e);
}

void fr_calls_error(fr_calls *c, fr_group *g, const fr_msg_engine_error *m)
{
    fr_engine_call *k = find_wire(c, g, m->request);
    if (!k)
        return;
    switch (m->status) {
    case FR_ENEEDPREFIX:
        if (k->whole) {
            char cause[160];
            snprintf(cause, sizeof cause, "group %s asks for the prefix it was sent", g->name);
            fail_call(c, k, FR_EPROTO, cause);
            return;
        }
        k->whole = 1;
        fr_mirror_set(k->entry, NULL, 0, NULL, 0);
        leave_group(c, k);
        return;
    case FR_EPEER: /* the group lost a rank: it can serve nothing */
    case FR_EUNAVAILABLE:
        c->host.lost(c->host.ctx, g, m->cause);
        return;
    case FR_ECANCELLED: /* not by us, so the group is leaving; another one takes it, or this one
                           again */
        count_loss(k, 0); /* it leaves in good order */
        leave_group(c, k);
        return;
    default: {
        fr_status status = m->status < 0 ? (fr_status)m->status : FR_EPROTO;
        fail_call(c, k, status, m->cause);
    }
    }
}

void fr_calls_group_lost(fr_calls *c, uint32_t group)
{
    const int is_alone = count_on_group(c, group) == 1;
    for (int i = 0; i < c->n; i++) {
        fr_engine_call *k = c->list[i];
        if (k->group == group) {
            count_loss(k, is_alone);
            leave_group(c, k);
        }
    }
    fr_mirror_drop(&c->mirror, group, 0);
}

/* ---- sending */

/* A suspect has the group, or waits until it is idle. */
static int is_claimed(const fr_calls *c, const fr_engine_call *by_others_than, uint32_t group)
{
    for (int i = 0; i < c->n; i++) {
        const fr_engine_call *o = c->list[i];
        if (o != by_others_than && is_suspect(o) && (o->group == group || o->awaits == group))
            return 1;
    }
    return 0;
}

/* Claimed groups are taken only if there is no other: then the call waits. */
static fr_group *choose_among(const fr_calls *c, const fr_engine_call *k, int batch_dependent)
{
    fr_choice choices[FR_GROUPS_MAX];
    fr_group *groups[FR_GROUPS_MAX];
    uint32_t sticky = is_suspect(k) ? 0 : k->terms->group[k->role];
    int n = 0;
    for (int i = 0; i < fr_registry_count(c->registry); i++) {
        fr_group *g = fr_registry_at(c->registry, i);
        if (!fr_group_usable(g, k->role, k->terms->model[k->role]) ||
            (g->batch_dependent && !batch_dependent))
            continue;
        const int claimed = is_claimed(c, k, g->id);
        if (claimed && g->id == sticky)
            sticky = 0;
        groups[n] = g;
        choices[n++] = (fr_choice){.group = g->id,
                                   .n_calls = claimed ? INT_MAX : g->n_calls,
                                   .kv_free = g->load.kv_free};
    }
    int at = fr_schedule(choices, n, sticky);
    return at < 0 ? NULL : groups[at];
}

static fr_group *choose_group(const fr_calls *c, const fr_engine_call *k)
{
    int is_exact = k->terms->exact && k->role == FR_ROLE_TARGET;
    fr_group *g = is_exact ? choose_among(c, k, 0) : NULL;
    return g ? g : choose_among(c, k, 1);
}

/* The draft of an exact job changes nothing but the time. */
static int writes_text(const fr_engine_call *k)
{
    return k->role == FR_ROLE_TARGET || !k->terms->exact;
}

/* Sends a waiting call to the group. */
static fr_status send_call(fr_calls *c, fr_engine_call *k, fr_group *g)
{
    int shared = 0;
    FR_TRY(fr_mirror_take(&c->mirror, g->id, k->terms->job, k->ids, k->n_ids, &k->entry, &shared));
    /* The engine wants at least one token, and all the judged ones. */
    int most = k->verify ? k->position - 1 : k->n_ids - 1;
    int start = k->whole ? 0 : shared < most ? shared : most;
    k->wire = c->next_wire++;
    k->group = g->id;
    g->n_calls++;
    k->terms->group[k->role] = g->id;
    fr_mirror_set(k->entry, k->ids, k->n_ids, NULL, 0);
    fr_msg m = fr_engine_call_message(k, g, start > 0 ? start : 0);
    fr_status st = c->host.send(c->host.ctx, g, &m);
    if (st != FR_OK)
        leave_group(c, k);
    else if (g->batch_dependent && writes_text(k))
        k->terms->batch_dependent = 1;
    return st;
}

/* One waiting call: sent, left waiting, or ended. The call may be gone afterwards. */
static void dispatch_call(fr_calls *c, fr_engine_call *k, double now)
{
    if (k->losses_alone >= MAX_LOSSES_ALONE) {
        char cause[128];
        snprintf(cause, sizeof cause, "%d %s groups were lost over the same call, which was alone on them",
                 k->losses_alone, fr_role_name(k->role));
        fail_call(c, k, FR_EPEER, cause);
        return;
    }
    k->awaits = 0;
    fr_group *g = choose_group(c, k);
    if (!g) {
        double since = fr_registry_absent_since(c->registry, k->role);
        /* There are groups, of another model: an exact job does not wait for its own to come back,
         * and any other is ended (job.h). */
        int other_model = isinf(since) && k->terms->exact;
        if (outlives_draft(k) && (other_model || now - since >= c->grace_s))
            fail_call(c, k, FR_EUNAVAILABLE, "no draft group is there");
        return;
    }
    if (is_claimed(c, k, g->id))
        return;
    if (is_suspect(k) && g->n_calls > 0) {
        k->awaits = g->id;
        return;
    }
    fr_status st = send_call(c, k, g);
    if (st == FR_EPEER || st == FR_EBUSY || st == FR_EIO)
        c->host.lost(c->host.ctx, g, fr_cause());
    else if (st != FR_OK)
        fail_call(c, k, st, fr_cause());
}

void fr_calls_dispatch(fr_calls *c, double now)
{
    /* By number, since events change the list; calls made by those events wait for the next turn of
     * the loop. */
    const uint64_t end = c->seen = c->next_id;
    for (uint64_t next = 0;;) {
        fr_engine_call *k = NULL;
        for (int i = 0; i < c->n; i++) {
            fr_engine_call *o = c->list[i];
            if (!o->group && o->id >= next && o->id < end && (!k || o->id < k->id))
                k = o;
        }
        if (!k)
            return;
        next = k->id + 1;
        dispatch_call(c, k, now);
    }
}

double fr_calls_deadline(const fr_calls *c)
{
    double first = INFINITY;
    for (int i = 0; i < c->n; i++) {
        const fr_engine_call *k = c->list[i];
        if (k->group)
            continue;
        if (k->id >= c->seen)
            return 0;
        if (outlives_draft(k))
            first = fmin(first, fr_registry_absent_since(c->registry, k->role) + c->grace_s);
    }
    return first;
}
