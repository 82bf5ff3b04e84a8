/* registry.c: see registry.h. A handful of groups: plain arrays, searched from the front. */
#include "registry.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define MAX_TOKENIZERS 16

struct fr_registry {
    double dead_after;
    uint32_t heartbeat_ms;
    uint64_t epoch;
    uint32_t next_id;
    fr_group **groups; /* [FR_GROUPS_MAX] */
    int n_groups;
    fr_tokenizer *tokenizers[MAX_TOKENIZERS];
    int n_tokenizers;
    double absent_since[2]; /* by role */
};

const char *fr_role_name(fr_role role)
{
    return role == FR_ROLE_TARGET ? "target" : "draft";
}

static void group_free(fr_group *g)
{
    free(g->name);
    free(g->model_name);
    free(g->backend);
    free(g);
}

fr_status fr_registry_new(int heartbeat_ms, int dead_after_ms, uint64_t first_epoch, double now,
                          fr_registry **out)
{
    fr_registry *r = calloc(1, sizeof *r);
    if (!r)
        return fr_no_memory();
    r->groups = calloc(FR_GROUPS_MAX, sizeof *r->groups);
    if (!r->groups) {
        free(r);
        return fr_no_memory();
    }
    r->heartbeat_ms = (uint32_t)heartbeat_ms;
    r->dead_after = dead_after_ms / 1000.0;
    r->epoch = first_epoch;
    r->next_id = 1;
    r->absent_since[FR_ROLE_TARGET] = r->absent_since[FR_ROLE_DRAFT] = now;
    *out = r;
    return FR_OK;
}

void fr_registry_free(fr_registry **r)
{
    if (!*r)
        return;
    for (int i = 0; i < (*r)->n_groups; i++)
        group_free((*r)->groups[i]);
    for (int i = 0; i < (*r)->n_tokenizers; i++)
        fr_tokenizer_free(&(*r)->tokenizers[i]);
    free((*r)->groups);
    free(*r);
    *r = NULL;
}

static const fr_tokenizer *find_tokenizer(const fr_registry *r, uint64_t digest)
{
    for (int i = 0; i < r->n_tokenizers; i++)
        if (fr_tokenizer_digest(r->tokenizers[i]) == digest)
            return r->tokenizers[i];
    return NULL;
}

int fr_group_usable(const fr_group *g, fr_role role, uint64_t model_digest)
{
    return g->alive && g->tokenizer && g->role == role &&
           (!model_digest || g->model_digest == model_digest);
}

const fr_group *fr_registry_any(const fr_registry *r, fr_role role, uint64_t model_digest)
{
    for (int i = 0; i < r->n_groups; i++)
        if (fr_group_usable(r->groups[i], role, model_digest))
            return r->groups[i];
    return NULL;
}

double fr_registry_absent_since(const fr_registry *r, fr_role role)
{
    return fr_registry_any(r, role, 0) ? (double)INFINITY : r->absent_since[role];
}

fr_group *fr_registry_by_peer(const fr_registry *r, int link, const fr_peer *peer)
{
    for (int i = 0; i < r->n_groups; i++) {
        fr_group *g = r->groups[i];
        if (g->alive && g->link == link && fr_peer_equal(&g->peer, peer))
            return g;
    }
    return NULL;
}

fr_group *fr_registry_by_id(const fr_registry *r, uint32_t id)
{
    for (int i = 0; i < r->n_groups; i++)
        if (r->groups[i]->id == id && r->groups[i]->alive)
            return r->groups[i];
    return NULL;
}

/* The live group that a registration takes the place of; NULL: none (any more). */
static fr_group *to_replace(const fr_registry *r, int link, const fr_peer *peer, const char *name)
{
    fr_group *same_peer = fr_registry_by_peer(r, link, peer);
    if (same_peer)
        return same_peer;
    for (int i = 0; i < r->n_groups; i++)
        if (r->groups[i]->alive && !strcmp(r->groups[i]->name, name))
            return r->groups[i];
    return NULL;
}

fr_group *fr_registry_silent(const fr_registry *r, double now)
{
    for (int i = 0; i < r->n_groups; i++)
        if (r->groups[i]->alive && now - r->groups[i]->last_seen >= r->dead_after)
            return r->groups[i];
    return NULL;
}

double fr_registry_deadline(const fr_registry *r)
{
    double first = INFINITY;
    for (int i = 0; i < r->n_groups; i++)
        if (r->groups[i]->alive)
            first = fmin(first, r->groups[i]->last_seen + r->dead_after);
    return first;
}

int fr_registry_count(const fr_registry *r)
{
    return r->n_groups;
}

fr_group *fr_registry_at(const fr_registry *r, int i)
{
    return r->groups[i];
}

static void remove_at(fr_registry *r, int at)
{
    group_free(r->groups[at]);
    memmove(&r->groups[at], &r->groups[at + 1], (size_t)(r->n_groups - at - 1) * sizeof *r->groups);
    r->n_groups--;
}

/* Forgets the dead group of this name, and makes room for one more. */
static fr_status make_room(fr_registry *r, const char *name)
{
    int oldest = -1;
    for (int i = r->n_groups - 1; i >= 0; i--)
        if (!r->groups[i]->alive && !strcmp(r->groups[i]->name, name))
            remove_at(r, i);
    if (r->n_groups < FR_GROUPS_MAX)
        return FR_OK;
    for (int i = 0; i < r->n_groups; i++)
        if (!r->groups[i]->alive &&
            (oldest < 0 || r->groups[i]->last_seen < r->groups[oldest]->last_seen))
            oldest = i;
    if (oldest < 0)
        return fr_fail(FR_ELIMIT, "group %s: there are %d groups already", name, FR_GROUPS_MAX);
    remove_at(r, oldest);
    return FR_OK;
}

static fr_status check_register(const fr_registry *r, const fr_msg_register *m, fr_role *role)
{
    if (!strcmp(m->role, "target"))
        *role = FR_ROLE_TARGET;
    else if (!strcmp(m->role, "draft"))
        *role = FR_ROLE_DRAFT;
    else
        return fr_fail(FR_EINVAL, "group %s: role \"%s\" is unknown; there are target and draft",
                       m->name, m->role);
    if (!m->name[0])
        return fr_fail(FR_EINVAL, "a %s group registers without a name", m->role);
    if (m->max_context < 2)
        return fr_fail(FR_EINVAL, "group %s: max_context is %u", m->name, m->max_context);
    for (int i = 0; i < r->n_groups; i++) {
        const fr_group *g = r->groups[i];
        if (!g->alive || g->role != *role || strcmp(g->name, m->name) == 0)
            continue;
        if (g->model_digest != m->model_digest)
            return fr_fail(FR_EMISMATCH,
                           "group %s serves %s (%016llx), but %s group %s serves %s (%016llx)",
                           m->name, m->model_name, (unsigned long long)m->model_digest, m->role,
                           g->name, g->model_name, (unsigned long long)g->model_digest);
        if (g->max_context != m->max_context)
            return fr_fail(FR_EMISMATCH, "group %s has a context of %u, but %s group %s has %u", m->name,
                           m->max_context, m->role, g->name, g->max_context);
    }
    return FR_OK;
}

fr_status fr_registry_register(fr_registry *r, int link, const fr_peer *peer,
                               const fr_msg_register *m, double now, fr_registered *out)
{
    fr_role role = FR_ROLE_TARGET;
    *out = (fr_registered){0};
    FR_TRY(check_register(r, m, &role));
    fr_group *g = calloc(1, sizeof *g);
    if (!g)
        return fr_no_memory();
    *g = (fr_group){
        .id = r->next_id,
        .epoch = r->epoch + 1,
        .link = link,
        .peer = *peer,
        .role = role,
        .alive = 1,
        .name = strdup(m->name),
        .model_name = strdup(m->model_name),
        .backend = strdup(m->backend),
        .model_digest = m->model_digest,
        .tokenizer_digest = m->tokenizer_digest,
        .kv_positions = m->kv_positions,
        .ranks = m->ranks,
        .threads = m->threads,
        .max_context = m->max_context,
        .pid = m->pid,
        .batch_dependent = m->batch_dependent,
        .tokenizer = find_tokenizer(r, m->tokenizer_digest),
        .last_seen = now,
        .load = {.kv_free = m->kv_positions},
    };
    if (!g->name || !g->model_name || !g->backend) {
        group_free(g);
        return fr_no_memory();
    }
    for (int i = 0; i < 2; i++) {
        fr_group *old = to_replace(r, link, peer, m->name);
        if (old) {
            out->replaced[i] = old->id;
            fr_registry_lose(r, old, now);
        }
    }
    fr_status st = make_room(r, m->name);
    if (st != FR_OK) {
        group_free(g);
        return st;
    }
    r->next_id++;
    r->epoch++;
    r->groups[r->n_groups++] = g;
    out->group = g;
    out->welcome = (fr_msg_welcome){.group = g->id,
                                    .epoch = g->epoch,
                                    .want_tokenizer = !g->tokenizer,
                                    .heartbeat_ms = r->heartbeat_ms};
    return FR_OK;
}

fr_status fr_registry_tokenizer(fr_registry *r, fr_group *g, fr_bytes blob)
{
    if (!find_tokenizer(r, g->tokenizer_digest)) {
        fr_tokenizer *t = NULL;
        if (r->n_tokenizers == MAX_TOKENIZERS)
            return fr_fail(FR_ELIMIT, "group %s: %d tokenizers are known already", g->name,
                           MAX_TOKENIZERS);
        FR_TRY(fr_tokenizer_unpack(blob.data, blob.len, &t));
        if (fr_tokenizer_digest(t) != g->tokenizer_digest) {
            fr_status st =
                fr_fail(FR_EMISMATCH, "group %s sent tokenizer %016llx, announced was %016llx",
                        g->name, (unsigned long long)fr_tokenizer_digest(t),
                        (unsigned long long)g->tokenizer_digest);
            fr_tokenizer_free(&t);
            return st;
        }
        r->tokenizers[r->n_tokenizers++] = t;
    }
    /* Other groups may have been asked for the same one meanwhile. */
    for (int i = 0; i < r->n_groups; i++)
        r->groups[i]->tokenizer = find_tokenizer(r, r->groups[i]->tokenizer_digest);
    return FR_OK;
}

void fr_registry_lose(fr_registry *r, fr_group *g, double now)
{
    g->alive = 0;
    g->n_calls = 0;
    if (!fr_registry_any(r, g->role, 0))
        r->absent_since[g->role] = now;
}
