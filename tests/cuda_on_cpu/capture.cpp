/* capture.cpp: stream capture and graphs. A captured stream records its work instead of queueing it;
 * launching a graph queues all of it again, in order. */
#include "streams.h"

static std::set<cudaGraph_t> &graphs = *new std::set<cudaGraph_t>;
static std::set<cudaGraphExec_t> &execs = *new std::set<cudaGraphExec_t>;

static bool is_capturing(cudaStream_t s)
{
    return s->capture == cudaStreamCaptureStatusActive;
}

cudaError_t fake_forbidden_in_capture(const char *call)
{
    table_guard guard(fake_table_lock);
    for (cudaStream_t s : fake_streams) {
        const bool mine = s->capture_thread == std::this_thread::get_id();
        if (!is_capturing(s) || s->capture_mode == cudaStreamCaptureModeRelaxed ||
            (s->capture_mode == cudaStreamCaptureModeThreadLocal && !mine))
            continue;
        s->capture = cudaStreamCaptureStatusInvalidated;
        return fake_misuse(cudaErrorStreamCaptureUnsupported, call, "a stream is capturing");
    }
    return cudaSuccess;
}

const void *fake_captured_into(cudaStream_t stream)
{
    table_guard guard(fake_table_lock);
    const cudaStream_t s = fake_stream(stream);
    return s && is_capturing(s) ? s->graph : nullptr;
}

void fake_break_capture(cudaStream_t stream)
{
    table_guard guard(fake_table_lock);
    const cudaStream_t s = fake_stream(stream);
    if (s && is_capturing(s))
        s->capture = cudaStreamCaptureStatusInvalidated;
}

/* The default stream would make capturing streams wait for it. */
static cudaError_t check_implicit(cudaStream_t base, const char *call)
{
    for (cudaStream_t s : fake_streams) {
        if (is_capturing(s) && !s->non_blocking && s->device == base->device) {
            s->capture = cudaStreamCaptureStatusInvalidated;
            return fake_misuse(cudaErrorStreamCaptureImplicit, call,
                               "the default stream is used while another one captures");
        }
    }
    return cudaSuccess;
}

cudaError_t fake_push(cudaStream_t stream, const char *call, work w)
{
    table_guard guard(fake_table_lock);
    const cudaStream_t s = fake_stream(stream);
    if (!s)
        return fake_misuse(cudaErrorInvalidResourceHandle, call, "no stream %p", (void *)stream);
    cudaError_t error = stream ? cudaSuccess : check_implicit(s, call);
    if (error != cudaSuccess)
        return error;
    if (s->capture == cudaStreamCaptureStatusInvalidated)
        return fake_error(cudaErrorStreamCaptureInvalidated);
    auto what = std::make_shared<const work>(std::move(w));
    if (is_capturing(s))
        s->graph->nodes.push_back(std::move(what));
    else
        fake_enqueue(s, std::move(what));
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    FAKE_CALL("cudaStreamBeginCapture");
    table_guard guard(fake_table_lock);
    const cudaStream_t s = fake_stream(stream);
    if (!s)
        return fake_misuse(cudaErrorInvalidResourceHandle, "cudaStreamBeginCapture", "no stream");
    if (!stream)
        return fake_misuse(cudaErrorStreamCaptureUnsupported, "cudaStreamBeginCapture",
                           "the default stream cannot be captured");
    if (s->capture != cudaStreamCaptureStatusNone)
        return fake_misuse(cudaErrorInvalidValue, "cudaStreamBeginCapture", "it captures already");
    s->capture = cudaStreamCaptureStatusActive;
    s->capture_mode = mode;
    s->capture_thread = std::this_thread::get_id();
    s->graph = new CUgraph_st();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    FAKE_CALL("cudaStreamEndCapture");
    table_guard guard(fake_table_lock);
    *graph = nullptr;
    const cudaStream_t s = fake_stream(stream);
    if (!s || s->capture == cudaStreamCaptureStatusNone)
        return fake_misuse(cudaErrorStreamCaptureUnmatched, "cudaStreamEndCapture", "no capture");
    if (s->capture_mode != cudaStreamCaptureModeRelaxed &&
        s->capture_thread != std::this_thread::get_id())
        return fake_misuse(cudaErrorStreamCaptureWrongThread, "cudaStreamEndCapture",
                           "another thread began it");
    const bool valid = is_capturing(s);
    s->capture = cudaStreamCaptureStatusNone;
    if (!valid) {
        delete s->graph;
        s->graph = nullptr;
        return fake_error(cudaErrorStreamCaptureInvalidated);
    }
    *graph = s->graph;
    s->graph = nullptr;
    graphs.insert(*graph);
    fake_counts.graphs++;
    fake_counts.captures++;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    FAKE_CALL("cudaStreamIsCapturing");
    table_guard guard(fake_table_lock);
    const cudaStream_t s = fake_stream(stream);
    if (!s)
        return fake_misuse(cudaErrorInvalidResourceHandle, "cudaStreamIsCapturing", "no stream");
    *status = s->capture;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    FAKE_CALL("cudaGraphInstantiate");
    table_guard guard(fake_table_lock);
    if (!graphs.count(graph))
        return fake_misuse(cudaErrorInvalidValue, "cudaGraphInstantiate", "no graph");
    *exec = new CUgraphExec_st{graph->nodes};
    execs.insert(*exec);
    fake_counts.graph_execs++;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    FAKE_CALL("cudaGraphLaunch");
    table_guard guard(fake_table_lock);
    const cudaStream_t s = fake_stream(stream);
    if (!s || !execs.count(exec))
        return fake_misuse(cudaErrorInvalidValue, "cudaGraphLaunch", "no graph or stream");
    if (s->capture == cudaStreamCaptureStatusInvalidated)
        return fake_error(cudaErrorStreamCaptureInvalidated);
    for (const auto &node : exec->nodes) {
        if (is_capturing(s))
            s->graph->nodes.push_back(node);
        else
            fake_enqueue(s, node);
    }
    fake_counts.graph_launches++;
    return cudaSuccess;
}

/* Work that a launch has queued is kept alive by its queue. */
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    FAKE_CALL("cudaGraphExecDestroy");
    table_guard guard(fake_table_lock);
    if (!execs.erase(exec))
        return fake_misuse(cudaErrorInvalidValue, "cudaGraphExecDestroy", "no such graph");
    fake_counts.graph_execs--;
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    FAKE_CALL("cudaGraphDestroy");
    table_guard guard(fake_table_lock);
    if (!graphs.erase(graph))
        return fake_misuse(cudaErrorInvalidValue, "cudaGraphDestroy", "no such graph");
    fake_counts.graphs--;
    delete graph;
    return cudaSuccess;
}
