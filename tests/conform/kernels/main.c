/* main.c: the conformance suite of the compute backends: every operation against the plain one, and
 * the promises of ops.h (results to the bit whatever the batch, the threads and the pages) for each
 * of them. */
#include <stdio.h>

#include "suite.h"

int main(void)
{
    int failed = suite_run_dtype() + suite_run_pool();
    for (const fr_ops *const *ops = fr_ops_all(); *ops; ops++) {
        if (!fr_ops_runnable(*ops)) {
            printf("skipped: backend %s: this processor lacks its instructions\n", (*ops)->name);
            continue;
        }
        printf("backend %s\n", (*ops)->name);
        suite_ops = *ops;
        failed += suite_run_matmul() + suite_run_rows() + suite_run_attention() +
                  suite_run_candidates() + suite_run_memory();
    }
    return failed ? 1 : 0;
}
