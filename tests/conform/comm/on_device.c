/* on_device.c: communicators over a host communicator, for a device whose memory the host cannot read: here a CPU
 * backend. */
#include "suite.h"

#include "comm_device.h"

/* Where sums take place; no device for a host communicator. */
static struct {
    const fr_ops *ops;
    fr_device *dev;
    float *x; /* device memory [MOST] */
} device;

fr_status sum(fr_comm *c, float *x, size_t n)
{
    if (!device.dev)
        return c->ops->all_reduce_sum(c, x, n);
    OK(device.ops->upload(device.dev, device.x, x, n * sizeof *x));
    fr_status st = c->ops->all_reduce_sum(c, device.x, n);
    OK(device.ops->download(device.dev, x, device.x, n * sizeof *x));
    return st;
}

fr_comm *open_staged(fr_comm *host)
{
    void *x = NULL;
    fr_comm *c = NULL;
    device.ops = &fr_ops_cpu_ref;
    OK(device.ops->open(&(fr_device_options){.threads = 1}, &device.dev));
    OK(device.ops->mem_alloc(device.dev, MOST * sizeof(float), &x));
    device.x = x;
    OK(fr_comm_staged_open(host, device.ops, device.dev, &c));
    CHECK(c->rank == host->rank && c->size == host->size, "rank %d of %d", c->rank, c->size);
    return c;
}

void close_staged(fr_comm *c)
{
    c->ops->close(&c);
    CHECK(!c, "close leaves the pointer");
    device.ops->mem_free(device.dev, device.x);
    device.ops->close(&device.dev);
}
