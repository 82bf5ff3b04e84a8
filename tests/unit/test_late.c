/* test_late.c: libraries that are opened when first needed: one that is there, one that is not, one of another
 * version. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "late.h"

static double (*cosine)(double);

static void what_is_there_can_be_called(void **state)
{
    const fr_late_symbol symbols[] = {{"cos", &cosine}};
    (void)state;
    assert_int_equal(fr_late_open("libm.so.6", symbols, 1), FR_OK);
    assert_true(cosine(0) == 1);
}

static void what_is_missing_is_named(void **state)
{
    const fr_late_symbol symbols[] = {{"fr_no_such_function", &cosine}};
    (void)state;
    assert_int_equal(fr_late_open("libfr-no-such.so.1", symbols, 1), FR_EUNAVAILABLE);
    assert_non_null(strstr(fr_cause(), "libfr-no-such.so.1"));
    assert_int_equal(fr_late_open("libm.so.6", symbols, 1), FR_EUNAVAILABLE);
    assert_non_null(strstr(fr_cause(), "libm.so.6 has no fr_no_such_function"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_there_can_be_called),
        cmocka_unit_test(what_is_missing_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
