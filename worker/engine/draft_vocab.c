/* draft_vocab.c: see draft_vocab.h. */
#include "draft_vocab.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

#define LARGE 65536 /* vocabularies up to here keep their whole head */

int fr_draft_vocab_size(const fr_tokenizer *t, int wanted)
{
    int n_vocab = fr_tokenizer_n_vocab(t);
    if (wanted == FR_DRAFT_VOCAB_AUTO)
        wanted = n_vocab > LARGE ? FR_DRAFT_VOCAB : 0;
    return wanted < n_vocab ? wanted : 0;
}

static fr_status path_of(const char *model_path, char **out)
{
    struct stat sb;
    int folder = stat(model_path, &sb) == 0 && S_ISDIR(sb.st_mode);
    fr_buf path = {0};
    fr_status st = fr_buf_printf(&path, folder ? "%s/model.vocab" : "%s.vocab", model_path);
    if (st != FR_OK)
        fr_buf_free(&path);
    else
        *out = (char *)path.data;
    return st;
}

/* --- reading --- */

typedef struct choice {
    const fr_tokenizer *t;
    int size, n;
    uint8_t *in;     /* [vocabulary]: chosen */
    uint8_t *listed; /* [vocabulary]: stood in the file */
} choice;

static void choose(choice *c, int32_t id)
{
    c->n += !c->in[id];
    c->in[id] = 1;
}

static int is_indispensable(const fr_tokenizer *t, int32_t id)
{
    size_t n = 0;
    fr_token_bytes(t, id, &n);
    return n == 1 || fr_tokenizer_is_special(t, id) || fr_tokenizer_is_end(t, id);
}

static fr_status take_line(choice *c, const char *path, int number, const char *line)
{
    int32_t n_vocab = fr_tokenizer_n_vocab(c->t);
    char *end = NULL;
    errno = 0;
    long id = strtol(line, &end, 10);
    if (line[0] < '0' || line[0] > '9' || errno || (*end != '\n' && *end != 0))
        return fr_fail(FR_EFORMAT, "%s:%d: not a token id", path, number);
    if (id >= n_vocab)
        return fr_fail(FR_EFORMAT, "%s:%d: token %ld is not in the vocabulary of %d", path, number,
                       id, n_vocab);
    if (c->listed[id])
        return fr_fail(FR_EFORMAT, "%s:%d: token %ld stands there twice", path, number, id);
    c->listed[id] = 1;
    if (c->n < c->size)
        choose(c, (int32_t)id);
    return FR_OK;
}

static fr_status take_file(choice *c, const char *path, FILE *f)
{
    char line[32]; /* a longer one is no id, and its first part says so */
    int number = 0;
    while (fgets(line, sizeof line, f))
        FR_TRY(take_line(c, path, ++number, line));
    if (ferror(f))
        return fr_fail(FR_EIO, "%s: %s", path, strerror(errno));
    return number > 0 ? FR_OK : fr_fail(FR_EFORMAT, "%s: the file is empty", path);
}

static fr_status choose_listed(choice *c, const char *model_path)
{
    char *path = NULL;
    FR_TRY(path_of(model_path, &path));
    FILE *f = fopen(path, "re");
    fr_status st = FR_OK;
    if (f)
        st = take_file(c, path, f);
    else if (errno != ENOENT)
        st = fr_fail(FR_EIO, "%s: %s", path, strerror(errno));
    if (f)
        fclose(f);
    free(path);
    return st;
}

static fr_status choose_all(choice *c, const char *model_path, fr_ids *out)
{
    int32_t n_vocab = fr_tokenizer_n_vocab(c->t);
    for (int32_t id = 0; id < n_vocab; id++)
        if (is_indispensable(c->t, id))
            choose(c, id);
    FR_TRY(choose_listed(c, model_path));
    for (int32_t id = 0; id < n_vocab && c->n < c->size; id++)
        choose(c, id);
    for (int32_t id = 0; id < n_vocab; id++)
        if (c->in[id])
            FR_TRY(fr_ids_put(out, &id, 1));
    return FR_OK;
}

fr_status fr_draft_vocab_read(const char *model_path, const fr_tokenizer *t, int size, fr_ids *out)
{
    size_t n_vocab = (size_t)fr_tokenizer_n_vocab(t);
    choice c = {.t = t, .size = size, .in = calloc(n_vocab, 1), .listed = calloc(n_vocab, 1)};
    out->len = 0;
    fr_status st = c.in && c.listed ? choose_all(&c, model_path, out) : fr_no_memory();
    free(c.in);
    free(c.listed);
    return st;
}

/* --- writing --- */

typedef struct ranked {
    int64_t count;
    int32_t id;
} ranked;

static int by_count(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Whole or not at all. */
static fr_status write_file(const char *path, const ranked *list, int n)
{
    fr_buf temporary = {0};
    fr_status st = fr_buf_printf(&temporary, "%s.tmp.%ld", path, (long)getpid());
    if (st != FR_OK) {
        fr_buf_free(&temporary);
        return st;
    }
    const char *name = (const char *)temporary.data;
    FILE *f = fopen(name, "we");
    int ok = f != NULL;
    for (int i = 0; ok && i < n; i++)
        ok = fprintf(f, "%d\n", (int)list[i].id) > 0;
    ok = ok && fflush(f) == 0 && fsync(fileno(f)) == 0;
    int error = errno;
    if (f && fclose(f) != 0 && ok) {
        ok = 0;
        error = errno;
    }
    if (ok && rename(name, path) != 0) {
        ok = 0;
        error = errno;
    }
    if (!ok && f)
        unlink(name);
    fr_buf_free(&temporary);
    return ok ? FR_OK : fr_fail(FR_EIO, "%s: %s", path, strerror(error));
}

fr_status fr_draft_vocab_write(const char *model_path, const fr_tokenizer *t, const int64_t *counts,
                               int size, char **path_out)
{
    int n = fr_tokenizer_n_vocab(t);
    char *path = NULL;
    ranked *list = calloc((size_t)n, sizeof *list);
    if (!list)
        return fr_no_memory();
    for (int32_t id = 0; id < n; id++)
        list[id] = (ranked){counts[id], id};
    qsort(list, (size_t)n, sizeof *list, by_count);
    fr_status st = path_of(model_path, &path);
    if (st == FR_OK)
        st = write_file(path, list, size < n ? size : n);
    free(list);
    if (st != FR_OK)
        free(path);
    else
        *path_out = path;
    return st;
}
