/* comm_over.h: what the communicators for device memory share (comm_staged, comm_nccl): each lies over a host
 * communicator, to which it passes on all that is in host memory; that one is borrowed and must outlive them. */
#ifndef FR_COMM_OVER_H
#define FR_COMM_OVER_H

#include "comm.h"
#include "ops.h"

typedef struct fr_comm_over {
    fr_comm base;
    fr_comm *host;
    const fr_ops *ops;
    fr_device *dev;
    void *tried; /* memory of the device that a trial which failed may still use (comm_prove.h); freed at the end */
    fr_status (*before)(struct fr_comm_over *o); /* each call that is passed on; its error ends that. NULL: none */
} fr_comm_over;

/* Takes the host communicator's place in the group. */
void fr_comm_over_init(fr_comm_over *o, const fr_comm_ops *table, fr_comm *host, const fr_ops *ops, fr_device *dev);
/* FR_ELIMIT when n values of `each` bytes from each rank are more than a message may have. */
fr_status fr_comm_over_check(const fr_comm_over *o, const char *call, size_t n, size_t each);

/* For the tables: passed on. */
fr_status fr_comm_over_all_gather(fr_comm *c, const void *mine, size_t bytes, void *out, int wait_ms);
fr_status fr_comm_over_agree(fr_comm *c, fr_status mine);
fr_status fr_comm_over_command_send(fr_comm *c, const void *data, size_t bytes);
fr_status fr_comm_over_command_wait(fr_comm *c, const void **data_out, size_t *bytes_out);
void fr_comm_over_give_up(fr_comm *c);
fr_status fr_comm_over_look(fr_comm *c);

#endif
