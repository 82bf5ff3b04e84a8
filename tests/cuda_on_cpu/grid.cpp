/* grid.cpp: runs a launch: blocks one after another, a block's threads as fibres.
 *
 * A warp's lanes run until all of them wait at the block's barrier or have returned; then the next
 * warp's; when all warps are there, the barrier opens. A lane that reaches a warp operation last does
 * it for all and goes on. A fibre that returns from a thread without having waited takes the next
 * fresh lane of the warp, so that kernels without barriers cost a switch a warp. */
#include <link.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <map>
#include <new>
#include <string>

#include "fibre.h"
#include "races.h"
#include "runtime.h"

#define MAX_THREADS 1024

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
const fake_race_watcher *fake_race_watch;

enum thread_state { FRESH, READY, AT_BARRIER, AT_WARP, RETURNED };
static const char *const state_names[] = {"not started", "ready", "at __syncthreads",
                                          "in a warp operation", "gone"};

struct cuda_thread {
    uint3 index;
    thread_state state;
    int lane;
    fibre *stack;  /* of one that waits */
    unsigned mask; /* of its latest warp operation, as is combine */
    fake_cuda_combine combine;
    bool awaited; /* the previous kernel */
};

/* The lanes of a warp that wait at a warp operation, and what they brought. */
struct warp_meeting {
    unsigned arrived;
    void *args[32];
};

/* The running launch and block; the kernel lock guards all of it. */
static const fake_cuda_kernel *kernel;
static cuda_thread threads[MAX_THREADS];
static warp_meeting meetings[MAX_THREADS / 32];
static int n_threads, n_warps;
static cuda_thread *self; /* the thread that runs */
static int lane_order[32], warp_order[MAX_THREADS / 32];
static int running_warp, next_fresh; /* the warp, and how many of lane_order are no longer fresh */
static void *dynamic_shared;
uint64_t fake_block_number;
static std::vector<fibre *> &idle_fibres = *new std::vector<fibre *>;
struct kernel_note {
    std::string name;
    long runs;
    bool awaits; /* the previous one */
};
static std::map<const void *, kernel_note> &kernels_run = *new std::map<const void *, kernel_note>;
static long n_awaited, n_returned; /* threads of the grid */
static std::map<const void *, size_t> &shared_limits = *new std::map<const void *, size_t>;

/* Order */

static fake_cuda_order order_kind = FAKE_CUDA_FORWARD;
static uint32_t order_seed;

void fake_cuda_set_order(fake_cuda_order order, uint32_t seed)
{
    order_kind = order;
    order_seed = seed;
}

/* Before main(), and when a test resets everything. */
__attribute__((constructor)) void fake_reset_order()
{
    const char *text = getenv("FAKE_CUDA_ORDER");
    if (!text || strcmp(text, "forward") == 0)
        fake_cuda_set_order(FAKE_CUDA_FORWARD, 0);
    else if (strcmp(text, "backward") == 0)
        fake_cuda_set_order(FAKE_CUDA_BACKWARD, 0);
    else
        fake_cuda_set_order(FAKE_CUDA_SHUFFLED, uint32_t(strtoul(text, nullptr, 10)));
}

static void fill_order(int *order, int n, uint32_t *random)
{
    for (int i = 0; i < n; i++)
        order[i] = order_kind == FAKE_CUDA_BACKWARD ? n - 1 - i : i;
    for (int i = n - 1; order_kind == FAKE_CUDA_SHUFFLED && i > 0; i--) {
        *random = *random * 1664525u + 1013904223u;
        std::swap(order[i], order[(*random >> 8) % uint32_t(i + 1)]);
    }
}

/* Fibres of a block */

static void die(const char *what, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *what, ...)
{
    fprintf(stderr, "cuda_on_cpu: kernel %s, block (%u, %u, %u): ", kernel->name, blockIdx.x,
            blockIdx.y, blockIdx.z);
    va_list args;
    va_start(args, what);
    vfprintf(stderr, what, args);
    va_end(args);
    fputc('\n', stderr);
    for (int i = 0; i < n_threads; i++)
        if (i == 0 || threads[i].state != threads[i - 1].state)
            fprintf(stderr, "  from thread %d on: %s\n", i, state_names[threads[i].state]);
    abort();
}

static void become(cuda_thread *t)
{
    self = t;
    threadIdx = t->index;
    if (fake_race_watch)
        fake_race_watch->become(int(t - threads), t->awaited);
}

static cuda_thread *lane_of_running_warp(int at)
{
    const int i = running_warp * 32 + lane_order[at];
    return i < n_threads ? &threads[i] : nullptr;
}

static cuda_thread *take_fresh()
{
    while (next_fresh < 32) {
        cuda_thread *t = lane_of_running_warp(next_fresh++);
        if (t)
            return t;
    }
    return nullptr;
}

static void run_threads()
{
    for (;;) {
        while (cuda_thread *t = take_fresh()) {
            t->state = READY;
            t->awaited = false;
            become(t);
            kernel->body();
            n_returned++;
            self->state = RETURNED;
        }
        idle_fibres.push_back(fibre_current());
        fibre_suspend();
    }
}

static void wait_as(thread_state state)
{
    self->state = state;
    self->stack = fibre_current();
    fibre_suspend();
}

static void run_fresh()
{
    fibre *f;
    if (idle_fibres.empty()) {
        f = fibre_new(run_threads);
    } else {
        f = idle_fibres.back();
        idle_fibres.pop_back();
    }
    fibre_resume(f);
}

/* A lane waits in a warp operation, and nobody can run. */
static void die_of_waiting(const cuda_thread *t)
{
    const cuda_thread *lanes = t - t->lane;
    for (int i = 0; i < 32; i++) {
        if (!(t->mask >> i & 1))
            continue;
        if (&lanes[i] >= threads + n_threads)
            die("a warp operation's mask %08x has lane %d, which does not exist", t->mask, i);
        if (lanes[i].state != AT_WARP)
            die("lane %d of warp %d waits in a warp operation of mask %08x for lane %d, which is "
                "%s",
                t->lane, running_warp, t->mask, i, state_names[lanes[i].state]);
    }
    die("lanes of warp %d wait for each other in warp operations of different masks", running_warp);
}

static void run_warp(int warp)
{
    running_warp = warp;
    for (bool ran = true; ran;) {
        ran = false;
        for (int i = 0; i < 32; i++) {
            cuda_thread *t = lane_of_running_warp(i);
            if (!t || (t->state != FRESH && t->state != READY))
                continue;
            ran = true;
            if (t->state == FRESH) {
                run_fresh();
            } else {
                become(t);
                fibre_resume(t->stack);
            }
        }
    }
    for (int i = 0; i < 32; i++) {
        cuda_thread *t = lane_of_running_warp(i);
        if (t && t->state == AT_WARP)
            die_of_waiting(t);
    }
}

static void run_block()
{
    fake_block_number++;
    if (fake_race_watch)
        fake_race_watch->begin_block();
    for (int i = 0; i < n_threads; i++)
        threads[i].state = FRESH;
    for (bool again = true; again;) {
        for (int w = 0; w < n_warps; w++) {
            next_fresh = threads[warp_order[w] * 32].state == FRESH ? 0 : 32;
            run_warp(warp_order[w]);
        }
        /* Every thread has returned or waits here: the barrier opens. */
        if (fake_race_watch)
            fake_race_watch->barrier();
        again = false;
        for (int i = 0; i < n_threads; i++) {
            if (threads[i].state == AT_BARRIER) {
                threads[i].state = READY;
                again = true;
            }
        }
    }
}

/* What kernels call */

void fake_cuda_await_previous()
{
    if (self->awaited)
        die("a thread awaits the previous kernel twice");
    self->awaited = true;
    n_awaited++;
    if (fake_race_watch)
        fake_race_watch->become(fake_thread(), true);
}

void *fake_cuda_dynamic_shared()
{
    if (!dynamic_shared)
        die("uses dynamic shared memory, but was launched with 0 bytes of it");
    return dynamic_shared;
}

int fake_cuda_lane()
{
    return self->lane;
}

int fake_thread()
{
    return int(self - threads);
}

void __syncthreads()
{
    wait_as(AT_BARRIER);
}

/* Are all lanes of mask here, and in this operation? One that still is in another mask's will come. */
static bool is_complete(const cuda_thread *lanes, const warp_meeting *meeting, unsigned mask)
{
    if ((meeting->arrived & mask) != mask)
        return false;
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1))
            continue;
        if (lanes[i].mask != mask)
            return false;
        if (lanes[i].combine != self->combine)
            die("lanes %d and %d meet in different warp operations", self->lane, i);
    }
    return true;
}

static void combine_nothing(void *const *, unsigned)
{
}

void fake_cuda_warp(unsigned mask, fake_cuda_combine combine, void *arg)
{
    const int lane = self->lane;
    cuda_thread *lanes = self - lane;
    warp_meeting *meeting = &meetings[running_warp];
    if (!(mask >> lane & 1))
        die("lane %d calls a warp operation with mask %08x, which leaves it out", lane, mask);
    self->mask = mask;
    self->combine = combine;
    meeting->args[lane] = arg;
    meeting->arrived |= 1u << lane;
    if (!is_complete(lanes, meeting, mask)) {
        wait_as(AT_WARP); /* the last one to come does the rest */
        return;
    }
    combine(meeting->args, mask);
    if (fake_race_watch && combine == combine_nothing)
        fake_race_watch->warp_barrier(running_warp, mask);
    meeting->arrived &= ~mask;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1)
            lanes[i].state = READY;
}

void fake_cuda_combine_shuffle(void *const args[32], unsigned mask)
{
    for (int i = 0; i < 32; i++) {
        if (!(mask >> i & 1))
            continue;
        fake_cuda_shuffle *s = static_cast<fake_cuda_shuffle *>(args[i]);
        if (mask >> s->source & 1)
            s->result = static_cast<fake_cuda_shuffle *>(args[s->source])->value;
    }
}

void __syncwarp(unsigned mask)
{
    fake_cuda_warp(mask, combine_nothing, nullptr);
}

static void combine_ballot(void *const args[32], unsigned mask)
{
    unsigned votes = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1 && *static_cast<unsigned *>(args[i]))
            votes |= 1u << i;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1)
            *static_cast<unsigned *>(args[i]) = votes;
}

unsigned __ballot_sync(unsigned mask, int predicate)
{
    unsigned vote = predicate != 0;
    fake_cuda_warp(mask, combine_ballot, &vote);
    return vote;
}

/* Launches */

static void prepare_threads(const fake_cuda_kernel &k)
{
    blockDim = k.block;
    gridDim = k.grid;
    n_threads = int(k.block.x * k.block.y * k.block.z);
    n_warps = (n_threads + 31) / 32;
    for (int i = 0; i < n_threads; i++) {
        const unsigned at = unsigned(i);
        threads[i].lane = i % 32;
        threads[i].index = {at % k.block.x, at / k.block.x % k.block.y, at / k.block.x / k.block.y};
    }
    static uint32_t n_grids;
    uint32_t random = order_seed + n_grids++; /* another order for each */
    fill_order(lane_order, 32, &random);
    fill_order(warp_order, n_warps, &random);
}

static void run_grid(const fake_cuda_kernel &k, cudaStream_t stream)
{
    kernel = &k;
    n_awaited = n_returned = 0;
    prepare_threads(k);
    /* Not malloc, which a test may let fail (fault_alloc.h): a GPU's shared memory is just there. */
    const std::align_val_t alignment{128};
    dynamic_shared = k.shared_bytes ? operator new(k.shared_bytes, alignment) : nullptr;
    if (fake_race_watch)
        fake_race_watch->begin_kernel(k.name, stream, dynamic_shared, k.shared_bytes);
    const unsigned blocks = k.grid.x * k.grid.y * k.grid.z;
    for (unsigned i = 0; i < blocks; i++) {
        const unsigned at = order_kind == FAKE_CUDA_FORWARD ? i : blocks - 1 - i;
        blockIdx = {at % k.grid.x, at / k.grid.x % k.grid.y, at / k.grid.x / k.grid.y};
        if (dynamic_shared)
            memset(dynamic_shared, 0xff, k.shared_bytes);
        run_block();
    }
    if (fake_race_watch)
        fake_race_watch->end_kernel();
    operator delete(dynamic_shared, alignment);
    if (n_awaited > 0 && n_awaited < n_returned)
        die("%ld of %ld threads do not await the previous kernel", n_returned - n_awaited, n_returned);
    kernel_note &note = kernels_run.try_emplace(k.function, kernel_note{k.name, 0, false}).first->second;
    note.runs++;
    note.awaits |= n_awaited > 0;
    kernel = nullptr;
}

static bool fits(const fake_cuda_kernel &k)
{
    table_guard guard(fake_table_lock);
    const auto raised = shared_limits.find(k.function);
    const size_t shared_limit = raised == shared_limits.end() ? 48 << 10 : raised->second;
    const uint64_t block = uint64_t(k.block.x) * k.block.y * k.block.z;
    return block >= 1 && k.block.x <= 1024 && k.block.y <= 1024 && k.block.z <= 64 &&
           block <= MAX_THREADS && k.grid.x >= 1 && k.grid.x <= 0x7fffffff && k.grid.y >= 1 &&
           k.grid.y <= 65535 && k.grid.z >= 1 && k.grid.z <= 65535 &&
           k.shared_bytes <= shared_limit;
}

/* Into the file that FAKE_CUDA_KERNELS names, if any, when the program ends. */
static void note_kernels()
{
    const char *path = getenv("FAKE_CUDA_KERNELS");
    FILE *out = path ? fopen(path, "w") : nullptr;
    if (!out)
        return;
    char program[4096] = "";
    if (readlink("/proc/self/exe", program, sizeof program - 1) > 0)
        fprintf(out, "%s\n", program);
    fake_cuda_print_kernels(out);
    fclose(out);
}

static bool run_kernel(const fake_cuda_kernel &k, cudaStream_t stream)
{
    std::lock_guard<std::mutex> guard(fake_kernel_lock);
    static const int noted = atexit(note_kernels);
    (void)noted;
    run_grid(k, stream);
    table_guard table(fake_table_lock);
    fake_counts.kernels_run++;
    return true;
}

/* As in CUDA a launch returns nothing: what is wrong with it is the last error. */
void fake_cuda_push_kernel(fake_cuda_kernel k, cudaStream_t stream)
{
    int code;
    if (fake_told_to_fail("kernel", &code)) {
        fake_break_capture(stream);
        fake_error(cudaError_t(code));
        return;
    }
    if (!fits(k)) {
        fake_misuse(cudaErrorInvalidConfiguration, k.name,
                    "grid %u x %u x %u, block %u x %u x %u, %zu bytes of shared memory", k.grid.x,
                    k.grid.y, k.grid.z, k.block.x, k.block.y, k.block.z, k.shared_bytes);
        return;
    }
    if (fake_stream_device(stream) != fake_current_device()) {
        fake_misuse(cudaErrorInvalidResourceHandle, k.name, "the stream is of another device");
        return;
    }
    const char *name = k.name;
    if (fake_push(stream, name, [k](work_run *run) { return run_kernel(k, run->stream); }) != cudaSuccess)
        return;
    table_guard guard(fake_table_lock);
    fake_counts.launches++;
}

cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attr, int value)
{
    FAKE_CALL("cudaFuncSetAttribute");
    if (attr != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaSuccess;
    if (value < 0 || value > fake_shared_memory())
        return fake_misuse(cudaErrorInvalidValue, "cudaFuncSetAttribute",
                           "%d bytes of shared memory", value);
    table_guard guard(fake_table_lock);
    shared_limits[function] = size_t(value);
    return cudaSuccess;
}

/* The first object is the program; where its symbols' 0 lies. */
static int find_program(struct dl_phdr_info *object, size_t, void *zero)
{
    *static_cast<uintptr_t *>(zero) = object->dlpi_addr;
    return 1;
}

void fake_cuda_print_kernels(FILE *out)
{
    std::lock_guard<std::mutex> guard(fake_kernel_lock);
    uintptr_t zero = 0;
    dl_iterate_phdr(find_program, &zero);
    for (const auto &k : kernels_run)
        fprintf(out, "%s %ld%s at %zx\n", k.second.name.c_str(), k.second.runs, k.second.awaits ? " awaits" : "",
                size_t(reinterpret_cast<uintptr_t>(k.first) - zero));
}
