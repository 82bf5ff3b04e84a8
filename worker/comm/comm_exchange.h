/* comm_exchange.h: the shape of a sum that is always taken in rank order, ((r0 + r1) + r2)..., whoever carries and adds
 * the values (comm_mpi_sum, comm_nccl):
 *   whole       everything goes to everyone, and each adds all;
 *   in pieces   x is cut into a piece for each rank: every rank's part of a piece goes to the rank that adds it
 *               (scatter), and what it added up goes to everyone (collect). */
#ifndef FR_COMM_EXCHANGE_H
#define FR_COMM_EXCHANGE_H

#include "comm.h"

/* Plain values, on one rank. Memory is the carrier's. */
typedef struct fr_comm_exchange {
    int rank, size;
    float *x;      /* [n] what this rank adds to the sum, then the sum */
    size_t n;
    size_t stride; /* of parts: n, or the length of a piece; the last pieces are shorter, or empty */
    float *parts;  /* [size][stride] what comes from each rank to be added; row `rank` is not used */
    float *sums;   /* [n] where the pieces that others added up arrive: x, or what x is then copied from */
} fr_comm_exchange;

/* What goes to another rank and what comes from it; a part of 0 values does neither. */
typedef struct fr_comm_transfer {
    const float *send;
    size_t n_send;
    float *receive;
    size_t n_receive;
} fr_comm_transfer;

/* Without parts and sums, for which the caller finds room. */
fr_comm_exchange fr_comm_exchange_begin(const fr_comm *c, float *x, size_t n, bool in_pieces);
/* The piece of a rank: x + at [len]. */
size_t fr_comm_piece_at(const fr_comm_exchange *e, int rank);
size_t fr_comm_piece_len(const fr_comm_exchange *e, int rank);

/* The transfers with another rank. */
fr_comm_transfer fr_comm_whole(const fr_comm_exchange *e, int rank);
fr_comm_transfer fr_comm_scatter(const fr_comm_exchange *e, int rank);
fr_comm_transfer fr_comm_collect(const fr_comm_exchange *e, int rank);

/* x [n] := the sum in rank order of the parts, where this rank's is x itself. Overwrites parts. add() is x += y;
 * fails as that does. */
fr_status fr_comm_add_in_rank_order(const fr_comm_exchange *e, float *x, size_t n,
                                    fr_status (*add)(void *ctx, float *x, const float *y, size_t n), void *ctx);

#endif
