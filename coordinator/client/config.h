/* config.h: what the environment says, read once a command: the only file of the client that calls
 * getenv(). And where things lie: programs, model files, the embedded tiny pair. */
#ifndef FR_CLIENT_CONFIG_H
#define FR_CLIENT_CONFIG_H

#include <limits.h>
#include <stddef.h>

#include "status.h"

#define FR_DEFAULT_ENDPOINT "tcp://127.0.0.1:7077"

typedef struct fr_client_config {
    char connect[256];         /* FORERUN_CONNECT, else FR_DEFAULT_ENDPOINT */
    char models_dir[PATH_MAX]; /* FORERUN_MODELS, else ~/.cache/forerun-models */
    char temp_dir[PATH_MAX];   /* for private clusters: XDG_RUNTIME_DIR, TMPDIR or /tmp */
    char run_dir[PATH_MAX];    /* of `forerun up`, unless configured */
    char exe_dir[PATH_MAX];    /* the folder of this program */
    int colours;               /* 0: NO_COLOR is set, or the terminal is dumb */
} fr_client_config;

fr_status fr_client_config_read(fr_client_config *out);

/* A model as the user named it: a path (with a slash, or of a file or a model folder that is there),
 * or the name of one in models_dir, a file's with or without ".gguf". FR_ENOTFOUND names where it was sought. */
fr_status fr_client_config_model(const fr_client_config *c, const char *name, char *out,
                                 size_t cap);
/* The embedded pair's "target" or "draft". */
fr_status fr_client_config_tiny(const fr_client_config *c, const char *role, char *out, size_t cap);
/* A program of Forerun: beside this one, else by PATH (then `out` is the bare name). */
fr_status fr_client_config_program(const fr_client_config *c, const char *name, char *out,
                                   size_t cap);

#endif
