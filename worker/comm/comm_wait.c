/* comm_wait.c: see comm_wait.h. */
#include "comm_wait.h"

#include "clock.h"

static uint64_t in_ms(int ms)
{
    return fr_now_ns() + (uint64_t)ms * 1000000;
}

fr_comm_wait fr_comm_wait_begin(fr_comm_patience patience)
{
    return (fr_comm_wait){.patience = patience, .end = patience.ms > 0 ? in_ms(patience.ms) : 0};
}

fr_status fr_comm_wait_check(fr_comm_wait *w)
{
    const bool stop = w->patience.stop && atomic_load(w->patience.stop) != 0;
    if (!stop && !w->end)
        return FR_OK;
    if (stop && !w->stop_end)
        w->stop_end = in_ms(FR_COMM_STOP_MS);
    const uint64_t now = fr_now_ns();
    if (stop && now >= w->stop_end)
        return FR_ECANCELLED;
    return w->end && now >= w->end ? FR_ETIMEDOUT : FR_OK;
}

int fr_comm_wait_sleep_ms(const fr_comm_wait *w)
{
    const uint64_t now = fr_now_ns();
    int ms = -1;
    if (w->end)
        ms = now < w->end ? (int)((w->end - now) / 1000000) + 1 : 0;
    return w->patience.stop && (ms < 0 || ms > FR_COMM_LOOK_MS) ? FR_COMM_LOOK_MS : ms;
}
