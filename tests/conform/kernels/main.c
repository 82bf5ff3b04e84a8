/* main.c: the conformance suite of the compute backends: every operation against the plain one, and
 * the promises of ops.h (results to the bit whatever the batch, the threads and the pages) for each
 * of them. "--backend NAME": that one alone.
 *
 * Compiled with SUITE_CUDA_ON_CPU it is the suite of the GPU backend alone, on the CPU
 * (tests/cuda_on_cpu); it then lists the kernels that ran. */
#include <stdio.h>
#include <string.h>

#include "host_ops.h"
#include "ops_cpu.h"
#include "suite.h"

#if SUITE_CUDA_ON_CPU
#include "fake_cuda.h"
#include "ops_cuda.h"
#endif

static const char *wanted; /* NULL: all */
static bool found;         /* a backend of that name */

static int run_backend(const fr_ops *ops, bool runnable)
{
    if (wanted && strcmp(wanted, ops->name) != 0)
        return 0;
    found = true;
    if (!runnable) {
        printf("skipped: backend %s: this machine cannot run it\n", ops->name);
        return 0;
    }
    printf("backend %s\n", ops->name);
    suite_device_ops = ops;
    suite_ops = suite_host_ops(ops);
    return suite_run_matmul() + suite_run_rows() + suite_run_attention() + suite_run_attention_long() +
           suite_run_pass() + suite_run_candidates() + suite_run_memory();
}

#if SUITE_CUDA_ON_CPU

static int run_all(void)
{
    int failed = run_backend(&fr_ops_cuda, true);
    printf("kernels that ran, and how often:\n");
    fake_cuda_print_kernels(stdout);
    return failed + !fake_cuda_all_freed();
}

#else

static int run_all(void)
{
    int failed = wanted ? 0 : suite_run_dtype() + suite_run_quantise() + suite_run_pool();
    for (const fr_ops *const *ops = fr_ops_all(); *ops; ops++)
        failed += run_backend(*ops, fr_ops_usable(*ops) == FR_OK);
#if FR_HAVE_X86
    failed += run_backend(&suite_avxvnni_evex, fr_ops_usable(&fr_ops_cpu_avx512) == FR_OK);
#endif
    return failed;
}

#endif

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--backend") == 0)
        wanted = argv[2];
    else if (argc != 1)
        return 2;
    const int failed = run_all();
    if (!found)
        fprintf(stderr, "no backend is called %s\n", wanted);
    return failed || !found ? 1 : 0;
}
