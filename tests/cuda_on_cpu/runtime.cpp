/* runtime.cpp: errors, devices, knobs and counts of the CUDA on the CPU. */
#include "runtime.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

std::mutex fake_kernel_lock;
std::recursive_mutex fake_table_lock;
fake_cuda_counts fake_counts;

static const size_t default_memory = size_t(16) << 30;
static const int capability_major = 9, capability_minor = 0;
static const int multiprocessors = 132; /* as many as an H200 has */

static struct {
    int devices = 1;
    int driver = CUDART_VERSION;
    size_t total_memory = default_memory;
    int shared_memory = 227 << 10;
    int first_device_shared_memory = 0; /* 0: as the others' */
    const char *fail_name = nullptr;
    int fail_nth = 0, fail_code = 0, fail_device = -1; /* -1: any */
} knobs;

static thread_local cudaError_t last_error = cudaSuccess;
static thread_local int current_device = 0;

/* Errors */

bool fake_told_to_fail(const char *name, int *code)
{
    std::lock_guard<std::recursive_mutex> guard(fake_table_lock);
    if (knobs.fail_nth == 0 || strcmp(name, knobs.fail_name) != 0)
        return false;
    if ((knobs.fail_device >= 0 && knobs.fail_device != fake_current_device()) || --knobs.fail_nth > 0)
        return false;
    *code = knobs.fail_code;
    return true;
}

cudaError_t fake_error(cudaError_t error)
{
    if (error != cudaSuccess && error != cudaErrorNotReady)
        last_error = error;
    return error;
}

cudaError_t fake_misuse(cudaError_t error, const char *call, const char *what, ...)
{
    va_list args;
    va_start(args, what);
    fprintf(stderr, "cuda_on_cpu: %s: ", call);
    vfprintf(stderr, what, args);
    fputc('\n', stderr);
    va_end(args);
    return fake_error(error);
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

const char *cudaGetErrorString(cudaError_t error)
{
#define X(name, code, text) \
    if (error == name)      \
        return text;
    FAKE_CUDA_ERROR_MAP(X)
#undef X
    return "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t error)
{
#define X(name, code, text) \
    if (error == name)      \
        return #name;
    FAKE_CUDA_ERROR_MAP(X)
#undef X
    return "unrecognized error code";
}

/* Devices */

int fake_current_device()
{
    return current_device;
}

static bool is_device(int device)
{
    return device >= 0 && device < knobs.devices;
}

static int shared_memory_of(int device)
{
    return device == 0 && knobs.first_device_shared_memory ? knobs.first_device_shared_memory : knobs.shared_memory;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    FAKE_CALL("cudaGetDeviceCount");
    if (knobs.driver < CUDART_VERSION / 1000 * 1000)
        return fake_error(cudaErrorInsufficientDriver);
    *count = knobs.devices;
    return fake_error(knobs.devices ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaSetDevice(int device)
{
    FAKE_CALL("cudaSetDevice");
    if (!is_device(device))
        return fake_error(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    FAKE_CALL("cudaGetDevice");
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
    FAKE_CALL("cudaDeviceGetAttribute");
    if (!is_device(device))
        return fake_error(cudaErrorInvalidDevice);
    const struct {
        enum cudaDeviceAttr attr;
        int value;
    } values[] = {
        {cudaDevAttrMaxThreadsPerBlock, 1024},
        {cudaDevAttrMaxSharedMemoryPerBlock, 48 << 10},
        {cudaDevAttrWarpSize, 32},
        {cudaDevAttrClockRate, 1980000},
        {cudaDevAttrMultiProcessorCount, multiprocessors},
        {cudaDevAttrMemoryClockRate, 3201000},
        {cudaDevAttrGlobalMemoryBusWidth, 6144},
        {cudaDevAttrL2CacheSize, 60 << 20},
        {cudaDevAttrComputeCapabilityMajor, capability_major},
        {cudaDevAttrComputeCapabilityMinor, capability_minor},
        {cudaDevAttrMaxSharedMemoryPerMultiprocessor, 228 << 10},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, shared_memory_of(device)},
    };
    for (const auto &v : values) {
        if (v.attr == attr) {
            *value = v.value;
            return cudaSuccess;
        }
    }
    return fake_misuse(cudaErrorInvalidValue, "cudaDeviceGetAttribute", "no attribute %d here",
                       attr);
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
    FAKE_CALL("cudaGetDeviceProperties");
    if (!is_device(device))
        return fake_error(cudaErrorInvalidDevice);
    *prop = cudaDeviceProp();
    snprintf(prop->name, sizeof prop->name, "CPU that plays a GPU");
    prop->uuid.bytes[0] = static_cast<char>(device + 1);
    prop->totalGlobalMem = knobs.total_memory;
    prop->sharedMemPerBlock = 48 << 10;
    prop->sharedMemPerBlockOptin = size_t(shared_memory_of(device));
    prop->sharedMemPerMultiprocessor = 228 << 10;
    prop->regsPerBlock = 65536;
    prop->warpSize = 32;
    prop->maxThreadsPerBlock = prop->maxThreadsDim[0] = prop->maxThreadsDim[1] = 1024;
    prop->maxThreadsDim[2] = 64;
    prop->maxGridSize[0] = 0x7fffffff;
    prop->maxGridSize[1] = prop->maxGridSize[2] = 65535;
    prop->major = capability_major;
    prop->minor = capability_minor;
    prop->multiProcessorCount = multiprocessors;
    prop->maxThreadsPerMultiProcessor = 2048;
    prop->pciBusID = device + 1;
    prop->memoryBusWidth = 6144;
    prop->l2CacheSize = 60 << 20;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int len, int device)
{
    FAKE_CALL("cudaDeviceGetPCIBusId");
    if (!is_device(device))
        return fake_error(cudaErrorInvalidDevice);
    snprintf(text, static_cast<size_t>(len), "0000:%02x:00.0", device + 1);
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    FAKE_CALL("cudaRuntimeGetVersion");
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    FAKE_CALL("cudaDriverGetVersion");
    *version = knobs.driver;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void)
{
    FAKE_CALL("cudaDeviceSynchronize");
    cudaError_t error = fake_forbidden_in_capture("cudaDeviceSynchronize");
    if (error != cudaSuccess)
        return error;
    fake_drain_device(current_device, true);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    FAKE_CALL("cudaMemGetInfo");
    *total_bytes = knobs.total_memory;
    *free_bytes = knobs.total_memory - fake_device_bytes(current_device);
    return cudaSuccess;
}

/* fake_cuda.h */

fake_cuda_counts fake_cuda_count(void)
{
    std::lock_guard<std::recursive_mutex> guard(fake_table_lock);
    return fake_counts;
}

int fake_cuda_all_freed(void)
{
    const fake_cuda_counts c = fake_cuda_count();
    const struct {
        const char *name;
        int alive;
    } kinds[] = {
        {"allocations of device memory", c.allocations},
        {"allocations of pinned memory", c.host_allocations},
        {"streams", c.streams},
        {"events", c.events},
        {"graphs", c.graphs},
        {"instantiated graphs", c.graph_execs},
        {"cuBLASLt handles", c.lt_handles},
        {"cuBLASLt descriptors", c.lt_descriptors},
        {"NCCL communicators", c.comms},
    };
    int freed = 1;
    for (const auto &k : kinds) {
        if (k.alive != 0) {
            fprintf(stderr, "cuda_on_cpu: %d %s still alive\n", k.alive, k.name);
            freed = 0;
        }
    }
    return freed;
}

void fake_cuda_reset(void)
{
    fake_nccl_trouble(-1, 0, 0);
    fake_nccl_slow(FAKE_NCCL_INIT, -1, 0);
    fake_nccl_slow(FAKE_NCCL_ABORT, -1, 0);
    std::lock_guard<std::recursive_mutex> guard(fake_table_lock);
    knobs = {};
    last_error = cudaSuccess;
    current_device = 0;
    fake_counts.launches = fake_counts.kernels_run = 0;
    fake_counts.graph_launches = fake_counts.captures = 0;
    fake_reset_order();
}

void fake_cuda_set_devices(int n)
{
    knobs.devices = n;
}

void fake_cuda_set_driver(int version)
{
    knobs.driver = version;
}

void fake_cuda_set_total_memory(size_t bytes)
{
    knobs.total_memory = bytes;
}

void fake_cuda_set_shared_memory(int bytes)
{
    knobs.shared_memory = bytes;
}

void fake_cuda_set_first_device_shared_memory(int bytes)
{
    knobs.first_device_shared_memory = bytes;
}

int fake_shared_memory()
{
    return shared_memory_of(current_device);
}

size_t fake_total_memory()
{
    return knobs.total_memory;
}

void fake_cuda_fail(const char *name, int nth, int code)
{
    fake_cuda_fail_on(-1, name, nth, code);
}

void fake_cuda_fail_on(int device, const char *name, int nth, int code)
{
    table_guard guard(fake_table_lock);
    knobs.fail_device = device;
    knobs.fail_name = name;
    knobs.fail_nth = nth;
    knobs.fail_code = code;
}
