/* run_dir.c: see run_dir.h. */
#include "run_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static fr_status lock_path(const char *dir, char *out)
{
    if (snprintf(out, PATH_MAX, "%s/up.pid", dir) >= PATH_MAX)
        return fr_fail(FR_ELIMIT, "%.64s...: path too long", dir);
    return FR_OK;
}

fr_status fr_run_dir_make(const char *dir)
{
    struct stat st;
    if (mkdir(dir, 0700) != 0 && errno != EEXIST)
        return fr_fail(FR_EIO, "%s: %s", dir, strerror(errno));
    if (lstat(dir, &st) != 0)
        return fr_fail(FR_EIO, "%s: %s", dir, strerror(errno));
    /* Below /tmp anybody may have made it first. */
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return fr_fail(FR_EINVAL, "%s: not a folder of this user", dir);
    return FR_OK;
}

static pid_t holder_of(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

fr_status fr_run_dir_lock(const char *dir, int *fd_out)
{
    char path[PATH_MAX];
    FR_TRY(lock_path(dir, path));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fr_fail(FR_EIO, "%s: %s", path, strerror(errno));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_SETLK, &lock) != 0) {
        pid_t pid = holder_of(fd);
        close(fd);
        return fr_fail(FR_EBUSY, "%s: a cluster runs there already (pid %d)", dir, (int)pid);
    }
    if (ftruncate(fd, 0) != 0 || dprintf(fd, "%d\n", (int)getpid()) < 0) {
        int e = errno;
        close(fd);
        return fr_fail(FR_EIO, "%s: %s", path, strerror(e));
    }
    *fd_out = fd;
    return FR_OK;
}

fr_status fr_run_dir_holder(const char *dir, pid_t *out)
{
    char path[PATH_MAX];
    *out = 0;
    FR_TRY(lock_path(dir, path));
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? FR_OK : fr_fail(FR_EIO, "%s: %s", path, strerror(errno));
    *out = holder_of(fd);
    close(fd);
    return FR_OK;
}
