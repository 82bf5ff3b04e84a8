/* simulation.c: see simulation.h. */
#include "simulation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "check.h"

typedef struct sim_call {
    uint64_t id;
    fr_generate_call asked; /* not for a Verify */
    int verify, stream;
    fr_role role;
    fr_ids ids;            /* the whole sequence */
    size_t from;           /* position of the first generated or judged token */
    fr_ids reply;          /* generated, or the target's own */
    float *logprobs;
    fr_msg_probe_result *probes;
    float *probe_logprobs;
    size_t n_probes, sent; /* sent: streamed so far */
    const char *stop;
    int fails;
} sim_call;

typedef struct sim {
    const sim_options *o;
    fr_chain chain;
    fr_policy *policy;
    sim_result *out;
    sim_call **calls;
    int n_calls, cap_calls, n_target_replies;
    uint64_t next_id, random;
    int n_finished, closed;
} sim;

static uint64_t draw(sim *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return s->random * 0x2545f4914f6cdd1du >> 33;
}

static int chance(sim *s, int per_mille)
{
    return (int)(draw(s) % 1000) < per_mille;
}

/* ---- calls ---- */

static void call_free(sim_call *c)
{
    if (!c)
        return;
    fr_ids_free(&c->ids);
    fr_ids_free(&c->reply);
    free(c->logprobs);
    free(c->probes);
    free(c->probe_logprobs);
    free(c);
}

static fr_status call_new(sim *s, const int32_t *ids, int n, sim_call **out)
{
    if (s->n_calls == s->cap_calls) {
        int cap = s->cap_calls ? 2 * s->cap_calls : 8;
        sim_call **calls = realloc(s->calls, (size_t)cap * sizeof *calls);
        if (!calls)
            return fr_no_memory();
        s->calls = calls;
        s->cap_calls = cap;
    }
    sim_call *c = calloc(1, sizeof *c);
    if (!c)
        return fr_no_memory();
    fr_status st = fr_ids_put(&c->ids, ids, (size_t)n);
    if (st != FR_OK) {
        call_free(c);
        return st;
    }
    *out = c;
    return FR_OK;
}

static void call_add(sim *s, sim_call *c, uint64_t *id_out)
{
    c->id = *id_out = ++s->next_id;
    s->calls[s->n_calls++] = c;
}

static sim_call *call_take(sim *s, int i)
{
    sim_call *c = s->calls[i];
    s->calls[i] = s->calls[--s->n_calls];
    return c;
}

/* Is there the step's delimiter in the text of ids[n]? */
static fr_status has_delimiter(const fr_tokenizer *t, const char *delimiter, const int32_t *ids,
                               size_t n, int *out)
{
    fr_buf text = {0};
    fr_status st = fr_detokenize(t, ids, n, 0, &text);
    *out = st == FR_OK && text.len && *delimiter &&
           memmem(text.data, text.len, delimiter, strlen(delimiter));
    fr_buf_free(&text);
    return st;
}

static fr_status put_logprob(sim_call *c, float logprob)
{
    float *grown = realloc(c->logprobs, (c->reply.len + 1) * sizeof *grown);
    if (!grown)
        return fr_no_memory();
    c->logprobs = grown;
    c->logprobs[c->reply.len] = logprob;
    return FR_OK;
}

/* What the engine would write. */
static fr_status generate_reply(sim *s, const models *m, const fr_generate_call *g, sim_call *c)
{
    int draft = g->role == FR_ROLE_DRAFT, delimited = 0;
    const fr_tokenizer *t = draft ? m->draft : m->target;
    fr_ids seq = {0};
    fr_status st = fr_ids_put(&seq, g->ids, (size_t)g->n_ids);
    float joint = 0;
    c->stop = NULL;
    c->reply.len = 0;
    while (st == FR_OK && !c->stop) {
        size_t base = (size_t)g->chain_base, from = (size_t)g->step_from;
        int32_t id = (draft ? models_draft_next : models_target_next)(m, seq.data, seq.len, base);
        if (g->rough && chance(s, s->o->rough_errors))
            id = m->draft_words.data[draw(s) % m->draft_words.len];
        float logprob = models_logprob(m, draft, seq.data, seq.len, base, id);
        joint += logprob;
        st = fr_ids_put(&seq, &id, 1);
        if (st == FR_OK)
            st = put_logprob(c, logprob);
        if (st == FR_OK)
            st = fr_ids_put(&c->reply, &id, 1);
        if (st == FR_OK && g->stop_at_step)
            st = has_delimiter(t, s->o->params.delimiter, seq.data + from, seq.len - from,
                               &delimited);
        if (fr_tokenizer_is_end(t, id))
            c->stop = "end";
        else if (delimited)
            c->stop = "step";
        else if (g->min_joint_logprob < 0 && joint < g->min_joint_logprob)
            c->stop = "unsure";
        else if ((int)c->reply.len >= g->max_tokens)
            c->stop = "limit";
    }
    fr_ids_free(&seq);
    return st;
}

static void check_prefix(const sim *s, fr_role role, const int32_t *ids, int n, int base)
{
    int own = role == FR_ROLE_TARGET || s->chain.same_tokenizer;
    const fr_ids *chain = own ? &s->chain.ids : &s->chain.draft_ids;
    assert_int_equal(base, own ? s->chain.prompt_len : s->chain.draft_prompt_len);
    assert_true((size_t)n >= chain->len);
    assert_memory_equal(ids, chain->data, chain->len * sizeof *ids);
    assert_true(n <= s->o->params.max_context);
}

static fr_status sim_generate(void *ctx, const fr_generate_call *g, uint64_t *call_out)
{
    sim *s = ctx;
    sim_call *c = NULL;
    assert_false(s->n_finished || s->closed);
    assert_true(g->max_tokens > 0 && g->n_ids > 0 && g->step_from <= g->n_ids);
    assert_true(g->role == FR_ROLE_DRAFT || !g->rough);
    check_prefix(s, g->role, g->ids, g->n_ids, g->chain_base);
    assert_true(g->n_ids + g->max_tokens <= s->o->params.max_context);
    if (g->role == FR_ROLE_TARGET || s->chain.same_tokenizer)
        assert_true(g->n_ids - g->chain_base + g->max_tokens <= s->o->params.max_tokens);
    if (g->role == FR_ROLE_DRAFT && chance(s, s->o->missing / 2))
        return fr_fail(FR_EUNAVAILABLE, "no draft group");
    FR_TRY(call_new(s, g->ids, g->n_ids, &c));
    c->role = g->role;
    c->stream = g->stream;
    c->from = c->ids.len;
    c->fails = g->role == FR_ROLE_DRAFT && chance(s, s->o->missing / 2);
    c->asked = *g;
    c->asked.ids = c->ids.data;
    fr_status st = generate_reply(s, s->o->models, g, c);
    if (st != FR_OK) {
        call_free(c);
        return st;
    }
    s->out->n_draft_calls += g->role == FR_ROLE_DRAFT;
    s->out->n_rough_calls += g->rough;
    call_add(s, c, call_out);
    return FR_OK;
}

static fr_status verify_reply(const sim *s, const fr_verify_call *v, sim_call *c)
{
    const models *m = s->o->models;
    size_t n = (size_t)(v->n_ids - v->position), base = (size_t)v->chain_base;
    c->n_probes = (size_t)v->n_probes;
    c->logprobs = calloc(n + 1, sizeof *c->logprobs);
    c->probes = calloc(c->n_probes + 1, sizeof *c->probes);
    c->probe_logprobs = calloc(c->n_probes * 16 + 1, sizeof *c->probe_logprobs);
    if (!c->logprobs || !c->probes || !c->probe_logprobs)
        return fr_no_memory();
    for (size_t i = c->from; i <= c->ids.len; i++) {
        int32_t own = models_target_next(m, c->ids.data, i, base);
        FR_TRY(fr_ids_put(&c->reply, &own, 1));
        if (i < c->ids.len)
            c->logprobs[i - c->from] = models_logprob(m, 0, c->ids.data, i, base, c->ids.data[i]);
    }
    for (size_t i = 0; i < c->n_probes; i++) {
        const fr_msg_probe *p = &v->probes[i];
        float *logprobs = c->probe_logprobs + 16 * i;
        assert_true(p->n_tokens > 0 && p->n_wanted <= 16);
        assert_true((int)p->at >= v->position - 1 && (int)p->at <= v->n_ids);
        assert_true((int)(p->at + p->n_tokens) <= s->o->params.max_context);
        assert_false(fr_tokenizer_is_end(m->target, c->ids.data[p->at - 1])); /* the turn goes on */
        int32_t best = models_probe(m, c->ids.data, p->at, p->wanted, p->n_wanted, logprobs);
        c->probes[i] = (fr_msg_probe_result){
            .at = p->at, .logprobs = logprobs, .n_logprobs = p->n_wanted, .best = best};
    }
    return FR_OK;
}

static fr_status sim_verify(void *ctx, const fr_verify_call *v, uint64_t *call_out)
{
    sim *s = ctx;
    sim_call *c = NULL;
    assert_false(s->n_finished || s->closed);
    check_prefix(s, FR_ROLE_TARGET, v->ids, v->n_ids, v->chain_base);
    assert_true(v->position >= (int)s->chain.ids.len && v->position <= v->n_ids);
    /* One more comes back. */
    assert_true(v->n_ids - v->chain_base <= s->o->params.max_tokens - s->o->policy->exact);
    for (int i = v->position; s->o->drafts_only && i < v->n_ids; i++)
        assert_int_equal(v->ids[i],
                         models_draft_next(s->o->models, v->ids, (size_t)i, (size_t)v->chain_base));
    FR_TRY(call_new(s, v->ids, v->n_ids, &c));
    c->verify = 1;
    c->from = (size_t)v->position;
    fr_status st = verify_reply(s, v, c);
    if (st != FR_OK) {
        call_free(c);
        return st;
    }
    s->out->n_verify++;
    s->out->n_probes += v->n_probes;
    if (v->n_ids - v->position > s->out->most_drafted)
        s->out->most_drafted = v->n_ids - v->position;
    call_add(s, c, call_out);
    return FR_OK;
}

static void sim_cancel(void *ctx, uint64_t id)
{
    sim *s = ctx;
    for (int i = 0; i < s->n_calls; i++) {
        if (s->calls[i]->id == id) {
            call_free(call_take(s, i));
            return;
        }
    }
    fail_msg("cancelled call %llu, which is not open", (unsigned long long)id);
}

/* ---- the chain ---- */

static fr_status record(sim_result *r, const fr_step_record *step)
{
    if (r->n_steps == r->cap_steps) {
        int cap = r->cap_steps ? 2 * r->cap_steps : 16;
        sim_step *steps = realloc(r->steps, (size_t)cap * sizeof *steps);
        if (!steps)
            return fr_no_memory();
        r->steps = steps;
        r->cap_steps = cap;
    }
    size_t from = r->ids.len;
    FR_TRY(fr_ids_put(&r->ids, step->ids, (size_t)step->n_ids));
    r->steps[r->n_steps++] = (sim_step){.from = from, .n = step->n_ids, .accepted = step->accepted,
                                        .drafted = step->drafted, .kept = step->kept,
                                        .origin = step->origin, .score = step->score};
    return FR_OK;
}

static fr_status sim_commit(void *ctx, const fr_step_record *step)
{
    sim *s = ctx;
    assert_false(s->n_finished || s->closed);
    assert_true(step->n_ids > 0 && step->kept <= step->drafted);
    if (step->accepted)
        FR_TRY(fr_chain_append(&s->chain, step->ids, (size_t)step->n_ids));
    assert_true(fr_chain_len(&s->chain) <= s->o->params.max_tokens);
    assert_true((int)s->chain.ids.len <= s->o->params.max_context);
    return record(s->out, step);
}

static void sim_tail(void *ctx, const int32_t *ids, int n)
{
    (void)ctx, (void)ids;
    assert_true(n >= 0);
}

static void sim_finish(void *ctx, const char *stop)
{
    sim *s = ctx;
    assert_int_equal(++s->n_finished, 1);
    assert_int_equal(s->n_calls, 0); /* all are answered or cancelled */
    s->out->stop = stop;
}

/* ---- events ---- */

/* The call is repeated on another group: from the beginning, and perhaps in other words. */
static fr_status repeat(sim *s, sim_call *c)
{
    models m = *s->o->models;
    c->sent = 0;
    if (s->o->changes_mind) {
        m.seed += draw(s) % 3;
        FR_TRY(generate_reply(s, &m, &c->asked, c));
    }
    if (s->o->ends_sooner && c->reply.len > 1) {
        c->reply.len = 1 + draw(s) % (c->reply.len - 1);
        c->stop = "context";
    }
    return FR_OK;
}

static fr_status deliver_tokens(sim *s, sim_call *c)
{
    int32_t ids[5]; /* the policy may cancel the call: the message outlives it, as the host's do */
    size_t k = 1 + draw(s) % 5, left = c->reply.len - c->sent;
    k = k < left ? k : left;
    memcpy(ids, c->reply.data + c->sent, k * sizeof *ids);
    fr_msg_tokens m = {.position = (uint32_t)(c->from + c->sent), .ids = ids, .n_ids = k};
    fr_policy_event e = {.kind = FR_EVENT_TOKENS, .call = c->id, .tokens = &m};
    c->sent += k;
    if (chance(s, s->o->again))
        FR_TRY(repeat(s, c));
    return s->o->policy->advance(s->policy, &e);
}

/* Keeps what the target wrote, whole. */
static fr_status keep_last(sim *s, const sim_call *c)
{
    s->out->last.len = 0;
    FR_TRY(fr_ids_put(&s->out->last, c->ids.data, c->ids.len));
    return fr_ids_put(&s->out->last, c->reply.data, c->reply.len);
}

static fr_status deliver_reply(sim *s, int i)
{
    sim_call *c = call_take(s, i);
    fr_policy_event e = {.kind = FR_EVENT_GENERATED, .call = c->id};
    double seconds = s->o->times ? (double)(1 + draw(s) % 1000) / 1e4 : 0;
    uint32_t rows = (uint32_t)(c->reply.len + (s->o->times ? draw(s) % 4 : 0));
    fr_msg_generated g = {.position = (uint32_t)c->from,
                          .ids = c->reply.data,
                          .n_ids = c->reply.len,
                          .logprobs = c->logprobs,
                          .n_logprobs = c->reply.len,
                          .stop = c->stop,
                          .passes = 1,
                          .rows = rows,
                          .seconds = seconds};
    fr_msg_verified v = {.position = (uint32_t)c->from,
                         .own = c->reply.data,
                         .n_own = c->reply.len,
                         .drafted_logprobs = c->logprobs,
                         .n_drafted_logprobs = c->ids.len - c->from,
                         .probes = c->probes,
                         .n_probes = c->n_probes,
                         .passes = 1,
                         .rows = rows,
                         .seconds = seconds};
    int target = c->verify || c->role == FR_ROLE_TARGET;
    if (target && ++s->n_target_replies == s->o->bad_target)
        c->fails = 1;
    if (c->fails) {
        e.kind = FR_EVENT_FAILED;
        e.status = target ? FR_EIO : FR_EUNAVAILABLE;
        e.cause = target ? "the target failed" : "no draft group";
    } else if (c->verify) {
        e.kind = FR_EVENT_VERIFIED;
        e.verified = &v;
    } else {
        e.generated = &g;
    }
    fr_status st = e.generated && target ? keep_last(s, c) : FR_OK;
    if (st == FR_OK)
        st = s->o->policy->advance(s->policy, &e);
    call_free(c);
    return st;
}

static fr_status deliver_one(sim *s)
{
    int i = (int)(draw(s) % (uint64_t)s->n_calls);
    sim_call *c = s->calls[i];
    if (c->role == FR_ROLE_DRAFT && !c->verify && chance(s, s->o->slow_draft * 10))
        return FR_OK;
    s->out->n_events++;
    if (c->stream && !c->fails && c->sent < c->reply.len && !chance(s, 100))
        return deliver_tokens(s, c);
    return deliver_reply(s, i);
}

static fr_status run(sim *s, const fr_policy_host *host)
{
    const sim_options *o = s->o;
    FR_TRY(o->policy->open(host, &s->chain, &o->params, &s->policy));
    const fr_policy_event start = {.kind = FR_EVENT_START};
    FR_TRY(o->policy->advance(s->policy, &start));
    while (!s->n_finished) {
        if (o->close_after && s->out->n_events >= o->close_after)
            return FR_OK;
        assert_true(s->n_calls > 0); /* else it would wait for ever */
        assert_true(s->out->n_events < 200000);
        FR_TRY(deliver_one(s));
    }
    /* A late event must not wake it. */
    const fr_policy_event late = {
        .kind = FR_EVENT_FAILED, .call = 1, .status = FR_EIO, .cause = "late"};
    return o->policy->advance(s->policy, &late);
}

static fr_status open_chain(sim *s)
{
    const sim_options *o = s->o;
    FR_TRY(fr_chain_open(&s->chain, o->models->target, o->models->draft, NULL, "Add 5 to 12.", 0));
    for (int i = 0, n = 0; o->resume && n < o->resume_steps; i++) {
        const sim_step *step = &o->resume->steps[i];
        if (!step->accepted)
            continue;
        FR_TRY(fr_chain_append(&s->chain, o->resume->ids.data + step->from, (size_t)step->n));
        n++;
    }
    return FR_OK;
}

fr_status sim_run(const sim_options *o, sim_result *out)
{
    sim s = {.o = o, .out = out, .random = o->order * 0x9e3779b97f4a7c15u | 1};
    const fr_policy_host host = {.ctx = &s,
                                 .generate = sim_generate,
                                 .verify = sim_verify,
                                 .cancel = sim_cancel,
                                 .commit = sim_commit,
                                 .tail = sim_tail,
                                 .finish = sim_finish};
    *out = (sim_result){0};
    fr_status st = open_chain(&s);
    if (st == FR_OK)
        st = run(&s, &host);
    s.closed = 1;
    o->policy->close(&s.policy);
    assert_null(s.policy);
    while (s.n_calls)
        call_free(call_take(&s, 0));
    free(s.calls);
    fr_chain_close(&s.chain);
    return st;
}

void sim_result_free(sim_result *r)
{
    fr_ids_free(&r->ids);
    fr_ids_free(&r->last);
    free(r->steps);
    *r = (sim_result){0};
}

/* ---- the plain chain ---- */

/* The length of the step at the front of ids[n], which ends the chain; by looking at each length
 * anew. */
static fr_status plain_step(const sim_options *o, const int32_t *ids, size_t n, size_t *out)
{
    const fr_tokenizer *t = o->models->target;
    size_t cap = o->params.step_tokens > 0 ? (size_t)o->params.step_tokens : n;
    for (size_t k = 1; k <= n; k++) {
        int delimited = 0;
        *out = k;
        FR_TRY(has_delimiter(t, o->params.delimiter, ids, k, &delimited));
        if (delimited || fr_tokenizer_is_end(t, ids[k - 1]))
            return FR_OK;
        if (k < cap)
            continue;
        fr_buf text = {0};
        for (size_t j = k; j > 0; j--) {
            text.len = 0;
            fr_status st = fr_detokenize(t, ids, j, 0, &text);
            if (st != FR_OK || fr_utf8_unfinished(text.data, text.len) == 0) {
                *out = j;
                fr_buf_free(&text);
                return st;
            }
        }
        fr_buf_free(&text);
        return FR_OK;
    }
    return FR_OK;
}

fr_status sim_plain(const sim_options *o, sim_result *out)
{
    *out = (sim_result){0};
    fr_chain chain = {0};
    FR_TRY(fr_chain_open(&chain, o->models->target, NULL, NULL, "Add 5 to 12.", 0));
    fr_ids seq = {0};
    size_t base = chain.ids.len;
    FR_TRY(fr_ids_put(&seq, chain.ids.data, base));
    while (!out->stop) {
        int32_t id = models_target_next(o->models, seq.data, seq.len, base);
        FR_TRY(fr_ids_put(&seq, &id, 1));
        if (fr_tokenizer_is_end(o->models->target, id))
            out->stop = "end";
        else if ((int)(seq.len - base) >= o->params.max_tokens)
            out->stop = "limit";
        else if ((int)seq.len >= o->params.max_context)
            out->stop = "context";
    }
    for (size_t at = base, n = 0; at < seq.len; at += n) {
        FR_TRY(plain_step(o, seq.data + at, seq.len - at, &n));
        const fr_step_record step = {.ids = seq.data + at, .n_ids = (int)n, .accepted = 1};
        FR_TRY(record(out, &step));
    }
    fr_ids_free(&seq);
    fr_chain_close(&chain);
    return FR_OK;
}
