/* file_map.h: a file's bytes, mapped private and read only. A file that is cut while it is mapped
 * kills the reader with SIGBUS, as with every mapped file: replace files by rename. */
#ifndef FR_FILE_MAP_H
#define FR_FILE_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct fr_file_map {
    const uint8_t *base; /* NULL: none */
    size_t size;
} fr_file_map;

/* Regular files with at least one byte only, and no pointers of Git LFS. FR_ENOTFOUND, FR_EIO,
 * FR_EINVAL, FR_EFORMAT; the cause names the path. */
fr_status fr_file_map_open(const char *path, fr_file_map *out);
void fr_file_map_close(fr_file_map *m);
/* Tells the kernel that these bytes will be read once, from front to back. */
void fr_file_map_read_ahead(const fr_file_map *m);
/* Instead: only parts will be read. Nothing is read ahead then but what is asked for here: n pieces of `bytes`,
 * `stride` from one's begin to the next one's. Small gaps are read, too: pages come whole, and fewer reads are
 * quicker. Bytes elsewhere: nothing happens. */
void fr_file_map_read_parts(const fr_file_map *m);
void fr_file_map_read_pieces(const fr_file_map *m, const void *data, size_t bytes, size_t stride, size_t n);
/* Tells the kernel that these bytes are no longer needed. Bytes elsewhere: nothing happens. */
void fr_file_map_drop(const fr_file_map *m, const void *data, size_t n);

#endif
