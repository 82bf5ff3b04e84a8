/* races.cpp: see races.h. What the compiler calls before each access (-fsanitize=thread), and the rules.
 *
 * Time is counted in intervals: a block's threads between two barriers, each with a number that no other
 * has in any launch. So a record of an access tells by its interval whether it was in this interval, block
 * or launch, or in which one before, and nothing is ever cleared. Within an interval the lanes of a warp
 * have vector clocks, which a __syncwarp joins. */
#include "races.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "fibre.h"
#include "runtime.h"

extern "C" const char __executable_start, _end; /* the linker's: the program and its variables */

/* Records */

struct record {
    uint32_t interval; /* 0: none */
    uint32_t bits;     /* thread, what kind, and the lane's clock */
    uint32_t code;     /* bytes from the program's start */
};
enum : uint32_t {
    THREAD = 1023,
    ATOMIC = 1u << 14,
    PENDING = 1u << 15, /* an asynchronous copy that is not awaited */
    CLOCK_SHIFT = 16,
};

/* Reads, or atomic accesses, which do not race with each other, so that many threads' may be in no order: of them one
 * that a later access races with, if it does with any. */
struct crowd {
    record last, of_warp, of_another; /* the one before it of the same warp; one of another */
};

/* Of a word, or of a byte. */
struct alignas(64) cell {
    record write; /* the last that is not atomic: what is in order with it is so with those before it */
    crowd reads;
    record earlier; /* the last read or atomic access before this block: blocks that do both race */
    uint32_t has_atomics : 1; /* in `atomics` */
    uint32_t bytes : 31; /* of a word, a part of which was touched without the rest: its place in `parts`; or 0 */
};
static std::unordered_map<const cell *, crowd> &atomics = *new std::unordered_map<const cell *, crowd>;

/* Cells by address: a table of regions, each made when it is first touched. */
static const int region_bits = 20, address_bits = 47;
static cell **regions;

static void *reserve(size_t bytes)
{
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("cuda_on_cpu: memory to watch races with");
        abort();
    }
    return memory;
}

static inline cell *cell_of(uintptr_t at)
{
    cell **region = &regions[at >> region_bits];
    if (!*region)
        *region = static_cast<cell *>(reserve((size_t(1) << region_bits) / 4 * sizeof(cell)));
    return *region + at % (size_t(1) << region_bits) / 4;
}

/* Of bytes, four a word. What is not used of them takes no memory. */
static cell *parts;
static const size_t most_parts = size_t(1) << 26;

static void split(cell *word)
{
    static uint32_t n = 4; /* none is at 0 */
    if (n == most_parts) {
        fprintf(stderr, "cuda_on_cpu: too many words whose bytes are used one by one\n");
        abort();
    }
    for (cell *byte = parts + n; byte < parts + n + 4; byte++) {
        *byte = *word;
        if (word->has_atomics)
            atomics[byte] = atomics[word];
    }
    word->bytes = n;
    n += 4;
}

/* The running launch, block and thread */

static thread_local bool in_kernel; /* this thread of the operating system runs one */
static uint32_t interval, block_first, launch_first;
static uint32_t first_unfinished; /* interval from which on kernels before this one may still run */
static uint32_t horizon;          /* nothing before it matters to the running thread */
static int thread;
static uint32_t thread_bits; /* of its next record: the thread and its clock */
static const char *kernel_name;
static cudaStream_t kernel_stream;
static uintptr_t shared, shared_bytes;
struct started_block {
    uint32_t first;
    uint3 index;
};
/* Of this launch, in order. */
static std::vector<started_block> &blocks = *new std::vector<started_block>;

/* Of each warp in this interval: a lane's clock, and what each lane knows of the others'. */
static struct warp_clocks {
    bool used;
    uint16_t own[32], known[32][32];
} clocks[32];

/* Kernels of a stream that may still run as far as the next one knows. */
struct launch {
    uint32_t first, last; /* intervals */
    const char *name;
};
static std::mutex launches_lock; /* after the kernel lock */
static std::map<cudaStream_t, std::vector<launch>> &launches =
    *new std::map<cudaStream_t, std::vector<launch>>;

static void next_interval()
{
    if (++interval == 0) {
        fprintf(stderr, "cuda_on_cpu: too many barriers to tell them apart\n");
        abort();
    }
    for (warp_clocks &w : clocks) {
        if (w.used)
            memset(&w, 0, sizeof w);
    }
}

static bool find_unfinished(uint32_t at, launch *found)
{
    std::lock_guard<std::mutex> guard(launches_lock);
    const auto of_stream = launches.find(kernel_stream);
    if (of_stream == launches.end())
        return false;
    for (const launch &l : of_stream->second) {
        if (at >= l.first && at <= l.last) {
            *found = l;
            return true;
        }
    }
    return false;
}

/* The message */

static bool is_shared(uintptr_t at)
{
    return at - shared < shared_bytes ||
           (at >= uintptr_t(&__executable_start) && at < uintptr_t(&_end));
}

static void print_place(uintptr_t at)
{
    uintptr_t start;
    size_t bytes;
    if (at - shared < shared_bytes)
        fprintf(stderr, "byte %zu of dynamic shared memory", size_t(at - shared));
    else if (is_shared(at))
        fprintf(stderr, "static shared memory, 0x%zx in the program",
                size_t(at - uintptr_t(&__executable_start)));
    else if (fake_allocation_of(at, &start, &bytes))
        fprintf(stderr, "byte %zu of %zu of an allocation of global memory", size_t(at - start),
                bytes);
}

/* Behind an "a". */
static const char *kind_of(const record &a, bool writes)
{
    if (a.bits & PENDING)
        return "n asynchronous copy into it";
    return a.bits & ATOMIC ? "n atomic access" : writes ? " write" : " read";
}

static void print_thread(const record &a)
{
    const uint32_t t = a.bits & THREAD;
    fprintf(stderr, "by thread %u (warp %u, lane %u)", t, t / 32, t % 32);
}

[[noreturn]] static void die_of_race(uintptr_t at, const record &now, bool writes,
                                     const record &before, bool wrote)
{
    fprintf(stderr, "cuda_on_cpu: a race in kernel %s, block (%u, %u, %u): ", kernel_name,
            blockIdx.x, blockIdx.y, blockIdx.z);
    print_place(at);
    fprintf(stderr, "\n  a%s ", kind_of(now, writes));
    print_thread(now);
    fprintf(stderr, ", code 0x%x\n  after a%s ", now.code, kind_of(before, wrote));
    launch other;
    if (before.interval >= block_first) {
        print_thread(before);
        fprintf(stderr, before.bits & PENDING ? " that is not awaited"
                                              : " with no barrier of the two between");
    } else if (before.interval >= launch_first) {
        const auto next =
            std::upper_bound(blocks.begin(), blocks.end(), before.interval,
                             [](uint32_t i, const started_block &b) { return i < b.first; });
        const uint3 index = next[-1].index;
        fprintf(stderr, "in another block (%u, %u, %u) ", index.x, index.y, index.z);
        print_thread(before);
    } else if (find_unfinished(before.interval, &other)) {
        fprintf(stderr, "by kernel %s, which may still run: this thread did not await it",
                other.name);
    }
    fprintf(stderr, ", code 0x%x\n", before.code);
    char program[4096] = "";
    if (readlink("/proc/self/exe", program, sizeof program - 1) > 0)
        fprintf(stderr, "  addr2line -Cfipe %s 0x%x 0x%x\n", program, now.code, before.code);
    abort();
}

/* The rules */

/* Do the running thread's access (its bits) and an earlier one of the place race, if the memory is such that both touch
 * it? */
static inline bool may_race(const record &before, uint32_t bits)
{
    if (before.interval < horizon || (before.bits & bits & ATOMIC))
        return false;
    if (before.interval >= block_first) {
        if (before.bits & PENDING)
            return true;
        const uint32_t other = before.bits & THREAD, mine = bits & THREAD;
        if (before.interval < interval || other == mine)
            return false;
        return other / 32 != mine / 32 ||
               clocks[mine / 32].known[mine % 32][other % 32] < (before.bits >> CLOCK_SHIFT) + 1;
    }
    launch other;
    return before.interval >= launch_first || find_unfinished(before.interval, &other);
}

static void judge(uintptr_t at, const record &now, bool writes, const record &before, bool wrote)
{
    /* A block's shared memory is not the last block's. What is neither shared nor the device's is the
     * emulator's own. */
    if (is_shared(at) ? before.interval >= block_first
                      : fake_owner(reinterpret_cast<void *>(at), 1) >= 0)
        die_of_race(at, now, writes, before, wrote);
}

static inline void judge_all(uintptr_t at, const record &now, bool writes, const crowd &before, bool wrote)
{
    if (before.last.interval < horizon)
        return;
    for (const record *one : {&before.last, &before.of_warp, &before.of_another})
        if (may_race(*one, now.bits))
            judge(at, now, writes, *one, wrote);
}

static inline void remember(crowd *c, record *earlier, const record &now)
{
    record *last = &c->last;
    if (last->interval == interval) {
        const uint32_t both = last->bits ^ now.bits;
        if (both & THREAD)
            (both & THREAD & ~31u ? c->of_another : c->of_warp) = *last;
    } else if (last->interval < block_first && last->interval > earlier->interval) {
        *earlier = *last;
    }
    *last = now;
}

static inline void touch_cell(uintptr_t at, cell *c, bool writes, uint32_t kind, uint32_t code)
{
    const record now = {interval, thread_bits | kind, code};
    if (may_race(c->write, now.bits))
        judge(at, now, writes, c->write, true);
    if ((writes || c->earlier.bits & ATOMIC) && may_race(c->earlier, now.bits))
        judge(at, now, writes, c->earlier, c->earlier.bits & ATOMIC);
    if (writes)
        judge_all(at, now, writes, c->reads, false);
    if (c->has_atomics && !(kind & ATOMIC))
        judge_all(at, now, writes, atomics[c], true);
    if (kind & ATOMIC) {
        c->has_atomics = 1;
        remember(&atomics[c], &c->earlier, now);
    } else if (writes) {
        c->write = now;
    } else {
        remember(&c->reads, &c->earlier, now);
    }
}

/* Calls touch with each place of a range and its cell. */
template <typename Touch> static inline void each_cell(uintptr_t at, size_t bytes, Touch touch)
{
    const uintptr_t end = at + bytes;
    while (at < end) {
        cell *word = cell_of(at);
        if (!word->bytes && at % 4 == 0 && end - at >= 4) {
            touch(at, word);
            at += 4;
            continue;
        }
        if (!word->bytes)
            split(word);
        touch(at, &parts[word->bytes + at % 4]);
        at++;
    }
}

static inline bool is_watched(uintptr_t at)
{
    return in_kernel && !fibre_on_stack(at);
}

static inline uint32_t code_at(const void *code)
{
    /* In the call, not behind it. */
    return uint32_t(uintptr_t(code) - uintptr_t(&__executable_start) - 1);
}

static inline void touch(const void *p, size_t bytes, bool writes, uint32_t kind, const void *code)
{
    const uintptr_t at = reinterpret_cast<uintptr_t>(p);
    if (is_watched(at))
        each_cell(at, bytes,
                  [=](uintptr_t place, cell *c) { touch_cell(place, c, writes, kind, code_at(code)); });
}

/* What the emulator tells */

static void set_thread_bits()
{
    thread_bits = uint32_t(thread) | uint32_t(clocks[thread / 32].own[thread % 32]) << CLOCK_SHIFT;
}

static void become(int t, bool awaited)
{
    thread = t;
    horizon = awaited ? launch_first : std::min(first_unfinished, launch_first);
    set_thread_bits();
}

static void begin_kernel(const char *name, cudaStream_t stream, const void *memory, size_t bytes)
{
    kernel_name = name;
    kernel_stream = stream;
    shared = reinterpret_cast<uintptr_t>(memory);
    shared_bytes = bytes;
    launch_first = interval + 1;
    blocks.clear();
    std::lock_guard<std::mutex> guard(launches_lock);
    const auto before = launches.find(stream);
    first_unfinished = before == launches.end() ? launch_first : before->second.front().first;
    in_kernel = true;
}

static void end_kernel()
{
    in_kernel = false;
    std::lock_guard<std::mutex> guard(launches_lock);
    launches[kernel_stream].push_back({launch_first, interval, kernel_name});
}

static void begin_block()
{
    next_interval();
    block_first = interval;
    blocks.push_back({interval, blockIdx});
}

static void warp_barrier(int warp, unsigned mask)
{
    warp_clocks &w = clocks[warp];
    w.used = true;
    uint16_t joined[32] = {};
    for (int lane = 0; lane < 32; lane++) {
        if (!(mask >> lane & 1))
            continue;
        for (int i = 0; i < 32; i++)
            joined[i] = std::max(joined[i], w.known[lane][i]);
        if (++w.own[lane] == 0) {
            fprintf(stderr, "cuda_on_cpu: kernel %s: too many __syncwarp between barriers\n",
                    kernel_name);
            abort();
        }
    }
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1)
            joined[lane] = w.own[lane];
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1)
            memcpy(w.known[lane], joined, sizeof joined);
    set_thread_bits();
}

static void begin_copy(const void *to, size_t to_bytes, const void *from, size_t from_bytes,
                       const void *code)
{
    touch(from, from_bytes, false, 0, code);
    touch(to, to_bytes, true, PENDING, code);
}

/* What raced with it since its start was told. */
static void end_copy(const void *to, size_t bytes, const void *code)
{
    each_cell(reinterpret_cast<uintptr_t>(to), bytes,
              [=](uintptr_t, cell *c) { c->write = {interval, thread_bits, code_at(code)}; });
}

static void over(cudaStream_t stream, uint32_t mark)
{
    std::lock_guard<std::mutex> guard(launches_lock);
    const auto of_stream = launches.find(stream);
    if (of_stream == launches.end())
        return;
    std::vector<launch> &all = of_stream->second;
    all.erase(
        std::remove_if(all.begin(), all.end(), [mark](const launch &l) { return l.last <= mark; }),
        all.end());
    if (all.empty())
        launches.erase(of_stream);
}

static uint32_t mark()
{
    std::lock_guard<std::mutex> kernel(fake_kernel_lock);
    return interval;
}

static void library_kernel(const char *name, cudaStream_t stream)
{
    over(stream, interval);
    next_interval();
    std::lock_guard<std::mutex> guard(launches_lock);
    launches[stream].push_back({interval, interval, name});
}

static void library_touch(const void *memory, size_t bytes, bool writes)
{
    each_cell(reinterpret_cast<uintptr_t>(memory), bytes,
              [=](uintptr_t, cell *c) { (writes ? c->write : c->reads.last) = {interval, 0, 0}; });
}

static const fake_race_watcher watcher = {
    begin_kernel, end_kernel, begin_block,    next_interval, warp_barrier, become,
    begin_copy,   end_copy,   library_kernel, library_touch, mark,         over,
};

__attribute__((constructor)) static void watch()
{
    regions = static_cast<cell **>(
        reserve((size_t(1) << (address_bits - region_bits)) * sizeof *regions));
    parts = static_cast<cell *>(reserve(most_parts * sizeof *parts));
    fake_race_watch = &watcher;
}

/* What the compiler calls */

extern "C" {

#define ACCESSES(bytes)                                          \
    void __tsan_read##bytes(void *at)                            \
    {                                                            \
        touch(at, bytes, false, 0, __builtin_return_address(0)); \
    }                                                            \
    void __tsan_write##bytes(void *at)                           \
    {                                                            \
        touch(at, bytes, true, 0, __builtin_return_address(0));  \
    }                                                            \
    void __tsan_unaligned_read##bytes(void *at)                  \
    {                                                            \
        touch(at, bytes, false, 0, __builtin_return_address(0)); \
    }                                                            \
    void __tsan_unaligned_write##bytes(void *at)                 \
    {                                                            \
        touch(at, bytes, true, 0, __builtin_return_address(0));  \
    }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

void __tsan_read_range(void *at, size_t bytes)
{
    touch(at, bytes, false, 0, __builtin_return_address(0));
}

void __tsan_write_range(void *at, size_t bytes)
{
    touch(at, bytes, true, 0, __builtin_return_address(0));
}

/* Clang's, of what it would leave to the library. */
void *__tsan_memcpy(void *to, const void *from, size_t bytes)
{
    touch(from, bytes, false, 0, __builtin_return_address(0));
    touch(to, bytes, true, 0, __builtin_return_address(0));
    return memcpy(to, from, bytes);
}

void *__tsan_memset(void *to, int value, size_t bytes)
{
    touch(to, bytes, true, 0, __builtin_return_address(0));
    return memset(to, value, bytes);
}

/* atomicAdd (device_functions.h). */
int __tsan_atomic32_fetch_add(volatile int *at, int value, int)
{
    touch(const_cast<int *>(at), sizeof *at, true, ATOMIC, __builtin_return_address(0));
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

void __tsan_init(void)
{
}

void __tsan_func_entry(void *)
{
}

void __tsan_func_exit(void)
{
}
}
