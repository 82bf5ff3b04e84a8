/* doorbell.c: see doorbell.h. UDP over IPv4, since it works between hosts as well as within one. Which of a host's
 * addresses the others reach is not known, so up to four are advertised and all are rung: 16 bytes each. */
#include "doorbell.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

struct fr_doorbell {
    int fd;
    fr_doorbell_address where;
};

typedef struct ring {
    uint64_t key, number; /* host order: the ranks of a group are machines of one kind */
} ring;

/* Fills in the addresses of the interfaces that are up, without the loopback. None is fine: the host may be alone. */
static fr_status list_addresses(fr_doorbell_address *where)
{
    struct ifaddrs *all = NULL;
    if (getifaddrs(&all) != 0)
        return fr_fail(FR_EIO, "doorbell: getifaddrs: %s", strerror(errno));
    for (const struct ifaddrs *i = all; i && where->n_ipv4 < FR_DOORBELL_ADDRESSES;
         i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET)
            continue;
        if (!(i->ifa_flags & IFF_UP) || (i->ifa_flags & IFF_LOOPBACK))
            continue;
        struct sockaddr_in in;
        memcpy(&in, i->ifa_addr, sizeof in);
        where->ipv4[where->n_ipv4++] = in.sin_addr.s_addr;
    }
    freeifaddrs(all);
    return FR_OK;
}

fr_status fr_doorbell_open(int local, fr_doorbell **out)
{
    fr_status st = FR_OK;
    fr_doorbell *bell = calloc(1, sizeof *bell);
    if (!bell)
        return fr_no_memory();
    bell->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (bell->fd < 0) {
        st = fr_fail(FR_EIO, "doorbell: socket: %s", strerror(errno));
        goto fail;
    }
    struct sockaddr_in at = {.sin_family = AF_INET};
    at.sin_addr.s_addr = htonl(local ? INADDR_LOOPBACK : INADDR_ANY);
    socklen_t size = sizeof at;
    if (bind(bell->fd, (struct sockaddr *)&at, sizeof at) != 0 ||
        getsockname(bell->fd, (struct sockaddr *)&at, &size) != 0) {
        st = fr_fail(FR_EIO, "doorbell: bind: %s", strerror(errno));
        goto fail;
    }
    bell->where.port = at.sin_port;
    if (local)
        bell->where.ipv4[bell->where.n_ipv4++] = htonl(INADDR_LOOPBACK);
    else
        FR_TRY_GOTO(st, list_addresses(&bell->where), fail);
    *out = bell;
    return FR_OK;
fail:
    fr_doorbell_close(&bell);
    return st;
}

fr_doorbell_address fr_doorbell_where(const fr_doorbell *bell)
{
    return bell->where;
}

void fr_doorbell_ring(fr_doorbell *bell, const fr_doorbell_address *to, uint64_t key,
                      uint64_t number)
{
    const ring r = {.key = key, .number = number};
    for (uint32_t i = 0; i < to->n_ipv4 && i < FR_DOORBELL_ADDRESSES; i++) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = to->port};
        at.sin_addr.s_addr = to->ipv4[i];
        /* A ring that cannot be sent is a lost ring: the sleeper looks by itself soon. */
        if (sendto(bell->fd, &r, sizeof r, 0, (struct sockaddr *)&at, sizeof at) < 0)
            continue;
    }
}

uint64_t fr_doorbell_wait(fr_doorbell *bell, uint64_t key, int timeout_ms)
{
    if (timeout_ms > 0) {
        struct pollfd p = {.fd = bell->fd, .events = POLLIN};
        if (poll(&p, 1, timeout_ms) <= 0)
            return 0;
    }
    uint64_t highest = 0;
    ring r;
    ssize_t got;
    while ((got = recv(bell->fd, &r, sizeof r, 0)) >= 0) {
        if (got == (ssize_t)sizeof r && r.key == key && r.number > highest)
            highest = r.number;
    }
    return highest;
}

void fr_doorbell_close(fr_doorbell **bell)
{
    if (!bell || !*bell)
        return;
    if ((*bell)->fd >= 0)
        close((*bell)->fd);
    free(*bell);
    *bell = NULL;
}
