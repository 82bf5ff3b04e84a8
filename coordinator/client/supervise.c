/* supervise.c: see supervise.h. */
#include "supervise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "check.h"
#include "clock.h"
#include "log.h"

#define STOP_MS 5000

int fr_backoff_ms(int last_ms, double alive_s)
{
    if (last_ms == 0 || alive_s >= FR_BACKOFF_RESET_S)
        return FR_BACKOFF_FIRST_MS;
    return last_ms >= FR_BACKOFF_MAX_MS / 2 ? FR_BACKOFF_MAX_MS : last_ms * 2;
}

fr_status fr_supervisor_add(fr_supervisor *s, const char *name, const char *run_dir, fr_argv *argv)
{
    fr_member *grown = realloc(s->members, (size_t)(s->n_members + 1) * sizeof *grown);
    if (!grown)
        return fr_no_memory();
    s->members = grown;
    fr_member *m = &grown[s->n_members];
    *m = (fr_member){.first = s->n_members == 0};
    snprintf(m->name, sizeof m->name, "%s", name);
    if (snprintf(m->log_path, sizeof m->log_path, "%s/%s.log", run_dir, name) >=
        (int)sizeof m->log_path)
        return fr_fail(FR_ELIMIT, "%.64s...: path too long", run_dir);
    m->argv = *argv;
    *argv = (fr_argv){0};
    s->n_members++;
    return FR_OK;
}

fr_status fr_supervisor_start(fr_supervisor *s, int member)
{
    fr_member *m = &s->members[member];
    struct stat st;
    m->log_from = stat(m->log_path, &st) == 0 ? (long)st.st_size : 0;
    m->restart_at_s = 0;
    m->served = 0;
    m->silent_since_s = 0;
    m->started_s = fr_now_s();
    FR_TRY(fr_process_start(&m->process, m->name, m->argv.v, m->log_path));
    fr_log(FR_LOG_INFO, "%s started, pid %d", m->name, (int)m->process.pid);
    return FR_OK;
}

/* How the last run ended; appended to out. */
static fr_status last_words(const fr_member *m, fr_buf *out)
{
    FR_TRY(fr_process_why(&m->process, m->log_path, m->log_from, out));
    return out->len ? FR_OK : fr_buf_printf(out, "no word in %s", m->log_path);
}

static fr_status on_end(fr_supervisor *s, fr_member *m)
{
    if (m->first && m->process.exit_code == 0)
        return fr_fail(FR_ECANCELLED, "the coordinator was asked to stop");
    fr_buf why = {0};
    fr_status st = last_words(m, &why);
    if (st == FR_OK && !s->settled && m->process.exit_code == 2)
        st = fr_fail(FR_EINVAL, "%s: %s", m->name, (const char *)why.data);
    if (st == FR_OK) {
        double now = fr_now_s();
        m->backoff_ms = fr_backoff_ms(m->backoff_ms, now - m->started_s);
        m->restart_at_s = now + m->backoff_ms / 1e3;
        char code[32] = ""; /* a signal is a word of its own */
        if (!m->process.signal)
            snprintf(code, sizeof code, "exit code %d, ", m->process.exit_code);
        fr_log(FR_LOG_WARN, "%s ended: %s%s; again in %.1f s", m->name, code,
               (const char *)why.data, m->backoff_ms / 1e3);
    }
    fr_buf_free(&why);
    return st;
}

fr_status fr_supervisor_tick(fr_supervisor *s)
{
    for (int i = 0; i < s->n_members; i++) {
        fr_member *m = &s->members[i];
        if (m->process.pid && !fr_process_running(&m->process))
            FR_TRY(on_end(s, m));
        if (m->restart_at_s > 0 && fr_now_s() >= m->restart_at_s) {
            fr_status st = fr_supervisor_start(s, i);
            if (st != FR_OK) { /* as when memory is short for a moment: try again */
                m->backoff_ms = fr_backoff_ms(m->backoff_ms, 0);
                m->restart_at_s = fr_now_s() + m->backoff_ms / 1e3;
                fr_log(FR_LOG_ERROR, "%s: %s; again in %.1f s", m->name, fr_cause(),
                       m->backoff_ms / 1e3);
            }
        }
    }
    return FR_OK;
}

static fr_status note(fr_supervisor *s, fr_member *m, int alive, double heard_s, int silent_ms)
{
    const double now = fr_now_s();
    m->served |= now - heard_s > m->started_s;
    if (alive || !m->served) {
        m->silent_since_s = 0;
        return FR_OK;
    }
    if (m->silent_since_s <= 0)
        m->silent_since_s = now;
    if (!m->process.pid || (now - m->silent_since_s) * 1e3 < silent_ms)
        return FR_OK;
    fr_log(FR_LOG_WARN, "%s runs, but its group has been gone for %.1f s: ending it", m->name,
           now - m->silent_since_s);
    fr_process_stop(&m->process, STOP_MS);
    return on_end(s, m);
}

fr_status fr_supervisor_note(fr_supervisor *s, const char *name, int alive, double heard_s, int silent_ms)
{
    for (int i = 0; i < s->n_members; i++)
        if (strcmp(s->members[i].name, name) == 0)
            return note(s, &s->members[i], alive, heard_s, silent_ms);
    return FR_OK;
}

void fr_supervisor_note_nothing(fr_supervisor *s)
{
    for (int i = 0; i < s->n_members; i++)
        s->members[i].silent_since_s = 0;
}

void fr_supervisor_stop(fr_supervisor *s, int grace_ms)
{
    double end = fr_now_s() + grace_ms / 1e3;
    for (int i = s->n_members - 1; i >= 0; i--) {
        fr_member *m = &s->members[i];
        double left = (end - fr_now_s()) * 1e3;
        if (m->process.pid && !fr_process_wait(&m->process, left > 0 ? (int)left : 0))
            fr_process_stop(&m->process, STOP_MS);
        fr_argv_free(&m->argv);
    }
    free(s->members);
    *s = (fr_supervisor){0};
}
