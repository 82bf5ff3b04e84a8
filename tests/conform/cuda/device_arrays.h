/* device_arrays.h: the GPU backend over the CUDA that runs on the CPU, and arrays in its memory that last until the
 * device is closed: one device at a time. What fails here fails the test. */
#ifndef DEVICE_ARRAYS_H
#define DEVICE_ARRAYS_H

#include "ops.h"

/* With a CUDA that has its defaults and counts from 0. */
fr_device *open_device(const fr_device_options *o);
/* Frees the arrays first; nothing of CUDA may be alive then. */
void close_device(fr_device **dev);

/* Not set. */
void *new_memory(fr_device *dev, size_t bytes);
/* values [n], copied. */
float *new_array(fr_device *dev, const float *values, int n);

#endif
