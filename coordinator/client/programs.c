/* programs.c: see programs.h. */
#include "programs.h"

#include <string.h>

#include "check.h"
#include "session.h"

fr_status fr_coordinator_command(const fr_client_config *c, const fr_coordinator_args *a,
                                 fr_argv *out)
{
    char program[PATH_MAX];
    FR_TRY(fr_client_config_program(c, "forerun-coordinator", program, sizeof program));
    FR_TRY(fr_argv_add(out, program));
    FR_TRY(fr_argv_option(out, "--bind", a->bind));
    FR_TRY(fr_argv_option(out, "--ready-file", a->ready_file));
    FR_TRY(fr_argv_option(out, "--store", a->store));
    FR_TRY(fr_argv_option(out, "--draft", a->draft));
    FR_TRY(fr_argv_option(out, "--draft-backend", a->draft_backend));
    FR_TRY(fr_argv_option(out, "--draft-gpu", a->draft_gpu));
    FR_TRY(fr_argv_option_int(out, "--draft-threads", a->draft_threads));
    FR_TRY(fr_argv_option_int(out, "--draft-context", a->draft_context));
    FR_TRY(fr_argv_option(out, "--draft-vocab", a->draft_vocab));
    FR_TRY(fr_argv_option(out, "--draft-weights", a->draft_weights));
    FR_TRY(fr_argv_option(out, "--overlap", a->overlap));
    FR_TRY(fr_argv_option_int(out, "--max-running", a->max_running));
    FR_TRY(fr_argv_option_int(out, "--dead-after-ms", a->dead_after_ms));
    return fr_argv_option_int(out, "--heartbeat-ms", a->heartbeat_ms);
}

fr_status fr_group_command(const fr_client_config *c, const fr_group_args *a, fr_argv *out)
{
    char program[PATH_MAX];
    FR_TRY(fr_client_config_program(c, "forerun-worker", program, sizeof program));
    /* Many ranks that only learn that they are too many take long to start and end. With hosts, the model need not be
     * on this machine. */
    if (a->ranks > 1 && !a->hosts)
        FR_TRY(fr_session_check_ranks(a->model, a->ranks));
    if (a->ranks > 1 || a->hosts || a->launcher) {
        FR_TRY(fr_argv_mpirun(out, a->ranks > 0 ? a->ranks : 1, a->launcher));
        FR_TRY(fr_argv_option(out, "--host", a->hosts));
    }
    FR_TRY(fr_argv_add(out, program));
    FR_TRY(fr_argv_option(out, "--connect", a->endpoint));
    FR_TRY(fr_argv_option(out, "--name", a->name));
    FR_TRY(fr_argv_option(out, "--role", a->role));
    FR_TRY(fr_argv_option(out, "--model", a->model));
    FR_TRY(fr_argv_option(out, "--backend", a->backend));
    FR_TRY(fr_argv_option(out, "--draft-vocab", a->draft_vocab));
    FR_TRY(fr_argv_option(out, "--draft-weights", a->draft_weights));
    FR_TRY(fr_argv_option_int(out, "--threads", a->threads));
    FR_TRY(fr_argv_option(out, "--placement", a->placement));
    FR_TRY(fr_argv_option(out, "--batch-invariant", a->batch_invariant));
    FR_TRY(fr_argv_option(out, "--gpus", a->gpus));
    if (a->share_gpu && strcmp(a->share_gpu, "on") == 0)
        FR_TRY(fr_argv_add(out, "--share-gpu"));
    FR_TRY(fr_argv_option_int(out, "--context", a->context));
    return fr_argv_option_int(out, "--kv-positions", a->kv_positions);
}
