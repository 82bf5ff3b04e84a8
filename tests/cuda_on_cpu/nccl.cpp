/* nccl.cpp: communicators: joining, non-blocking calls, groups, and leaving. */
#include "nccl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <chrono>

#include "nccl_group.h"
#include "races.h"

struct ncclComm {
    std::shared_ptr<nccl_rank> rank;
};

/* nccl lock */
static std::map<std::string, std::shared_ptr<nccl_group>> &groups =
    *new std::map<std::string, std::shared_ptr<nccl_group>>;
static std::vector<ncclComm_t> &comms = *new std::vector<ncclComm_t>;
static unsigned n_ids;

typedef std::unique_lock<std::mutex> nccl_guard;

static thread_local char last_message[256];

#define NCCL_CALL(name)                              \
    do {                                             \
        int code_;                                   \
        if (fake_told_to_fail(name, &code_))         \
            return static_cast<ncclResult_t>(code_); \
    } while (0)

static ncclResult_t misuse(ncclResult_t result, const char *call, const char *what)
{
    snprintf(last_message, sizeof last_message, "%s: %s", call, what);
    fprintf(stderr, "cuda_on_cpu: %s\n", last_message);
    return result;
}

const char *ncclGetLastError(ncclComm_t)
{
    return last_message;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const texts[] = {"no error",
                                        "unhandled cuda error",
                                        "unhandled system error",
                                        "internal error",
                                        "invalid argument",
                                        "invalid usage",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return result >= ncclSuccess && result <= ncclInProgress ? texts[result]
                                                             : "unknown result code";
}

ncclResult_t ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

/* The rank behind a handle; NULL: destroyed, or never one. */
static std::shared_ptr<nccl_rank> rank_of(ncclComm_t comm)
{
    nccl_guard guard(nccl_lock);
    const bool known = std::find(comms.begin(), comms.end(), comm) != comms.end();
    return known ? comm->rank : nullptr;
}

/* Joining */

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    NCCL_CALL("ncclGetUniqueId");
    nccl_guard guard(nccl_lock);
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "threads of one process, group %u", n_ids++);
    return ncclSuccess;
}

/* All are there: does every rank have its own device? */
static void begin(nccl_group *group)
{
    ncclResult_t state = ncclSuccess;
    for (const nccl_rank *a : group->ranks)
        for (const nccl_rank *b : group->ranks)
            if (a->rank < b->rank && a->device == b->device)
                state = misuse(ncclInvalidUsage, "ncclCommInitRank", "two ranks have one device");
    for (nccl_rank *r : group->ranks)
        r->state = state;
    nccl_changed.notify_all();
}

static std::shared_ptr<nccl_rank> join(const std::shared_ptr<nccl_group> &group, int rank, int size,
                                       bool blocking)
{
    const auto r = std::make_shared<nccl_rank>();
    r->group = group;
    r->rank = rank;
    r->size = size;
    r->device = fake_current_device();
    r->blocking = blocking;
    r->state = ncclInProgress;
    group->ranks[size_t(rank)] = r.get();
    if (++group->n_joined == size)
        begin(group.get());
    return r;
}

static struct {
    std::atomic<int> rank{-1}, ms{0};
} slow[2]; /* by fake_nccl_slow_call */

void fake_nccl_slow(fake_nccl_slow_call call, int rank, int ms)
{
    slow[call].rank = rank;
    slow[call].ms = ms;
}

static void be_slow(fake_nccl_slow_call call, int rank)
{
    if (rank == slow[call].rank)
        std::this_thread::sleep_for(std::chrono::milliseconds(slow[call].ms));
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    NCCL_CALL("ncclCommInitRankConfig");
    const ncclConfig_t defaults = NCCL_CONFIG_INITIALIZER;
    if (size < 1 || rank < 0 || rank >= size || (config && config->magic != defaults.magic))
        return misuse(ncclInvalidArgument, "ncclCommInitRankConfig", "rank, size or config");
    be_slow(FAKE_NCCL_INIT, rank);
    nccl_guard guard(nccl_lock);
    std::shared_ptr<nccl_group> &group = groups[std::string(id.internal, sizeof id.internal)];
    if (!group) {
        group = std::make_shared<nccl_group>();
        group->ranks.resize(size_t(size));
    }
    if (group->ranks.size() != size_t(size) || group->ranks[size_t(rank)])
        return misuse(ncclInvalidUsage, "ncclCommInitRankConfig", "another size, or a rank twice");
    const bool blocking = !config || config->blocking != 0;
    const std::shared_ptr<nccl_rank> r = join(group, rank, size, blocking);
    *comm = new ncclComm{r};
    comms.push_back(*comm);
    {
        table_guard table(fake_table_lock);
        fake_counts.comms++;
    }
    if (!blocking)
        return ncclInProgress;
    nccl_changed.wait(guard, [&] { return r->state != ncclInProgress; });
    return r->state;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int size, ncclUniqueId id, int rank)
{
    NCCL_CALL("ncclCommInitRank");
    return ncclCommInitRankConfig(comm, size, id, rank, nullptr);
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int *size)
{
    *size = comm->rank->size;
    return ncclSuccess;
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int *rank)
{
    *rank = comm->rank->rank;
    return ncclSuccess;
}

/* True while a stream that this rank used still has work; each call moves it on a little. */
static bool has_work(const nccl_rank *r)
{
    bool left = false;
    for (cudaStream_t s : r->used)
        left |= fake_poke(s);
    return left;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    NCCL_CALL("ncclCommGetAsyncError");
    const std::shared_ptr<nccl_rank> r = rank_of(comm);
    if (!r)
        return misuse(ncclInvalidArgument, "ncclCommGetAsyncError", "no communicator");
    const bool left = r->finalizing && has_work(r.get());
    nccl_guard guard(nccl_lock);
    if (r->later && ++r->polls == 2) {
        std::function<void()> later = std::move(r->later);
        r->later = nullptr;
        r->state = ncclSuccess;
        later();
    }
    if (r->finalizing && r->state == ncclInProgress && !left)
        r->state = ncclSuccess;
    *state = r->state;
    return ncclSuccess;
}

/* Calls */

/* Counts work that holds a rank: in queues and in graphs. */
struct held_rank {
    explicit held_rank(std::shared_ptr<nccl_rank> r) : rank(std::move(r))
    {
        rank->holders++;
    }
    held_rank(const held_rank &) = delete;
    ~held_rank()
    {
        rank->holders--;
    }
    std::shared_ptr<nccl_rank> rank;
};

static ncclResult_t push(const std::shared_ptr<nccl_rank> &r, transfers calls, cudaStream_t stream)
{
    const void *graph = fake_captured_into(stream);
    r->n_captured = graph && graph == r->graph ? r->n_captured + 1 : graph != nullptr;
    r->graph = graph;
    for (transfer &t : calls)
        t.captured = r->n_captured;
    const auto held = std::make_shared<held_rank>(r);
    const cudaError_t error = fake_push(
        stream, "NCCL", [held, calls](work_run *run) {
            const bool done = nccl_run(held->rank, calls, run);
            if (done)
                fake_race_all_over(run->stream);
            return done;
        });
    return error == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

static ncclResult_t submit(const std::shared_ptr<nccl_rank> &r, const transfers &calls,
                           cudaStream_t stream)
{
    nccl_guard guard(nccl_lock);
    if (r->state == ncclInProgress)
        return misuse(ncclInvalidArgument, "NCCL", "the call before this one is still in progress");
    if (r->state != ncclSuccess || r->finalizing)
        return misuse(ncclInvalidUsage, "NCCL", "a call after an error or ncclCommFinalize");
    if (fake_stream_device(stream) != r->device)
        return misuse(ncclInvalidArgument, "NCCL", "the stream is of another device");
    if (std::find(r->used.begin(), r->used.end(), stream) == r->used.end())
        r->used.push_back(stream);
    if (r->blocking)
        return push(r, calls, stream);
    r->state = ncclInProgress;
    r->polls = 0;
    r->later = [r, calls, stream] {
        const ncclResult_t result = push(r, calls, stream);
        if (result != ncclSuccess)
            r->state = result;
    };
    return ncclInProgress;
}

/* What a thread calls between ncclGroupStart and ncclGroupEnd, by communicator and stream. */
struct grouped_calls {
    std::shared_ptr<nccl_rank> rank;
    cudaStream_t stream;
    transfers calls;
};
static thread_local int group_depth;
static thread_local std::vector<grouped_calls> grouped;

static ncclResult_t check_side(const nccl_rank &r, const char *call, const void *p, size_t bytes)
{
    if (bytes == 0 || fake_owner(p, bytes) == r.device)
        return ncclSuccess;
    return misuse(ncclInvalidArgument, call, "a buffer does not lie in the rank's device memory");
}

static ncclResult_t call(const char *name, ncclComm_t comm, cudaStream_t stream, const transfer &t)
{
    NCCL_CALL(name);
    const std::shared_ptr<nccl_rank> r = rank_of(comm);
    if (!r || t.type > ncclBfloat16 || t.peer < 0 || t.peer >= r->size)
        return misuse(ncclInvalidArgument, name, "communicator, type, root or peer");
    const size_t bytes = t.count * nccl_value_bytes(t.type);
    ncclResult_t result = t.kind == RECV ? ncclSuccess : check_side(*r, name, t.from, bytes);
    if (result == ncclSuccess && t.kind != SEND)
        result = check_side(*r, name, t.to, t.kind == ALL_GATHER ? bytes * size_t(r->size) : bytes);
    if (result != ncclSuccess || t.count == 0)
        return result;
    if (group_depth == 0)
        return submit(r, {t}, stream);
    for (grouped_calls &g : grouped) {
        if (g.rank == r && g.stream == stream) {
            g.calls.push_back(t);
            return ncclSuccess;
        }
    }
    grouped.push_back({r, stream, {t}});
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void)
{
    NCCL_CALL("ncclGroupStart");
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (group_depth == 0)
        return misuse(ncclInvalidUsage, "ncclGroupEnd", "no group was started");
    if (--group_depth > 0)
        return ncclSuccess;
    const std::vector<grouped_calls> all = std::move(grouped);
    grouped.clear();
    NCCL_CALL("ncclGroupEnd");
    ncclResult_t result = ncclSuccess;
    for (const grouped_calls &g : all) {
        const ncclResult_t one = submit(g.rank, g.calls, g.stream);
        if (result == ncclSuccess || (result == ncclInProgress && one != ncclSuccess))
            result = one;
    }
    return result;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    if (type != ncclFloat || op != ncclSum)
        return misuse(ncclInvalidArgument, "ncclAllReduce", "only sums of floats are known here");
    return call(
        "ncclAllReduce", comm, stream,
        {ALL_REDUCE, static_cast<const char *>(from), static_cast<char *>(to), count, type, 0, 0});
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    return call(
        "ncclAllGather", comm, stream,
        {ALL_GATHER, static_cast<const char *>(from), static_cast<char *>(to), count, type, 0, 0});
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    return call(
        "ncclBroadcast", comm, stream,
        {BROADCAST, static_cast<const char *>(from), static_cast<char *>(to), count, type, root, 0});
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return call("ncclSend", comm, stream,
                {SEND, static_cast<const char *>(from), nullptr, count, type, peer, 0});
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return call("ncclRecv", comm, stream,
                {RECV, nullptr, static_cast<char *>(to), count, type, peer, 0});
}

/* Leaving */

static void forget(ncclComm_t comm)
{
    nccl_guard guard(nccl_lock);
    comm->rank->later = nullptr;
    nccl_group &group = *comm->rank->group;
    group.ranks[size_t(comm->rank->rank)] = nullptr;
    if (--group.n_joined == 0)
        for (auto g = groups.begin(); g != groups.end();)
            g = g->second.get() == &group ? groups.erase(g) : std::next(g);
    comms.erase(std::find(comms.begin(), comms.end(), comm));
    delete comm;
    table_guard table(fake_table_lock);
    fake_counts.comms--;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    NCCL_CALL("ncclCommFinalize");
    const std::shared_ptr<nccl_rank> r = rank_of(comm);
    if (!r || r->finalizing)
        return misuse(ncclInvalidArgument, "ncclCommFinalize", "no communicator, or called twice");
    {
        nccl_guard guard(nccl_lock);
        if (r->state != ncclSuccess)
            return misuse(ncclInvalidArgument, "ncclCommFinalize", "after an error or in progress");
        r->finalizing = true;
        if (!r->blocking) {
            r->state = ncclInProgress;
            return ncclInProgress;
        }
    }
    while (has_work(r.get()))
        std::this_thread::yield();
    return ncclSuccess;
}

/* When all that was started is over, only graphs hold it. */
static void check_not_held(const char *call, const std::shared_ptr<nccl_rank> &r)
{
    while (has_work(r.get()))
        std::this_thread::yield();
    if (r->holders == 0)
        return;
    fprintf(stderr, "cuda_on_cpu: %s: rank %d's communicator is held by a graph: NCCL would wait for ever\n", call,
            r->rank);
    abort();
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    NCCL_CALL("ncclCommDestroy");
    const std::shared_ptr<nccl_rank> r = rank_of(comm);
    if (!r)
        return misuse(ncclInvalidArgument, "ncclCommDestroy", "no communicator");
    check_not_held("ncclCommDestroy", r);
    forget(comm);
    return ncclSuccess;
}

/* From any thread, also while another one waits for the rank's stream. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    NCCL_CALL("ncclCommAbort");
    const std::shared_ptr<nccl_rank> r = rank_of(comm);
    if (!r)
        return misuse(ncclInvalidArgument, "ncclCommAbort", "no communicator");
    be_slow(FAKE_NCCL_ABORT, r->rank);
    {
        nccl_guard guard(nccl_lock);
        r->aborted = true;
        r->group->broken = true;
        nccl_changed.notify_all();
    }
    check_not_held("ncclCommAbort", r);
    forget(comm);
    return ncclSuccess;
}
