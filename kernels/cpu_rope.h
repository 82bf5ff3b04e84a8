/* cpu_rope.h: cosines and sines of a position, remembered: every layer of a pass asks for the same
 * ones twice. Internal to kernels/. */
#ifndef FR_CPU_ROPE_H
#define FR_CPU_ROPE_H

#include "cpu_device.h"

/* Makes the device's table fit this rope: forgets everything when it differs from the last.
 * FR_EUNSUPPORTED when it rotates more than FR_HEAD_MAX values. */
fr_status fr_rope_table_use(fr_device *dev, const fr_rope *rope);
/* cos [n_rot/2], then sin [n_rot/2], both times rope->scale; valid until the next call. */
const float *fr_rope_table_at(fr_device *dev, int32_t pos);

#endif
