/* interrupt.c: see interrupt.h. */
#include "interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>

static volatile sig_atomic_t mark;

static void on_signal(int number)
{
    (void)number;
    mark = 1;
}

void fr_interrupt_arm(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal; /* without SA_RESTART: waits end at once */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
}

int fr_interrupted(void)
{
    return mark != 0;
}

fr_status fr_interrupt_check(void)
{
    return mark ? fr_fail(FR_ECANCELLED, "cancelled") : FR_OK;
}
