/* own_loopback.h: a loopback address that no other process uses, so that a port that was free there a moment ago, or
 * that is to be bound again, is not taken by a test beside this one. */
#ifndef OWN_LOOPBACK_H
#define OWN_LOOPBACK_H

#include <stdint.h>
#include <unistd.h>

/* In host order: in 127.0.0.0/8, which is all this host's, by the process id (at most 2^22). */
static inline uint32_t own_loopback(void)
{
    return (127u << 24) + (1u << 16) + (uint32_t)getpid();
}

#endif
