/* request_check.c: see request_check.h. */
#include "request_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

#define MAX_STOPS 64
#define MAX_STOP_BYTES 1024
#define MAX_PROBES 4096

uint64_t fr_request_id(const fr_msg *m)
{
    return m->kind == FR_MSG_VERIFY ? m->body.verify.request : m->body.generate.request;
}

const fr_msg_prefix *fr_request_prefix(const fr_msg *m)
{
    return m->kind == FR_MSG_VERIFY ? &m->body.verify.prefix : &m->body.generate.prefix;
}

static fr_status check_ids(const fr_session_info *info, const int32_t *ids, size_t n,
                           const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= info->n_vocab)
            return fr_fail(FR_EINVAL, "%s: token id %d is outside the vocabulary of %d", what,
                           ids[i], info->n_vocab);
    return FR_OK;
}

static fr_status check_prefix(const fr_requests *t, const fr_msg_prefix *p)
{
    const fr_session_info *info = fr_session_info_of(t->session);
    const uint64_t n = (uint64_t)p->start + p->n_tokens;
    if (n == 0)
        return fr_fail(FR_EINVAL, "the prefix has no tokens");
    if (n > (uint64_t)info->max_context)
        return fr_fail(FR_ELIMIT, "prompt of %llu tokens is longer than the context of %d",
                       (unsigned long long)n, info->max_context);
    if (n > (uint64_t)fr_requests_capacity(t))
        return fr_fail(FR_ELIMIT, "prompt of %llu tokens is longer than the cache of %d positions",
                       (unsigned long long)n, fr_requests_capacity(t));
    return check_ids(info, p->tokens, p->n_tokens, "prefix");
}

static fr_status check_sampling(const fr_msg_sampling *s)
{
    if (!isfinite(s->temperature) || (s->temperature != 0 && s->temperature < FR_TEMPERATURE_MIN))
        return fr_fail(FR_EINVAL, "a temperature of %g is not possible", (double)s->temperature);
    if (isnan(s->top_p) || s->top_p < 0 || s->top_p > 1)
        return fr_fail(FR_EINVAL, "top_p is %g, not between 0 and 1", (double)s->top_p);
    return FR_OK;
}

static fr_status check_generate(const fr_msg_generate *m)
{
    const uint64_t n = (uint64_t)m->prefix.start + m->prefix.n_tokens;
    FR_TRY(check_sampling(&m->sampling));
    if (m->max_tokens == 0)
        return fr_fail(FR_EINVAL, "max_tokens is 0");
    if (m->prefix.chain_base > n)
        return fr_fail(FR_EINVAL, "chain_base %u is beyond the prefix of %llu tokens",
                       m->prefix.chain_base, (unsigned long long)n);
    if (m->step_from > n)
        return fr_fail(FR_EINVAL, "step_from %u is beyond the prefix of %llu tokens", m->step_from,
                       (unsigned long long)n);
    if (strlen(m->delimiter) > MAX_STOP_BYTES)
        return fr_fail(FR_ELIMIT, "delimiter of %zu bytes is over %d", strlen(m->delimiter),
                       MAX_STOP_BYTES);
    if (m->n_stops > MAX_STOPS)
        return fr_fail(FR_ELIMIT, "%zu stop strings are over %d", m->n_stops, MAX_STOPS);
    for (size_t i = 0; i < m->n_stops; i++)
        if (strlen(m->stops[i]) > MAX_STOP_BYTES)
            return fr_fail(FR_ELIMIT, "stop string %zu of %zu bytes is over %d", i,
                           strlen(m->stops[i]), MAX_STOP_BYTES);
    return FR_OK;
}

static fr_status check_probe(const fr_session_info *info, const fr_msg_probe *p, size_t i,
                             uint64_t n)
{
    char what[32];
    snprintf(what, sizeof what, "probe %zu", i);
    if (p->at == 0 || p->at > n)
        return fr_fail(FR_EINVAL, "%s: at %u is not within the trunk of %llu tokens", what, p->at,
                       (unsigned long long)n);
    if (p->n_tokens == 0)
        return fr_fail(FR_EINVAL, "%s has no tokens", what);
    if (p->n_tokens > (size_t)info->max_rows)
        return fr_fail(FR_ELIMIT, "%s of %zu tokens is longer than a pass of %d rows", what,
                       p->n_tokens, info->max_rows);
    if (p->at + p->n_tokens > (size_t)info->max_context)
        return fr_fail(FR_ELIMIT, "%s: %zu tokens are longer than the context of %d", what,
                       p->at + p->n_tokens, info->max_context);
    if (p->n_wanted > FR_WANTED_MAX)
        return fr_fail(FR_ELIMIT, "%s: %zu wanted tokens are over %d", what, p->n_wanted,
                       FR_WANTED_MAX);
    FR_TRY(check_ids(info, p->tokens, p->n_tokens, what));
    return check_ids(info, p->wanted, p->n_wanted, what);
}

static fr_status check_verify(const fr_requests *t, const fr_msg_verify *m)
{
    const uint64_t n = (uint64_t)m->prefix.start + m->prefix.n_tokens;
    FR_TRY(check_sampling(&m->sampling));
    if (m->position == 0 || m->position > n)
        return fr_fail(FR_EINVAL, "position %u is not within the trunk of %llu tokens", m->position,
                       (unsigned long long)n);
    if (m->prefix.chain_base > m->position)
        return fr_fail(FR_EINVAL, "chain_base %u is beyond the first judged position %u",
                       m->prefix.chain_base, m->position);
    if (m->n_probes > MAX_PROBES)
        return fr_fail(FR_ELIMIT, "%zu probes are over %d", m->n_probes, MAX_PROBES);
    for (size_t i = 0; i < m->n_probes; i++)
        FR_TRY(check_probe(fr_session_info_of(t->session), &m->probes[i], i, n));
    return FR_OK;
}

fr_status fr_request_check(const fr_requests *t, const fr_msg *m)
{
    FR_TRY(check_prefix(t, fr_request_prefix(m)));
    return m->kind == FR_MSG_VERIFY ? check_verify(t, &m->body.verify)
                                    : check_generate(&m->body.generate);
}
