/* engines.c: what engine groups say: registration, heartbeats, replies, farewells. A message of a
 * peer that is no live group is a late one of a dead group, and ignored; only its heartbeat is
 * answered, so that it registers again. */
#include "check.h"
#include "core.h"
#include "log.h"

static void refuse(fr_core *core, int link, const fr_peer *to, fr_status status, const char *cause)
{
    fr_msg m = {.kind = FR_MSG_ENGINE_ERROR,
                .body.engine_error = {.status = status, .cause = cause}};
    if (fr_core_send(core, link, to, &m) != FR_OK)
        fr_log(FR_LOG_DEBUG, "a group's refusal is not delivered: %s", fr_cause());
}

void fr_core_lose_group(fr_core *core, fr_group *g, const char *why, double now)
{
    fr_log(FR_LOG_WARN, "group %u %s (%s) is lost with %d calls: %s", g->id, g->name,
           fr_role_name(g->role), g->n_calls, why);
    uint32_t id = g->id;
    fr_registry_lose(core->registry, g, now);
    fr_calls_group_lost(core->calls, id);
}

static void on_register(fr_core *core, int link, const fr_peer *from, const fr_msg_register *m,
                        double now)
{
    fr_registered r;
    fr_status st = fr_registry_register(core->registry, link, from, m, now, &r);
    if (st != FR_OK) {
        if (fr_log_limit_pass(&core->warnings, now))
            fr_log(FR_LOG_WARN, "a group is refused: %s", fr_cause());
        refuse(core, link, from, st, fr_cause());
        return;
    }
    for (int i = 0; i < 2; i++)
        if (r.replaced[i])
            fr_calls_group_lost(core->calls, r.replaced[i]);
    fr_log(FR_LOG_INFO, "group %u %s: %s %s, %u rank%s, %u threads, context %u", r.group->id,
           r.group->name, fr_role_name(r.group->role), r.group->model_name, r.group->ranks,
           r.group->ranks == 1 ? "" : "s", r.group->threads, r.group->max_context);
    fr_msg welcome = {.kind = FR_MSG_WELCOME, .body.welcome = r.welcome};
    if (fr_core_send(core, link, from, &welcome) != FR_OK)
        fr_core_lose_group(core, r.group, fr_cause(), now);
}

static void on_tokenizer(fr_core *core, fr_group *g, const fr_msg_tokenizer_blob *m, double now)
{
    fr_status st = fr_registry_tokenizer(core->registry, g, m->blob);
    if (st == FR_OK)
        return;
    refuse(core, g->link, &g->peer, st, fr_cause());
    fr_core_lose_group(core, g, fr_cause(), now);
}

static void on_error(fr_core *core, fr_group *g, const fr_msg_engine_error *m, double now)
{
    if (m->request == 0)
        fr_core_lose_group(core, g, m->cause, now);
    else
        fr_calls_error(core->calls, g, m);
}

int fr_engines_handle(fr_core *core, int link, const fr_peer *from, const fr_msg *m, double now)
{
    if (m->kind < FR_MSG_REGISTER || m->kind > FR_MSG_GOODBYE)
        return 0;
    if (m->kind == FR_MSG_REGISTER) {
        on_register(core, link, from, &m->body.register_, now);
        return 1;
    }
    fr_group *g = fr_registry_by_peer(core->registry, link, from);
    if (!g) {
        if (m->kind == FR_MSG_HEARTBEAT || m->kind == FR_MSG_TOKENIZER_BLOB)
            refuse(core, link, from, FR_ENOTFOUND, "the group is not registered here");
        return 1;
    }
    g->last_seen = now;
    switch (m->kind) {
    case FR_MSG_HEARTBEAT:
        g->load = m->body.heartbeat;
        break;
    case FR_MSG_TOKENIZER_BLOB:
        on_tokenizer(core, g, &m->body.tokenizer_blob, now);
        break;
    case FR_MSG_TOKENS:
        fr_calls_tokens(core->calls, g, &m->body.tokens);
        break;
    case FR_MSG_GENERATED:
        fr_calls_generated(core->calls, g, &m->body.generated);
        break;
    case FR_MSG_VERIFIED:
        fr_calls_verified(core->calls, g, &m->body.verified);
        break;
    case FR_MSG_ENGINE_ERROR:
        on_error(core, g, &m->body.engine_error, now);
        break;
    default: /* FR_MSG_GOODBYE, the only kind left */
        fr_core_lose_group(core, g, m->body.goodbye.reason, now);
        break;
    }
    return 1;
}
