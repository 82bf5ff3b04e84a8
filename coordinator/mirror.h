/* mirror.h: what each group's cache is believed to hold of each job, so that a call sends only what
 * is new. A belief may be wrong (the group evicts as it likes, a cancelled call got less far): it
 * then asks for the whole prefix.
 *
 * A job has as many sequences at a group as it had calls there at once; a call takes a free one,
 * the one that shares most with what the call needs. */
#ifndef FR_MIRROR_H
#define FR_MIRROR_H

#include "tokenizer.h"

typedef struct fr_mirror_entry {
    uint32_t group;
    uint64_t job;
    uint32_t sequence;
    int busy;   /* a call works on it */
    fr_ids ids; /* believed to be there */
} fr_mirror_entry;

typedef struct fr_mirror { /* zero-initialise */
    fr_mirror_entry **entries;
    int n, cap;
} fr_mirror;

void fr_mirror_free(fr_mirror *m);
/* A sequence for a call with ids [n]: marked busy, and *n_shared_out of the ids are believed to be
 * there. */
fr_status fr_mirror_take(fr_mirror *m, uint32_t group, uint64_t job, const int32_t *ids, int n,
                         fr_mirror_entry **out, int *n_shared_out);
/* What the sequence holds from now on: ids [n], then more [n_more]. Out of memory, nothing is
 * believed of it. */
void fr_mirror_set(fr_mirror_entry *e, const int32_t *ids, int n, const int32_t *more, int n_more);
/* Forgets all of a group (job 0) or all of a job at all groups (group 0). */
void fr_mirror_drop(fr_mirror *m, uint32_t group, uint64_t job);
/* Does this group hold anything of the job? */
int fr_mirror_has(const fr_mirror *m, uint32_t group, uint64_t job);

#endif
