/* table.c: see table.h. */
#include "table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "check.h"
#include "ui.h"

#define MAX_COLUMNS 24
#define GAP 2

fr_status fr_table_row(fr_table *t, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return fr_no_memory();
    fr_status st = FR_OK;
    for (const char *cell = text; st == FR_OK && cell;) {
        size_t len = strcspn(cell, "\t");
        st = fr_ui_escape(cell, len, FR_UI_ONE_LINE, &t->cells);
        if (st == FR_OK)
            st = fr_buf_put(&t->cells, "\t", 1);
        cell = cell[len] ? cell + len + 1 : NULL;
    }
    free(text);
    return st == FR_OK ? fr_buf_put(&t->cells, "\n", 1) : st;
}

fr_status fr_table_jobs(fr_table *t, const fr_msg_job_info *jobs, size_t n)
{
    FR_TRY(fr_table_row(t, "JOB\tSTATE\tPOLICY\tSTEPS\tTOKENS\tSECONDS\tTOK/S\tANSWER\tNAME"));
    for (size_t i = 0; i < n; i++) {
        const fr_msg_job_info *j = &jobs[i];
        const int is_live = strcmp(j->state, "queued") == 0 || strcmp(j->state, "running") == 0;
        const char *waits_for = is_live ? j->cause : "";
        FR_TRY(fr_table_row(t, "%" PRIu64 "\t%s%s%.60s\t%s\t%u\t%u\t%.1f\t%.1f\t%.40s\t%.40s", j->job,
                            j->state, waits_for[0] ? ": " : "", waits_for, j->spec.policy,
                            j->steps, j->chain_tokens, j->seconds,
                            j->seconds > 0 ? j->chain_tokens / j->seconds : 0.0, j->answer,
                            j->spec.name));
    }
    return FR_OK;
}

static int text_columns(const char *p, size_t n)
{
    int columns = 0;
    while (n > 0) {
        utf8proc_int32_t c;
        utf8proc_ssize_t len = utf8proc_iterate((const uint8_t *)p, (utf8proc_ssize_t)n, &c);
        if (len <= 0)
            len = 1;
        else
            columns += utf8proc_charwidth(c);
        p += len;
        n -= (size_t)len;
    }
    return columns;
}

fr_status fr_table_format(const fr_table *t, fr_buf *out)
{
    int widths[MAX_COLUMNS] = {0};
    const char *p = (const char *)t->cells.data, *end = p + t->cells.len;
    /* First the widths, then the text. */
    for (int pass = 0; pass < 2; pass++) {
        int column = 0;
        for (const char *cell = p; cell < end;) {
            if (*cell == '\n') {
                if (pass == 1)
                    FR_TRY(fr_buf_put(out, "\n", 1));
                column = 0;
                cell++;
                continue;
            }
            size_t len = (size_t)((const char *)memchr(cell, '\t', (size_t)(end - cell)) - cell);
            int columns = text_columns(cell, len),
                c = column < MAX_COLUMNS ? column : MAX_COLUMNS - 1;
            int last = cell[len + 1] == '\n';
            if (pass == 0 && columns > widths[c])
                widths[c] = columns;
            if (pass == 1)
                FR_TRY(fr_buf_printf(out, "%.*s%*s", (int)len, cell,
                                     last ? 0 : widths[c] - columns + GAP, ""));
            column++;
            cell += len + 1;
        }
    }
    return FR_OK;
}

fr_status fr_table_print(const fr_table *t)
{
    fr_buf text = {0};
    fr_status st = fr_table_format(t, &text);
    if (st == FR_OK && (fwrite(text.data, 1, text.len, stdout) != text.len || fflush(stdout) != 0))
        st = fr_fail(FR_EIO, "standard output: %s", strerror(errno));
    fr_buf_free(&text);
    return st;
}

void fr_table_free(fr_table *t)
{
    fr_buf_free(&t->cells);
}
