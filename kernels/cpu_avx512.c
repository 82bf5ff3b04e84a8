/* cpu_avx512.c: the fast backend for AVX-512 (F, BW, VL) with VNNI. See fast_backend.h. */
#define BACKEND_OPS fr_ops_cpu_avx512
#define BACKEND_NAME "cpu_avx512"

#include "lanes_avx512.h"

#define DPBUSD _mm512_dpbusd_epi32
#define DPWSSD _mm512_dpwssd_epi32
#include "dot_vnni.h"

#include "fast_backend.h"
