/* cpu_device.h: what all CPU backends share: the device, its memory, and the operations that only
 * move data. Internal to kernels/. One thread uses a device at a time; its pool works inside a call
 * only, so sync() has nothing to do. */
#ifndef FR_CPU_DEVICE_H
#define FR_CPU_DEVICE_H

#include "cpu_pool.h"
#include "ops.h"

#define FR_HEAD_MAX 256 /* largest head_dim */

struct fr_device {
    fr_pool *pool;
    void *scratch; /* 64-byte aligned; only grows; contents last for one call */
    size_t scratch_bytes;
    struct fr_rope_table *rope; /* of recent positions (cpu_rope.c); NULL until the first rope */
};

fr_status fr_cpu_open(const fr_device_options *options, fr_device **out);
void fr_cpu_close(fr_device **dev);
fr_status fr_cpu_mem_alloc(fr_device *dev, size_t bytes, void **out);
void fr_cpu_mem_free(fr_device *dev, void *mem);
/* Upload and download. */
fr_status fr_cpu_copy(fr_device *dev, void *dst, const void *src, size_t bytes);
fr_status fr_cpu_embed(fr_device *dev, float *x, const fr_matrix *table, const int32_t *tokens,
                       int n);
fr_status fr_cpu_kv_copy(fr_device *dev, const fr_kv *kv, int32_t from, int32_t to, int positions);
fr_status fr_cpu_sync(fr_device *dev);

/* At least `bytes` of scratch, with whatever it holds. */
fr_status fr_cpu_scratch(fr_device *dev, size_t bytes, void **out);
/* FR_EINVAL unless the matrix has rows and whole blocks; what weight_new checks first. */
fr_status fr_cpu_check_matrix(const fr_matrix *m);
/* FR_EUNSUPPORTED unless head_dim is a multiple of 8, at most FR_HEAD_MAX. */
fr_status fr_cpu_check_head(int head_dim);

/* The slot of logical position p in what a row sees. */
static inline int64_t fr_view_slot(const fr_attn_view *view, int p)
{
    const int32_t *pages = view->trunk_pages;
    if (p >= view->n_trunk) {
        pages = view->branch_pages;
        p -= view->n_trunk;
    }
    return (int64_t)pages[p / FR_PAGE] * FR_PAGE + p % FR_PAGE;
}

#endif
