/* comm_over.c: passes on to the host communicator what is in host memory. */
#include "comm_over.h"

#include <limits.h>

#include "check.h"

static fr_comm_over *of(fr_comm *c)
{
    return (fr_comm_over *)c;
}

void fr_comm_over_init(fr_comm_over *o, const fr_comm_ops *table, fr_comm *host, const fr_ops *ops, fr_device *dev)
{
    o->base = *host;
    o->base.ops = table;
    o->host = host;
    o->ops = ops;
    o->dev = dev;
}

fr_status fr_comm_over_check(const fr_comm_over *o, const char *call, size_t n, size_t each)
{
    if (n > (size_t)INT_MAX / each / (size_t)o->base.size)
        return fr_fail(FR_ELIMIT, "%s: a message of %zu times %zu bytes is too large", call, n, each);
    return FR_OK;
}

static fr_status before(fr_comm *c)
{
    return of(c)->before ? of(c)->before(of(c)) : FR_OK;
}

fr_status fr_comm_over_all_gather(fr_comm *c, const void *mine, size_t bytes, void *out, int wait_ms)
{
    FR_TRY(before(c));
    return of(c)->host->ops->all_gather(of(c)->host, mine, bytes, out, wait_ms);
}

fr_status fr_comm_over_agree(fr_comm *c, fr_status mine)
{
    FR_TRY(before(c));
    return of(c)->host->ops->agree(of(c)->host, mine);
}

fr_status fr_comm_over_command_send(fr_comm *c, const void *data, size_t bytes)
{
    FR_TRY(before(c));
    return of(c)->host->ops->command_send(of(c)->host, data, bytes);
}

fr_status fr_comm_over_command_wait(fr_comm *c, const void **data_out, size_t *bytes_out)
{
    FR_TRY(before(c));
    return of(c)->host->ops->command_wait(of(c)->host, data_out, bytes_out);
}

void fr_comm_over_give_up(fr_comm *c)
{
    if (of(c)->host->ops->give_up)
        of(c)->host->ops->give_up(of(c)->host);
}

fr_status fr_comm_over_look(fr_comm *c)
{
    FR_TRY(before(c));
    return of(c)->host->ops->look ? of(c)->host->ops->look(of(c)->host) : FR_OK;
}
