/* comm_staged.c: device memory through host memory: down, the host communicator's call, up. Every call waits for the
 * device, and so is slow beside NCCL; but it needs nothing that the host communicator and the backend do not have,
 * and it gives the same bits as the host communicator. */
#include "comm_device.h"

#include <stdlib.h>

#include "buf.h"
#include "check.h"
#include "comm_over.h"

typedef struct staged_comm {
    fr_comm_over over;
    fr_buf copy; /* of what goes through; grown, never shrunk; its length stays 0 */
} staged_comm;

static fr_status copy_down(staged_comm *s, const void *from, size_t bytes)
{
    FR_TRY(fr_buf_reserve(&s->copy, bytes));
    return s->over.ops->download(s->over.dev, s->copy.data, from, bytes);
}

static fr_status staged_all_reduce_sum(fr_comm *c, float *x, size_t n)
{
    staged_comm *s = (staged_comm *)c;
    fr_comm *host = s->over.host;
    if (n == 0)
        return FR_OK;
    FR_TRY(fr_comm_over_check(&s->over, "all_reduce_sum", n, sizeof *x));
    FR_TRY(copy_down(s, x, n * sizeof *x));
    FR_TRY(host->ops->all_reduce_sum(host, (float *)s->copy.data, n));
    return s->over.ops->upload(s->over.dev, x, s->copy.data, n * sizeof *x);
}

static fr_status staged_gather(fr_comm *c, const void *mine, size_t bytes, void *out)
{
    staged_comm *s = (staged_comm *)c;
    fr_comm *host = s->over.host;
    FR_TRY(fr_comm_over_check(&s->over, "gather", bytes, 1));
    FR_TRY(copy_down(s, mine, bytes));
    return host->ops->gather(host, s->copy.data, bytes, out);
}

static fr_status staged_broadcast(fr_comm *c, void *data, size_t bytes)
{
    staged_comm *s = (staged_comm *)c;
    fr_comm *host = s->over.host;
    FR_TRY(fr_comm_over_check(&s->over, "broadcast", bytes, 1));
    FR_TRY(c->rank == 0 ? copy_down(s, data, bytes) : fr_buf_reserve(&s->copy, bytes));
    FR_TRY(host->ops->broadcast(host, s->copy.data, bytes));
    if (c->rank == 0)
        return FR_OK;
    return s->over.ops->upload(s->over.dev, data, s->copy.data, bytes);
}

static void staged_close(fr_comm **c)
{
    if (!c || !*c)
        return;
    staged_comm *s = (staged_comm *)*c;
    fr_buf_free(&s->copy);
    free(s);
    *c = NULL;
}

static const fr_comm_ops staged_ops = {
    .name = "staged",
    .all_reduce_sum = staged_all_reduce_sum,
    .gather = staged_gather,
    .all_gather = fr_comm_over_all_gather,
    .broadcast = staged_broadcast,
    .agree = fr_comm_over_agree,
    .command_send = fr_comm_over_command_send,
    .command_wait = fr_comm_over_command_wait,
    .give_up = fr_comm_over_give_up,
    .look = fr_comm_over_look,
    .close = staged_close,
};

fr_status fr_comm_staged_open(fr_comm *host, const fr_ops *ops, fr_device *dev, fr_comm **out)
{
    staged_comm *s = calloc(1, sizeof *s);
    *out = s ? &s->over.base : NULL;
    if (!s)
        return fr_no_memory();
    fr_comm_over_init(&s->over, &staged_ops, host, ops, dev);
    return FR_OK;
}
