/* requests.c: see requests.h. Checks of what a message says are in request_check.c. */
#include "requests.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "log.h"
#include "ops.h"
#include "request_check.h"

void fr_requests_send(fr_requests *t, const fr_msg *m)
{
    if (fr_link_send(t->link, NULL, m) == FR_OK)
        return;
    /* A coordinator that does not read is told about once, not for everything it misses. */
    fr_log(t->reply_lost ? FR_LOG_DEBUG : FR_LOG_WARN, "%s not sent: %s", fr_msg_kind_name(m->kind),
           fr_cause());
    if (m->kind != FR_MSG_TOKENS) /* their request's reply has all of them */
        t->reply_lost = 1;
}

static void send_error(fr_requests *t, uint64_t id, fr_status st, const char *cause)
{
    fr_log(FR_LOG_DEBUG, "request %llu: %s", (unsigned long long)id, cause);
    fr_requests_send(t,
                     &(fr_msg){.kind = FR_MSG_ENGINE_ERROR,
                               .body.engine_error = {.request = id, .status = st, .cause = cause}});
}

/* ---- making and ending */

static void request_free(fr_request *r)
{
    fr_msg_free(&r->message);
    fr_stop_rules_close(&r->rules);
    free(r->logprobs);
    free(r->own);
    free(r->drafted_logprobs);
    free(r->probes);
    free(r->probe_logprobs);
    free(r->probe_sent);
    free(r);
}

/* Takes a request out of the table, and frees it. */
static void drop(fr_requests *t, fr_request *r)
{
    int n = 0;
    for (int i = 0; i < t->n; i++)
        if (t->list[i] != r)
            t->list[n++] = t->list[i];
    t->n = n;
    if (r->held) {
        r->held->request = NULL;
        fr_held_touch(r->held);
    }
    request_free(r);
}

void fr_requests_close(fr_requests *t)
{
    while (t->n > 0)
        drop(t, t->list[t->n - 1]);
    free(t->list);
    fr_holdings_close(&t->held);
    *t = (fr_requests){0};
}

void fr_request_fail(fr_requests *t, fr_request *r, fr_status st, const char *cause)
{
    send_error(t, r->id, st, cause ? cause : fr_cause());
    drop(t, r);
}

void fr_requests_fail_all(fr_requests *t, fr_status st, const char *cause)
{
    while (t->n > 0)
        fr_request_fail(t, t->list[0], st, cause);
}

int fr_requests_capacity(const fr_requests *t)
{
    const fr_session_info *info = fr_session_info_of(t->session);
    return info->kv_positions < info->max_context ? (int)info->kv_positions : info->max_context;
}

int fr_requests_context(const fr_requests *t)
{
    const int64_t sure = fr_session_info_of(t->session)->kv_positions - (FR_PAGE - 1);
    const int capacity = fr_requests_capacity(t);
    return sure < capacity ? (int)sure : capacity;
}

static fr_status alloc_results(fr_request *r)
{
    if (r->message.kind != FR_MSG_VERIFY)
        return FR_OK;
    const fr_msg_verify *m = &r->message.body.verify;
    size_t n_drafted = (size_t)(r->n_given - r->position), n_wanted = 0;
    for (size_t i = 0; i < m->n_probes; i++)
        n_wanted += m->probes[i].n_wanted;
    r->n_probes = (int)m->n_probes;
    r->own = calloc(n_drafted + 1, sizeof *r->own);
    r->drafted_logprobs = calloc(n_drafted + 1, sizeof *r->drafted_logprobs);
    r->probes = calloc(m->n_probes + 1, sizeof *r->probes);
    r->probe_sent = calloc(m->n_probes + 1, sizeof *r->probe_sent);
    r->probe_logprobs = calloc(n_wanted + 1, sizeof *r->probe_logprobs);
    if (!r->own || !r->drafted_logprobs || !r->probes || !r->probe_sent || !r->probe_logprobs)
        return fr_no_memory();
    float *logprobs = r->probe_logprobs;
    for (size_t i = 0; i < m->n_probes; logprobs += m->probes[i++].n_wanted)
        r->probes[i] = (fr_msg_probe_result){.at = m->probes[i].at, .logprobs = logprobs,
                                             .n_logprobs = m->probes[i].n_wanted};
    return FR_OK;
}

static fr_sampling sampling_of(const fr_msg_sampling *m)
{
    return (fr_sampling){.temperature = m->temperature, .top_p = m->top_p > 0 ? m->top_p : 1,
                         .top_k = m->top_k < FR_TOP_MAX ? (int32_t)m->top_k : FR_TOP_MAX,
                         .seed = m->seed, .sample = m->sample};
}

/* The sequence that the prefix names, holding exactly the ids that the request works on. */
static fr_status resolve(fr_requests *t, const fr_msg_prefix *p, fr_held **out)
{
    fr_held *e = fr_held_find(&t->held, p->job, p->sequence);
    if (p->start > 0 &&
        (!e || e->ids.len < p->start || fr_ids_digest(e->ids.data, p->start) != p->digest))
        return fr_fail(FR_ENEEDPREFIX,
                       "the first %u tokens of sequence %u of job %llu are not known here",
                       p->start, p->sequence, (unsigned long long)p->job);
    FR_TRY(fr_held_get(&t->held, p->job, p->sequence, &e));
    if (e->request) /* the newer one counts */
        fr_request_fail(t, e->request, FR_ECANCELLED, "another request took its sequence");
    e->ids.len = p->start;
    e->epoch = p->epoch;
    fr_held_touch(e);
    *out = e;
    return fr_ids_put(&e->ids, p->tokens, p->n_tokens);
}

/* Fills a new request from its message. */
static fr_status begin(fr_requests *t, fr_request *r)
{
    const fr_msg_prefix *p = fr_request_prefix(&r->message);
    FR_TRY(fr_request_check(t, &r->message));
    FR_TRY(resolve(t, p, &r->held));
    r->held->request = r;
    r->n_given = (int)r->held->ids.len;
    r->chain_base = (int)p->chain_base;
    if (r->message.kind == FR_MSG_VERIFY) {
        r->sampling = sampling_of(&r->message.body.verify.sampling);
        r->position = (int)r->message.body.verify.position;
        return alloc_results(r);
    }
    const fr_msg_generate *m = &r->message.body.generate;
    r->sampling = sampling_of(&m->sampling);
    return fr_stop_rules_open(&r->rules, fr_session_tokenizer(t->session), m, r->held->ids.data,
                              r->n_given);
}

static fr_status make_room(fr_requests *t)
{
    if (t->n < t->cap)
        return FR_OK;
    int cap = t->cap ? 2 * t->cap : 16;
    fr_request **list = realloc(t->list, (size_t)cap * sizeof *list);
    if (!list)
        return fr_no_memory();
    t->list = list;
    t->cap = cap;
    return FR_OK;
}

static void drop_older_epochs(fr_requests *t, uint64_t job, uint64_t epoch)
{
    for (int i = t->n - 1; i >= 0; i--)
        if (t->list[i]->held->job == job && t->list[i]->held->epoch < epoch)
            drop(t, t->list[i]);
}

/* Among those of its job it is the last. */
static void enlist(fr_requests *t, fr_request *r)
{
    int at = t->n++;
    for (; at > 0 && t->list[at - 1]->held->job > r->held->job; at--)
        t->list[at] = t->list[at - 1];
    t->list[at] = r;
}

void fr_requests_add(fr_requests *t, fr_msg *m)
{
    const fr_msg_prefix *p = fr_request_prefix(m);
    const uint64_t id = fr_request_id(m);
    if (p->epoch < fr_held_epoch(&t->held, p->job)) {
        fr_msg_free(m);
        return;
    }
    drop_older_epochs(t, p->job, p->epoch);
    fr_requests_cancel(t, id);
    fr_request *r = calloc(1, sizeof *r);
    fr_status st = r ? make_room(t) : fr_no_memory();
    if (r && st == FR_OK) {
        *r = (fr_request){.id = id, .message = *m};
        *m = (fr_msg){0};
        st = begin(t, r);
        if (st == FR_OK) {
            enlist(t, r);
            return;
        }
    }
    send_error(t, id, st, fr_cause());
    fr_msg_free(m);
    if (r)
        drop(t, r);
}

static fr_request *find(const fr_requests *t, uint64_t id)
{
    for (int i = 0; i < t->n; i++)
        if (t->list[i]->id == id)
            return t->list[i];
    return NULL;
}

void fr_requests_cancel(fr_requests *t, uint64_t id)
{
    fr_request *r = find(t, id);
    if (r)
        drop(t, r);
}

void fr_requests_truncate(fr_requests *t, const fr_msg_truncate *m)
{
    fr_held *e = fr_held_find(&t->held, m->job, m->sequence);
    if (!e)
        return;
    if (e->request)
        fr_request_fail(t, e->request, FR_ECANCELLED, "its sequence was truncated");
    fr_held_cut(&t->held, e, m->position);
}

void fr_requests_fork(fr_requests *t, const fr_msg_fork *m)
{
    fr_held *from = fr_held_find(&t->held, m->job, m->from),
            *to = fr_held_find(&t->held, m->job, m->to);
    if (!from) /* the next request for it gives its whole prefix */
        return;
    if (to && to->request)
        fr_request_fail(t, to->request, FR_ECANCELLED, "its sequence was replaced by a fork");
    if (fr_held_fork(&t->held, from, m->to, m->position) != FR_OK)
        fr_log(FR_LOG_WARN, "fork of job %llu: %s", (unsigned long long)m->job, fr_cause());
}

void fr_requests_release(fr_requests *t, const fr_msg_release *m)
{
    for (int i = t->held.n - 1; i >= 0; i--) {
        fr_held *e = t->held.list[i];
        if (e->job != m->job || (!m->all && e->sequence != m->sequence))
            continue;
        if (e->request)
            drop(t, e->request);
        fr_held_drop(&t->held, e);
    }
}

void fr_requests_forget(fr_requests *t)
{
    t->reply_lost = 0;
    while (t->n > 0)
        drop(t, t->list[t->n - 1]);
    for (int i = 0; i < t->held.n; i++)
        t->held.list[i]->epoch = 0;
}

/* ---- answers */

int fr_request_todo(const fr_requests *t, const fr_request *r)
{
    return (int)r->held->ids.len - fr_held_cached(&t->held, r->held);
}

static fr_status put_logprob(fr_request *r, int at, float logprob)
{
    if (at >= r->cap_logprobs) {
        int cap = r->cap_logprobs ? 2 * r->cap_logprobs : 64;
        float *grown = realloc(r->logprobs, (size_t)cap * sizeof *grown);
        if (!grown)
            return fr_no_memory();
        r->logprobs = grown;
        r->cap_logprobs = cap;
    }
    r->logprobs[at] = logprob;
    return FR_OK;
}

static void send_generated(fr_requests *t, const fr_request *r, const char *stop)
{
    size_t n = r->held->ids.len - (size_t)r->n_given;
    fr_requests_send(t, &(fr_msg){.kind = FR_MSG_GENERATED,
                                  .body.generated = {.request = r->id,
                                                     .position = (uint32_t)r->n_given,
                                                     .ids = r->held->ids.data + r->n_given,
                                                     .n_ids = n,
                                                     .logprobs = r->logprobs,
                                                     .n_logprobs = n,
                                                     .stop = stop,
                                                     .passes = r->passes,
                                                     .rows = r->rows,
                                                     .seconds = r->seconds}});
}

/* Why the generation ends with the token just appended; NULL to go on. */
static fr_status stop_of(fr_requests *t, fr_request *r, int32_t id, const char **out)
{
    const fr_msg_generate *m = &r->message.body.generate;
    size_t n = r->held->ids.len - (size_t)r->n_given;
    FR_TRY(fr_stop_rules_feed(&r->rules, id, out));
    if (fr_tokenizer_is_end(r->rules.tokenizer, id))
        *out = "end";
    else if (*out)
        ;
    else if (m->min_joint_logprob < 0 && r->joint_logprob < m->min_joint_logprob)
        *out = "unsure";
    else if (n >= m->max_tokens)
        *out = "limit";
    else if ((int)r->held->ids.len > fr_requests_capacity(t))
        *out = "context"; /* there is no position left for this token's own row */
    return FR_OK;
}

static fr_status answer_next(fr_requests *t, const fr_ask *ask, const fr_row_answer *a)
{
    fr_request *r = ask->request;
    int at = (int)r->held->ids.len - r->n_given;
    int32_t id = fr_sample(&r->sampling, ask->query.position, a);
    float logprob = fr_answer_logprob(a, fr_answer_logit(a, &ask->query, id));
    const char *stop = NULL;
    FR_TRY(put_logprob(r, at, logprob));
    r->joint_logprob += logprob;
    FR_TRY(fr_ids_put(&r->held->ids, &id, 1));
    if (r->message.body.generate.stream)
        fr_requests_send(t, &(fr_msg){.kind = FR_MSG_TOKENS,
                                      .body.tokens = {.request = r->id,
                                                      .position = (uint32_t)(r->n_given + at),
                                                      .ids = &id,
                                                      .n_ids = 1}});
    FR_TRY(stop_of(t, r, id, &stop));
    if (stop) {
        send_generated(t, r, stop);
        drop(t, r);
    }
    return FR_OK;
}

static void answer_own(const fr_ask *ask, const fr_row_answer *a)
{
    fr_request *r = ask->request;
    int i = ask->index - r->position;
    r->own[i] = fr_sample(&r->sampling, ask->query.position, a);
    if (ask->index < r->n_given)
        r->drafted_logprobs[i] =
            fr_answer_logprob(a, fr_answer_logit(a, &ask->query, ask->query.wanted[0]));
    r->n_own++;
}

static void answer_probe(const fr_ask *ask, const fr_row_answer *a)
{
    fr_request *r = ask->request;
    float *logprobs = (float *)r->probes[ask->index].logprobs; /* in probe_logprobs */
    for (int i = 0; i < ask->query.n_wanted; i++)
        logprobs[i] = fr_answer_logprob(a, fr_answer_logit(a, &ask->query, ask->query.wanted[i]));
    r->probes[ask->index].best = a->winner;
    r->n_probes_done++;
}

static void settle_verify(fr_requests *t, fr_request *r)
{
    int n_drafted = r->n_given - r->position;
    if (r->n_own < n_drafted + 1 || r->n_probes_done < r->n_probes)
        return;
    fr_requests_send(t, &(fr_msg){.kind = FR_MSG_VERIFIED,
                                  .body.verified = {.request = r->id,
                                                    .position = (uint32_t)r->position,
                                                    .own = r->own,
                                                    .n_own = (size_t)r->n_own,
                                                    .drafted_logprobs = r->drafted_logprobs,
                                                    .n_drafted_logprobs = (size_t)n_drafted,
                                                    .probes = r->probes,
                                                    .n_probes = (size_t)r->n_probes,
                                                    .passes = r->passes,
                                                    .rows = r->rows,
                                                    .seconds = r->seconds}});
    drop(t, r);
}

fr_status fr_request_answer(fr_requests *t, const fr_ask *ask, const fr_row_answer *a)
{
    if (ask->kind == FR_ASK_NEXT)
        return answer_next(t, ask, a);
    if (ask->kind == FR_ASK_OWN)
        answer_own(ask, a);
    else
        answer_probe(ask, a);
    settle_verify(t, ask->request);
    return FR_OK;
}
