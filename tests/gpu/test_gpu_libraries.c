/* test_gpu_libraries.c: cuBLASLt and NCCL as this machine has them, without a GPU: every function that Forerun calls is
 * there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cublas_lt_late.h"
#if FR_HAVE_NCCL
#include "comm_nccl_late.h"
#endif

static void cublas_lt_opens(void **state)
{
    (void)state;
    if (fr_cublas_lt_open() != FR_OK)
        fail_msg("%s", fr_cause());
    assert_int_equal(fr_cublas_lt_open(), FR_OK);
}

#if FR_HAVE_NCCL
static void nccl_opens(void **state)
{
    (void)state;
    if (fr_nccl_open() != FR_OK)
        fail_msg("%s", fr_cause());
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cublas_lt_opens),
#if FR_HAVE_NCCL
        cmocka_unit_test(nccl_opens),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
