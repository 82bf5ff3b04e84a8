/* memory.cpp: device and pinned memory, and copies between them and plain host memory. */
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <map>

#include "races.h"
#include "runtime.h"
#include "sanitizers.h"

static const size_t alignment = 256; /* what cudaMalloc promises */

struct allocation {
    size_t bytes;
    int device; /* -1: pinned host memory */
};

/* By address; all under the table lock. Immortal, so that exit handlers may still free. */
static std::map<uintptr_t, allocation> &allocations = *new std::map<uintptr_t, allocation>;
static int accesses[FAKE_CUDA_MAX_DEVICES]; /* device_access objects alive */
static size_t used_bytes[FAKE_CUDA_MAX_DEVICES];

static void poison_all(int device, bool poison)
{
    for (const auto &a : allocations) {
        if (a.second.device != device)
            continue;
        if (poison)
            sanitizer_poison(reinterpret_cast<void *>(a.first), a.second.bytes);
        else
            sanitizer_unpoison(reinterpret_cast<void *>(a.first), a.second.bytes);
    }
}

device_access::device_access(int d) : device(d)
{
    table_guard guard(fake_table_lock);
    if (accesses[device]++ == 0)
        poison_all(device, false);
}

device_access::~device_access()
{
    table_guard guard(fake_table_lock);
    if (--accesses[device] == 0)
        poison_all(device, true);
}

/* The allocation that p lies in, or end(). One past the end belongs to it for bytes == 0 only. */
static std::map<uintptr_t, allocation>::iterator find(const void *p)
{
    const uintptr_t at = reinterpret_cast<uintptr_t>(p);
    auto a = allocations.upper_bound(at);
    if (a == allocations.begin())
        return allocations.end();
    --a;
    /* The end is another's: where an allocator leaves no gaps, host memory begins there. */
    return at - a->first < std::max<size_t>(a->second.bytes, 1) ? a : allocations.end();
}

int fake_owner(const void *p, size_t bytes)
{
    table_guard guard(fake_table_lock);
    const auto a = find(p);
    if (a == allocations.end() || a->second.device < 0)
        return -1;
    const size_t at = reinterpret_cast<uintptr_t>(p) - a->first;
    return bytes <= a->second.bytes - at ? a->second.device : -2;
}

bool fake_allocation_of(uintptr_t at, uintptr_t *start, size_t *bytes)
{
    table_guard guard(fake_table_lock);
    const auto a = find(reinterpret_cast<void *>(at));
    if (a == allocations.end())
        return false;
    *start = a->first;
    *bytes = a->second.bytes;
    return true;
}

bool fake_is_pinned(const void *p)
{
    table_guard guard(fake_table_lock);
    const auto a = find(p);
    return a != allocations.end() && a->second.device < 0;
}

size_t fake_device_bytes(int device)
{
    table_guard guard(fake_table_lock);
    return used_bytes[device];
}

/* Exactly `bytes` long, so that ASan sees a kernel that runs over; filled with NaN in every type. */
static cudaError_t allocate(void **out, size_t bytes, int device)
{
    if (posix_memalign(out, alignment, bytes) != 0) {
        *out = nullptr;
        return fake_error(cudaErrorMemoryAllocation);
    }
    memset(*out, 0xff, bytes);
    table_guard guard(fake_table_lock);
    allocations[reinterpret_cast<uintptr_t>(*out)] = {bytes, device};
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **ptr, size_t bytes)
{
    FAKE_CALL("cudaMalloc");
    cudaError_t error = fake_forbidden_in_capture("cudaMalloc");
    if (error != cudaSuccess)
        return error;
    *ptr = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    table_guard guard(fake_table_lock);
    const int device = fake_current_device();
    if (bytes > fake_total_memory() || used_bytes[device] > fake_total_memory() - bytes)
        return fake_error(cudaErrorMemoryAllocation);
    error = allocate(ptr, bytes, device);
    if (error != cudaSuccess)
        return error;
    used_bytes[device] += bytes;
    fake_counts.device_bytes += bytes;
    fake_counts.allocations++;
    if (accesses[device] == 0)
        sanitizer_poison(*ptr, bytes);
    return cudaSuccess;
}

/* Waits for the device first, as CUDA does. */
static cudaError_t release(void *ptr, bool pinned, const char *call)
{
    cudaError_t error = fake_forbidden_in_capture(call);
    if (error != cudaSuccess || !ptr)
        return error;
    fake_drain_device(fake_current_device(), true);
    table_guard guard(fake_table_lock);
    const auto a = allocations.find(reinterpret_cast<uintptr_t>(ptr));
    if (a == allocations.end() || (a->second.device < 0) != pinned)
        return fake_misuse(cudaErrorInvalidValue, call, "%p was not allocated", ptr);
    if (pinned) {
        fake_counts.host_allocations--;
    } else {
        used_bytes[a->second.device] -= a->second.bytes;
        fake_counts.device_bytes -= a->second.bytes;
        fake_counts.allocations--;
    }
    sanitizer_unpoison(ptr, a->second.bytes);
    allocations.erase(a);
    free(ptr);
    return cudaSuccess;
}

cudaError_t cudaFree(void *ptr)
{
    FAKE_CALL("cudaFree");
    return release(ptr, false, "cudaFree");
}

cudaError_t cudaFreeHost(void *ptr)
{
    FAKE_CALL("cudaFreeHost");
    return release(ptr, true, "cudaFreeHost");
}

cudaError_t cudaHostAlloc(void **ptr, size_t bytes, unsigned int)
{
    FAKE_CALL("cudaHostAlloc");
    cudaError_t error = fake_forbidden_in_capture("cudaHostAlloc");
    if (error != cudaSuccess)
        return error;
    *ptr = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    error = allocate(ptr, bytes, -1);
    if (error != cudaSuccess)
        return error;
    table_guard guard(fake_table_lock);
    fake_counts.host_allocations++;
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **ptr, size_t bytes)
{
    FAKE_CALL("cudaMallocHost");
    return cudaHostAlloc(ptr, bytes, cudaHostAllocDefault);
}

/* Copies */

static cudaError_t check_side(const char *call, const char *side, const void *p, size_t bytes,
                              bool device)
{
    const int owner = fake_owner(p, bytes);
    if (owner == -2)
        return fake_misuse(cudaErrorInvalidValue, call, "%s %p: %zu bytes leave the allocation",
                           side, p, bytes);
    if (device && owner < 0)
        return fake_misuse(cudaErrorInvalidValue, call, "%s %p is no device memory", side, p);
    if (!device && owner >= 0)
        return fake_misuse(cudaErrorInvalidValue, call, "%s %p is device memory", side, p);
    return cudaSuccess;
}

static cudaError_t check_copy(const char *call, void *dst, const void *src, size_t bytes,
                              enum cudaMemcpyKind kind)
{
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        return fake_misuse(cudaErrorInvalidMemcpyDirection, call, "kind %d", kind);
    if (kind == cudaMemcpyDefault) {
        to_device = fake_owner(dst, 0) >= 0;
        from_device = fake_owner(src, 0) >= 0;
    }
    cudaError_t error = check_side(call, "destination", dst, bytes, to_device);
    if (error != cudaSuccess)
        return error;
    return check_side(call, "source", src, bytes, from_device);
}

/* Copies now. Also of another device's memory: one process sees all of it. */
static void copy_now(void *dst, const void *src, size_t bytes)
{
    const int to = fake_owner(dst, 0), from = fake_owner(src, 0);
    std::lock_guard<std::mutex> kernel(fake_kernel_lock);
    device_access to_access(to >= 0 ? to : 0), from_access(from >= 0 ? from : 0);
    memmove(dst, src, bytes);
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    FAKE_CALL("cudaMemcpyAsync");
    cudaError_t error = check_copy("cudaMemcpyAsync", dst, src, bytes, kind);
    if (error != cudaSuccess || bytes == 0)
        return error;
    enum cudaStreamCaptureStatus status;
    error = cudaStreamIsCapturing(stream, &status);
    if (error != cudaSuccess)
        return error;
    if (status == cudaStreamCaptureStatusNone && fake_owner(src, 0) == -1 && !fake_is_pinned(src)) {
        const char *from = static_cast<const char *>(src);
        auto kept = std::make_shared<std::vector<char>>(from, from + bytes);
        return fake_push(stream, "cudaMemcpyAsync", [=](work_run *run) {
            copy_now(dst, kept->data(), kept->size());
            fake_race_all_over(run->stream);
            return true;
        });
    }
    return fake_push(stream, "cudaMemcpyAsync", [=](work_run *run) {
        copy_now(dst, src, bytes);
        fake_race_all_over(run->stream);
        return true;
    });
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind)
{
    FAKE_CALL("cudaMemcpy");
    cudaError_t error = fake_forbidden_in_capture("cudaMemcpy");
    if (error == cudaSuccess)
        error = check_copy("cudaMemcpy", dst, src, bytes, kind);
    if (error != cudaSuccess)
        return error;
    fake_drain_device(fake_current_device(), false);
    if (bytes)
        copy_now(dst, src, bytes);
    return cudaSuccess;
}

static cudaError_t push_memset(const char *call, void *dst, int value, size_t bytes,
                               cudaStream_t stream)
{
    cudaError_t error = check_side(call, "destination", dst, bytes, true);
    if (error != cudaSuccess || bytes == 0)
        return error;
    const int device = fake_owner(dst, bytes);
    return fake_push(stream, call, [=](work_run *run) {
        fake_race_all_over(run->stream);
        std::lock_guard<std::mutex> kernel(fake_kernel_lock);
        device_access access(device);
        memset(dst, value, bytes);
        return true;
    });
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream)
{
    FAKE_CALL("cudaMemsetAsync");
    return push_memset("cudaMemsetAsync", dst, value, bytes, stream);
}

/* Into the default stream; as on a GPU the host does not wait for it. */
cudaError_t cudaMemset(void *dst, int value, size_t bytes)
{
    FAKE_CALL("cudaMemset");
    cudaError_t error = fake_forbidden_in_capture("cudaMemset");
    if (error != cudaSuccess)
        return error;
    return push_memset("cudaMemset", dst, value, bytes, nullptr);
}
