/* main.c: the conformance suite of the compute backends: every operation against the plain one, and
 * the promises of ops.h (results to the bit whatever the batch, the threads and the pages) for each
 * of them. */
#include <stdio.h>

#include "ops_cpu.h"
#include "suite.h"

static int run_backend(const fr_ops *ops, bool runnable)
{
    if (!runnable) {
        printf("skipped: backend %s: this processor lacks its instructions\n", ops->name);
        return 0;
    }
    printf("backend %s\n", ops->name);
    suite_ops = ops;
    return suite_run_matmul() + suite_run_rows() + suite_run_attention() + suite_run_candidates() +
           suite_run_memory();
}

int main(void)
{
    int failed = suite_run_dtype() + suite_run_quantise() + suite_run_pool();
    for (const fr_ops *const *ops = fr_ops_all(); *ops; ops++)
        failed += run_backend(*ops, fr_ops_runnable(*ops));
#if FR_HAVE_X86
    failed += run_backend(&suite_avxvnni_evex, fr_ops_runnable(&fr_ops_cpu_avx512));
#endif
    return failed ? 1 : 0;
}
