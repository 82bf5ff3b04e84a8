/* cpu_avx512bw.c: the fast backend for AVX-512 (F, BW, VL) without VNNI: Skylake's servers. See
 * fast_backend.h. */
#define BACKEND_OPS fr_ops_cpu_avx512bw
#define BACKEND_NAME "cpu_avx512bw"

#include "lanes_avx512.h"

#include "dot_madd.h"

#include "fast_backend.h"
