/* fault_alloc.h: makes the Nth allocation of a test program fail, to walk every out-of-memory path.
 * Link fr_fault_alloc: it replaces malloc, calloc, realloc, aligned_alloc, posix_memalign, strdup
 * and strndup as called from Forerun's own code (not from inside shared libraries). Per thread; off
 * unless armed.
 *
 *     for (long n = 0;; n++) {
 *         fr_fault_alloc_arm(n);
 *         fr_status st = thing_new(&thing);
 *         if (!fr_fault_alloc_disarm()) { assert_int_equal(st, FR_OK); break; }   // fewer than n +
 *         1 allocations assert_int_equal(st, FR_ENOMEM);
 *     }
 */
#ifndef FR_FAULT_ALLOC_H
#define FR_FAULT_ALLOC_H

#include <stdbool.h>

/* After `n` more allocations of this thread succeed, one fails; those after it succeed again. */
void fr_fault_alloc_arm(long n);
/* Turns it off; did the failure happen? */
bool fr_fault_alloc_disarm(void);

#endif
