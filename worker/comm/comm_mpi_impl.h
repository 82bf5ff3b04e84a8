/* comm_mpi_impl.h: what the files of the MPI communicator share. Private to comm_mpi*.c, which alone see mpi.h. */
#ifndef FR_COMM_MPI_IMPL_H
#define FR_COMM_MPI_IMPL_H

#include <mpi.h>

#include "buf.h"
#include "comm.h"
#include "doorbell.h"

/* Of point-to-point messages. */
enum { FR_MPI_COMMAND_TAG = 1, FR_MPI_ROLL_TAG, FR_MPI_SUM_TAG };

/* How the work of the first rank that failed went. */
typedef struct fr_mpi_verdict {
    int32_t status;
    char cause[500];
} fr_mpi_verdict;

typedef struct fr_mpi_comm {
    fr_comm base;
    MPI_Comm mpi;
    bool yield; /* no core is left over: waiting ranks give theirs away */
    /* What is under way; when it is abandoned MPI may still write there. */
    MPI_Request *requests; /* [2 size] of a sum or a command */
    fr_buf scratch;        /* of a sum */
    fr_buf exchange;       /* of a gather or broadcast */
    int vote, first;       /* of agree, as is what the first rank that failed tells */
    fr_mpi_verdict told;
    /* Commands. */
    fr_doorbell *bell;
    fr_doorbell_address *bells; /* [size] leader: where each rank sleeps */
    uint64_t key, n_commands;
    fr_buf command; /* the last one received, or under way */
    /* Giving up. */
    bool rolled;     /* this rank has given up */
    bool unfinished; /* a rank did not answer the roll call, or a collective is still under way */
    bool *heard;     /* [size] who has given up; NULL until the group is formed */
    char roll_word[FR_COMM_WHY];
    char heard_why[FR_COMM_WHY]; /* of the first that had a reason */
} fr_mpi_comm;

static inline fr_mpi_comm *fr_mpi_of(fr_comm *c)
{
    return (fr_mpi_comm *)c;
}

/* ---- comm_mpi_start.c */

/* FR_EPEER with MPI's text where rc is an error. */
fr_status fr_mpi_check(int rc, const char *what);
/* Initialises MPI if that was not done yet. */
fr_status fr_mpi_start(void);
/* Cores of this host that its ranks may use together. mpirun's own binding gives each rank another core, so what one
 * rank may use says nothing about the others. */
int fr_mpi_usable_cores(void);

/* ---- comm_mpi_alarm.c */

/* Before a collective: what an abandoned one may still write to is not to be used again. */
fr_status fr_mpi_check_group(fr_mpi_comm *m);
/* Until all n requests are done, or else abandoned: FR_EPEER, since a rank has given up or not all were there after
 * wait_ms, FR_ECANCELLED, since this rank is to stop. wait_ms 0: as long as the communicator's patience. */
fr_status fr_mpi_await(fr_mpi_comm *m, int n, MPI_Request *requests, int wait_ms, const char *what);

/* ---- comm_mpi.c */

/* FR_ELIMIT where `size` messages of so many bytes, or values, are more than MPI can count. */
fr_status fr_mpi_check_bytes(const fr_mpi_comm *m, size_t bytes, const char *what);
/* Room for `bytes`, contents undefined. Grown, never shrunk: the largest pass of a session comes first or soon. */
fr_status fr_mpi_make_room(fr_buf *b, size_t bytes);

/* ---- what the table in comm.h holds */

/* comm_mpi_sum.c */
fr_status fr_mpi_all_reduce_sum(fr_comm *c, float *x, size_t n);
/* comm_mpi_gather.c */
fr_status fr_mpi_gather(fr_comm *c, const void *mine, size_t bytes, void *out);
fr_status fr_mpi_all_gather(fr_comm *c, const void *mine, size_t bytes, void *out, int wait_ms);
fr_status fr_mpi_broadcast(fr_comm *c, void *data, size_t bytes);
fr_status fr_mpi_agree(fr_comm *c, fr_status mine);
/* comm_mpi_command.c */
fr_status fr_mpi_command_send(fr_comm *c, const void *data, size_t bytes);
fr_status fr_mpi_command_wait(fr_comm *c, const void **data_out, size_t *bytes_out);
/* comm_mpi_alarm.c */
void fr_mpi_give_up(fr_comm *c);
fr_status fr_mpi_roll_call(fr_comm *c, int wait_ms, char *why, bool *heard_out);
fr_status fr_mpi_look(fr_comm *c);

#endif
