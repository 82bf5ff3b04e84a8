/* fibre.h: threads of a kernel: stacks that a scheduler switches between, on one thread of the
 * operating system at a time (not always the same one).
 *
 * On x86-64 a switch is a few instructions; elsewhere swapcontext. AddressSanitizer and
 * ThreadSanitizer are told of each. Each stack ends in a page that faults. */
#ifndef FAKE_CUDA_FIBRE_H
#define FAKE_CUDA_FIBRE_H

struct fibre;

/* A fibre that will call body() when first resumed; body never returns. Fibres live for ever. */
fibre *fibre_new(void (*body)());
/* Runs f until it suspends. Called from outside of fibres only. */
void fibre_resume(fibre *f);
/* Goes back to whoever resumed this fibre. */
void fibre_suspend();
fibre *fibre_current();

#endif
