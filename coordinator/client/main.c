/* main.c: the `forerun` command: finds the subcommand in the table and hands over. Exit codes are
 * those of client.h. */
#include "client.h"

#include <argp.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "version.h"

static const fr_command *const commands[] = {
    &fr_command_solve, &fr_command_submit, &fr_command_watch, &fr_command_status,
    &fr_command_list,  &fr_command_cancel, &fr_command_up,    &fr_command_down,
    &fr_command_bench, &fr_command_model,
};
#define N_COMMANDS ((int)(sizeof commands / sizeof commands[0]))

static void print_help(void)
{
    printf(
        "Usage: forerun COMMAND [OPTION...]\n"
        "Solves long chains of thought by speculative reasoning: a small draft model runs ahead,\n"
        "a large target model verifies its steps in parallel and keeps what it "
        "accepts.\n\nCommands:\n");
    for (int i = 0; i < N_COMMANDS; i++)
        printf("  %-8s %s\n", commands[i]->name, commands[i]->summary);
    printf("\n`forerun COMMAND --help` tells a command's options and shows examples.\n"
           "  -?, --help     this help\n"
           "  -V, --version  the version\n\n"
           "Exit codes: 0 done, 1 the job failed or was cancelled, 2 bad usage or bad input, 3 no "
           "cluster.\n"
           "Environment: FORERUN_MODELS (folder of models), FORERUN_CONNECT (endpoint), "
           "NO_COLOR.\n");
}

static int unknown_command(const char *name)
{
    fprintf(stderr, "forerun: unknown command '%.64s'; commands:", name);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(stderr, "%s %s", i ? "," : "", commands[i]->name);
    fputc('\n', stderr);
    return FR_EXIT_USAGE;
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    argp_program_version = FR_VERSION;
    argp_err_exit_status = FR_EXIT_USAGE;
    fr_log_open("forerun", FR_LOG_INFO);
    signal(
        SIGPIPE,
        SIG_IGN); /* a reader that goes away is an error of a write, not a death that leaves children */
    if (argc < 2) {
        fprintf(stderr, "forerun: no command given; see forerun --help\n");
        return FR_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-?") == 0 || strcmp(name, "help") == 0) {
        print_help();
        return FR_EXIT_DONE;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        puts(FR_VERSION);
        return FR_EXIT_DONE;
    }
    const fr_command *command = fr_command_find(commands, N_COMMANDS, name);
    if (!command)
        return unknown_command(name);
    char title[32];
    snprintf(title, sizeof title, "forerun %s", command->name);
    argv[1] = title; /* argp names the program after argv[0] */
    return command->run(argc - 1, argv + 1);
}
