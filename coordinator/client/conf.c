/* conf.c: see conf.h. inih cuts lines longer than its buffer without a word, so those are refused
 * first; and it goes on after an error, so the handler keeps the first cause and ignores the
 * rest. */
#include "conf.h"

#include <errno.h>
#include <ini.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "check.h"
#include "gpu_list.h"

#define LONGEST_LINE (INI_MAX_LINE - 3) /* its end and the terminator */

typedef struct key {
    const char *name;
    size_t offset;
    int min, max; /* of a number; both 0: text */
} key;

static const key cluster_keys[] = {
    {"bind", offsetof(fr_conf, bind), 0, 0},
    {"run_dir", offsetof(fr_conf, run_dir), 0, 0},
    {"store", offsetof(fr_conf, store), 0, 0},
    {"heartbeat_ms", offsetof(fr_conf, heartbeat_ms), 10, 60000},
    {"dead_after_ms", offsetof(fr_conf, dead_after_ms), 20, 600000},
    {NULL, 0, 0, 0}};
static const key coordinator_keys[] = {
    {"draft", offsetof(fr_conf, draft), 0, 0},
    {"draft_backend", offsetof(fr_conf, draft_backend), 0, 0},
    {"draft_gpu", offsetof(fr_conf, draft_gpu), 0, 0},
    {"draft_threads", offsetof(fr_conf, draft_threads), 1, 1024},
    {"draft_context", offsetof(fr_conf, draft_context), 16, 1 << 24},
    {"draft_vocab", offsetof(fr_conf, draft_vocab), 0, 0},
    {"draft_weights", offsetof(fr_conf, draft_weights), 0, 0},
    {"overlap", offsetof(fr_conf, overlap), 0, 0},
    {"max_running", offsetof(fr_conf, max_running), 1, 100000},
    {NULL, 0, 0, 0}};
static const key group_keys[] = {
    {"role", offsetof(fr_conf_group, role), 0, 0},
    {"model", offsetof(fr_conf_group, model), 0, 0},
    {"backend", offsetof(fr_conf_group, backend), 0, 0},
    {"hosts", offsetof(fr_conf_group, hosts), 0, 0},
    {"launcher", offsetof(fr_conf_group, launcher), 0, 0},
    {"draft_vocab", offsetof(fr_conf_group, draft_vocab), 0, 0},
    {"draft_weights", offsetof(fr_conf_group, draft_weights), 0, 0},
    {"placement", offsetof(fr_conf_group, placement), 0, 0},
    {"gpus", offsetof(fr_conf_group, gpus), 0, 0},
    {"share_gpu", offsetof(fr_conf_group, share_gpu), 0, 0},
    {"batch_invariant", offsetof(fr_conf_group, batch_invariant), 0, 0},
    {"ranks", offsetof(fr_conf_group, ranks), 1, 1024},
    {"threads", offsetof(fr_conf_group, threads), 1, 1024},
    {"context", offsetof(fr_conf_group, context), 16, 1 << 24},
    {"kv_positions", offsetof(fr_conf_group, kv_positions), 16, 1 << 30},
    {NULL, 0, 0, 0}};

typedef struct reading {
    fr_conf *conf;
    fr_status st; /* the first error; its text in cause */
    char cause[256];
} reading;

static fr_status set_value(const char *section, const key *k, void *base, const char *value)
{
    if (k->max) {
        int *at = (int *)((char *)base + k->offset);
        if (*at)
            return fr_fail(FR_EINVAL, "[%s] %s given twice", section, k->name);
        return fr_arg_int(k->name, value, k->min, k->max, at);
    }
    char **at = (char **)((char *)base + k->offset);
    if (*at)
        return fr_fail(FR_EINVAL, "[%s] %s given twice", section, k->name);
    if (!*value)
        return fr_fail(FR_EINVAL, "[%s] %s has no value", section, k->name);
    *at = strdup(value);
    return *at ? FR_OK : fr_no_memory();
}

static fr_status set(const char *section, const key *keys, void *base, const char *name,
                     const char *value)
{
    for (const key *k = keys; k->name; k++)
        if (strcmp(k->name, name) == 0)
            return set_value(section, k, base, value);
    return fr_fail(FR_EINVAL, "[%.64s] has no key '%.64s'", section, name);
}

/* The names go into file names and messages. */
static int is_plain_name(const char *s)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    return n > 0 && n < 25 && s[n] == 0 && s[0] != '.';
}

static fr_status find_group(fr_conf *c, const char *name, fr_conf_group **out)
{
    for (int i = 0; i < c->n_groups; i++) {
        if (strcmp(c->groups[i].name, name) == 0) {
            *out = &c->groups[i];
            return FR_OK;
        }
    }
    if (!is_plain_name(name) || strcmp(name, "coordinator") == 0)
        return fr_fail(FR_EINVAL,
                       "[group %.64s]: a group's name is up to 24 letters, digits, - _ .", name);
    fr_conf_group *grown = realloc(c->groups, (size_t)(c->n_groups + 1) * sizeof *grown);
    if (!grown)
        return fr_no_memory();
    c->groups = grown;
    grown[c->n_groups] = (fr_conf_group){.name = strdup(name)};
    if (!grown[c->n_groups].name)
        return fr_no_memory();
    *out = &grown[c->n_groups++];
    return FR_OK;
}

static fr_status take(fr_conf *c, const char *section, const char *name, const char *value)
{
    if (strcmp(section, "cluster") == 0)
        return set(section, cluster_keys, c, name, value);
    if (strcmp(section, "coordinator") == 0)
        return set(section, coordinator_keys, c, name, value);
    if (strncmp(section, "group ", 6) == 0) {
        fr_conf_group *g = NULL;
        FR_TRY(find_group(c, section + 6 + strspn(section + 6, " "), &g));
        return set(section, group_keys, g, name, value);
    }
    return fr_fail(FR_EINVAL,
                   "no section [%.64s]; there are [cluster], [coordinator] and [group NAME]",
                   section);
}

static int on_value(void *user, const char *section, const char *name, const char *value)
{
    reading *r = user;
    if (r->st != FR_OK)
        return 1;
    r->st = take(r->conf, section, name, value);
    if (r->st != FR_OK)
        snprintf(r->cause, sizeof r->cause, "%s", fr_cause());
    return r->st == FR_OK;
}

static fr_status check_lines(const char *path, FILE *f)
{
    char *line = NULL;
    size_t cap = 0;
    fr_status st = FR_OK;
    ssize_t n;
    for (int number = 1; st == FR_OK && (n = getline(&line, &cap, f)) >= 0; number++) {
        if (n > LONGEST_LINE)
            st =
                fr_fail(FR_EINVAL, "%s:%d: line of more than %d bytes", path, number, LONGEST_LINE);
        else if (memchr(line, 0, (size_t)n))
            st = fr_fail(FR_EINVAL, "%s:%d: a zero byte", path, number);
    }
    int failed = errno;
    free(line);
    if (st == FR_OK && ferror(f))
        st = fr_fail(failed == EISDIR ? FR_EINVAL : FR_EIO, "%s: %s", path, strerror(failed));
    rewind(f);
    return st;
}

/* The value of key `name` of a group is one of two words; NULL: not given. */
static fr_status check_word(const char *path, const fr_conf_group *g, const char *name, const char *value,
                            const char *one, const char *other)
{
    if (!value || strcmp(value, one) == 0 || strcmp(value, other) == 0)
        return FR_OK;
    return fr_fail(FR_EINVAL, "%s: [group %s] %s = %.64s: there are %s and %s", path, g->name, name, value, one, other);
}

static fr_status check_gpus(const char *path, const fr_conf_group *g)
{
    fr_gpu_list gpus;
    char what[256];
    snprintf(what, sizeof what, "%.192s: [group %.24s] gpus", path, g->name);
    return g->gpus ? fr_gpu_list_parse(what, g->gpus, &gpus) : FR_OK;
}

static fr_status check_draft_gpu(const char *path, const fr_conf *c)
{
    int gpu = 0;
    char what[256];
    snprintf(what, sizeof what, "%.192s: [coordinator] draft_gpu", path);
    return c->draft_gpu ? fr_arg_int(what, c->draft_gpu, 0, FR_GPU_HIGHEST, &gpu) : FR_OK;
}

static fr_status check_groups(const char *path, const fr_conf *c)
{
    int targets = 0;
    for (int i = 0; i < c->n_groups; i++) {
        const fr_conf_group *g = &c->groups[i];
        if (!g->model)
            return fr_fail(FR_EINVAL, "%s: [group %s] has no model", path, g->name);
        if (!g->role || (strcmp(g->role, "target") != 0 && strcmp(g->role, "draft") != 0))
            return fr_fail(FR_EINVAL, "%s: [group %s] needs role = target or role = draft", path,
                           g->name);
        FR_TRY(check_word(path, g, "placement", g->placement, "auto", "off"));
        FR_TRY(check_word(path, g, "share_gpu", g->share_gpu, "on", "off"));
        FR_TRY(check_word(path, g, "batch_invariant", g->batch_invariant, "on", "off"));
        FR_TRY(check_gpus(path, g));
        targets += strcmp(g->role, "target") == 0;
    }
    return targets ? FR_OK : fr_fail(FR_EINVAL, "%s: no group has role = target", path);
}

static fr_status read_file(const char *path, FILE *f, fr_conf *c)
{
    FR_TRY(check_lines(path, f));
    reading r = {.conf = c};
    int line = ini_parse_file(f, on_value, &r);
    if (r.st == FR_ENOMEM)
        return fr_no_memory();
    if (line > 0)
        return fr_fail(FR_EINVAL, "%s:%d: %s", path, line,
                       r.cause[0] ? r.cause : "not a [section], a 'key = value' or a comment");
    if (line < 0)
        return fr_fail(FR_EIO, "%s: cannot be read", path);
    FR_TRY(check_draft_gpu(path, c));
    return check_groups(path, c);
}

fr_status fr_conf_read(const char *path, fr_conf *out)
{
    fr_conf c = {0};
    FILE *f = fopen(path, "re");
    if (!f)
        return fr_fail(errno == ENOENT ? FR_ENOTFOUND : FR_EIO, "%s: %s", path, strerror(errno));
    fr_status st = read_file(path, f, &c);
    fclose(f);
    if (st != FR_OK)
        fr_conf_free(&c);
    else
        *out = c;
    return st;
}

static void free_texts(void *base, const key *keys)
{
    for (const key *k = keys; k->name; k++)
        if (!k->max)
            free(*(char **)((char *)base + k->offset));
}

void fr_conf_free(fr_conf *c)
{
    free_texts(c, cluster_keys);
    free_texts(c, coordinator_keys);
    for (int i = 0; i < c->n_groups; i++) {
        free(c->groups[i].name);
        free_texts(&c->groups[i], group_keys);
    }
    free(c->groups);
    *c = (fr_conf){0};
}
