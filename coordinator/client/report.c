/* report.c: statuses to exit codes and the one line on stderr. See client.h. */
#include "client.h"

#include <stdio.h>
#include <string.h>

#include "ui.h"

int fr_exit_of(fr_status st)
{
    switch (st) {
    case FR_OK:
        return FR_EXIT_DONE;
    case FR_EFORMAT:
    case FR_EUNSUPPORTED:
    case FR_EINVAL:
    case FR_ENOTFOUND:
    case FR_ELIMIT:
    case FR_EBUSY:
    case FR_EMISMATCH:
        return FR_EXIT_USAGE;
    case FR_EUNAVAILABLE:
    case FR_ETIMEDOUT:
        return FR_EXIT_NO_CLUSTER;
    default:
        return FR_EXIT_FAILED;
    }
}

int fr_exit_report(fr_status st)
{
    if (st == FR_OK)
        return FR_EXIT_DONE;
    /* A cause may quote a file or a peer, so it is not trusted to be one clean line. */
    fr_buf line = {0};
    const char *cause = fr_cause()[0] ? fr_cause() : fr_status_text(st);
    if (fr_ui_escape(cause, strlen(cause), FR_UI_ONE_LINE, &line) == FR_OK)
        fprintf(stderr, "forerun: %.*s\n", (int)line.len, (const char *)line.data);
    else
        fprintf(stderr, "forerun: %s\n", fr_status_text(st));
    fr_buf_free(&line);
    return fr_exit_of(st);
}

const fr_command *fr_command_find(const fr_command *const *table, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    return NULL;
}
