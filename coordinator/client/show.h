/* show.h: a job's stream shown to the user: coloured or plain text, or JSON events. Shared by solve
 * and watch. */
#ifndef FR_SHOW_H
#define FR_SHOW_H

#include "call.h"
#include "ui.h"

typedef struct fr_show {
    fr_ui *ui; /* NULL: JSON */
    int quiet; /* steps are not shown, and with JSON no progress either */
} fr_show;

/* json: events instead of text. */
fr_status fr_show_open(int json, int colours, fr_show *out);
void fr_show_close(fr_show *s); /* a zeroed one is fine */
/* For a fr_follower whose ctx is the fr_show. */
fr_status fr_show_step(void *ctx, const fr_msg_step *step);
fr_status fr_show_progress(void *ctx, const fr_msg_progress *progress);
/* The end of a job that is done. base: the same problem by policy target, for comparison; may be
 * NULL. */
fr_status fr_show_done(fr_show *s, const fr_msg_job_info *job, const fr_msg_job_info *base);
/* The last line of a JSON run that failed; fr_cause() stays as it is. */
void fr_show_failed_json(fr_status status);

#endif
