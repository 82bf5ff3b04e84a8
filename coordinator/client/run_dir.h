/* run_dir.h: the folder of a cluster that `forerun up` runs, and its lock. The supervisor holds a
 * lock on "up.pid" as long as it lives, so a stale file is never mistaken for a running cluster,
 * and `down` signals only the holder. */
#ifndef FR_RUN_DIR_H
#define FR_RUN_DIR_H

#include <sys/types.h>

#include "status.h"

/* Makes the folder (mode 0700) unless it is there. FR_EINVAL when it is somebody else's. */
fr_status fr_run_dir_make(const char *dir);
/* Takes the lock for this process and writes its pid; *fd_out holds it. FR_EBUSY names the
 * holder. */
fr_status fr_run_dir_lock(const char *dir, int *fd_out);
/* The pid of the holder; 0 when there is none. */
fr_status fr_run_dir_holder(const char *dir, pid_t *out);

#endif
