/* config.c: see config.h. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static const char *env(const char *name)
{
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

/* Paths come from the user: one that does not fit is his to shorten. */
static fr_status join(char *out, size_t cap, const char *dir, const char *name)
{
    int n = *dir ? snprintf(out, cap, "%s/%s", dir, name) : snprintf(out, cap, "%s", name);
    if (n < 0 || (size_t)n >= cap)
        return fr_fail(FR_ELIMIT, "%.64s...: path too long", out);
    return FR_OK;
}

static int is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

static int is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* A file, or a folder that says that it holds a model. */
static int is_model(const char *path)
{
    char config[PATH_MAX];
    int n = snprintf(config, sizeof config, "%s/config.json", path);
    return is_file(path) || (n > 0 && (size_t)n < sizeof config && is_file(config));
}

fr_status fr_client_config_read(fr_client_config *c)
{
    memset(c, 0, sizeof *c);
    FR_TRY(join(c->connect, sizeof c->connect, "", env("FORERUN_CONNECT") ? env("FORERUN_CONNECT")
                                                                         : FR_DEFAULT_ENDPOINT));
    if (env("FORERUN_MODELS"))
        FR_TRY(join(c->models_dir, sizeof c->models_dir, "", env("FORERUN_MODELS")));
    else
        FR_TRY(join(c->models_dir, sizeof c->models_dir, env("HOME") ? env("HOME") : "",
                    ".cache/forerun-models"));
    const char *temp = env("XDG_RUNTIME_DIR");
    if (!temp || access(temp, W_OK) != 0)
        temp = env("TMPDIR") ? env("TMPDIR") : "/tmp";
    FR_TRY(join(c->temp_dir, sizeof c->temp_dir, "", temp));
    char name[32];
    snprintf(name, sizeof name, "forerun-up-%u", (unsigned)geteuid());
    FR_TRY(join(c->run_dir, sizeof c->run_dir, temp, name));
    ssize_t n = readlink("/proc/self/exe", c->exe_dir, sizeof c->exe_dir - 1);
    if (n < 0)
        return fr_fail(FR_EIO, "/proc/self/exe: %s", strerror(errno));
    c->exe_dir[n] = 0;
    *strrchr(c->exe_dir, '/') = 0;
    const char *term = env("TERM");
    c->colours = !env("NO_COLOR") && term && strcmp(term, "dumb") != 0;
    return FR_OK;
}

fr_status fr_client_config_model(const fr_client_config *c, const char *name, char *out, size_t cap)
{
    if (strchr(name, '/') || is_model(name))
        return join(out, cap, "", name); /* whoever opens it tells what is wrong with it */
    FR_TRY(join(out, cap, c->models_dir, name));
    if (is_model(out))
        return FR_OK;
    char with_suffix[NAME_MAX + 1];
    int n = snprintf(with_suffix, sizeof with_suffix, "%s.gguf", name);
    if (n > 0 && (size_t)n < sizeof with_suffix) {
        FR_TRY(join(out, cap, c->models_dir, with_suffix));
        if (is_model(out))
            return FR_OK;
    }
    /* A folder that does not say so. */
    if (is_folder(name))
        return join(out, cap, "", name);
    FR_TRY(join(out, cap, c->models_dir, name));
    if (is_folder(out))
        return FR_OK;
    return fr_fail(FR_ENOTFOUND, "%.200s: no such model, here or in %.200s", name,
                   c->models_dir);
}

fr_status fr_client_config_tiny(const fr_client_config *c, const char *role, char *out, size_t cap)
{
    char installed[PATH_MAX], name[32];
    snprintf(name, sizeof name, "tiny-%s.gguf", role);
    FR_TRY(join(installed, sizeof installed, c->exe_dir, "../share/forerun/models/tiny"));
    const char *const dirs[] = {installed, FR_TINY_SOURCE_DIR};
    for (int i = 0; i < 2; i++) {
        FR_TRY(join(out, cap, dirs[i], name));
        if (is_file(out))
            return FR_OK;
    }
    return fr_fail(FR_ENOTFOUND,
                   "%s of the embedded pair not found: neither in %.150s nor in %.150s", name,
                   dirs[0], dirs[1]);
}

fr_status fr_client_config_program(const fr_client_config *c, const char *name, char *out,
                                   size_t cap)
{
    FR_TRY(join(out, cap, c->exe_dir, name));
    if (access(out, X_OK) == 0)
        return FR_OK;
    const char *path = env("PATH");
    while (path && *path) {
        size_t n = strcspn(path, ":");
        char dir[PATH_MAX];
        snprintf(dir, sizeof dir, "%.*s", (int)n, path);
        FR_TRY(join(out, cap, dir, name));
        if (access(out, X_OK) == 0)
            return FR_OK;
        path += n + (path[n] == ':');
    }
    return fr_fail(FR_ENOTFOUND, "%s: not beside %.200s/forerun and not in PATH", name, c->exe_dir);
}
