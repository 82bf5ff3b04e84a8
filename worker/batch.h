/* batch.h: turns the live requests into one pass over the model, and the answers back. */
#ifndef FR_BATCH_H
#define FR_BATCH_H

#include "room.h"

typedef struct fr_batch {
    int prefill_chunk;     /* most rows of one prompt in a pass that others wait for */
    fr_ask *asks;          /* of the pass being built */
    int n_asks, cap_asks;
    uint64_t turn;         /* whose turn it is to be first */
    /* Did not get the cache it needs last time, so it is first now. Compared, never followed. */
    fr_request *hungry;
    fr_room_time time;     /* of the pass being built */
    double wait_s;         /* after a pass without rows: nothing changes for so long but by a message; else 0 */
    uint64_t passes, rows; /* since the start */
    double busy_seconds;
    /* Of the passes of a page of rows and more: what a sequence that is computed again takes. */
    uint64_t wide_rows;
    double wide_seconds;
} fr_batch;

void fr_batch_close(fr_batch *b);

/* One pass. An error is the engine's, and fatal to the group; what concerns one request is told to
 * the coordinator. */
fr_status fr_batch_pass(fr_batch *b, fr_requests *t);

#endif
