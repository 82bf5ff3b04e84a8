/* model_file.c: the life of a model file: mapping, closing, look-up by name, digest. The parser is
 * gguf.c.
 *
 * The mapping is private and read only, and stays until close; pointers in metadata and tensors
 * point into it. A file that is cut while it is mapped kills the reader with SIGBUS, as with every
 * mapped file: replace files by rename. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "hash.h"
#include "model_file_impl.h"

static fr_status map_fd(fr_model_file *f, int fd)
{
    struct stat sb;
    if (fstat(fd, &sb))
        return fr_fail(FR_EIO, "%s: %s", f->name, strerror(errno));
    if (!S_ISREG(sb.st_mode))
        return fr_fail(FR_EINVAL, "%s: not a regular file", f->name);
    if (sb.st_size == 0)
        return fr_fail(FR_EFORMAT, "%s: the file is empty", f->name);
    void *base = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED)
        return fr_fail(errno == ENOMEM ? FR_ENOMEM : FR_EIO, "%s: cannot map: %s", f->name,
                       strerror(errno));
    f->base = base;
    f->size = (size_t)sb.st_size;
    f->mapped = 1;
    return FR_OK;
}

static fr_status map_path(fr_model_file *f)
{
    int fd = open(f->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block us */
    if (fd < 0)
        return fr_fail(errno == ENOENT ? FR_ENOTFOUND : FR_EIO, "%s: %s", f->name, strerror(errno));
    fr_status st = map_fd(f, fd);
    close(fd);
    return st;
}

static fr_status new_file(const char *name, fr_model_file **out)
{
    fr_model_file *f = calloc(1, sizeof *f);
    if (!f)
        return fr_no_memory();
    f->name = strdup(name);
    if (!f->name) {
        free(f);
        return fr_no_memory();
    }
    *out = f;
    return FR_OK;
}

fr_status fr_model_file_open(const char *path, fr_model_file **out)
{
    fr_model_file *f = NULL;
    fr_status st = new_file(path, &f);
    if (st != FR_OK)
        return st;
    FR_TRY_GOTO(st, map_path(f), fail);
    FR_TRY_GOTO(st, fr_gguf_parse(f), fail);
    /* Weights are read once, from front to back; the tables read again (embeddings) are few. A
     * hint: failing is fine. */
    (void)madvise((void *)f->base, f->size, MADV_SEQUENTIAL);
    *out = f;
    return FR_OK;
fail:
    fr_model_file_close(&f);
    return st;
}

fr_status fr_model_file_from_memory(const void *data, size_t n, const char *name,
                                    fr_model_file **out)
{
    fr_model_file *f = NULL;
    FR_TRY(new_file(name, &f));
    f->base = data;
    f->size = n;
    fr_status st = fr_gguf_parse(f);
    if (st != FR_OK)
        fr_model_file_close(&f);
    else
        *out = f;
    return st;
}

void fr_model_file_close(fr_model_file **p)
{
    fr_model_file *f = p ? *p : NULL;
    if (!f)
        return;
    fr_index_free(&f->tensor_index);
    fr_index_free(&f->meta_index);
    free(f->tensors);
    free(f->meta);
    if (f->mapped)
        munmap((void *)f->base, f->size);
    free(f->name);
    free(f);
    *p = NULL;
}

const char *fr_model_file_name(const fr_model_file *f)
{
    return f->name;
}

size_t fr_model_file_size(const fr_model_file *f)
{
    return f->size;
}

uint64_t fr_model_file_digest(const fr_model_file *f)
{
    /* The start, the middle and the end of each tensor: two trainings or quantisations of one model
     * differ there. */
    enum { SAMPLE = 64 };
    uint64_t h = fr_hash(FR_HASH_INIT, &f->size, sizeof f->size);
    h = fr_hash(h, f->base, f->header_bytes);
    for (size_t i = 0; i < f->n_tensors; i++) {
        const fr_tensor *t = &f->tensors[i];
        const uint8_t *p = t->data;
        size_t n = t->bytes < SAMPLE ? t->bytes : SAMPLE;
        h = fr_hash(h, p, n);
        h = fr_hash(h, p + (t->bytes - n) / 2, n);
        h = fr_hash(h, p + t->bytes - n, n);
    }
    return h;
}

size_t fr_model_file_n_meta(const fr_model_file *f)
{
    return f->n_meta;
}

const fr_meta *fr_model_file_meta_at(const fr_model_file *f, size_t i)
{
    return i < f->n_meta ? &f->meta[i] : NULL;
}

const fr_meta *fr_model_file_meta(const fr_model_file *f, const char *key)
{
    fr_str want = {key, strlen(key)};
    FR_INDEX_EACH(&f->meta_index, fr_hash(FR_HASH_INIT, want.data, want.len), i)
    {
        if (fr_str_equal(f->meta[i].key, want))
            return &f->meta[i];
    }
    return NULL;
}

size_t fr_model_file_n_tensors(const fr_model_file *f)
{
    return f->n_tensors;
}

const fr_tensor *fr_model_file_tensor_at(const fr_model_file *f, size_t i)
{
    return i < f->n_tensors ? &f->tensors[i] : NULL;
}

const fr_tensor *fr_model_file_tensor(const fr_model_file *f, const char *name)
{
    fr_str want = {name, strlen(name)};
    FR_INDEX_EACH(&f->tensor_index, fr_hash(FR_HASH_INIT, want.data, want.len), i)
    {
        if (fr_str_equal(f->tensors[i].name, want))
            return &f->tensors[i];
    }
    return NULL;
}

void fr_model_file_drop(const fr_model_file *f, const void *data, size_t n)
{
    const uint8_t *p = data;
    if (!f->mapped || p < f->base || n > f->size || (size_t)(p - f->base) > f->size - n)
        return;
    /* Whole pages inside the range only: the rest is shared with neighbours that may still be read.
     */
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t from = ((size_t)(p - f->base) + page - 1) / page * page;
    size_t to = ((size_t)(p - f->base) + n) / page * page;
    if (from < to)
        (void)madvise((void *)(f->base + from), to - from, MADV_DONTNEED);
}
