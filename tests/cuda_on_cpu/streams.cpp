/* streams.cpp: streams and events: work waits in queues until somebody waits for it. */
#include "streams.h"

#include <time.h>

#include "races.h"

std::set<cudaStream_t> &fake_streams = *new std::set<cudaStream_t>;
static cudaStream_t default_streams[FAKE_CUDA_MAX_DEVICES];
/* Who runs work of a device. Recursive: work that waits for an event runs other work. */
static std::recursive_mutex run_locks[FAKE_CUDA_MAX_DEVICES];
static uint64_t tickets;

static cudaStream_t stream_new(int device, bool non_blocking)
{
    cudaStream_t s = new CUstream_st();
    s->device = device;
    s->non_blocking = non_blocking;
    fake_streams.insert(s);
    return s;
}

cudaStream_t fake_stream(cudaStream_t handle)
{
    table_guard guard(fake_table_lock);
    if (handle)
        return fake_streams.count(handle) ? handle : nullptr;
    const int device = fake_current_device();
    if (!default_streams[device])
        default_streams[device] = stream_new(device, false);
    return default_streams[device];
}

int fake_stream_device(cudaStream_t handle)
{
    const cudaStream_t s = fake_stream(handle);
    return s ? s->device : fake_current_device();
}

void fake_enqueue(cudaStream_t stream, std::shared_ptr<const work> what)
{
    table_guard guard(fake_table_lock);
    stream->queue.push_back({std::move(what), {false, stream, nullptr}, ++tickets});
}

/* Whose turn it is when `stream` is to go on. The default stream and those that are not
 * non-blocking wait for each other's earlier work. NULL: nothing is left. */
static cudaStream_t next_stream(cudaStream_t stream)
{
    const cudaStream_t base = default_streams[stream->device];
    if (stream->queue.empty())
        return nullptr;
    if (stream->non_blocking || !base || base->queue.empty())
        return stream;
    cudaStream_t oldest = stream;
    for (cudaStream_t s : fake_streams) {
        if (s->device == stream->device && !s->non_blocking && !s->queue.empty() &&
            s->queue.front().ticket < oldest->queue.front().ticket)
            oldest = s;
    }
    return oldest;
}

/* Runs one piece of work for `stream`. False: nothing is left, or what is first cannot go on. */
static bool step(cudaStream_t stream, bool may_wait)
{
    std::lock_guard<std::recursive_mutex> run(run_locks[stream->device]);
    cudaStream_t s;
    queued_work *first;
    {
        table_guard guard(fake_table_lock);
        s = next_stream(stream);
        if (!s)
            return false;
        first = &s->queue.front(); /* stays there: only we pop, and others only append */
    }
    device_access access(stream->device);
    first->run.may_wait = may_wait;
    if (!(*first->what)(&first->run))
        return false;
    table_guard guard(fake_table_lock);
    s->queue.pop_front();
    return true;
}

static bool has_work(cudaStream_t s)
{
    table_guard guard(fake_table_lock);
    return !s->queue.empty();
}

/* Stays so while the device's run lock is held. */
static bool is_alive(cudaStream_t s)
{
    table_guard guard(fake_table_lock);
    return fake_streams.count(s) > 0;
}

void fake_race_all_over(cudaStream_t stream)
{
    if (fake_race_watch)
        fake_race_watch->over(stream, UINT32_MAX);
}

static void drain(cudaStream_t s)
{
    if (!has_work(s)) {
        fake_race_all_over(s);
        return;
    }
    device_access access(s->device); /* once, not for each piece */
    while (has_work(s))
        step(s, true);
    fake_race_all_over(s);
}

void fake_drain_device(int device, bool non_blocking_too)
{
    std::vector<cudaStream_t> streams;
    {
        table_guard guard(fake_table_lock);
        for (cudaStream_t s : fake_streams)
            if (s->device == device && (non_blocking_too || !s->non_blocking))
                streams.push_back(s);
    }
    for (cudaStream_t s : streams) {
        std::lock_guard<std::recursive_mutex> run(run_locks[device]);
        if (is_alive(s)) /* another thread may have destroyed its own meanwhile */
            drain(s);
    }
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags)
{
    FAKE_CALL("cudaStreamCreateWithFlags");
    if (flags & ~unsigned(cudaStreamNonBlocking))
        return fake_error(cudaErrorInvalidValue);
    table_guard guard(fake_table_lock);
    *stream = stream_new(fake_current_device(), flags & cudaStreamNonBlocking);
    fake_counts.streams++;
    return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    FAKE_CALL("cudaStreamCreate");
    return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

/* Why the host may not wait for this stream; *out: the stream. */
static cudaError_t check_waitable(const char *call, cudaStream_t handle, cudaStream_t *out)
{
    const cudaStream_t s = *out = fake_stream(handle);
    if (!s)
        return fake_misuse(cudaErrorInvalidResourceHandle, call, "no stream %p", (void *)handle);
    table_guard guard(fake_table_lock);
    if (s->capture != cudaStreamCaptureStatusNone) {
        s->capture = cudaStreamCaptureStatusInvalidated;
        return fake_misuse(cudaErrorStreamCaptureUnsupported, call, "the stream is capturing");
    }
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    FAKE_CALL("cudaStreamDestroy");
    cudaStream_t s;
    cudaError_t error = check_waitable("cudaStreamDestroy", stream, &s);
    if (error != cudaSuccess)
        return error;
    if (!stream)
        return fake_misuse(cudaErrorInvalidResourceHandle, "cudaStreamDestroy", "default stream");
    drain(s);
    std::lock_guard<std::recursive_mutex> run(run_locks[s->device]); /* no other thread is at it (is_alive) */
    table_guard guard(fake_table_lock);
    fake_streams.erase(s);
    fake_counts.streams--;
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    FAKE_CALL("cudaStreamSynchronize");
    cudaStream_t s;
    cudaError_t error = check_waitable("cudaStreamSynchronize", stream, &s);
    if (error == cudaSuccess)
        error = fake_forbidden_in_capture("cudaStreamSynchronize");
    if (error != cudaSuccess)
        return error;
    if (!stream)
        fake_drain_device(s->device, false);
    drain(s);
    return cudaSuccess;
}

/* One piece, if nobody else is at it. */
static void try_step(cudaStream_t s)
{
    std::unique_lock<std::recursive_mutex> run(run_locks[s->device], std::try_to_lock);
    if (run.owns_lock())
        step(s, false);
}

bool fake_poke(cudaStream_t stream)
{
    const cudaStream_t s = fake_stream(stream);
    if (!s)
        return false;
    try_step(s);
    return has_work(s);
}

void fake_poke_of(int device, cudaStream_t stream)
{
    std::unique_lock<std::recursive_mutex> run(run_locks[device], std::try_to_lock);
    if (!run.owns_lock())
        return;
    if (is_alive(stream))
        step(stream, false);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    FAKE_CALL("cudaStreamQuery");
    cudaStream_t s;
    cudaError_t error = check_waitable("cudaStreamQuery", stream, &s);
    if (error != cudaSuccess)
        return error;
    try_step(s);
    if (has_work(s))
        return fake_error(cudaErrorNotReady);
    fake_race_all_over(s);
    return cudaSuccess;
}

/* Events */

struct event_state {
    cudaStream_t stream;
    uint64_t recorded, done; /* how often; done follows when the stream gets there */
    uint32_t mark; /* of races.h, when it was done */
    bool captured;
    bool timed;
    double ms;
};

struct CUevent_st {
    std::shared_ptr<event_state> state;
};

static std::set<cudaEvent_t> &events = *new std::set<cudaEvent_t>;

static std::shared_ptr<event_state> find_event(cudaEvent_t event)
{
    table_guard guard(fake_table_lock);
    return events.count(event) ? event->state : nullptr;
}

static cudaError_t no_event(const char *call, cudaEvent_t event)
{
    return fake_misuse(cudaErrorInvalidResourceHandle, call, "no event %p", (void *)event);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    FAKE_CALL("cudaEventCreateWithFlags");
    table_guard guard(fake_table_lock);
    *event = new CUevent_st{std::make_shared<event_state>()};
    (*event)->state->timed = !(flags & cudaEventDisableTiming);
    events.insert(*event);
    fake_counts.events++;
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    FAKE_CALL("cudaEventCreate");
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    FAKE_CALL("cudaEventDestroy");
    table_guard guard(fake_table_lock);
    if (!events.erase(event))
        return no_event("cudaEventDestroy", event);
    fake_counts.events--;
    delete event;
    return cudaSuccess;
}

static double now_ms()
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) * 1e3 + double(t.tv_nsec) * 1e-6;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    FAKE_CALL("cudaEventRecord");
    const std::shared_ptr<event_state> e = find_event(event);
    if (!e)
        return no_event("cudaEventRecord", event);
    table_guard guard(fake_table_lock);
    const uint64_t number = e->recorded + 1;
    cudaError_t error = fake_push(stream, "cudaEventRecord", [e, number](work_run *) {
        const uint32_t mark = fake_race_watch ? fake_race_watch->mark() : 0;
        table_guard inner(fake_table_lock);
        e->mark = mark;
        e->done = number;
        e->ms = now_ms();
        return true;
    });
    if (error != cudaSuccess)
        return error;
    e->stream = fake_stream(stream);
    e->captured = e->stream->capture != cudaStreamCaptureStatusNone;
    if (!e->captured)
        e->recorded = number;
    return cudaSuccess;
}

/* The host has seen it done. */
static void seen(const event_state *e)
{
    if (fake_race_watch && e->stream)
        fake_race_watch->over(e->stream, e->mark);
}

static bool is_done(const event_state *e, uint64_t number)
{
    table_guard guard(fake_table_lock);
    return e->done >= number;
}

static cudaError_t check_event(const char *call, cudaEvent_t event, std::shared_ptr<event_state> *e)
{
    *e = find_event(event);
    if (!*e)
        return no_event(call, event);
    if ((*e)->captured)
        return fake_misuse(cudaErrorCapturedEvent, call, "the event was recorded in a capture");
    return fake_forbidden_in_capture(call);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    FAKE_CALL("cudaEventSynchronize");
    std::shared_ptr<event_state> e;
    cudaError_t error = check_event("cudaEventSynchronize", event, &e);
    if (error != cudaSuccess)
        return error;
    while (!is_done(e.get(), e->recorded))
        step(e->stream, true);
    seen(e.get());
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    FAKE_CALL("cudaEventQuery");
    std::shared_ptr<event_state> e;
    cudaError_t error = check_event("cudaEventQuery", event, &e);
    if (error != cudaSuccess)
        return error;
    if (!is_done(e.get(), e->recorded))
        try_step(e->stream);
    if (!is_done(e.get(), e->recorded))
        return fake_error(cudaErrorNotReady);
    seen(e.get());
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end)
{
    FAKE_CALL("cudaEventElapsedTime");
    const std::shared_ptr<event_state> a = find_event(start), b = find_event(end);
    if (!a || !b || !a->timed || !b->timed || a->recorded == 0 || b->recorded == 0)
        return fake_misuse(cudaErrorInvalidResourceHandle, "cudaEventElapsedTime", "not recorded, or not timed");
    if (!is_done(a.get(), a->recorded) || !is_done(b.get(), b->recorded))
        return fake_error(cudaErrorNotReady);
    *ms = float(b->ms - a->ms);
    return cudaSuccess;
}

/* Between streams that run, not as the fork and join of a capture. */
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned int)
{
    FAKE_CALL("cudaStreamWaitEvent");
    const std::shared_ptr<event_state> e = find_event(event);
    if (!e)
        return no_event("cudaStreamWaitEvent", event);
    if (e->captured)
        return fake_misuse(cudaErrorNotSupported, "cudaStreamWaitEvent", "forks in a capture");
    const uint64_t number = e->recorded;
    return fake_push(stream, "cudaStreamWaitEvent", [e, number](work_run *run) {
        while (!is_done(e.get(), number))
            if (!step(e->stream, run->may_wait))
                return false;
        return true;
    });
}
