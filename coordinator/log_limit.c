/* log_limit.c: see log_limit.h. */
#include "log_limit.h"

#include <math.h>

int fr_log_limit_pass(fr_log_limit *l, double now)
{
    if (!l->left_out && now >= l->since + 1) {
        l->since = now;
        l->written = 0;
    }
    if (l->written < FR_LOG_LIMIT_LINES) {
        l->written++;
        return 1;
    }
    l->left_out++;
    return 0;
}

uint64_t fr_log_limit_count(fr_log_limit *l, double now)
{
    if (now < fr_log_limit_deadline(l))
        return 0;
    uint64_t n = l->left_out;
    l->left_out = 0;
    return n;
}

double fr_log_limit_deadline(const fr_log_limit *l)
{
    return l->left_out ? l->since + 1 : (double)INFINITY;
}
