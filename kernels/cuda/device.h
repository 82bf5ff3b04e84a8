/* device.h: one GPU as a compute device: its stream, the queue of the pass at hand, and scratch memory.
 * Internal to kernels/cuda/. */
#ifndef FR_CUDA_DEVICE_H
#define FR_CUDA_DEVICE_H

#include "attention_plan.h"
#include "cublas_lt.h"
#include "ops_cuda.h"
#include "queue.h"

struct fr_device {
    fr_cuda_gpu gpu;
    cudaStream_t stream;
    fr_cuda_queue *queue;
    fr_cublas *cublas; /* NULL: products as batch-invariant as ops.h promises */
    void *scratch; /* device memory; only grows; its contents last for the commands of one operation */
    size_t scratch_bytes;
    fr_cuda_attention_plan attention; /* of the pass at hand */
};

/* FR_EUNSUPPORTED without a GPU. */
fr_status fr_cuda_open(const fr_device_options *options, fr_device **out);
void fr_cuda_close(fr_device **dev);
fr_status fr_cuda_mem_alloc(fr_device *dev, size_t bytes, void **out);
void fr_cuda_mem_free(fr_device *dev, void *mem);
fr_status fr_cuda_mem_info(fr_device *dev, size_t *free_out, size_t *total_out);
size_t fr_cuda_mem_bytes(size_t bytes);
fr_status fr_cuda_upload(fr_device *dev, void *dst, const void *src, size_t bytes);
fr_status fr_cuda_download(fr_device *dev, void *dst, const void *src, size_t bytes);
fr_status fr_cuda_sync(fr_device *dev);
fr_status fr_cuda_enqueue(fr_device *dev, void (*launch)(void *stream, const void *args), const void *args,
                          size_t bytes);
void fr_cuda_set_peers(fr_device *dev, const fr_device_peers *peers);

fr_status fr_cuda_device_id(fr_device *dev, uint8_t id[FR_DEVICE_ID]);
fr_status fr_cuda_device_ms(fr_device *dev, double *out);
fr_status fr_cuda_read_gb_s(fr_device *dev, double *out);

/* At least `bytes` of scratch. Commands pushed before may still use what was there: it stays until they are done, which
 * growing waits for. */
fr_status fr_cuda_scratch(fr_device *dev, size_t bytes, void **out);

#endif
