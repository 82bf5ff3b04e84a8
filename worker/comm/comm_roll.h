/* comm_roll.h: who noticed a failure, and what a roll call found, in words. */
#ifndef FR_COMM_ROLL_H
#define FR_COMM_ROLL_H

#include <stdbool.h>
#include <stddef.h>

/* The last cause, in text [cap], behind "rank 1: " where it does not begin so. */
void fr_comm_name_finder(int rank, char *text, size_t cap);
/* "; no word from ranks 1, 3": those that are not heard of; "" when there are none. heard [n_ranks]. A rank has its
 * word to say where it meets the others or waits for its device. So one that only computes, for longer than the roll
 * call takes, is named too; but a thread that spoke for it would also speak for one that hangs. */
void fr_comm_name_silent(const bool *heard, int n_ranks, char *text, size_t cap);

#endif
