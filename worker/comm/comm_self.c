/* comm_self.c: the communicator of a group of one rank: nothing travels. Commands are kept for symmetry only: a leader
 * without followers sends to nobody, and nobody may wait. */
#include "comm.h"

#include <stdlib.h>
#include <string.h>

static fr_status self_all_reduce_sum(fr_comm *c, float *x, size_t n)
{
    (void)c, (void)x, (void)n;
    return FR_OK;
}

static fr_status self_gather(fr_comm *c, const void *mine, size_t bytes, void *out)
{
    (void)c;
    if (bytes > 0 && out != mine)
        memcpy(out, mine, bytes);
    return FR_OK;
}

static fr_status self_all_gather(fr_comm *c, const void *mine, size_t bytes, void *out, int wait_ms)
{
    (void)wait_ms;
    return self_gather(c, mine, bytes, out);
}

static fr_status self_broadcast(fr_comm *c, void *data, size_t bytes)
{
    (void)c, (void)data, (void)bytes;
    return FR_OK;
}

static fr_status self_agree(fr_comm *c, fr_status mine)
{
    (void)c;
    return mine;
}

static fr_status self_command_send(fr_comm *c, const void *data, size_t bytes)
{
    (void)c, (void)data, (void)bytes;
    return FR_OK;
}

static fr_status self_command_wait(fr_comm *c, const void **data_out, size_t *bytes_out)
{
    (void)c, (void)data_out, (void)bytes_out;
    return fr_fail(FR_EINVAL, "command_wait: a group of one rank has no followers");
}

static void self_close(fr_comm **c)
{
    if (!c)
        return;
    free(*c);
    *c = NULL;
}

static const fr_comm_ops self_ops = {
    .name = "self",
    .all_reduce_sum = self_all_reduce_sum,
    .gather = self_gather,
    .all_gather = self_all_gather,
    .broadcast = self_broadcast,
    .agree = self_agree,
    .command_send = self_command_send,
    .command_wait = self_command_wait,
    .close = self_close,
};

fr_status fr_comm_self_open(fr_comm **out)
{
    fr_comm *c = calloc(1, sizeof *c);
    if (!c)
        return fr_no_memory();
    c->ops = &self_ops;
    c->size = c->n_here = c->n_alike = 1;
    *out = c;
    return FR_OK;
}
