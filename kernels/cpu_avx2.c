/* cpu_avx2.c: the fast backend for AVX2, FMA and F16C. See fast_backend.h. */
#define BACKEND_OPS fr_ops_cpu_avx2
#define BACKEND_NAME "cpu_avx2"

#include "lanes_avx2.h"

#include "dot_madd.h"

#include "fast_backend.h"
