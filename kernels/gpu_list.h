/* gpu_list.h: the GPUs of a host that the ranks of a group take in turn. A GPU's number is its place among those that
 * the backend can see and use, from 0. */
#ifndef FR_GPU_LIST_H
#define FR_GPU_LIST_H

#include "status.h"

enum { FR_GPU_LIST_MAX = 64, FR_GPU_HIGHEST = 1023 };

typedef struct fr_gpu_list {
    int n;                        /* 0: all that there are */
    int numbers[FR_GPU_LIST_MAX]; /* the first n; none is there twice */
} fr_gpu_list;

/* Numbers from 0 to FR_GPU_HIGHEST with commas between them, and nothing else. FR_EINVAL, which begins with `option`:
 * for another text, a number that is there twice, or more than FR_GPU_LIST_MAX. *out is set on success only. */
fr_status fr_gpu_list_parse(const char *option, const char *text, fr_gpu_list *out);

#endif
