/* test_memory.c: every allocation of a backend fails once; each time the call says FR_ENOMEM,
 * leaves nothing behind, and works when asked again. */
#include <stdlib.h>
#include <sys/mman.h>

#include "fault_alloc.h"
#include "suite.h"

/* Runs `fn` with its nth allocation failing, for n = 0, 1, ... until it needs fewer. */
static void walk_failures(fr_status (*fn)(fr_device *dev), int at_least)
{
    for (long n = 0;; n++) {
        assert_true(n < 100);
        fr_device *dev = fn ? suite_open(suite_ops, 2) : NULL;
        fr_device *opened = NULL;
        fr_fault_alloc_arm(n);
        fr_status st = fn ? fn(dev) : suite_ops->open(&(fr_device_options){.threads = 2}, &opened);
        bool failed = fr_fault_alloc_disarm();
        if (failed && fn)
            assert_int_equal(fn(dev), FR_OK); /* a failure leaves the device as it was */
        suite_ops->close(&opened);
        suite_ops->close(&dev);
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        if (!failed) {
            assert_true(n >= at_least);
            return;
        }
    }
}

static fr_status allocate(fr_device *dev)
{
    void *mem = NULL;
    fr_status st = suite_ops->mem_alloc(dev, 100, &mem);
    suite_ops->mem_free(dev, mem);
    return st;
}

static fr_status make_weight(fr_device *dev)
{
    static const uint8_t data[3 * 144];
    fr_weight *w = NULL;
    fr_status st = suite_ops->weight_new(dev, &(fr_matrix){FR_Q4_K, data, 3, 256, 144}, &w);
    suite_ops->weight_free(dev, &w);
    return st;
}

static fr_status run_the_rest(fr_device *dev)
{
    float x[16] = {0}, logits[40] = {0};
    const float inv_freq[4] = {1, 0.1f, 0.01f, 0.001f};
    uint16_t cache[FR_PAGE * 8] = {0};
    const int32_t zeros[2] = {0};
    fr_row_answer answer;
    fr_status st =
        suite_ops->rope(dev, x, &(fr_rope){FR_ROPE_NEOX, 8, inv_freq, 1}, zeros, 1, 2, 8);
    if (st == FR_OK)
        st = suite_ops->attention(dev, x, x, &(fr_kv){cache, cache, 1, 8},
                                  &(fr_attn_view){zeros, NULL, 1, 0}, zeros, 1, 2, 1);
    if (st == FR_OK)
        st = suite_ops->candidates(dev, logits, 1, 40, 0, NULL, &(fr_row_query){0}, &answer, sizeof answer);
    return st;
}

static void test_open(void **state)
{
    (void)state;
    walk_failures(NULL, suite_ops->host_memory ? 3 : 2); /* a GPU's driver allocates in its own way */
}

static void test_mem_alloc(void **state)
{
    (void)state;
    walk_failures(allocate, 1);
    fr_device *dev = suite_open(suite_ops, 1);
    void *mem = NULL;
    assert_int_equal(suite_ops->mem_alloc(dev, SIZE_MAX - 7, &mem), FR_ENOMEM);
    assert_null(mem);
    suite_ops->close(&dev);
}

/* Memory that nobody has written takes no pages: a KV cache is made for the longest context. */
static void test_mem_alloc_is_lazy(void **state)
{
    (void)state;
    if (!suite_ops->host_memory)
        skip();
#ifdef __SANITIZE_THREAD__
    skip(); /* the thread sanitizer's calloc writes the zeros itself */
#endif
    enum { PAGE = 4096, PAGES = 16384 };
    static unsigned char resident[PAGES];
    fr_device *dev = suite_open(suite_ops, 1);
    void *mem = NULL;
    assert_int_equal(suite_ops->mem_alloc(dev, (size_t)PAGE * PAGES, &mem), FR_OK);
    assert_int_equal((uintptr_t)mem % 64, 0);
    char *whole = (char *)mem + (PAGE - (uintptr_t)mem % PAGE) % PAGE;
    int used = 0;
    assert_int_equal(mincore(whole, (size_t)PAGE * (PAGES - 1), resident), 0);
    for (int i = 0; i < PAGES - 1; i++)
        used += resident[i] & 1;
    assert_int_equal(used, 0);
    assert_int_equal(whole[(size_t)PAGE * (PAGES - 2)], 0);
    suite_ops->mem_free(dev, mem);
    suite_ops->mem_free(dev, NULL);
    suite_ops->close(&dev);
}

static void test_weight_new(void **state)
{
    (void)state;
    walk_failures(make_weight, 2);
}

static void test_the_rest(void **state)
{
    (void)state;
    walk_failures(run_the_rest, 0);
}

int suite_run_memory(void)
{
    const struct CMUnitTest memory_tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_mem_alloc),
        cmocka_unit_test(test_mem_alloc_is_lazy),
        cmocka_unit_test(test_weight_new),
        cmocka_unit_test(test_the_rest),
    };
    return cmocka_run_group_tests(memory_tests, NULL, NULL);
}
