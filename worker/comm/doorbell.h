/* doorbell.h: waking a rank that sleeps. MPI has no blocking wait that leaves the CPU alone, so an idle follower sleeps
 * on a datagram socket and the leader rings it after sending a command through MPI. A ring carries the number of the
 * command and the group's key; rings of strangers are ignored, a lost ring costs the follower's time-out only.
 * One owner, one thread. */
#ifndef FR_DOORBELL_H
#define FR_DOORBELL_H

#include <stdint.h>

#include "status.h"

enum { FR_DOORBELL_ADDRESSES = 4 };

/* Where a doorbell can be rung: plain bytes, fit to be sent to the ringer on a machine of the same kind. */
typedef struct fr_doorbell_address {
    uint32_t ipv4[FR_DOORBELL_ADDRESSES]; /* network order; the interfaces of that host */
    uint32_t n_ipv4;
    uint16_t port; /* network order */
    uint16_t unused;
} fr_doorbell_address;

typedef struct fr_doorbell fr_doorbell;

/* local: every ringer is on this host, so the bell listens on the loopback interface only. */
fr_status fr_doorbell_open(int local, fr_doorbell **out);
fr_doorbell_address fr_doorbell_where(const fr_doorbell *bell);
/* Rings another bell on all its addresses. Errors are not reported: the sleeper has a time-out. */
void fr_doorbell_ring(fr_doorbell *bell, const fr_doorbell_address *to, uint64_t key,
                      uint64_t number);
/* Takes all rings that have come and returns the highest number among those with `key`, 0 when none. Waits for a first
 * ring for up to timeout_ms (0: not at all); signals and strangers' rings end the wait early. */
uint64_t fr_doorbell_wait(fr_doorbell *bell, uint64_t key, int timeout_ms);
void fr_doorbell_close(fr_doorbell **bell);

#endif
