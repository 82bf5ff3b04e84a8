/* sanitizers.h: what AddressSanitizer and ThreadSanitizer want to know: which bytes the host may not
 * touch, and on which stack a thread goes on. Nothing in builds without them. */
#ifndef FAKE_CUDA_SANITIZERS_H
#define FAKE_CUDA_SANITIZERS_H

#include <stddef.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define FAKE_CUDA_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define FAKE_CUDA_TSAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define FAKE_CUDA_ASAN 1
#endif
#ifdef __SANITIZE_THREAD__
#define FAKE_CUDA_TSAN 1
#endif

#ifdef FAKE_CUDA_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define sanitizer_poison(p, n) __asan_poison_memory_region(p, n)
#define sanitizer_unpoison(p, n) __asan_unpoison_memory_region(p, n)
#else
#define sanitizer_poison(p, n) ((void)(p), (void)(n))
#define sanitizer_unpoison(p, n) ((void)(p), (void)(n))
#endif

#ifdef FAKE_CUDA_TSAN
extern "C" {
void *__tsan_get_current_fiber(void);
void *__tsan_create_fiber(unsigned flags);
void __tsan_switch_to_fiber(void *fiber, unsigned flags);
}
#endif

struct sanitizer_stack {
    const void *bottom;
    size_t bytes;
    void *fake_stack;
    void *tsan_fiber;
};

static inline void sanitizer_new(sanitizer_stack *s, const void *bottom, size_t bytes)
{
    *s = {bottom, bytes, nullptr, nullptr};
#ifdef FAKE_CUDA_TSAN
    s->tsan_fiber = __tsan_create_fiber(0);
#endif
}

/* The stack that resumes fibres; its bounds are learnt at the first switch away from it. */
static inline void sanitizer_outside(sanitizer_stack *s)
{
    (void)s;
#ifdef FAKE_CUDA_TSAN
    s->tsan_fiber = __tsan_get_current_fiber();
#endif
}

/* Right before the switch. */
static inline void sanitizer_switch(sanitizer_stack *from, const sanitizer_stack *to)
{
    (void)from, (void)to;
#ifdef FAKE_CUDA_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->bottom, to->bytes);
#endif
#ifdef FAKE_CUDA_TSAN
    __tsan_switch_to_fiber(to->tsan_fiber, 0);
#endif
}

/* Right after it, on stack `now` (NULL: its first time); fills in `before` when given. */
static inline void sanitizer_switched(const sanitizer_stack *now, sanitizer_stack *before)
{
    (void)now, (void)before;
#ifdef FAKE_CUDA_ASAN
    __sanitizer_finish_switch_fiber(now ? now->fake_stack : nullptr,
                                    before ? &before->bottom : nullptr,
                                    before ? &before->bytes : nullptr);
#endif
}

#endif
