/* pipeline.cpp: see cuda_pipeline.h. */
#include "cuda_pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "races.h"
#include "runtime.h"

struct async_copy {
    void *to;
    const void *from;
    size_t bytes, zero_bytes, batch;
};

/* A thread's copies on their way, oldest first; of an earlier block when the number differs. */
struct thread_copies {
    uint64_t block;
    size_t n_batches; /* committed */
    std::vector<async_copy> copies;
};

static thread_copies &mine()
{
    static thread_copies *const all = new thread_copies[1024]();
    thread_copies &t = all[fake_thread()];
    if (t.block != fake_block_number) {
        t.block = fake_block_number;
        t.n_batches = 0;
        t.copies.clear();
    }
    return t;
}

void __pipeline_memcpy_async(void *shared, const void *global, size_t bytes, size_t zero_bytes)
{
    const uintptr_t both =
        reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global);
    if ((bytes != 4 && bytes != 8 && bytes != 16) || both % bytes != 0 || zero_bytes > bytes) {
        fprintf(stderr, "cuda_on_cpu: __pipeline_memcpy_async of %zu bytes from %p to %p\n", bytes,
                global, shared);
        abort();
    }
    thread_copies &t = mine();
    t.copies.push_back({shared, global, bytes, zero_bytes, t.n_batches});
    if (fake_race_watch)
        fake_race_watch->begin_copy(shared, bytes, global, bytes - zero_bytes, __builtin_return_address(0));
    memset(shared, 0xff, bytes);
}

void __pipeline_commit()
{
    mine().n_batches++;
}

void __pipeline_wait_prior(size_t n)
{
    thread_copies &t = mine();
    size_t done = 0;
    for (const async_copy &c : t.copies) {
        if (c.batch + n >= t.n_batches)
            break;
        memcpy(c.to, c.from, c.bytes - c.zero_bytes);
        memset(static_cast<char *>(c.to) + c.bytes - c.zero_bytes, 0, c.zero_bytes);
        if (fake_race_watch)
            fake_race_watch->end_copy(c.to, c.bytes, __builtin_return_address(0));
        done++;
    }
    t.copies.erase(t.copies.begin(), t.copies.begin() + long(done));
}
