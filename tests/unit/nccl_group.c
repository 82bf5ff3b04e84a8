/* nccl_group.c: see nccl_group.h. */
#include "nccl_group.h"

#include "check.h"

fr_status nccl_group_act(rank_thread *r)
{
    const nccl_plan *p = r->input;
    const fr_ops *ops = &stream_device_ops;
    fr_device *dev = NULL;
    fr_comm *c = NULL;
    FR_TRY(ops->open(&(fr_device_options){.local_rank = r->options.rank}, &dev));
    fr_status st = fr_comm_nccl_open(r->comm, ops, dev, &p->options, &c);
    if (st == FR_OK)
        st = p->use(r, c, dev);
    if (c)
        c->ops->close(&c);
    ops->mem_free(dev, r->summed);
    ops->close(&dev);
    return st;
}

int nccl_group_set_up(void **state)
{
    (void)state;
    gpu_ranks_reset(MOST_RANKS);
    return 0;
}
