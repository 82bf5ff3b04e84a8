/* interrupt.c: see interrupt.h. */
#include "interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

/* The handler may run in any thread: atomic, and so without a lock. */
static atomic_int mark;
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a signal's handler takes no lock");

static void on_signal(int number)
{
    (void)number;
    atomic_store(&mark, 1);
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
    return atomic_load(&mark);
}

fr_status fr_interrupt_check(void)
{
    return fr_interrupted() ? fr_fail(FR_ECANCELLED, "cancelled") : FR_OK;
}
