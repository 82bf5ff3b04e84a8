/* host_ops.h: a backend whose memory is its own, dressed as one that works on host memory: every operation
 * uploads what it reads and downloads what it wrote. So the suite's tests are the same for all backends. */
#ifndef HOST_OPS_H
#define HOST_OPS_H

#include "ops.h"

/* `real` itself where its memory is the host's. Else one table for all calls: the last `real` counts. */
const fr_ops *suite_host_ops(const fr_ops *real);

#endif
