/* cuda_pipeline.h: asynchronous copies from global into shared memory, of one thread.
 *
 * As late as CUDA allows: the bytes arrive when the thread waits for their batch. Until then the
 * destination holds 0xFF, so that a missing wait shows, and so does a copy into what is still read. */
#ifndef FAKE_CUDA_PIPELINE_H
#define FAKE_CUDA_PIPELINE_H

#include "cuda_runtime.h"

/* bytes: 4, 8 or 16, both sides aligned to it; the last `zero_bytes` are not read but set to 0. */
void __pipeline_memcpy_async(void *shared, const void *global, size_t bytes, size_t zero_bytes = 0);
/* What was copied since the last commit is a batch (perhaps an empty one). */
void __pipeline_commit();
/* Waits for all batches but the last n. */
void __pipeline_wait_prior(size_t n);

#endif
