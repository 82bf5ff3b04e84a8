/* cpu_device.c: see cpu_device.h. */
#include "cpu_device.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

#define ALIGNMENT 64

static void *alloc_aligned(size_t bytes)
{
    void *mem = NULL;
    if (bytes > SIZE_MAX / 2 || posix_memalign(&mem, ALIGNMENT, bytes ? bytes : ALIGNMENT) != 0)
        return NULL;
    return mem;
}

fr_status fr_cpu_open(const fr_device_options *options, fr_device **out)
{
    fr_device *dev = calloc(1, sizeof *dev);
    if (!dev)
        return fr_no_memory();
    fr_status st = fr_pool_new(options ? options->threads : 0, &dev->pool);
    if (st != FR_OK) {
        fr_cpu_close(&dev);
        return st;
    }
    *out = dev;
    return FR_OK;
}

void fr_cpu_close(fr_device **pdev)
{
    fr_device *dev = *pdev;
    if (!dev)
        return;
    fr_pool_free(&dev->pool);
    free(dev->rope);
    free(dev->scratch);
    free(dev);
    *pdev = NULL;
}

/* By calloc, whose large blocks are zero without being written: a page that is never used costs
 * nothing, and most of a KV cache never is. What is used is touched first by the device's caller or
 * its pool, so it lies on the NUMA node where they are bound (cpu_place.h). What calloc gave lies
 * right before the aligned start. */
fr_status fr_cpu_mem_alloc(fr_device *dev, size_t bytes, void **out)
{
    (void)dev;
    char *raw = bytes <= SIZE_MAX / 2 ? calloc(1, bytes + ALIGNMENT + sizeof raw) : NULL;
    if (!raw)
        return fr_no_memory();
    uintptr_t first = (uintptr_t)raw + sizeof raw;
    char *mem = raw + sizeof raw + (ALIGNMENT - first % ALIGNMENT) % ALIGNMENT;
    memcpy(mem - sizeof raw, &raw, sizeof raw);
    *out = mem;
    return FR_OK;
}

void fr_cpu_mem_free(fr_device *dev, void *mem)
{
    (void)dev;
    char *raw = NULL;
    if (mem)
        memcpy(&raw, (char *)mem - sizeof raw, sizeof raw);
    free(raw);
}

fr_status fr_cpu_copy(fr_device *dev, void *dst, const void *src, size_t bytes)
{
    (void)dev;
    memcpy(dst, src, bytes);
    return FR_OK;
}

fr_status fr_cpu_scratch(fr_device *dev, size_t bytes, void **out)
{
    if (bytes > dev->scratch_bytes) {
        void *mem = alloc_aligned(bytes);
        if (!mem)
            return fr_no_memory();
        free(dev->scratch);
        dev->scratch = mem;
        dev->scratch_bytes = bytes;
    }
    *out = dev->scratch;
    return FR_OK;
}

fr_status fr_cpu_check_matrix(const fr_matrix *m)
{
    const fr_dtype_info *info = fr_dtype_find(m->dtype);
    if (!info)
        return fr_fail(FR_EUNSUPPORTED, "matrix of unknown type %d", (int)m->dtype);
    if (m->rows <= 0 || m->cols <= 0 || m->cols % info->block_values != 0)
        return fr_fail(FR_EINVAL,
                       "%s matrix of %lld x %lld: rows must hold whole blocks of %d values",
                       info->name, (long long)m->rows, (long long)m->cols, info->block_values);
    return FR_OK;
}

fr_status fr_cpu_check_head(int head_dim)
{
    if (head_dim <= 0 || head_dim % 8 != 0 || head_dim > FR_HEAD_MAX)
        return fr_fail(FR_EUNSUPPORTED,
                       "attention heads of %d values: want a multiple of 8 up to %d", head_dim,
                       FR_HEAD_MAX);
    return FR_OK;
}

fr_status fr_cpu_embed(fr_device *dev, float *x, const fr_matrix *table, const int32_t *tokens,
                       int n)
{
    (void)dev;
    for (int i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= table->rows)
            return fr_fail(FR_EINVAL, "token %d is outside the embedding table of %lld rows",
                           tokens[i], (long long)table->rows);
        const uint8_t *row = (const uint8_t *)table->data + (size_t)tokens[i] * table->row_bytes;
        fr_dtype_to_f32(table->dtype, row, x + (int64_t)i * table->cols, table->cols);
    }
    return FR_OK;
}

fr_status fr_cpu_kv_copy(fr_device *dev, const fr_kv *kv, int32_t from, int32_t to, int positions)
{
    (void)dev;
    size_t width = (size_t)kv->kv_heads * (size_t)kv->head_dim;
    size_t bytes = (size_t)positions * width * sizeof *kv->k;
    size_t src = (size_t)from * FR_PAGE * width, dst = (size_t)to * FR_PAGE * width;
    memcpy(kv->k + dst, kv->k + src, bytes);
    memcpy(kv->v + dst, kv->v + src, bytes);
    return FR_OK;
}

fr_status fr_cpu_sync(fr_device *dev)
{
    (void)dev;
    return FR_OK;
}
