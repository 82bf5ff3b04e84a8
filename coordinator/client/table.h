/* table.h: plain tables on standard output: columns as wide as their widest cell. Cells come from
 * peers, so they are escaped. */
#ifndef FR_TABLE_H
#define FR_TABLE_H

#include "buf.h"
#include "codec.h"
#include "status.h"

typedef struct fr_table {
    fr_buf cells; /* rows of escaped cells: a tab after each cell, a newline after each row */
} fr_table;

/* Appends a row: cells separated by tabs. A cell's own tabs and newlines are the caller's to
 * avoid. */
fr_status fr_table_row(fr_table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A header and one row a job. */
fr_status fr_table_jobs(fr_table *t, const fr_msg_job_info *jobs, size_t n);
/* The whole table as aligned text, appended to out. */
fr_status fr_table_format(const fr_table *t, fr_buf *out);
fr_status fr_table_print(const fr_table *t);
void fr_table_free(fr_table *t);

#endif
