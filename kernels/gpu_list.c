/* gpu_list.c: see gpu_list.h. */
#include "gpu_list.h"

#include <stdlib.h>

#include "check.h"

static fr_status add(const char *option, const char *text, int gpu, fr_gpu_list *l)
{
    for (int i = 0; i < l->n; i++)
        if (l->numbers[i] == gpu)
            return fr_fail(FR_EINVAL, "%s: '%.64s' has GPU %d twice", option, text, gpu);
    if (l->n == FR_GPU_LIST_MAX)
        return fr_fail(FR_EINVAL, "%s: '%.64s...' are more than %d GPUs", option, text, FR_GPU_LIST_MAX);
    l->numbers[l->n++] = gpu;
    return FR_OK;
}

fr_status fr_gpu_list_parse(const char *option, const char *text, fr_gpu_list *out)
{
    fr_gpu_list list = {0};
    for (const char *at = text;;) {
        char *end = NULL;
        const long gpu = *at >= '0' && *at <= '9' ? strtol(at, &end, 10) : -1;
        if (gpu < 0 || gpu > FR_GPU_HIGHEST || (*end && *end != ','))
            return fr_fail(FR_EINVAL, "%s: '%.64s' is not a list of numbers from 0 to %d, such as 0,2", option, text,
                           FR_GPU_HIGHEST);
        FR_TRY(add(option, text, (int)gpu, &list));
        if (!*end)
            break;
        at = end + 1;
    }
    *out = list;
    return FR_OK;
}
