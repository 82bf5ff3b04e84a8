/* comm_prove.h: tries out a communicator over a device before anything depends on it: do all ranks hear each other, and
 * does what they say arrive? */
#ifndef FR_COMM_PROVE_H
#define FR_COMM_PROVE_H

#include "comm_over.h"

/* Sizes to try, one after the other; 0 is left out. */
typedef struct fr_comm_trials {
    const size_t *sums, *gathers, *broadcasts; /* floats; bytes of a rank; bytes */
    int n_sums, n_gathers, n_broadcasts;
} fr_comm_trials;

/* All ranks, with equal trials. FR_EPEER when something else arrives than was sent. When one rank has no memory for
 * it, all fail for that; a rank that fails later gives the group up. What the device may still use is then in o->tried:
 * freeing it waits for the device. */
fr_status fr_comm_over_prove(fr_comm_over *o, const fr_comm_trials *t);

#endif
