/* scheduler.c: see scheduler.h. */
#include "scheduler.h"

static int better(const fr_choice *a, const fr_choice *b)
{
    if (a->n_calls != b->n_calls)
        return a->n_calls < b->n_calls;
    if (a->kv_free != b->kv_free)
        return a->kv_free > b->kv_free;
    return a->group < b->group;
}

int fr_schedule(const fr_choice *choices, int n, uint32_t sticky)
{
    int best = -1;
    for (int i = 0; i < n; i++) {
        if (sticky && choices[i].group == sticky)
            return i;
        if (best < 0 || better(&choices[i], &choices[best]))
            best = i;
    }
    return best;
}
