/* dying.h: for tests of what must end a program. C and C++. */
#ifndef FAKE_CUDA_DYING_H
#define FAKE_CUDA_DYING_H

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs `what` in a child: 1 when that dies badly and says `text` on stderr. */
static inline int dies_saying(void (*what)(void), const char *text)
{
    int ends[2], status = 0;
    char said[8192];
    size_t n = 0;
    if (pipe(ends) != 0)
        return 0;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        what();
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t got;
         n < sizeof said - 1 && (got = read(ends[0], said + n, sizeof said - 1 - n)) > 0;)
        n += (size_t)got;
    said[n] = '\0';
    close(ends[0]);
    waitpid(child, &status, 0);
    if (status != 0 && strstr(said, text))
        return 1;
    fprintf(stderr, "status %x, looked for \"%s\" in:\n%s\n", (unsigned)status, text, said);
    return 0;
}

#endif
