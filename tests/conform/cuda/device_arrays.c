/* device_arrays.c: see device_arrays.h. */
#include "device_arrays.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fake_cuda.h"
#include "ops_cuda.h"

enum { ARRAYS = 16 };

static const fr_ops *const ops = &fr_ops_cuda;
static void *arrays[ARRAYS];
static int n_arrays;

fr_device *open_device(const fr_device_options *o)
{
    fr_device *dev = NULL;
    fake_cuda_reset();
    assert_int_equal(ops->open(o, &dev), FR_OK);
    return dev;
}

void close_device(fr_device **dev)
{
    while (n_arrays > 0)
        ops->mem_free(*dev, arrays[--n_arrays]);
    ops->close(dev);
    assert_true(fake_cuda_all_freed());
}

void *new_memory(fr_device *dev, size_t bytes)
{
    void *mem = NULL;
    assert_in_range(n_arrays, 0, ARRAYS - 1);
    assert_int_equal(ops->mem_alloc(dev, bytes, &mem), FR_OK);
    arrays[n_arrays++] = mem;
    return mem;
}

float *new_array(fr_device *dev, const float *values, int n)
{
    const size_t bytes = (size_t)n * sizeof *values;
    float *array = new_memory(dev, bytes);
    assert_int_equal(ops->upload(dev, array, values, bytes), FR_OK);
    return array;
}
