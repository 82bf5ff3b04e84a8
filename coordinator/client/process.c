/* process.c: see process.h. */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "log.h"

/* In the child, after fork: only async-signal-safe calls until exec. */
static void become(char *const *argv, int log_fd, int null_fd, int report_fd, pid_t parent)
{
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    const int reset[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
    for (size_t i = 0; i < sizeof reset / sizeof reset[0]; i++)
        signal(reset[i], SIG_DFL);
    /* The parent may have died before prctl. */
    if (getppid() == parent && dup2(null_fd, 0) >= 0 && dup2(log_fd, 1) >= 0 &&
        dup2(log_fd, 2) >= 0)
        execvp(argv[0], argv);
    int e = errno;
    if (write(report_fd, &e, sizeof e) < 0)
        _exit(126);
    _exit(127);
}

static fr_status fork_child(fr_process *p, char *const *argv, int log_fd, int null_fd)
{
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0)
        return fr_fail(FR_EIO, "pipe: %s", strerror(errno));
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        become(argv, log_fd, null_fd, report[1], parent);
    int fork_errno = errno;
    close(report[1]);
    if (pid < 0) {
        close(report[0]);
        return fr_fail(FR_EIO, "fork: %s", strerror(fork_errno));
    }
    setpgid(pid, pid); /* both sides do it, so it holds whoever runs first */
    int child_errno = 0;
    ssize_t n;
    do
        n = read(report[0], &child_errno, sizeof child_errno);
    while (n < 0 && errno == EINTR);
    close(report[0]);
    if (n == (ssize_t)sizeof child_errno) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return fr_fail(child_errno == ENOENT ? FR_ENOTFOUND : FR_EIO, "%s: %s", argv[0],
                       strerror(child_errno));
    }
    p->pid = pid;
    return FR_OK;
}

fr_status fr_process_start(fr_process *p, const char *name, char *const *argv, const char *log_path)
{
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "%s", name);
    int log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        return fr_fail(FR_EIO, "%s: %s", log_path, strerror(errno));
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    fr_status st = null_fd < 0 ? fr_fail(FR_EIO, "/dev/null: %s", strerror(errno))
                               : fork_child(p, argv, log_fd, null_fd);
    if (null_fd >= 0)
        close(null_fd);
    close(log_fd);
    return st;
}

int fr_process_running(fr_process *p)
{
    if (p->pid == 0)
        return 0;
    int status;
    pid_t got = waitpid(p->pid, &status, WNOHANG);
    if (got == 0 || (got < 0 && errno == EINTR))
        return 1;
    p->signal = got > 0 && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    p->exit_code = got < 0 ? 127 : p->signal ? 128 + p->signal : WEXITSTATUS(status);
    p->pid = 0;
    return 0;
}

int fr_process_wait(fr_process *p, int timeout_ms)
{
    double end = fr_now_s() + timeout_ms / 1e3;
    while (fr_process_running(p)) {
        if (fr_now_s() >= end)
            return 0;
        fr_sleep_ms(10);
    }
    return 1;
}

void fr_process_stop(fr_process *p, int grace_ms)
{
    pid_t group = p->pid;
    if (!fr_process_running(p))
        return;
    kill(group, SIGTERM);
    if (fr_process_wait(p, grace_ms))
        return;
    kill(-group, SIGKILL);
    fr_process_wait(p, 5000);
}

/* What one of our programs tells in this line, behind its name; NULL: it is not theirs. */
static const char *our_message(const char *line)
{
    const char *colon = strncmp(line, "forerun-", 8) == 0 ? strstr(line, ": ") : NULL;
    return colon ? colon + 2 : NULL;
}

/* What follows the mark that the message begins with; NULL: it does not, or there is no message. */
static const char *behind(const char *mark, const char *message)
{
    return message && strncmp(message, mark, strlen(mark)) == 0 ? message + strlen(mark) : NULL;
}

static const char *warning_in(const char *line)
{
    return behind("warning: ", our_message(line));
}

/* How well a line of a log tells why its program ended. Of what our programs tell, a warning too, only
 * errors and what is marked so are reasons; mpirun and the run-time libraries talk too, and begin with
 * theirs. *text_out is the line without what stands before the reason: "forerun-worker: error: X"
 * gives X. */
typedef enum { LINE_NOTHING, LINE_FOREIGN, LINE_END, LINE_ERROR } line_kind;

static line_kind judge_line(const char *line, const char **text_out)
{
    const char *error = strstr(line, "error: "), *message = our_message(line), *warning = warning_in(line);
    const char *end = behind(FR_LOG_ENDS, warning ? warning : message);
    *text_out = error ? error + 7 : end ? end : line;
    if (error)
        return LINE_ERROR;
    if (message)
        return end ? LINE_END : LINE_NOTHING;
    int rule = line[strcspn(line, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")] == 0;
    return rule ? LINE_NOTHING : LINE_FOREIGN;
}

/* How argp ends a complaint about the command line, which is the line before. */
static int follows_usage_error(const char *line)
{
    return strncmp(line, "Try `forerun-", 13) == 0;
}

static void find_reason(FILE *f, char *best, size_t cap)
{
    char line[1024], before[1024] = "";
    line_kind best_kind = LINE_NOTHING;
    while (best_kind != LINE_ERROR && fgets(line, sizeof line, f)) {
        const char *text;
        line[strcspn(line, "\r\n")] = 0;
        line_kind kind = judge_line(line, &text);
        if (follows_usage_error(line)) {
            const char *colon = strstr(before, ": ");
            kind = LINE_ERROR;
            text = colon ? colon + 2 : before;
        }
        if (kind > best_kind) { /* the first of its kind */
            snprintf(best, cap, "%s", text);
            best_kind = kind;
        }
        snprintf(before, sizeof before, "%s", line);
    }
}

fr_status fr_log_first_error(const char *log_path, long from, fr_buf *out)
{
    FILE *f = fopen(log_path, "re");
    if (!f)
        return FR_OK;
    char best[1024] = "";
    if (from > 0 && fseek(f, from, SEEK_SET) != 0)
        rewind(f);
    find_reason(f, best, sizeof best);
    fclose(f);
    return fr_buf_printf(out, "%s", best);
}

fr_status fr_process_why(const fr_process *p, const char *log_path, long from, fr_buf *out)
{
    if (p->signal)
        return fr_buf_printf(out, "killed by signal %d (%s)", p->signal, strsignal(p->signal));
    size_t before = out->len;
    FR_TRY(fr_log_first_error(log_path, from, out));
    int signal = p->exit_code - 128; /* as mpirun and the shell hand on what killed their child */
    if (out->len > before || signal <= 0 || signal >= NSIG)
        return FR_OK;
    return fr_buf_printf(out, "a process of it was killed by signal %d (%s)", signal,
                         strsignal(signal));
}

/* Whether it is not among the lines told before; then it is now. */
static int is_new(const char *warning, fr_buf *told)
{
    const size_t n = strlen(warning);
    const char *line = told->len ? (const char *)told->data : "";
    for (; *line; line += strcspn(line, "\n") + 1)
        if (strncmp(line, warning, n) == 0 && line[n] == '\n')
            return 0;
    fr_buf_printf(told, "%s\n", warning); /* without memory for it, it may be told again */
    return 1;
}

void fr_log_warnings(const char *log_path, fr_buf *told)
{
    char line[1024];
    FILE *f = fopen(log_path, "re");
    if (!f)
        return;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\r\n")] = 0;
        const char *warning = warning_in(line);
        if (warning && !behind(FR_LOG_ENDS, warning) && is_new(warning, told))
            fr_log(FR_LOG_WARN, "%s", warning);
    }
    fclose(f);
}
