/* ranks.h: words between the ranks of one group over Forerun's own link, where no MPI carries them. Rank 0 listens, the
 * others connect to it; so every word goes from or to rank 0. The words of a pair of ranks come in order, each with the
 * kind that the receiver waits for: ranks that went apart, a lost word, and a rank that does not come in time are
 * errors which name the rank. Whoever notices one says so to all it can reach, and they give up too, with that cause.
 *
 * A rank whose process ends is noticed at once, by its connection; one that hangs, by the time that a wait may take.
 * That in which a follower idles has no such limit. One thread uses it. */
#ifndef FR_RANKS_H
#define FR_RANKS_H

#include <stdbool.h>

#include "codec.h"
#include "comm_wait.h"

typedef struct fr_ranks fr_ranks;

typedef enum {
    FR_RANKS_HELLO = 1,
    FR_RANKS_WELCOME,
    FR_RANKS_SUM,
    FR_RANKS_GATHER,
    FR_RANKS_ALL_GATHER,
    FR_RANKS_BROADCAST,
    FR_RANKS_AGREE,
    FR_RANKS_COMMAND,
    FR_RANKS_ROLL,  /* the sender gives up; data: why */
    FR_RANKS_HEARD, /* rank 0's list at the end of a roll call */
    FR_RANKS_REFUSED, /* rank 0's answer to the HELLO of a process that is no rank of its group; data: why */
} fr_ranks_kind;

enum { FR_RANKS_MOST_BYTES = 60 << 20 }; /* of a word */

typedef struct fr_ranks_options {
    const char *endpoint; /* tcp://host:port of rank 0, which listens on that port of all its interfaces; or ipc:// */
    int rank, size;
    int connect_ms;       /* all ranks must be there by then */
    int wait_ms;          /* how long comm_link.h's calls wait until the communicator has patience of its own */
} fr_ranks_options;

/* Returns when all ranks are there. FR_EPEER names those that are not. FR_EMISMATCH on rank 0 and on the process that
 * it refuses, in the same words, when one comes as a rank that is there already, or of a group of another size; a group
 * that is whole goes on. */
fr_status fr_ranks_open(const fr_ranks_options *options, fr_ranks **out);
/* Words that were sent get a moment to leave. NULL is fine. */
void fr_ranks_close(fr_ranks **g);

/* To rank 0, or from it. */
fr_status fr_ranks_send(fr_ranks *g, int to, fr_ranks_kind kind, const void *data, size_t bytes);
/* The next word of a rank, which the caller frees (fr_msg_free()); in word.body.rank_word; it has to have `bytes`
 * bytes. FR_EPEER when the wait is over before it comes; FR_ECANCELLED: stopped. One wait may be for several words. */
fr_status fr_ranks_receive(fr_ranks *g, int from, fr_ranks_kind kind, size_t bytes, fr_comm_wait *wait,
                           fr_msg *word_out);
/* The same without a deadline, and of any size. */
fr_status fr_ranks_idle(fr_ranks *g, int from, fr_ranks_kind kind, const atomic_int *stop, fr_msg *word_out);

/* As comm.h says of giving up, of roll calls and of looking. */
void fr_ranks_give_up(fr_ranks *g);
fr_status fr_ranks_roll_call(fr_ranks *g, int wait_ms, char *why, bool *heard_out);
fr_status fr_ranks_look(fr_ranks *g);

#endif
