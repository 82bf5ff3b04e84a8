/* ui.h: the terminal. A chain's text comes from a model and is not trusted: what goes to a terminal
 * is escaped. Steps are coloured by origin and verdict, and a progress line is kept at the bottom;
 * piped, the committed text goes out as it is and nothing else. One thread. */
#ifndef FR_UI_H
#define FR_UI_H

#include <stddef.h>

#include "buf.h"
#include "codec.h"
#include "status.h"

typedef enum {
    FR_UI_TEXT,
    FR_UI_ONE_LINE
} fr_ui_lines; /* keep newlines and tabs | write them as spaces */

/* Appends n bytes with control characters (C0, DEL, C1) and bidirectional overrides written as \xNN
 * or \u{NNNN}, and malformed UTF-8 as U+FFFD. */
fr_status fr_ui_escape(const void *text, size_t n, fr_ui_lines lines, fr_buf *out);
/* Appends n bytes with malformed UTF-8 as U+FFFD: what JSON may carry. */
fr_status fr_ui_utf8(const void *text, size_t n, fr_buf *out);
/* 1 when text is well-formed UTF-8 without NUL; else *offset_out is where it is not. */
int fr_ui_is_utf8(const void *text, size_t n, size_t *offset_out);

typedef struct fr_ui fr_ui;

/* Writes to stdout; the progress line goes to stderr, when both are the terminal. colours: allowed
 * at all. */
fr_status fr_ui_open(int colours, fr_ui **out);
fr_status fr_ui_step(fr_ui *ui, const fr_msg_step *step);
/* Redraws the progress line; at most ten times a second. */
fr_status fr_ui_progress(fr_ui *ui, const fr_msg_progress *progress);
/* Clears the progress line and ends the chain's last line. */
void fr_ui_finish(fr_ui *ui);
void fr_ui_close(fr_ui **ui);

/* Appends the summary of a finished job: one or two lines, a C string. */
fr_status fr_ui_summary(const fr_msg_job_info *job, fr_buf *out);

#endif
