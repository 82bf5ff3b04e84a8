/* bounded_call.h: a call into a library that may never return. */
#ifndef FR_BOUNDED_CALL_H
#define FR_BOUNDED_CALL_H

#include <stdbool.h>

/* Calls in a thread of its own, so without the caller's thread-local state (current GPU, last cause), and waits for it.
 * false: it had not returned after `ms`; it goes on by itself, and `arg` has to stay valid for as long. Where no thread
 * can be had, the caller's takes the call, however long that is. */
bool fr_bounded_call(void (*call)(void *arg), void *arg, int ms);

#endif
