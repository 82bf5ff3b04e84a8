/* command_list.c: see command_list.h. */
#include "command_list.h"

#include <stdbool.h>
#include <string.h>

#include "check.h"
#include "cuda_error.h"
#include "grow.h"

/* A command as it lies in the list, with as many words of arguments as it has: what is written, hashed and compared in
 * every pass is a third of fr_cuda_command's. */
typedef struct packed_command {
    fr_cuda_launch launch;
    size_t bytes; /* of args, the last word filled up with zeros */
    uint64_t args[];
} packed_command;

enum { HEAD_WORDS = sizeof(packed_command) / sizeof(uint64_t), NO_COMMAND = -1 };

static size_t words_of(size_t bytes)
{
    return (bytes + sizeof(uint64_t) - 1) / sizeof(uint64_t);
}

static const packed_command *command_at(const uint64_t *words)
{
    return (const packed_command *)(const void *)words;
}

static fr_status make_room(fr_cuda_command_list *list, int n_words)
{
    void *words = list->words;
    FR_TRY(fr_grow(&words, &list->cap_words, list->n_words + n_words, sizeof *list->words));
    list->words = words;
    return FR_OK;
}

fr_status fr_cuda_command_list_push(fr_cuda_command_list *list, fr_cuda_launch launch, const void *args, size_t bytes)
{
    if (bytes > FR_CUDA_ARGS)
        return fr_fail(FR_ELIMIT, "a GPU command of %zu bytes, at most %d", bytes, FR_CUDA_ARGS);
    const int n_words = HEAD_WORDS + (int)words_of(bytes);
    if (list->n_words + n_words > list->cap_words)
        FR_TRY(make_room(list, n_words));
    uint64_t *words = list->words + list->n_words;
    words[n_words - 1] = 0; /* what the arguments do not fill */
    packed_command *c = (packed_command *)(void *)words;
    c->launch = launch;
    c->bytes = bytes;
    memcpy(c->args, args, bytes);
    list->last = list->n_words;
    list->n_words += n_words;
    list->n++;
    return FR_OK;
}

const void *fr_cuda_command_list_last(const fr_cuda_command_list *list, fr_cuda_launch launch)
{
    if (list->n == 0 || list->last == NO_COMMAND)
        return NULL;
    const packed_command *c = command_at(list->words + list->last);
    return c->launch == launch ? c->args : NULL;
}

void fr_cuda_command_list_drop_last(fr_cuda_command_list *list)
{
    list->n--;
    list->n_words = list->last;
    list->last = NO_COMMAND;
}

void fr_cuda_command_list_clear(fr_cuda_command_list *list)
{
    list->n = list->n_words = 0;
}

static fr_status run(const fr_cuda_command_list *list, cudaStream_t stream, const fr_cuda_pace *pace, bool captured)
{
    const uint64_t *at = list->words;
    for (int i = 0; i < list->n; i++) {
        const packed_command *c = command_at(at);
        c->launch(stream, c->args);
        at = c->args + words_of(c->bytes);
        if (captured)
            FR_TRY(fr_cuda_status(cudaGetLastError(), "capturing command %d of %d", i + 1, list->n));
        else if (pace && (i + 1) % FR_CUDA_PACE == 0)
            FR_TRY(pace->keep(pace->ctx));
    }
    return fr_cuda_status(cudaGetLastError(), "starting %d commands", list->n);
}

fr_status fr_cuda_command_list_run(const fr_cuda_command_list *list, cudaStream_t stream, const fr_cuda_pace *pace)
{
    return run(list, stream, pace, false);
}

fr_status fr_cuda_command_list_run_captured(const fr_cuda_command_list *list, cudaStream_t stream)
{
    return run(list, stream, NULL, true);
}
