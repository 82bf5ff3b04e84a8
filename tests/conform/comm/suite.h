/* suite.h: what the files of the suite share. Checks are made by all ranks of a group in the same order. */
#ifndef SUITE_H
#define SUITE_H

#include "check_or_exit.h"
#include "comm.h"

#define OK(call) CHECK((call) == FR_OK, "failed")

enum { MOST = 100000, MEGABYTE = 1 << 20 };

/* ---- data.c */

/* Zeros, which the caller frees. */
void *must_alloc(size_t bytes);
void fill(uint8_t *data, size_t bytes, int salt);
void check_filled(const uint8_t *data, size_t bytes, int salt);

/* ---- on_device.c */

/* Sums x [n], n up to MOST, in host memory: on the device, while one is open. */
fr_status sum(fr_comm *c, float *x, size_t n);
/* Over the host communicator, with a device of its own. */
fr_comm *open_staged(fr_comm *host);
void close_staged(fr_comm *c);

/* ---- sums.c, exchanges.c and commands.c */

void check_sums(fr_comm *c);
/* A sum that is larger than a message of `most` bytes, and a broadcast that is as large, for any number of ranks. Host
 * communicators. */
void check_large(fr_comm *c, size_t most);
void check_gathers(fr_comm *c);
/* Hosts are told apart by their names; ranks are alike when they may use the same cores. */
void check_here(fr_comm *c);
void check_broadcast(fr_comm *c);
void check_agreement(fr_comm *c);
void check_commands(fr_comm *c);
void check_sleep(fr_comm *c);

/* ---- mpi_world.c */

void check_share_text(void);
/* Two groups out of one world: each works alone, and closing one leaves the other. */
void check_groups(fr_comm *world);
/* Of a build without MPI. */
void check_no_mpi(void);

/* ---- giving_up.c */

/* How a rank that waits learns that another gave up: in a gather, in a sum that goes in one message or in pieces, in a
 * command too large to leave before its receiver takes it, idle (the followers all the time, the leader when it looks),
 * or, when it waits for too long, by its own clock: as long as the call says or the communicator has patience, or until
 * it is to stop. */
typedef enum {
    IN_A_PASS,
    IN_A_SMALL_SUM,
    IN_A_LARGE_SUM,
    IN_A_COMMAND,
    BETWEEN_PASSES,
    LEADER_IDLE,
    LATE,
    LATE_FOR_A_SUM,
    STOPPED_IN_A_SUM,
    STOPPED_IDLE,
    N_MOMENTS
} moment;

/* -1: there is none of that name. */
int moment_named(const char *name);
/* host: c, or what it lies over. */
void check_give_up(fr_comm *host, fr_comm *c, moment when);
/* Ends the group. */
void check_roll_call(fr_comm *c);
/* A rank of MPI that never comes back, and one that hangs in a sum. */
void check_lost(void);
void check_hung(void);

#endif
