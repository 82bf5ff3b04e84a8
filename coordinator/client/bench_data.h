/* bench_data.h: the problems of a benchmark: JSON lines {"id","question","answer"}; other fields
 * are ignored. */
#ifndef FR_BENCH_DATA_H
#define FR_BENCH_DATA_H

#include "status.h"

typedef struct fr_problem {
    char *id, *question, *answer;
} fr_problem;

typedef struct fr_problems {
    fr_problem *data;
    int n;
} fr_problems;

/* The first `limit` problems of the file (0: all). FR_EFORMAT "FILE:LINE: ..." for a line that is
 * not one. Blank lines are skipped; a file without a problem is an error. */
fr_status fr_problems_read(const char *path, int limit, fr_problems *out);
void fr_problems_free(fr_problems *p); /* a zeroed one is fine */

#endif
