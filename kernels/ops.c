/* ops.c: which backends are built in, and which of them this machine can run. Fastest first. */
#include "ops.h"

#include <stdbool.h>
#include <string.h>
#if FR_HAVE_X86
#include <cpuid.h>
#endif

#include "ops_cpu.h"
#if FR_HAVE_CUDA
#include "cuda/ops_cuda.h"
#endif

static const fr_ops *const all[] = {
#if FR_HAVE_CUDA
    &fr_ops_cuda,
#endif
#if FR_HAVE_X86
    &fr_ops_cpu_avx512,
    &fr_ops_cpu_avxvnni, /* half a vector an instruction, but one where the next needs three */
    &fr_ops_cpu_avx512bw,
    &fr_ops_cpu_avx2,
#endif
    &fr_ops_cpu_ref,
    NULL,
};

const fr_ops *const *fr_ops_all(void)
{
    return all;
}

static bool has_instructions(const fr_ops *ops)
{
#if FR_HAVE_X86
    /* F16C and AVX-VNNI have no name in clang 14's __builtin_cpu_supports. Where the system keeps
     * AVX2's registers, theirs are kept. */
    unsigned a = 0, b = 0, c = 0, d = 0;
    bool f16c = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
    bool avxvnni = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_AVXVNNI);
    bool avx2 = f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512bw = avx2 && __builtin_cpu_supports("avx512f") &&
                    __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    if (ops == &fr_ops_cpu_avx2)
        return avx2;
    if (ops == &fr_ops_cpu_avxvnni)
        return avx2 && avxvnni;
    if (ops == &fr_ops_cpu_avx512bw)
        return avx512bw;
    if (ops == &fr_ops_cpu_avx512)
        return avx512bw && __builtin_cpu_supports("avx512vnni");
#endif
    return ops == &fr_ops_cpu_ref;
}

fr_status fr_ops_usable(const fr_ops *ops)
{
#if FR_HAVE_CUDA
    if (ops == &fr_ops_cuda)
        return fr_cuda_usable();
#endif
    return has_instructions(ops) ? FR_OK : fr_fail(FR_EUNSUPPORTED, "this machine cannot run backend %s: it has no "
                                                   "processor with the instructions", ops->name);
}

static fr_status no_such_backend(const char *name)
{
    if (strcmp(name, "cuda") == 0) /* not in all[] */
        return fr_fail(FR_EUNSUPPORTED,
                       "this program was built without backend cuda; CMake's -DFORERUN_CUDA=ON has it");
    char names[128] = "";
    for (int i = 0; all[i]; i++) {
        strcat(names, i ? ", " : "");
        strcat(names, all[i]->name);
    }
    return fr_fail(FR_ENOTFOUND, "no backend is called \"%.64s\"; there are %s", name, names);
}

fr_status fr_ops_choose(const char *name, const fr_ops **out)
{
    for (const fr_ops *const *ops = all; *ops; ops++) {
        if (name && strcmp((*ops)->name, name) != 0)
            continue;
        fr_status st = fr_ops_usable(*ops);
        if (st == FR_OK)
            *out = *ops;
        if (st == FR_OK || name)
            return st;
    }
    return no_such_backend(name);
}
