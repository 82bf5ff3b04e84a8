/* device.c: see device.h. Everything a pass does goes through the queue; what allocates or frees waits
 * for it first, so that no command, captured or pending, ever names memory that is gone. */
#include "device.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "cuda_error.h"
#include "measure.h"

enum { OLDEST = 8 }; /* compute capability: Ampere, the first whose code is in this program */

/* Graphics cards have 99 KiB of shared memory for a block, and would fail at the first prompt. */
static cudaError_t is_fit(int gpu, bool *out)
{
    int major = 0, shared = 0;
    cudaError_t e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, gpu);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, gpu);
    *out = major >= OLDEST && shared >= FR_ATTENTION_SHARED;
    return e;
}

/* Also "insufficient" for CUDA is a driver that is not there: its version is 0. Versions: 12040 is 12.4. */
static fr_status no_gpu(cudaError_t e, int n)
{
    const char *const cannot = "this machine cannot run backend cuda";
    int known = 0, wanted = 0;
    (void)cudaGetLastError();
    (void)cudaDriverGetVersion(&known);
    (void)cudaRuntimeGetVersion(&wanted);
    if (e == cudaSuccess && n > 0)
        return fr_fail(FR_EUNSUPPORTED, "%s: its GPUs (%d) lack compute capability %d, or %d KiB of shared memory for "
                       "a block", cannot, n, OLDEST, FR_ATTENTION_SHARED >> 10);
    if (e == cudaSuccess || e == cudaErrorNoDevice || known == 0)
        return fr_fail(FR_EUNSUPPORTED, "%s: it has no GPU, or no driver for one", cannot);
    if (e == cudaErrorInsufficientDriver)
        return fr_fail(FR_EUNSUPPORTED, "%s: its GPU driver is for CUDA %d.%d, and this program was built with CUDA "
                       "%d.%d", cannot, known / 1000, known % 1000 / 10, wanted / 1000, wanted % 1000 / 10);
    return fr_fail(FR_EUNSUPPORTED, "%s: its GPU driver says: %s", cannot, cudaGetErrorString(e));
}

/* How many GPUs fit, those between them that do not left out, and the nth of them, if there are so many.
 * FR_EUNSUPPORTED when none does. */
static fr_status find_fit(int nth, int *n_out, int *gpu_out)
{
    int n = 0, n_fit = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    for (int gpu = 0; e == cudaSuccess && gpu < n; gpu++) {
        bool fits = false;
        e = is_fit(gpu, &fits);
        if (fits && n_fit++ == nth)
            *gpu_out = gpu;
    }
    if (e != cudaSuccess || n_fit == 0)
        return no_gpu(e, n);
    *n_out = n_fit;
    return FR_OK;
}

fr_status fr_cuda_usable(void)
{
    int n = 0, gpu = 0;
    return find_fit(0, &n, &gpu);
}

/* Which of the n that fit, from 0: the rank's own one of those that were named, all of which have to be there; of all
 * when none were. */
static fr_status choose_nth(const fr_device_options *o, int n, int *out)
{
    const fr_gpu_list *named = &o->gpus;
    for (int i = 0; i < named->n; i++)
        if (named->numbers[i] >= n)
            return fr_fail(FR_EINVAL, "backend cuda: there is no GPU %d here: it can use %d, counted from 0",
                           named->numbers[i], n);
    *out = named->n > 0 ? named->numbers[o->local_rank % named->n] : o->local_rank % n;
    return FR_OK;
}

/* A launcher may let each rank see one GPU, its own: then all take their first. Whether two ranks have the same one is
 * for those to find out who can ask both. */
static fr_status choose_gpu(const fr_device_options *o, int *out)
{
    int n = 0, nth = 0;
    FR_TRY(find_fit(0, &n, out));
    FR_TRY(choose_nth(o, n, &nth));
    return find_fit(nth, &n, out);
}

fr_status fr_cuda_device_id(fr_device *dev, uint8_t id[FR_DEVICE_ID])
{
    struct cudaDeviceProp properties;
    _Static_assert(sizeof properties.uuid == FR_DEVICE_ID, "an id is a GPU's uuid");
    FR_TRY_CUDA(cudaGetDeviceProperties(&properties, dev->gpu.number), "the properties of device %d", dev->gpu.number);
    memcpy(id, &properties.uuid, FR_DEVICE_ID);
    return FR_OK;
}

static fr_status open_stream(fr_device *dev)
{
    FR_TRY(fr_cuda_gpu_use(dev->gpu));
    FR_TRY_CUDA(cudaStreamCreateWithFlags(&dev->stream, cudaStreamNonBlocking), "a stream on device %d",
                dev->gpu.number);
    return fr_cuda_queue_open(dev->gpu, dev->stream, &dev->queue);
}

fr_status fr_cuda_open(const fr_device_options *options, fr_device **out)
{
    int gpu = 0;
    FR_TRY(choose_gpu(options, &gpu));
    fr_device *dev = calloc(1, sizeof *dev);
    if (!dev)
        return fr_no_memory();
    fr_status st = fr_cuda_gpu_find(gpu, &dev->gpu);
    if (st == FR_OK)
        st = open_stream(dev);
    if (st == FR_OK && options->batch_dependent)
        st = fr_cublas_open(&dev->cublas);
    if (st != FR_OK)
        fr_cuda_close(&dev);
    *out = dev;
    return st;
}

void fr_cuda_close(fr_device **pdev)
{
    fr_device *dev = *pdev;
    if (!dev)
        return;
    fr_cuda_queue_close(&dev->queue);
    fr_cublas_close(&dev->cublas);
    fr_cuda_attention_plan_free(&dev->attention);
    if (dev->scratch)
        cudaFree(dev->scratch);
    if (dev->stream)
        cudaStreamDestroy(dev->stream);
    free(dev);
    *pdev = NULL;
}

fr_status fr_cuda_mem_info(fr_device *dev, size_t *free_out, size_t *total_out)
{
    FR_TRY(fr_cuda_gpu_use(dev->gpu));
    return fr_cuda_status(cudaMemGetInfo(free_out, total_out), "the memory of device %d", dev->gpu.number);
}

/* The driver is taken to map memory in pages, which small allocations share: an estimate. */
size_t fr_cuda_mem_bytes(size_t bytes)
{
    const size_t page = 2 << 20, unit = bytes < page / 2 ? 512 : page;
    return (bytes + unit - 1) / unit * unit;
}

fr_status fr_cuda_mem_alloc(fr_device *dev, size_t bytes, void **out)
{
    void *mem = NULL;
    size_t left = 0, total = 0;
    FR_TRY(fr_cuda_gpu_use(dev->gpu));
    cudaError_t e = cudaMalloc(&mem, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation && cudaMemGetInfo(&left, &total) == cudaSuccess) {
        (void)cudaGetLastError();
        return fr_fail(FR_ENOMEM, "device %d: %zu MiB more are needed, and of its %zu MiB %zu are free",
                       dev->gpu.number, (bytes >> 20) + 1, total >> 20, left >> 20);
    }
    FR_TRY_CUDA(e, "memory of %zu bytes", bytes);
    fr_status st = fr_cuda_status(cudaMemsetAsync(mem, 0, bytes ? bytes : 1, dev->stream), "clearing memory");
    if (st != FR_OK)
        cudaFree(mem);
    else
        *out = mem;
    return st;
}

/* Frees even when the stream has failed: the memory is of no use to anybody then. */
static void wait_for_users(fr_device *dev)
{
    (void)fr_cuda_queue_wait(dev->queue);
}

void fr_cuda_mem_free(fr_device *dev, void *mem)
{
    if (!mem)
        return;
    wait_for_users(dev);
    cudaFree(mem);
}

fr_status fr_cuda_upload(fr_device *dev, void *dst, const void *src, size_t bytes)
{
    FR_TRY(fr_cuda_queue_wait(dev->queue));
    if (bytes == 0)
        return FR_OK;
    FR_TRY_CUDA(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, dev->stream), "an upload of %zu bytes", bytes);
    return fr_cuda_queue_wait(dev->queue);
}

static fr_status product_status(const fr_device *dev)
{
    return dev->cublas ? fr_cublas_status(dev->cublas) : FR_OK;
}

fr_status fr_cuda_sync(fr_device *dev)
{
    FR_TRY(fr_cuda_queue_wait(dev->queue));
    return product_status(dev);
}

/* What a pass answers goes along with it. */
fr_status fr_cuda_download(fr_device *dev, void *dst, const void *src, size_t bytes)
{
    if (bytes > 0 && bytes <= FR_CUDA_FETCH) {
        FR_TRY(fr_cuda_queue_fetch(dev->queue, src, bytes, dst));
        return product_status(dev);
    }
    FR_TRY(fr_cuda_sync(dev));
    if (bytes == 0)
        return FR_OK;
    FR_TRY_CUDA(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, dev->stream), "a download of %zu bytes",
                bytes);
    return fr_cuda_queue_wait(dev->queue);
}

fr_status fr_cuda_enqueue(fr_device *dev, void (*launch)(void *stream, const void *args), const void *args,
                          size_t bytes)
{
    /* A stream is a pointer: what takes one as void * may be called with it. */
    FR_TRY(fr_cuda_queue_push(dev->queue, (fr_cuda_launch)launch, args, bytes));
    fr_cuda_queue_note_meeting(dev->queue);
    return FR_OK;
}

void fr_cuda_set_peers(fr_device *dev, const fr_device_peers *peers)
{
    fr_cuda_queue_set_peers(dev->queue, peers);
}

fr_status fr_cuda_device_ms(fr_device *dev, double *out)
{
    return fr_cuda_queue_ms(dev->queue, out);
}

enum { READ_BYTES = 1 << 30, READ_RUNS = 5 };

/* The best of some runs, over half of what is free at most. */
static fr_status measure_read(fr_device *dev, void *data, size_t bytes, double *out)
{
    const fr_cuda_read_args args = {.data = data, .bytes = bytes, .sum = data};
    double best = 0, ms = 0;
    for (int run = 0; run < READ_RUNS; run++) {
        FR_TRY(fr_cuda_queue_push(dev->queue, fr_cuda_read, &args, sizeof args));
        FR_TRY(fr_cuda_queue_wait(dev->queue));
        FR_TRY(fr_cuda_queue_ms(dev->queue, &ms));
        if (ms > 0 && (double)bytes / ms / 1e6 > best)
            best = (double)bytes / ms / 1e6;
    }
    *out = best;
    return FR_OK;
}

fr_status fr_cuda_read_gb_s(fr_device *dev, double *out)
{
    size_t left = 0, total = 0;
    void *data = NULL;
    FR_TRY(fr_cuda_mem_info(dev, &left, &total));
    const size_t bytes = (left / 2 < READ_BYTES ? left / 2 : READ_BYTES) / 16 * 16;
    FR_TRY(fr_cuda_mem_alloc(dev, bytes, &data));
    fr_status st = measure_read(dev, data, bytes, out);
    fr_cuda_mem_free(dev, data);
    return st;
}

fr_status fr_cuda_scratch(fr_device *dev, size_t bytes, void **out)
{
    if (bytes > dev->scratch_bytes) {
        fr_cuda_mem_free(dev, dev->scratch); /* first: old and new together may be more than there is */
        dev->scratch = NULL;
        dev->scratch_bytes = 0;
        FR_TRY(fr_cuda_mem_alloc(dev, bytes, &dev->scratch));
        dev->scratch_bytes = bytes;
    }
    *out = dev->scratch;
    return FR_OK;
}
