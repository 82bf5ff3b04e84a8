/* hang_in_munmap.c: preloaded into a program, it lets no mapping of a megabyte or more go, and says so: a library call
 * that never returns. */
#include <stddef.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int munmap(void *at, size_t bytes);
int munmap(void *at, size_t bytes)
{
    if (bytes >= 1 << 20)
        fprintf(stderr, "munmap hangs\n");
    while (bytes >= 1 << 20)
        pause();
    return (int)syscall(SYS_munmap, at, bytes);
}
