/* json_out.c: see json_out.h. */
#include "json_out.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "ui.h"

static fr_status checked(const void *item)
{
    return item ? FR_OK : fr_no_memory();
}

fr_status fr_json_object(cJSON **out)
{
    *out = cJSON_CreateObject();
    return checked(*out);
}

fr_status fr_json_bytes(cJSON *o, const char *key, const void *data, size_t n)
{
    fr_buf text = {0};
    fr_status st = fr_ui_utf8(data, n, &text);
    if (st == FR_OK)
        st = fr_buf_put(&text, "", 1);
    if (st == FR_OK)
        st = checked(cJSON_AddStringToObject(o, key, (const char *)text.data));
    fr_buf_free(&text);
    return st;
}

fr_status fr_json_text(cJSON *o, const char *key, const char *text)
{
    return fr_json_bytes(o, key, text, strlen(text));
}

fr_status fr_json_number(cJSON *o, const char *key, double v)
{
    return checked(isfinite(v) ? cJSON_AddNumberToObject(o, key, v)
                               : cJSON_AddNullToObject(o, key));
}

fr_status fr_json_u64(cJSON *o, const char *key, uint64_t v)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, v);
    return checked(cJSON_AddRawToObject(o, key, text));
}

fr_status fr_json_bool(cJSON *o, const char *key, int v)
{
    return checked(cJSON_AddBoolToObject(o, key, v));
}

fr_status fr_json_child(cJSON *o, const char *key, cJSON *child)
{
    if (child && cJSON_AddItemToObject(o, key, child))
        return FR_OK;
    cJSON_Delete(child);
    return fr_no_memory();
}

fr_status fr_json_append(cJSON *array, cJSON *child)
{
    if (child && cJSON_AddItemToArray(array, child))
        return FR_OK;
    cJSON_Delete(child);
    return fr_no_memory();
}

fr_status fr_json_print(const cJSON *o)
{
    char *text = cJSON_PrintUnformatted(o);
    if (!text)
        return fr_no_memory();
    int ok = puts(text) >= 0 && fflush(stdout) == 0;
    free(text);
    return ok ? FR_OK : fr_fail(FR_EIO, "standard output: %s", strerror(errno));
}

fr_status fr_json_save(const cJSON *o, const char *path)
{
    char *text = cJSON_Print(o);
    fr_buf temp = {0};
    if (!text)
        return fr_no_memory();
    fr_status st = fr_buf_printf(&temp, "%s.tmp", path);
    if (st == FR_OK) {
        FILE *f = fopen((const char *)temp.data, "we");
        int ok = f && fprintf(f, "%s\n", text) > 0;
        ok = f && fclose(f) == 0 && ok;
        if (!ok || rename((const char *)temp.data, path) != 0)
            st = fr_fail(FR_EIO, "%s: %s", path, strerror(errno));
    }
    fr_buf_free(&temp);
    free(text);
    return st;
}

/* Each builder fills an object and frees it when one of its parts fails. */
static fr_status finish(fr_status st, cJSON *o, cJSON **out)
{
    if (st != FR_OK)
        cJSON_Delete(o);
    else
        *out = o;
    return st;
}

static fr_status fill_step(cJSON *o, const fr_msg_step *s)
{
    FR_TRY(fr_json_text(o, "event", "step"));
    FR_TRY(fr_json_u64(o, "job", s->job));
    FR_TRY(fr_json_number(o, "index", s->index));
    FR_TRY(fr_json_text(o, "origin", s->origin));
    FR_TRY(fr_json_text(o, "verdict", s->verdict));
    FR_TRY(fr_json_number(o, "score", (double)s->score));
    FR_TRY(fr_json_bytes(o, "text", s->text.data, s->text.len));
    FR_TRY(fr_json_number(o, "tokens", s->tokens));
    FR_TRY(fr_json_number(o, "drafted", s->drafted));
    FR_TRY(fr_json_number(o, "accepted", s->accepted));
    return fr_json_number(o, "seconds", s->seconds);
}

fr_status fr_json_step(const fr_msg_step *step, cJSON **out)
{
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    return finish(fill_step(o, step), o, out);
}

static fr_status fill_progress(cJSON *o, const fr_msg_progress *p)
{
    FR_TRY(fr_json_text(o, "event", "progress"));
    FR_TRY(fr_json_u64(o, "job", p->job));
    FR_TRY(fr_json_number(o, "chain_tokens", p->chain_tokens));
    FR_TRY(fr_json_number(o, "drafted", p->drafted));
    FR_TRY(fr_json_number(o, "accepted", p->accepted));
    FR_TRY(fr_json_u64(o, "passes", p->passes));
    FR_TRY(fr_json_number(o, "seconds", p->seconds));
    return fr_json_bytes(o, "tail", p->tail.data, p->tail.len);
}

fr_status fr_json_progress(const fr_msg_progress *progress, cJSON **out)
{
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    return finish(fill_progress(o, progress), o, out);
}

static fr_status fill_tokens(cJSON *o, const fr_msg_job_info *j)
{
    cJSON *tokens = cJSON_AddObjectToObject(o, "tokens");
    FR_TRY(checked(tokens));
    FR_TRY(fr_json_number(tokens, "chain", j->chain_tokens));
    FR_TRY(fr_json_number(tokens, "drafted", j->drafted));
    FR_TRY(fr_json_number(tokens, "accepted", j->accepted));
    return fr_json_number(tokens, "target", j->target_tokens);
}

static fr_status fill_job(cJSON *o, const char *event, int with_text, const fr_msg_job_info *j)
{
    if (event)
        FR_TRY(fr_json_text(o, "event", event));
    FR_TRY(fr_json_u64(o, "job", j->job));
    FR_TRY(fr_json_text(o, "state", j->state));
    if (j->spec.name[0])
        FR_TRY(fr_json_text(o, "name", j->spec.name));
    if (!event)
        FR_TRY(fr_json_text(o, "problem", j->spec.problem));
    if (with_text)
        FR_TRY(fr_json_bytes(o, "text", j->text.data, j->text.len));
    FR_TRY(fr_json_text(o, "answer", j->answer));
    FR_TRY(fr_json_number(o, "seconds", j->seconds));
    FR_TRY(fill_tokens(o, j));
    FR_TRY(fr_json_number(o, "steps", j->steps));
    FR_TRY(fr_json_u64(o, "passes", j->passes));
    FR_TRY(fr_json_text(o, "policy", j->spec.policy));
    FR_TRY(fr_json_u64(o, "seed", j->spec.sampling.seed));
    FR_TRY(fr_json_text(o, "stop", j->stop));
    FR_TRY(fr_json_bool(o, "batch_dependent", j->batch_dependent));
    if (j->status != FR_OK)
        FR_TRY(fr_json_text(o, "status", fr_status_text((fr_status)j->status)));
    if (j->status != FR_OK || j->cause[0]) /* of its end, or of its waiting */
        FR_TRY(fr_json_text(o, "cause", j->cause));
    return FR_OK;
}

fr_status fr_json_job(const char *event, const fr_msg_job_info *job, cJSON **out)
{
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    return finish(fill_job(o, event, 1, job), o, out);
}

fr_status fr_json_job_brief(const fr_msg_job_info *job, cJSON **out)
{
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    return finish(fill_job(o, NULL, 0, job), o, out);
}

static fr_status fill_failed(cJSON *o, uint64_t job, fr_status status, const char *cause)
{
    FR_TRY(fr_json_text(o, "event", "failed"));
    if (job)
        FR_TRY(fr_json_u64(o, "job", job));
    FR_TRY(fr_json_text(o, "status", fr_status_text(status)));
    return fr_json_text(o, "cause", cause);
}

fr_status fr_json_failed(uint64_t job, fr_status status, const char *cause, cJSON **out)
{
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    return finish(fill_failed(o, job, status, cause), o, out);
}

static fr_status fill_group(cJSON *o, const fr_msg_group_info *g)
{
    char digest[20];
    snprintf(digest, sizeof digest, "%016" PRIx64, g->model_digest);
    FR_TRY(fr_json_number(o, "group", g->group));
    FR_TRY(fr_json_text(o, "name", g->name));
    FR_TRY(fr_json_text(o, "role", g->role));
    FR_TRY(fr_json_text(o, "model", g->model));
    FR_TRY(fr_json_text(o, "model_digest", digest));
    FR_TRY(fr_json_text(o, "backend", g->backend));
    FR_TRY(fr_json_bool(o, "batch_dependent", g->batch_dependent));
    FR_TRY(fr_json_number(o, "ranks", g->ranks));
    FR_TRY(fr_json_number(o, "threads", g->threads));
    FR_TRY(fr_json_bool(o, "alive", g->alive));
    FR_TRY(fr_json_u64(o, "kv_positions", g->kv_positions));
    FR_TRY(fr_json_u64(o, "kv_free", g->kv_free));
    FR_TRY(fr_json_number(o, "active", g->active));
    FR_TRY(fr_json_u64(o, "passes", g->passes));
    FR_TRY(fr_json_number(o, "busy_seconds", g->busy_seconds));
    FR_TRY(fr_json_number(o, "pid", g->pid));
    return fr_json_number(o, "last_seen_s", g->last_seen_s);
}

fr_status fr_json_group(const fr_msg_group_info *group, cJSON **out)
{
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    return finish(fill_group(o, group), o, out);
}
