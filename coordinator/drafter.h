/* drafter.h: a draft group of one rank in a thread of this process: the same serving code as a
 * worker's, over an inproc endpoint. The model is loaded in the thread, so that the coordinator
 * takes in workers meanwhile. */
#ifndef FR_DRAFTER_H
#define FR_DRAFTER_H

#include "draft_weights.h"
#include "gpu_list.h"
#include "status.h"

typedef struct fr_drafter fr_drafter;

typedef struct fr_drafter_options {
    const char *model;    /* file */
    const char *endpoint; /* inproc:// */
    const char *backend;  /* NULL: the fastest here */
    fr_gpu_list gpus;     /* it takes the first; none: as they come */
    int threads;          /* 0: as the session decides */
    int max_context;      /* 0: the model's own */
    int draft_vocab;      /* tokens it chooses guesses from; 0: all (session.h) */
    fr_draft_weights draft_weights;
    int wake_fd;          /* an eventfd, written to when the thread has ended */
} fr_drafter_options;

/* The options' texts outlive it. */
fr_status fr_drafter_start(const fr_drafter_options *options, fr_drafter **out);
/* 1: the thread has ended; *status_out is how (its cause: fr_drafter_cause()), *loaded_out whether
 * the model was there. */
int fr_drafter_ended(const fr_drafter *d, fr_status *status_out, int *loaded_out);
const char *fr_drafter_cause(const fr_drafter *d);
/* Stops it and waits for it. NULL is fine. */
void fr_drafter_close(fr_drafter **d);

#endif
