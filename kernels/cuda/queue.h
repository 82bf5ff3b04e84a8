/* queue.h: the work of a pass on its way to the GPU. Operations do not launch: they push commands, and
 * host arrays that kernels read (tokens, positions, page lists) are staged into one block. A flush sends
 * the block with one copy and then the commands in order. Passes of one shape push the same commands
 * with the same addresses, whatever their tokens, so from the second time on a CUDA graph of them is
 * launched instead: decoding then costs the host one copy and one launch, results included (fetch).
 *
 * What makes that hold: a command's arguments are device addresses, sizes and bounds only; what changes
 * from pass to pass is in the staged block, where arrays of one size class lie at the same place if they
 * are staged in the same order. One thread uses a queue at a time.
 *
 * The graphs are graphs.h's; commands in which ranks meet are started as meetings.h says. */
#ifndef FR_CUDA_QUEUE_H
#define FR_CUDA_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "command.h"
#include "gpu.h"
#include "ops.h"

typedef struct fr_cuda_queue fr_cuda_queue;

/* On a stream of that GPU, which stays the caller's. */
fr_status fr_cuda_queue_open(fr_cuda_gpu gpu, cudaStream_t stream, fr_cuda_queue **out);
/* Waits for the stream. NULL is fine. */
void fr_cuda_queue_close(fr_cuda_queue **q);

/* Before the first of an operation's staged arrays: there will be room for arrays of these sizes, and nothing is
 * flushed until the operation has pushed. */
fr_status fr_cuda_queue_room(fr_cuda_queue *q, const size_t *bytes, int n);
/* Room for `bytes` that the caller fills through *host_out before the next call; the commands of this
 * pass read them at *device_out (256-byte aligned). */
fr_status fr_cuda_queue_reserve(fr_cuda_queue *q, size_t bytes, void **host_out, void **device_out);
/* The same with a copy of data [bytes]. The same data from the same place are sent once a pass. */
fr_status fr_cuda_queue_stage(fr_cuda_queue *q, const void *data, size_t bytes, void **device_out);

/* args [bytes <= FR_CUDA_ARGS] are copied. What was staged before is this command's. */
fr_status fr_cuda_queue_push(fr_cuda_queue *q, fr_cuda_launch launch, const void *args, size_t bytes);
/* In the command pushed last, this device meets others. */
void fr_cuda_queue_note_meeting(fr_cuda_queue *q);
/* Arguments of the command pushed last, if it is `launch`, else NULL: one that does more may then replace it. They are
 * valid until the next call. */
const void *fr_cuda_queue_last(const fr_cuda_queue *q, fr_cuda_launch launch);
/* Once at most between two pushes. */
void fr_cuda_queue_drop_last(fr_cuda_queue *q);

/* Starts everything pushed so far. */
fr_status fr_cuda_queue_flush(fr_cuda_queue *q);
/* Flushes and waits until the stream is idle. FR_EIO when the GPU failed; what a check of the peers returns. */
fr_status fr_cuda_queue_wait(fr_cuda_queue *q);
/* Waits, and has then copied device [bytes <= FR_CUDA_FETCH] to host_out. The copy is one of the pass's commands:
 * with a graph it costs the host neither a call nor a second wait. */
#define FR_CUDA_FETCH (1 << 20) /* of 16 ranks, 32 answers of the longest */
fr_status fr_cuda_queue_fetch(fr_cuda_queue *q, const void *device, size_t bytes, void *host_out);
/* Milliseconds on the GPU from the start of the last flush that started something to its end; waits for it. */
fr_status fr_cuda_queue_ms(fr_cuda_queue *q, double *out);
/* As fr_ops.set_peers says. */
void fr_cuda_queue_set_peers(fr_cuda_queue *q, const fr_device_peers *peers);

#endif
