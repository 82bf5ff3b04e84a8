/* comm_device.c: which communicator a device needs. */
#include "comm_device.h"

#include "log.h"

fr_status fr_comm_device_open(fr_comm *host, const fr_ops *ops, fr_device *dev, const fr_comm_device_options *o,
                              fr_comm **out)
{
    *out = NULL;
    if (host->size == 1 || ops->host_memory)
        return FR_OK;
    if (!o->share_gpu) {
        fr_status present = host->ops->agree(host, fr_comm_nccl_present());
        if (present == FR_OK)
            return fr_comm_nccl_open(host, ops, dev, o, out);
        if (present != FR_EUNAVAILABLE) /* the ranks did not come to agree */
            return present;
        if (host->rank == 0)
            fr_log(FR_LOG_WARN, "%s: what %d ranks send each other goes through host memory", fr_cause(), host->size);
    }
    return host->ops->agree(host, fr_comm_staged_open(host, ops, dev, out));
}
