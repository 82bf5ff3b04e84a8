/* file_map.c: see file_map.h. */
#include "file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes: between two pieces that are worth being left out; that every device takes at a time. */
enum { LEAST_GAP = 16 << 10, AT_A_TIME = 128 << 10 };

static fr_status map_fd(const char *path, int fd, fr_file_map *out)
{
    struct stat sb;
    if (fstat(fd, &sb))
        return fr_fail(FR_EIO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(sb.st_mode))
        return fr_fail(FR_EINVAL, "%s: not a regular file", path);
    if (sb.st_size == 0)
        return fr_fail(FR_EFORMAT, "%s: the file is empty", path);
    void *base = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED)
        return fr_fail(errno == ENOMEM ? FR_ENOMEM : FR_EIO, "%s: cannot map: %s", path,
                       strerror(errno));
    *out = (fr_file_map){base, (size_t)sb.st_size};
    return FR_OK;
}

/* What stands for a file that Git LFS keeps elsewhere. */
static const char lfs_pointer[] = "version https://git-lfs.github.com/spec/";

fr_status fr_file_map_open(const char *path, fr_file_map *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block us */
    if (fd < 0)
        return fr_fail(errno == ENOENT ? FR_ENOTFOUND : FR_EIO, "%s: %s", path, strerror(errno));
    fr_status st = map_fd(path, fd, out);
    close(fd);
    const size_t n = sizeof lfs_pointer - 1;
    if (st == FR_OK && out->size >= n && memcmp(out->base, lfs_pointer, n) == 0) {
        fr_file_map_close(out);
        st = fr_fail(FR_EFORMAT, "%s: a Git LFS pointer: the file itself was not fetched (git lfs pull)", path);
    }
    return st;
}

void fr_file_map_close(fr_file_map *m)
{
    if (m->base)
        munmap((void *)m->base, m->size);
    *m = (fr_file_map){0};
}

void fr_file_map_read_ahead(const fr_file_map *m)
{
    (void)madvise((void *)m->base, m->size, MADV_SEQUENTIAL); /* a hint: failing is fine */
}

static bool holds(const fr_file_map *m, const uint8_t *p, size_t n)
{
    return m->base && p >= m->base && n <= m->size && (size_t)(p - m->base) <= m->size - n;
}

void fr_file_map_read_parts(const fr_file_map *m)
{
    (void)madvise((void *)m->base, m->size, MADV_RANDOM);
}

/* Reads [at, at + bytes) ahead. In steps: of one request Linux reads no more than the device takes at a time. */
static void want(const fr_file_map *m, size_t at, size_t bytes)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), end = at + bytes;
    for (size_t from = at / page * page; from < end; from += AT_A_TIME)
        (void)madvise((void *)(m->base + from), end - from < AT_A_TIME ? end - from : AT_A_TIME, MADV_WILLNEED);
}

void fr_file_map_read_pieces(const fr_file_map *m, const void *data, size_t bytes, size_t stride, size_t n)
{
    if (n == 0 || !holds(m, data, (n - 1) * stride + bytes))
        return;
    const size_t at = (size_t)((const uint8_t *)data - m->base);
    if (stride < bytes + LEAST_GAP)
        want(m, at, (n - 1) * stride + bytes);
    for (size_t i = 0; i < n && stride >= bytes + LEAST_GAP; i++)
        want(m, at + i * stride, bytes);
}

void fr_file_map_drop(const fr_file_map *m, const void *data, size_t n)
{
    const uint8_t *p = data;
    if (!holds(m, p, n))
        return;
    /* Whole pages inside the range only: the rest is shared with neighbours that may still be read.
     */
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t from = ((size_t)(p - m->base) + page - 1) / page * page;
    size_t to = ((size_t)(p - m->base) + n) / page * page;
    if (from < to)
        (void)madvise((void *)(m->base + from), to - from, MADV_DONTNEED);
}
