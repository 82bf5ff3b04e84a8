/* client.h: what the files of the `forerun` command share: the table of subcommands and the exit
 * codes. A subcommand is one file that defines one fr_command; main.c lists them. */
#ifndef FR_CLIENT_H
#define FR_CLIENT_H

#include "status.h"

/* What the process ends with: the contract of every subcommand. A job that the user cancels
 * (Ctrl-C) has failed. */
typedef enum {
    FR_EXIT_DONE = 0,
    FR_EXIT_FAILED = 1,
    FR_EXIT_USAGE = 2,
    FR_EXIT_NO_CLUSTER = 3
} fr_exit;

typedef struct fr_command {
    const char *name;
    const char *summary;               /* one line of `forerun --help` */
    int (*run)(int argc, char **argv); /* argv[0] is "forerun NAME"; returns an fr_exit */
} fr_command;

extern const fr_command fr_command_solve, fr_command_submit, fr_command_watch, fr_command_status,
    fr_command_list, fr_command_cancel, fr_command_up, fr_command_down, fr_command_bench,
    fr_command_model;

/* The command of that name among n; NULL when there is none. */
const fr_command *fr_command_find(const fr_command *const *table, int n, const char *name);

/* FR_OK: FR_EXIT_DONE. Else prints "forerun: CAUSE" as one line on stderr and returns the exit code
 * of the status. */
int fr_exit_report(fr_status st);
/* The exit code alone: bad input and usage 2, a cluster that is not there 3, everything else 1. */
int fr_exit_of(fr_status st);

#endif
