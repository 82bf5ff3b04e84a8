/* nccl_group.h: the ranks of a fake NCCL communicator, seen by nccl.cpp and nccl_group.cpp only. */
#ifndef FAKE_CUDA_NCCL_GROUP_H
#define FAKE_CUDA_NCCL_GROUP_H

#include <atomic>
#include <condition_variable>
#include <map>

#include "nccl.h"
#include "runtime.h"

enum transfer_kind { ALL_REDUCE, ALL_GATHER, BROADCAST, SEND, RECV };

/* One call; several in an ncclGroup. */
struct transfer {
    transfer_kind kind;
    const char *from;
    char *to;
    size_t count;
    ncclDataType_t type;
    int peer; /* or the root of a broadcast */
    uint64_t captured; /* as the how manieth call of a rank in a graph, from 1; 0: in none */
};
typedef std::vector<transfer> transfers;

struct nccl_rank;

/* The nth operation of a group, until all ranks have come to it. */
struct nccl_meeting {
    std::vector<const transfers *> calls; /* by rank; NULL: not here yet */
    int n_arrived;
    bool done;
};

struct nccl_group {
    std::vector<nccl_rank *> ranks; /* NULL: has not joined, or has left */
    int n_joined;
    bool broken; /* a rank aborted: no operation completes any more */
    std::map<uint64_t, std::shared_ptr<nccl_meeting>> meetings;
};

/* One rank's communicator. Kept alive by its handle and by all work that uses it. */
struct nccl_rank {
    std::shared_ptr<nccl_group> group;
    int rank, size, device;
    bool blocking, aborted, finalizing;
    ncclResult_t state;             /* what ncclCommGetAsyncError says */
    int polls;                      /* since `later` was filled */
    std::function<void()> later;    /* what a non-blocking call has still to do */
    std::vector<cudaStream_t> used; /* streams */
    uint64_t n_met;                 /* operations that ran, the one under way included */
    const void *graph;              /* the last one that took operations in, and how many */
    uint64_t n_captured;
    std::atomic<int> holders;       /* work in queues and graphs */
};

extern std::mutex &nccl_lock; /* all of the above */
extern std::condition_variable &nccl_changed;

size_t nccl_value_bytes(ncclDataType_t type);
/* Runs `calls` of one rank as work of a stream: false until every rank is there. */
bool nccl_run(const std::shared_ptr<nccl_rank> &r, const transfers &calls, work_run *run);

#endif
