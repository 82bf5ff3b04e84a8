/* streams.h: a stream of the CUDA on the CPU, seen by streams.cpp and capture.cpp only. */
#ifndef FAKE_CUDA_STREAMS_H
#define FAKE_CUDA_STREAMS_H

#include <deque>
#include <set>

#include "runtime.h"

struct queued_work {
    std::shared_ptr<const work> what;
    work_run run;
    uint64_t ticket; /* place in the order of all work ever queued */
};

/* All under the table lock. Work is popped after it has run, by the holder of the run lock. */
struct CUstream_st {
    int device;
    bool non_blocking;
    std::deque<queued_work> queue;
    enum cudaStreamCaptureStatus capture;
    enum cudaStreamCaptureMode capture_mode;
    std::thread::id capture_thread;
    CUgraph_st *graph; /* what a capture has recorded so far */
};

extern std::set<cudaStream_t> &fake_streams; /* all of them, default ones included */
/* The stream behind a handle (NULL: the current device's default stream); NULL: there is none. */
cudaStream_t fake_stream(cudaStream_t handle);
void fake_enqueue(cudaStream_t stream, std::shared_ptr<const work> what);

#endif
