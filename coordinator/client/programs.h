/* programs.h: the command lines of the coordinator and of groups, in one place: a private cluster
 * and `forerun up` start the same programs. NULL and 0 leave an option out, so the program's own
 * default holds. */
#ifndef FR_PROGRAMS_H
#define FR_PROGRAMS_H

#include "argv.h"
#include "config.h"

typedef struct fr_coordinator_args {
    const char *bind, *ready_file, *store, *overlap;
    const char *draft, *draft_backend, *draft_gpu, *draft_vocab, *draft_weights;
    int draft_threads, draft_context, max_running, heartbeat_ms, dead_after_ms;
} fr_coordinator_args;

typedef struct fr_group_args {
    const char *endpoint, *name, *role, *model, *backend, *draft_vocab, *draft_weights;
    const char *placement, *gpus, *share_gpu, *batch_invariant; /* share_gpu: "on" or "off" */
    const char *hosts;    /* mpirun's --host; NULL: this machine */
    const char *launcher; /* more mpirun arguments */
    int ranks, threads, context;
    long long kv_positions;
} fr_group_args;

fr_status fr_coordinator_command(const fr_client_config *c, const fr_coordinator_args *a,
                                 fr_argv *out);
/* One rank on this machine starts without mpirun. FR_EINVAL for more ranks than the model can be split over. */
fr_status fr_group_command(const fr_client_config *c, const fr_group_args *a, fr_argv *out);

#endif
