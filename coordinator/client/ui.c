/* ui.c: see ui.h. The progress line is the last line on the terminal: it is cleared before text is
 * written and drawn again after. A character split over two steps is held back until its rest
 * comes. */
#include "ui.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

#include "check.h"
#include "clock.h"

#define GREEN "\033[32m"
#define YELLOW "\033[33m"
#define DIM "\033[2m"
#define DIM_RED_STRUCK "\033[2;9;31m"
#define PLAIN "\033[0m"
#define REDRAW_S 0.1

struct fr_ui {
    int tty, colours;
    int drawn;          /* the progress line stands on the terminal */
    int at_line_start;  /* of what was written to stdout */
    double last_draw_s;
    int steps, rejected;
    uint8_t held[4];    /* the unfinished character of the last step */
    size_t n_held;
};

static int is_hidden(utf8proc_int32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069) || c == 0x2028 || c == 0x2029;
}

fr_status fr_ui_escape(const void *text, size_t n, fr_ui_lines lines, fr_buf *out)
{
    const uint8_t *p = text;
    FR_TRY(fr_buf_reserve(out, n + 1));
    while (n > 0) {
        utf8proc_int32_t c;
        utf8proc_ssize_t len = utf8proc_iterate(p, (utf8proc_ssize_t)n, &c);
        if (len <= 0) {
            FR_TRY(fr_buf_put(out, "\xef\xbf\xbd", 3));
            len = 1;
        } else if (c == '\n' || c == '\t') {
            FR_TRY(fr_buf_put(out, lines == FR_UI_TEXT ? (const char *)p : " ", 1));
        } else if (is_hidden(c)) {
            FR_TRY(fr_buf_printf(out, c < 0x100 ? "\\x%02x" : "\\u{%04x}", (unsigned)c));
        } else {
            FR_TRY(fr_buf_put(out, p, (size_t)len));
        }
        p += len;
        n -= (size_t)len;
    }
    return FR_OK;
}

fr_status fr_ui_utf8(const void *text, size_t n, fr_buf *out)
{
    const uint8_t *p = text;
    while (n > 0) {
        utf8proc_int32_t c;
        utf8proc_ssize_t len = utf8proc_iterate(p, (utf8proc_ssize_t)n, &c);
        if (len <= 0 || c == 0)
            FR_TRY(fr_buf_put(out, "\xef\xbf\xbd", 3));
        else
            FR_TRY(fr_buf_put(out, p, (size_t)len));
        len = len <= 0 ? 1 : len;
        p += len;
        n -= (size_t)len;
    }
    return FR_OK;
}

int fr_ui_is_utf8(const void *text, size_t n, size_t *offset_out)
{
    const uint8_t *p = text;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t len = utf8proc_iterate(p + i, (utf8proc_ssize_t)(n - i), &c);
        if (len <= 0 || c == 0) {
            *offset_out = i;
            return 0;
        }
        i += (size_t)len;
    }
    return 1;
}

fr_status fr_ui_open(int colours, fr_ui **out)
{
    fr_ui *ui = calloc(1, sizeof *ui);
    if (!ui)
        return fr_no_memory();
    ui->tty = isatty(STDOUT_FILENO) && isatty(STDERR_FILENO);
    ui->colours = colours && ui->tty;
    ui->at_line_start = 1;
    *out = ui;
    return FR_OK;
}

static void clear_progress(fr_ui *ui)
{
    if (!ui->drawn)
        return;
    fputs("\r\033[K", stderr);
    fflush(stderr);
    ui->drawn = 0;
}

static fr_status write_out(fr_ui *ui, const fr_buf *b)
{
    if (b->len == 0)
        return FR_OK;
    ui->at_line_start = b->data[b->len - 1] == '\n';
    if (fwrite(b->data, 1, b->len, stdout) != b->len || fflush(stdout) != 0)
        return fr_fail(FR_EIO, "standard output: %s", strerror(errno));
    return FR_OK;
}

/* Bytes at the end that begin a character whose rest is missing. */
static size_t unfinished(const uint8_t *p, size_t n)
{
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        uint8_t c = p[n - back];
        if ((c & 0xc0) == 0x80)
            continue;
        size_t want = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
        return want > back ? back : 0;
    }
    return 0;
}

/* The step's whole characters, escaped, with those held back before in front. */
static fr_status escape_step(fr_ui *ui, const fr_msg_step *step, fr_buf *out)
{
    fr_buf whole = {0};
    fr_status st = fr_buf_put(&whole, ui->held, ui->n_held);
    if (st == FR_OK)
        st = fr_buf_put(&whole, step->text.data, step->text.len);
    if (st == FR_OK) {
        ui->n_held = unfinished(whole.data, whole.len);
        if (ui->n_held)
            memcpy(ui->held, whole.data + whole.len - ui->n_held, ui->n_held);
        st = fr_ui_escape(whole.data, whole.len - ui->n_held, FR_UI_TEXT, out);
    }
    fr_buf_free(&whole);
    return st;
}

static const char *step_colour(const fr_ui *ui, const fr_msg_step *step)
{
    if (!ui->colours)
        return "";
    if (strcmp(step->verdict, "rejected") == 0)
        return DIM_RED_STRUCK;
    if (strcmp(step->origin, "draft") == 0)
        return GREEN;
    return strcmp(step->origin, "rewritten") == 0 ? YELLOW : "";
}

/* "  [draft accepted, score 8]": what is said after a step on a terminal. */
static fr_status step_note(const fr_ui *ui, const fr_msg_step *step, fr_buf *out)
{
    FR_TRY(fr_buf_printf(out, "%s  [%s", ui->colours ? DIM : "", step->origin));
    if (strcmp(step->verdict, "own") != 0)
        FR_TRY(fr_buf_printf(out, " %s", step->verdict));
    if (step->score == step->score) /* not NaN: a judge scored it */
        FR_TRY(fr_buf_printf(out, ", score %.3g", (double)step->score));
    if (step->drafted > step->accepted)
        FR_TRY(fr_buf_printf(out, ", %u of %u drafted tokens kept", step->accepted, step->drafted));
    return fr_buf_printf(out, "]%s", ui->colours ? PLAIN : "");
}

static fr_status step_on_terminal(fr_ui *ui, const fr_msg_step *step, fr_buf *text)
{
    size_t body = text->len;
    while (body > 0 && text->data[body - 1] == '\n')
        body--;
    fr_buf out = {0};
    const char *colour = step_colour(ui, step);
    int rejected = strcmp(step->verdict, "rejected") == 0;
    fr_status st = fr_buf_printf(&out, "%s%.*s%s", colour, (int)body, (const char *)text->data,
                                 *colour ? PLAIN : "");
    if (st == FR_OK)
        st = step_note(ui, step, &out);
    if (st == FR_OK)
        st = rejected || body == text->len ? fr_buf_put(&out, "\n", 1)
                                           : fr_buf_put(&out, text->data + body, text->len - body);
    if (st == FR_OK)
        st = write_out(ui, &out);
    fr_buf_free(&out);
    return st;
}

fr_status fr_ui_step(fr_ui *ui, const fr_msg_step *step)
{
    int rejected = strcmp(step->verdict, "rejected") == 0;
    ui->steps += !rejected;
    ui->rejected += rejected;
    clear_progress(ui);
    if (!ui->tty) {
        if (rejected)
            return FR_OK;
        fr_buf raw = {.data = (uint8_t *)step->text.data, .len = step->text.len};
        return write_out(ui, &raw);
    }
    fr_buf text = {0};
    fr_status st = rejected ? fr_ui_escape(step->text.data, step->text.len, FR_UI_TEXT, &text)
                            : escape_step(ui, step, &text);
    if (st == FR_OK && text.len > 0)
        st = step_on_terminal(ui, step, &text);
    fr_buf_free(&text);
    return st;
}

static int terminal_columns(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : 80;
}

/* Puts as much of the escaped text's end as fits into `columns` columns. */
static fr_status put_tail(const fr_buf *text, int columns, fr_buf *out)
{
    size_t at = text->len;
    int used = 0;
    while (at > 0) {
        size_t back = at - 1;
        while (back > 0 && (text->data[back] & 0xc0) == 0x80)
            back--;
        utf8proc_int32_t c = -1;
        utf8proc_iterate(text->data + back, (utf8proc_ssize_t)(at - back), &c);
        int width = c < 0 ? 1 : utf8proc_charwidth(c);
        if (used + width > columns)
            break;
        used += width;
        at = back;
    }
    return fr_buf_put(out, text->data + at, text->len - at);
}

static fr_status draw(fr_ui *ui, const fr_msg_progress *p, fr_buf *line, fr_buf *tail)
{
    FR_TRY(fr_buf_printf(line, " %u tokens  %.1f tok/s  ", p->chain_tokens,
                         p->seconds > 0 ? p->chain_tokens / p->seconds : 0.0));
    if (p->drafted)
        FR_TRY(fr_buf_printf(line, "accepted %.0f%%  ", 100.0 * p->accepted / p->drafted));
    FR_TRY(fr_buf_printf(line, "%d steps", ui->steps));
    if (ui->rejected)
        FR_TRY(fr_buf_printf(line, ", %d rejected", ui->rejected));
    FR_TRY(fr_buf_printf(line, "  %.1f s ", p->seconds));
    int left = terminal_columns() - (int)line->len - 4;
    if (p->tail.len == 0 || left < 8)
        return FR_OK;
    FR_TRY(fr_ui_escape(p->tail.data, p->tail.len, FR_UI_ONE_LINE, tail));
    FR_TRY(fr_buf_put(line, "| ", 2));
    return put_tail(tail, left, line);
}

fr_status fr_ui_progress(fr_ui *ui, const fr_msg_progress *progress)
{
    if (!ui->tty || fr_now_s() - ui->last_draw_s < REDRAW_S || !ui->at_line_start)
        return FR_OK;
    fr_buf line = {0}, tail = {0};
    fr_status st = draw(ui, progress, &line, &tail);
    if (st == FR_OK) {
        ui->last_draw_s = fr_now_s();
        ui->drawn = 1;
        fprintf(stderr, "\r%s%.*s%s\033[K", ui->colours ? DIM : "", (int)line.len,
                (const char *)line.data, ui->colours ? PLAIN : "");
        fflush(stderr);
    }
    fr_buf_free(&line);
    fr_buf_free(&tail);
    return st;
}

void fr_ui_finish(fr_ui *ui)
{
    clear_progress(ui);
    if (!ui->at_line_start)
        putchar('\n');
    ui->at_line_start = 1;
    fflush(stdout);
}

void fr_ui_close(fr_ui **ui)
{
    if (!*ui)
        return;
    fr_ui_finish(*ui);
    free(*ui);
    *ui = NULL;
}

fr_status fr_ui_summary(const fr_msg_job_info *job, fr_buf *out)
{
    double s = job->seconds;
    if (job->answer[0]) {
        FR_TRY(fr_buf_printf(out, "answer: "));
        FR_TRY(fr_ui_escape(job->answer, strlen(job->answer), FR_UI_ONE_LINE, out));
        FR_TRY(fr_buf_put(out, "\n", 1));
    }
    FR_TRY(fr_buf_printf(out, "policy %s: %u tokens in %u steps, %.2f s, %.1f tok/s",
                         job->spec.policy, job->chain_tokens, job->steps, s,
                         s > 0 ? job->chain_tokens / s : 0.0));
    if (job->drafted)
        FR_TRY(fr_buf_printf(out, ", accepted %.0f%% of %u drafted",
                             100.0 * job->accepted / job->drafted, job->drafted));
    if (job->passes)
        FR_TRY(fr_buf_printf(out, ", %llu target passes", (unsigned long long)job->passes));
    if (job->stop[0] && strcmp(job->stop, "end") != 0)
        FR_TRY(fr_buf_printf(out, ", stopped by %s", job->stop));
    FR_TRY(fr_buf_printf(out, "\n"));
    if (job->batch_dependent)
        FR_TRY(fr_buf_printf(out, "a group computed this with --batch-invariant off: its rounding, and so "
                                  "the text, may depend on what else was in its batches\n"));
    return FR_OK;
}
