/* comm_no_nccl.c: stands in for comm_nccl.c where NCCL was not found at build time. */
#include "comm_device.h"

fr_status fr_comm_nccl_present(void)
{
    return fr_fail(FR_EUNAVAILABLE, "built without NCCL");
}

fr_status fr_comm_nccl_open(fr_comm *host, const fr_ops *ops, fr_device *dev, const fr_comm_device_options *o,
                            fr_comm **out)
{
    (void)host, (void)ops, (void)dev, (void)o;
    *out = NULL;
    return fr_fail(FR_EUNSUPPORTED, "this program was built without NCCL");
}
