/* rank_threads.h: the ranks of a group as threads of the test, each with its end of a communicator over Forerun's own
 * link (comm_link.h). cmocka's checks work in the test's own thread only, so each rank leaves what became of it. */
#ifndef RANK_THREADS_H
#define RANK_THREADS_H

#include <pthread.h>
#include <stdbool.h>

#include "comm_link.h"

enum { MOST_RANKS = 4, SHORT_MS = 300, LONG_MS = 20000 };

typedef struct rank_thread rank_thread;
struct rank_thread {
    fr_ranks_options options;
    fr_status (*act)(rank_thread *r); /* its part of the test, with comm open */
    const void *input;                /* for act */
    fr_comm *comm;
    fr_status st;                     /* of opening comm, or of act */
    char cause[512];
    bool heard[MOST_RANKS];           /* for act */
    void *summed;                     /* for act */
    pthread_barrier_t *end;           /* all have acted; only then they leave */
    pthread_t thread;
};

/* Ranks 0 to n - 1 of `size`, with long waits. */
void rank_threads_set_up(rank_thread *ranks, int n, int size, fr_status (*act)(rank_thread *r));
/* Runs ranks [n], whose options may have been changed. */
void rank_threads_run(rank_thread *ranks, int n);
/* Checks how a rank ended; the cause has to contain `cause`. */
void rank_thread_ended(const rank_thread *r, fr_status st, const char *cause);
/* How all of them did: the same way. */
void rank_threads_ended(const rank_thread *ranks, int n, fr_status st, const char *cause);

#endif
