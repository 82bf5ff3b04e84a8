/* fibre.cpp: see fibre.h. */
#include "fibre.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "sanitizers.h"

#define GUARD_BYTES 4096
#define STACK_BYTES (FIBRE_BYTES - GUARD_BYTES)
/* Stacks begin at different places of a page: at the same one, all would share a few lines of cache. */
#define COLOUR_BYTES 192
#define COLOURS 64

#ifdef __x86_64__

typedef void *machine_context; /* the stack pointer; everything else lies on the stack */

/* Saves what a call must preserve, swaps stacks, and returns on the other one. */
extern "C" void fake_cuda_switch_stacks(machine_context *save, machine_context load);
asm(R"(
    .text
    .hidden fake_cuda_switch_stacks
    .globl fake_cuda_switch_stacks
    .type fake_cuda_switch_stacks, @function
fake_cuda_switch_stacks:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size fake_cuda_switch_stacks, . - fake_cuda_switch_stacks
)");

static void machine_switch(machine_context *save, machine_context *load)
{
    fake_cuda_switch_stacks(save, *load);
}

static void machine_new(machine_context *context, char *stack, size_t bytes, void (*entry)())
{
    uintptr_t *top = reinterpret_cast<uintptr_t *>(stack + bytes);
    top[-1] = 0; /* where entry would return to; keeps its stack aligned as a call does */
    top[-2] = reinterpret_cast<uintptr_t>(entry);
    for (int i = 3; i <= 8; i++)
        top[-i] = 0; /* the six registers */
    *context = top - 8;
}

#else

typedef ucontext_t machine_context;

static void machine_switch(machine_context *save, machine_context *load)
{
    swapcontext(save, load);
}

static void machine_new(machine_context *context, char *stack, size_t bytes, void (*entry)())
{
    getcontext(context);
    context->uc_stack.ss_sp = stack;
    context->uc_stack.ss_size = bytes;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
}

#endif

struct fibre {
    machine_context context;
    char *stack;
    void (*body)();
    sanitizer_stack sanitizer;
};

/* The kernel lock (runtime.h) guards these: one thread resumes fibres at a time. */
static machine_context outside;
static sanitizer_stack outside_sanitizer;
static fibre *current;

static void fibre_main()
{
    sanitizer_switched(nullptr, &outside_sanitizer);
    current->body();
    abort();
}

uintptr_t fibre_stacks;

static void reserve_stacks()
{
    void *memory = mmap(nullptr, fibre_stacks_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK,
                        -1, 0);
    if (memory == MAP_FAILED) {
        perror("cuda_on_cpu: stacks of fibres");
        abort();
    }
    fibre_stacks = reinterpret_cast<uintptr_t>(memory);
}

fibre *fibre_new(void (*body)())
{
    static unsigned n_fibres;
    if (n_fibres == 0)
        reserve_stacks();
    char *memory = reinterpret_cast<char *>(fibre_stacks) + size_t(n_fibres) * FIBRE_BYTES;
    if (n_fibres == FIBRES_MAX || mprotect(memory + GUARD_BYTES, STACK_BYTES, PROT_READ | PROT_WRITE) != 0) {
        perror("cuda_on_cpu: stack of a fibre");
        abort();
    }
    const size_t bytes = STACK_BYTES - n_fibres++ % COLOURS * COLOUR_BYTES;
    fibre *f = new fibre();
    f->stack = memory + GUARD_BYTES;
    f->body = body;
    sanitizer_new(&f->sanitizer, f->stack, bytes);
    machine_new(&f->context, f->stack, bytes, fibre_main);
    return f;
}

void fibre_resume(fibre *f)
{
    current = f;
    sanitizer_outside(&outside_sanitizer);
    sanitizer_switch(&outside_sanitizer, &f->sanitizer);
    machine_switch(&outside, &f->context);
    sanitizer_switched(&outside_sanitizer, nullptr);
    current = nullptr;
}

void fibre_suspend()
{
    fibre *f = current;
    sanitizer_switch(&f->sanitizer, &outside_sanitizer);
    machine_switch(&f->context, &outside);
    sanitizer_switched(&f->sanitizer, &outside_sanitizer);
}

fibre *fibre_current()
{
    return current;
}
