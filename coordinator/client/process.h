/* process.h: child processes: start, look, stop. Each child leads its own process group (so the
 * terminal's Ctrl-C reaches only the client, which stops the rest in order), reads /dev/null,
 * writes its output to a log file, and gets SIGTERM when the client dies however it dies: a kill -9
 * leaves nothing behind. Start children from the main thread only: the kernel sends that signal
 * when the starting thread ends. */
#ifndef FR_PROCESS_H
#define FR_PROCESS_H

#include <sys/types.h>

#include "buf.h"
#include "status.h"

typedef struct fr_process {
    pid_t pid;      /* 0: not started, or ended and collected */
    int exit_code;  /* once ended: the code, or 128 + the signal */
    int signal;     /* that killed it; 0: it ended by itself */
    char name[32];  /* for messages */
} fr_process;

/* Starts argv[0] (looked up in PATH without a slash); stdout and stderr are appended to log_path.
 * FR_ENOTFOUND or FR_EIO when it cannot be executed: that is known before the call returns. */
fr_status fr_process_start(fr_process *p, const char *name, char *const *argv,
                           const char *log_path);
/* 1 while it runs. Collects it when it has ended; never blocks. */
int fr_process_running(fr_process *p);
/* Waits until it has ended; 0 when it still runs after timeout_ms. */
int fr_process_wait(fr_process *p, int timeout_ms);
/* SIGTERM, and SIGKILL to its whole group after grace_ms; collects it. Fine when it is not
 * running. */
void fr_process_stop(fr_process *p, int grace_ms);

/* Why a child ended, by its log: the first line that tells an error ("...: error: X" gives "X"),
 * else the first that one of Forerun's programs marked as the reason (FR_LOG_ENDS of log.h), else the
 * first line of another program (mpirun ends with hints); "" when there is none or the log is
 * unreadable. Appended to out. from: bytes of the log to skip. */
fr_status fr_log_first_error(const char *log_path, long from, fr_buf *out);
/* The same for a child that ended: the signal that killed it, or what its log says, or the signal
 * that its exit code stands for. */
fr_status fr_process_why(const fr_process *p, const char *log_path, long from, fr_buf *out);
/* Logs again what our program that writes this log has warned of so far, but for why it ended and for what `told` has,
 * which it adds to: warnings, one a line. */
void fr_log_warnings(const char *log_path, fr_buf *told);

#endif
