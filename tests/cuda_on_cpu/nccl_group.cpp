/* nccl_group.cpp: operations between ranks: who is there, whether they agree, and the data. */
#include "nccl_group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <chrono>

std::mutex &nccl_lock = *new std::mutex;
std::condition_variable &nccl_changed = *new std::condition_variable;

static const char *const kind_names[] = {"ncclAllReduce", "ncclAllGather", "ncclBroadcast",
                                         "ncclSend", "ncclRecv"};

static struct {
    int rank = -1, nth = 0;
    ncclResult_t code = ncclSuccess;
} trouble; /* nccl lock */

void fake_nccl_trouble(int rank, int nth, int code)
{
    std::lock_guard<std::mutex> guard(nccl_lock);
    trouble.rank = rank;
    trouble.nth = nth;
    trouble.code = static_cast<ncclResult_t>(code);
}

/* Counts a rank's operations down; from the one that was asked for on, it hangs. */
static bool is_in_trouble(nccl_rank *r)
{
    if (trouble.rank != r->rank || trouble.nth == 0)
        return false;
    if (trouble.nth > 1) {
        trouble.nth--;
        return false;
    }
    if (trouble.code != ncclSuccess)
        r->state = trouble.code;
    return true;
}

size_t nccl_value_bytes(ncclDataType_t type)
{
    static const size_t bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return bytes[type];
}

static void die(int rank_a, const transfers &a, int rank_b, const transfers &b)
{
    fprintf(stderr, "cuda_on_cpu: NCCL: ranks do not do the same:\n");
    for (const auto &side : {std::make_pair(rank_a, &a), std::make_pair(rank_b, &b)})
        for (const transfer &t : *side.second)
            fprintf(stderr, "  rank %d: %s of %zu values of type %d, root or peer %d, captured as number %llu\n",
                    side.first, kind_names[t.kind], t.count, t.type, t.peer,
                    static_cast<unsigned long long>(t.captured));
    abort();
}

static bool is_between_two(const transfer &t)
{
    return t.kind == SEND || t.kind == RECV;
}

static const transfer *nth_collective(const transfers &calls, size_t n)
{
    for (const transfer &t : calls)
        if (!is_between_two(t) && n-- == 0)
            return &t;
    return nullptr;
}

/* Every rank's nth collective call, by rank; empty: there is none. They must be the same. */
static std::vector<const transfer *> collect(const nccl_meeting &m, size_t n)
{
    std::vector<const transfer *> ranks;
    const transfer *first = nth_collective(*m.calls[0], n);
    for (size_t r = 0; r < m.calls.size(); r++) {
        const transfer *t = nth_collective(*m.calls[r], n);
        if (!t != !first || (t && (t->kind != first->kind || t->count != first->count ||
                                   t->type != first->type || t->peer != first->peer)))
            die(0, *m.calls[0], int(r), *m.calls[r]);
        if (t)
            ranks.push_back(t);
    }
    return ranks;
}

/* A rank's nth call of this kind with this peer; NULL: there is none. */
static const transfer *find(const transfers &calls, transfer_kind kind, int peer, size_t n)
{
    for (const transfer &t : calls)
        if (t.kind == kind && t.peer == peer && n-- == 0)
            return &t;
    return nullptr;
}

static void move_between_two(const nccl_meeting &m)
{
    std::vector<std::pair<const transfer *, std::vector<char>>> arrived;
    const int size = int(m.calls.size());
    for (int from = 0; from < size; from++) {
        for (int to = 0; to < size; to++) {
            for (size_t n = 0;; n++) {
                const transfer *s = find(*m.calls[size_t(from)], SEND, to, n);
                const transfer *r = find(*m.calls[size_t(to)], RECV, from, n);
                if (!s && !r)
                    break;
                if (!s || !r || s->count != r->count || s->type != r->type)
                    die(from, *m.calls[size_t(from)], to, *m.calls[size_t(to)]);
                const size_t bytes = s->count * nccl_value_bytes(s->type);
                arrived.emplace_back(r, std::vector<char>(s->from, s->from + bytes));
            }
        }
    }
    for (const auto &a : arrived)
        memcpy(a.first->to, a.second.data(), a.second.size());
}

/* Each rank's part of a ring starts the sum of one part of the message. */
static std::vector<char> sum(const std::vector<const transfer *> &ranks)
{
    const size_t n = ranks[0]->count, size = ranks.size();
    std::vector<float> sums(n);
    for (size_t i = 0; i < n; i++) {
        const size_t first = i * size / n;
        for (size_t r = 0; r < size; r++) {
            const char *from = ranks[(first + r) % size]->from;
            const float value = reinterpret_cast<const float *>(from)[i];
            sums[i] = r == 0 ? value : sums[i] + value;
        }
    }
    const char *bytes = reinterpret_cast<const char *>(sums.data());
    return std::vector<char>(bytes, bytes + n * sizeof(float));
}

/* One collective, given each rank's call of it. */
static void move_collective(const std::vector<const transfer *> &ranks)
{
    const transfer &first = *ranks[0];
    const size_t bytes = first.count * nccl_value_bytes(first.type);
    std::vector<char> result;
    if (first.kind == ALL_REDUCE) {
        result = sum(ranks);
    } else if (first.kind == BROADCAST) {
        const char *from = ranks[size_t(first.peer)]->from;
        result.assign(from, from + bytes);
    } else {
        for (const transfer *t : ranks)
            result.insert(result.end(), t->from, t->from + bytes);
    }
    for (const transfer *t : ranks)
        memcpy(t->to, result.data(), result.size());
}

/* "Whether an operation is captured must be uniform across ranks", and it has the same place in all graphs. */
static void check_captured(const nccl_meeting &m)
{
    for (size_t r = 1; r < m.calls.size(); r++)
        if ((*m.calls[r])[0].captured != (*m.calls[0])[0].captured)
            die(0, *m.calls[0], int(r), *m.calls[r]);
}

static void move_data(const nccl_group &group, const nccl_meeting &m)
{
    check_captured(m);
    std::lock_guard<std::mutex> kernel(fake_kernel_lock);
    std::vector<std::unique_ptr<device_access>> accesses;
    for (const nccl_rank *r : group.ranks)
        accesses.emplace_back(new device_access(r->device));
    for (size_t n = 0;; n++) {
        const std::vector<const transfer *> ranks = collect(m, n);
        if (ranks.empty())
            break;
        move_collective(ranks);
    }
    move_between_two(m);
}

/* Joins the rank's next meeting; NULL: the rank hangs, or waits for one that gave up. */
static std::shared_ptr<nccl_meeting> arrive(nccl_rank *r, const transfers &calls)
{
    nccl_group &group = *r->group;
    if (is_in_trouble(r) || group.broken)
        return nullptr;
    std::shared_ptr<nccl_meeting> &slot = group.meetings[r->n_met];
    if (!slot)
        slot.reset(new nccl_meeting{std::vector<const transfers *>(size_t(r->size)), 0, false});
    const std::shared_ptr<nccl_meeting> m = slot;
    m->calls[size_t(r->rank)] = &calls;
    if (++m->n_arrived == r->size) {
        move_data(group, *m);
        m->done = true;
        group.meetings.erase(r->n_met);
        nccl_changed.notify_all();
    }
    r->n_met++;
    return m;
}

/* The other ranks' GPUs get on while their hosts do something else. */
static void advance_others(const nccl_rank &r, std::unique_lock<std::mutex> *guard)
{
    static thread_local bool at_it; /* their work may be an operation, too */
    std::vector<std::pair<int, cudaStream_t>> streams;
    for (const nccl_rank *other : r.group->ranks)
        for (cudaStream_t s : other && other != &r ? other->used : std::vector<cudaStream_t>())
            streams.emplace_back(other->device, s);
    if (at_it)
        return;
    at_it = true;
    guard->unlock();
    for (const auto &s : streams)
        fake_poke_of(s.first, s.second);
    guard->lock();
    at_it = false;
}

bool nccl_run(const std::shared_ptr<nccl_rank> &r, const transfers &calls, work_run *run)
{
    std::unique_lock<std::mutex> guard(nccl_lock);
    if (!r->aborted && !run->state)
        run->state = arrive(r.get(), calls);
    const auto over = [&] {
        return r->aborted || (run->state && static_cast<nccl_meeting *>(run->state.get())->done);
    };
    if (!over() && run->may_wait)
        nccl_changed.wait_for(guard, std::chrono::milliseconds(5), over);
    if (!over())
        advance_others(*r, &guard);
    return over();
}
