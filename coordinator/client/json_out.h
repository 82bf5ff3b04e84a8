/* json_out.h: JSON objects for the user: built with cJSON, printed one a line. Every text is made
 * well-formed UTF-8 first, and numbers that JSON cannot hold (NaN) become null. The setters return
 * FR_OK or out of memory. */
#ifndef FR_JSON_OUT_H
#define FR_JSON_OUT_H

#include <cjson/cJSON.h>
#include <stdint.h>

#include "codec.h"
#include "status.h"

fr_status fr_json_object(cJSON **out);
fr_status fr_json_text(cJSON *o, const char *key, const char *text);
fr_status fr_json_bytes(cJSON *o, const char *key, const void *data, size_t n);
fr_status fr_json_number(cJSON *o, const char *key, double v); /* NaN and infinities: null */
fr_status fr_json_u64(cJSON *o, const char *key, uint64_t v);  /* exact beyond 2^53 */
fr_status fr_json_bool(cJSON *o, const char *key, int v);
/* Moves child into o, or frees it when that fails. */
fr_status fr_json_child(cJSON *o, const char *key, cJSON *child);
/* Appends to an array, likewise. */
fr_status fr_json_append(cJSON *array, cJSON *child);

/* One line on stdout, flushed. */
fr_status fr_json_print(const cJSON *o);
/* The same to a file, indented, through a temporary file and rename. */
fr_status fr_json_save(const cJSON *o, const char *path);

/* The events of `solve --json` and `watch --json`. *out is the caller's to free. */
fr_status fr_json_step(const fr_msg_step *step, cJSON **out);
fr_status fr_json_progress(const fr_msg_progress *progress, cJSON **out);
/* {"event":"done"...}, {"event":"failed"...} or, without an event, the job as `status JOB` shows
 * it. */
fr_status fr_json_job(const char *event, const fr_msg_job_info *job, cJSON **out);
/* One of many jobs: the coordinator lists them without their texts. */
fr_status fr_json_job_brief(const fr_msg_job_info *job, cJSON **out);
fr_status fr_json_failed(uint64_t job, fr_status status, const char *cause, cJSON **out);
fr_status fr_json_group(const fr_msg_group_info *group, cJSON **out);

#endif
