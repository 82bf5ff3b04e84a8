/* stream_device.h: as much of a GPU backend as communicators over it need: memory, copies, add, and work that waits in
 * a list until the host does, then runs on a stream: at once, or as a recorded graph that can be replayed. */
#ifndef STREAM_DEVICE_H
#define STREAM_DEVICE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "ops.h"

/* open() takes the GPU options->local_rank. */
extern const fr_ops stream_device_ops;
/* From now on work is recorded, and the recording is run. */
void stream_device_record(fr_device *dev, bool record);
/* Runs the last recording once more. */
fr_status stream_device_replay(fr_device *dev);

#ifdef __cplusplus
}
#endif

#endif
