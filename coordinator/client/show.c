/* show.c: see show.h. */
#include "show.h"

#include <stdio.h>
#include <string.h>

#include "check.h"
#include "json_out.h"

fr_status fr_show_open(int json, int colours, fr_show *out)
{
    *out = (fr_show){0};
    return json ? FR_OK : fr_ui_open(colours, &out->ui);
}

void fr_show_close(fr_show *s)
{
    fr_ui_close(&s->ui);
}

static fr_status print_and_free(cJSON *event)
{
    fr_status st = fr_json_print(event);
    cJSON_Delete(event);
    return st;
}

fr_status fr_show_step(void *ctx, const fr_msg_step *step)
{
    fr_show *s = ctx;
    if (s->quiet)
        return FR_OK;
    if (s->ui)
        return fr_ui_step(s->ui, step);
    cJSON *event = NULL;
    FR_TRY(fr_json_step(step, &event));
    return print_and_free(event);
}

fr_status fr_show_progress(void *ctx, const fr_msg_progress *progress)
{
    fr_show *s = ctx;
    if (s->ui)
        return fr_ui_progress(s->ui, progress);
    if (s->quiet)
        return FR_OK;
    cJSON *event = NULL;
    FR_TRY(fr_json_progress(progress, &event));
    return print_and_free(event);
}

static int same_text(const fr_msg_job_info *a, const fr_msg_job_info *b)
{
    return a->text.len == b->text.len &&
           (a->text.len == 0 || memcmp(a->text.data, b->text.data, a->text.len) == 0);
}

static fr_status done_json(const fr_msg_job_info *job, const fr_msg_job_info *base)
{
    cJSON *o = NULL;
    FR_TRY(fr_json_job("done", job, &o));
    fr_status st = FR_OK;
    if (base) {
        st = fr_json_number(o, "speedup", job->seconds > 0 ? base->seconds / job->seconds : 0);
        if (st == FR_OK)
            st = fr_json_number(o, "target_seconds", base->seconds);
        if (st == FR_OK)
            st = fr_json_bool(o, "identical", same_text(job, base));
    }
    if (st != FR_OK) {
        cJSON_Delete(o);
        return st;
    }
    return print_and_free(o);
}

static fr_status done_text(fr_show *s, const fr_msg_job_info *job, const fr_msg_job_info *base)
{
    fr_buf text = {0};
    fr_ui_finish(s->ui);
    fr_status st = fr_ui_summary(job, &text);
    if (st == FR_OK && base)
        st = fr_ui_summary(base, &text);
    if (st == FR_OK && base && job->seconds > 0)
        st = fr_buf_printf(&text,
                           "speed-up over policy target: %.2fx (%.2f s against %.2f s); texts %s\n",
                           base->seconds / job->seconds, job->seconds, base->seconds,
                           same_text(job, base) ? "identical" : "differ");
    if (st == FR_OK)
        fwrite(text.data, 1, text.len, stderr);
    fr_buf_free(&text);
    return st;
}

fr_status fr_show_done(fr_show *s, const fr_msg_job_info *job, const fr_msg_job_info *base)
{
    return s->ui ? done_text(s, job, base) : done_json(job, base);
}

void fr_show_failed_json(fr_status status)
{
    cJSON *o = NULL;
    char cause[512];
    snprintf(cause, sizeof cause, "%s", fr_cause());
    if (fr_json_failed(0, status, cause, &o) != FR_OK || fr_json_print(o) != FR_OK)
        fprintf(stderr, "forerun: cannot write to standard output\n");
    cJSON_Delete(o);
    fr_fail(status, "%s", cause); /* what was meant to be reported stays the cause */
}
