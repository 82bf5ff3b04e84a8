/* comm_roll.c: see comm_roll.h. */
#include "comm_roll.h"

#include <stdio.h>
#include <string.h>

#include "status.h"

void fr_comm_name_finder(int rank, char *text, size_t cap)
{
    char name[32];
    const int n = snprintf(name, sizeof name, "rank %d: ", rank);
    snprintf(text, cap, "%s%s", strncmp(fr_cause(), name, (size_t)n) == 0 ? "" : name, fr_cause());
}

void fr_comm_name_silent(const bool *heard, int n_ranks, char *text, size_t cap)
{
    size_t at = 0;
    int n_silent = 0;
    text[0] = '\0';
    for (int r = 0; r < n_ranks; r++)
        n_silent += !heard[r];
    for (int r = 0; r < n_ranks && at < cap; r++) {
        if (heard[r])
            continue;
        const char *lead = at > 0 ? ", " : n_silent > 1 ? "; no word from ranks " : "; no word from rank ";
        at += (size_t)snprintf(text + at, cap - at, "%s%d", lead, r);
    }
}
