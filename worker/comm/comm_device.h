/* comm_device.h: the communicator that sums, gathers and broadcasts memory of a device which the host cannot read. It
 * lies over a host communicator, which carries all else; both are borrowed by the session, which closes only what it
 * opened here. The table is comm.h's.
 *
 *   staged   through host memory, over any backend and any host communicator: ranks that share a GPU, which NCCL
 *            refuses, and groups of which a rank has no NCCL.
 *   nccl     on the device's stream, one GPU a rank. A rank that is lost is noticed by a time-out or by NCCL; then
 *            every rank gives the group up, and the cause tells who noticed what and which ranks were no more heard of.
 *
 * Collective: all ranks call, with equal options, and when one fails all do. To close what was opened until then waits
 * for the device, which may hang: so that is left to the caller, who can tell the cause first. */
#ifndef FR_COMM_DEVICE_H
#define FR_COMM_DEVICE_H

#include "comm.h"
#include "ops.h"

/* What NCCL takes of a GPU's memory for a communicator, about: an estimate, for advice to who has none yet. It has
 * buffers of 4 MiB (NCCL_BUFFSIZE) and those of other protocols for each channel to a peer, and tens of channels. */
#define FR_COMM_DEVICE_BYTES ((int64_t)512 << 20)

typedef struct fr_comm_device_options {
    bool share_gpu;       /* ranks may share a GPU: all is staged */
    bool batch_invariant; /* sums in rank order, not as NCCL's choice for the size has it */
    /* The largest to come, whose needs are allocated at once; of more than that, as they come. */
    size_t max_sum;    /* floats; also of a broadcast */
    size_t max_gather; /* bytes of a rank */
    int connect_ms; /* of connecting the ranks, and of each wait for their first messages; 0: FR_COMM_TIMEOUT_MS */
    int timeout_ms; /* of each wait for the devices from then on; 0: FR_COMM_TIMEOUT_MS */
} fr_comm_device_options;

/* The communicator that the session needs over its host communicator; NULL when that will do as it is. Where it fails,
 * *out can only be closed; or it is NULL. */
fr_status fr_comm_device_open(fr_comm *host, const fr_ops *ops, fr_device *dev, const fr_comm_device_options *o,
                              fr_comm **out);

/* The two by themselves; the same holds of their *out. No collective: fr_comm_staged_open. */
fr_status fr_comm_staged_open(fr_comm *host, const fr_ops *ops, fr_device *dev, fr_comm **out);
fr_status fr_comm_nccl_open(fr_comm *host, const fr_ops *ops, fr_device *dev, const fr_comm_device_options *o,
                            fr_comm **out);
/* FR_EUNAVAILABLE, with the cause, where this program was built without NCCL or cannot open it. No collective. */
fr_status fr_comm_nccl_present(void);

#endif
