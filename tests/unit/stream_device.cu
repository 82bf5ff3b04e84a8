/* stream_device.cu: see stream_device.h. */
#include "stream_device.h"

#include <cuda_runtime.h>

#include <cstring>
#include <vector>

struct command {
    void (*launch)(void *stream, const void *args);
    unsigned char args[256];
};

struct fr_device {
    cudaStream_t stream;
    std::vector<command> commands; /* not run yet */
    bool record;
    cudaGraphExec_t graph;
    fr_device_peers peers;
};

static fr_status check_cuda(cudaError_t error, const char *what)
{
    return error == cudaSuccess ? FR_OK : fr_fail(FR_EIO, "%s: %s", what, cudaGetErrorString(error));
}

static fr_status device_open(const fr_device_options *options, fr_device **out)
{
    fr_status st = check_cuda(cudaSetDevice(options->local_rank), "cudaSetDevice");
    if (st != FR_OK)
        return st;
    *out = new fr_device();
    return check_cuda(cudaStreamCreateWithFlags(&(*out)->stream, cudaStreamNonBlocking), "cudaStreamCreate");
}

static void forget_graph(fr_device *dev)
{
    if (dev->graph)
        cudaGraphExecDestroy(dev->graph);
    dev->graph = nullptr;
}

static void device_close(fr_device **dev)
{
    forget_graph(*dev);
    cudaStreamDestroy((*dev)->stream);
    delete *dev;
    *dev = nullptr;
}

static void launch_all(fr_device *dev)
{
    for (const command &c : dev->commands)
        c.launch(dev->stream, c.args);
}

static fr_status launch_recorded(fr_device *dev)
{
    cudaGraph_t graph = nullptr;
    forget_graph(dev);
    fr_status st = check_cuda(cudaStreamBeginCapture(dev->stream, cudaStreamCaptureModeThreadLocal), "capture");
    if (st != FR_OK)
        return st;
    launch_all(dev);
    st = check_cuda(cudaStreamEndCapture(dev->stream, &graph), "end of capture");
    if (st == FR_OK)
        st = check_cuda(cudaGraphInstantiate(&dev->graph, graph, 0), "instantiate");
    if (graph)
        cudaGraphDestroy(graph);
    return st == FR_OK ? check_cuda(cudaGraphLaunch(dev->graph, dev->stream), "graph") : st;
}

static fr_status await(fr_device *dev)
{
    for (;;) {
        const cudaError_t error = cudaStreamQuery(dev->stream);
        const fr_status st = dev->peers.check ? dev->peers.check(dev->peers.ctx) : FR_OK;
        if (st != FR_OK)
            return st;
        if (error != cudaErrorNotReady)
            return check_cuda(error, "stream");
    }
}

static fr_status device_sync(fr_device *dev)
{
    fr_status st = FR_OK;
    if (!dev->commands.empty() && dev->record)
        st = launch_recorded(dev);
    else
        launch_all(dev);
    dev->commands.clear();
    const fr_status waited = await(dev);
    return st != FR_OK ? st : waited;
}

extern "C" void stream_device_record(fr_device *dev, bool record)
{
    dev->record = record;
}

extern "C" fr_status stream_device_replay(fr_device *dev)
{
    const fr_status st = check_cuda(cudaGraphLaunch(dev->graph, dev->stream), "replay");
    return st == FR_OK ? await(dev) : st;
}

static fr_status device_enqueue(fr_device *dev, void (*launch)(void *, const void *), const void *args, size_t bytes)
{
    command c = {launch, {0}};
    if (bytes > sizeof c.args)
        return fr_fail(FR_EINVAL, "arguments of %zu bytes", bytes);
    memcpy(c.args, args, bytes);
    dev->commands.push_back(c);
    return FR_OK;
}

static fr_status device_alloc(fr_device *dev, size_t bytes, void **out)
{
    void *mem = nullptr;
    fr_status st = check_cuda(cudaMalloc(&mem, bytes), "cudaMalloc");
    if (st == FR_OK)
        st = check_cuda(cudaMemsetAsync(mem, 0, bytes, dev->stream), "cudaMemset");
    if (st == FR_OK)
        st = await(dev);
    if (st != FR_OK)
        cudaFree(mem);
    else
        *out = mem;
    return st;
}

static void device_free(fr_device *, void *mem)
{
    cudaFree(mem);
}

static fr_status copy(fr_device *dev, void *dst, const void *src, size_t bytes, cudaMemcpyKind kind)
{
    fr_status st = device_sync(dev);
    if (st == FR_OK)
        st = check_cuda(cudaMemcpyAsync(dst, src, bytes, kind, dev->stream), "copy");
    return st == FR_OK ? await(dev) : st;
}

static fr_status device_upload(fr_device *dev, void *dst, const void *src, size_t bytes)
{
    return copy(dev, dst, src, bytes, cudaMemcpyHostToDevice);
}

static fr_status device_download(fr_device *dev, void *dst, const void *src, size_t bytes)
{
    return copy(dev, dst, src, bytes, cudaMemcpyDeviceToHost);
}

struct add_args {
    float *x;
    const float *y;
    int n;
};

FR_KERNEL(1) void add_kernel(float *x, const float *y, int n)
{
    for (int i = 0; i < n; i++)
        x[i] += y[i];
}

static void launch_add(void *stream, const void *args)
{
    const add_args *a = static_cast<const add_args *>(args);
    FR_LAUNCH(add_kernel, dim3(1), dim3(1), 0, static_cast<cudaStream_t>(stream), a->x, a->y, a->n);
}

static fr_status device_add(fr_device *dev, float *x, const float *y, int n, int dim)
{
    const add_args args = {x, y, n * dim};
    return device_enqueue(dev, launch_add, &args, sizeof args);
}

static void device_set_peers(fr_device *dev, const fr_device_peers *peers)
{
    dev->peers = peers ? *peers : fr_device_peers();
    forget_graph(dev);
}

static fr_ops make_ops()
{
    fr_ops o = {};
    o.name = "stream";
    o.open = device_open;
    o.close = device_close;
    o.mem_alloc = device_alloc;
    o.mem_free = device_free;
    o.upload = device_upload;
    o.download = device_download;
    o.add = device_add;
    o.sync = device_sync;
    o.enqueue = device_enqueue;
    o.set_peers = device_set_peers;
    return o;
}

extern "C" const fr_ops stream_device_ops = make_ops();
