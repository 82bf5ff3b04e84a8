/* fibre.h: threads of a kernel: stacks that a scheduler switches between, on one thread of the
 * operating system at a time (not always the same one).
 *
 * On x86-64 a switch is a few instructions; elsewhere swapcontext. AddressSanitizer and
 * ThreadSanitizer are told of each. Each stack ends in a page that faults. */
#ifndef FAKE_CUDA_FIBRE_H
#define FAKE_CUDA_FIBRE_H

#include <stddef.h>
#include <stdint.h>

#define FIBRES_MAX 1025        /* a block's threads that wait, and one that runs */
#define FIBRE_BYTES (260 << 10) /* a stack and the page before it */

struct fibre;

/* A fibre that will call body() when first resumed; body never returns. Fibres live for ever. */
fibre *fibre_new(void (*body)());
/* Runs f until it suspends. Called from outside of fibres only. */
void fibre_resume(fibre *f);
/* Goes back to whoever resumed this fibre. */
void fibre_suspend();
fibre *fibre_current();

/* The stacks of all fibres lie here. */
extern uintptr_t fibre_stacks;
const size_t fibre_stacks_bytes = size_t(FIBRES_MAX) * FIBRE_BYTES;
static inline bool fibre_on_stack(uintptr_t at)
{
    return at - fibre_stacks < fibre_stacks_bytes;
}

#endif
