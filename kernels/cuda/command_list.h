/* command_list.h: commands in the order of their launch, one behind the other in words of memory. Lists of the same
 * words do the same (command.h), so words are what is hashed and compared. Zeros: empty; the owner frees `words`. */
#ifndef FR_CUDA_COMMAND_LIST_H
#define FR_CUDA_COMMAND_LIST_H

#include "command.h"
#include "status.h"

typedef struct fr_cuda_command_list {
    uint64_t *words;
    int n, n_words, cap_words; /* n: commands */
    int last;                  /* where the last one begins; negative: not known */
} fr_cuda_command_list;

/* args [bytes <= FR_CUDA_ARGS] are copied. */
fr_status fr_cuda_command_list_push(fr_cuda_command_list *list, fr_cuda_launch launch, const void *args, size_t bytes);
/* As fr_cuda_queue_last and fr_cuda_queue_drop_last say. */
const void *fr_cuda_command_list_last(const fr_cuda_command_list *list, fr_cuda_launch launch);
void fr_cuda_command_list_drop_last(fr_cuda_command_list *list);
void fr_cuda_command_list_clear(fr_cuda_command_list *list);

/* CUDA holds about a thousand launches that could not begin yet; the next one then waits, and looks at nothing. So
 * where that may be for ever, keep() is called after every FR_CUDA_PACE commands, and lets the stream catch up; what it
 * fails of ends the launching. */
enum { FR_CUDA_PACE = 128 };
typedef struct fr_cuda_pace {
    fr_status (*keep)(void *ctx);
    void *ctx;
} fr_cuda_pace;

/* Launches all; FR_EIO, with the first error. pace: NULL, none. While the stream is captured they end at that: a
 * collective that came to a capture that has failed would fail, too, and with it the group. */
fr_status fr_cuda_command_list_run(const fr_cuda_command_list *list, cudaStream_t stream, const fr_cuda_pace *pace);
fr_status fr_cuda_command_list_run_captured(const fr_cuda_command_list *list, cudaStream_t stream);

#endif
