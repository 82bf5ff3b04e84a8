/* bench_report.h: what a benchmark measured, and its three forms: table, JSON and an HTML page. */
#ifndef FR_BENCH_REPORT_H
#define FR_BENCH_REPORT_H

#include <cjson/cJSON.h>
#include <stdint.h>

#include "machine.h"
#include "status.h"

/* One problem under one policy. */
typedef struct fr_bench_result {
    char *text;     /* of the chain; NULL: the job failed */
    int right;
    uint32_t chain_tokens, drafted, accepted, steps;
    uint64_t passes;
    double seconds;
} fr_bench_result;

typedef struct fr_bench_policy {
    const char *name;
    double wall_s;            /* from the first submission to the last end */
    fr_bench_result *results; /* [n_problems] */
} fr_bench_policy;

typedef struct fr_bench_report {
    const char *data, *target, *draft; /* files; target and draft may be "" (a cluster's own) */
    int limit, concurrency, ranks, threads, n_problems, n_policies;
    fr_bench_policy *policies;
    fr_machine machine;
} fr_bench_report;

/* What a policy's results come to; values that do not exist are NaN. */
typedef struct fr_bench_sum {
    double accuracy, wall_s, tok_s, accepted_share, tokens_per_pass, speedup, identical,
        mean_seconds;
    uint64_t chain_tokens;
    int failed;
} fr_bench_sum;
void fr_bench_sum_up(const fr_bench_report *r, int policy, fr_bench_sum *out);

fr_status fr_bench_print(const fr_bench_report *r);
fr_status fr_bench_json(const fr_bench_report *r, cJSON **out);
fr_status fr_bench_html(const fr_bench_report *r, const char *path);

/* Whether a report can be written there: FR_EINVAL naming the file when not. What is there stays as
 * it is. */
fr_status fr_bench_check_output(const char *path);

#endif
