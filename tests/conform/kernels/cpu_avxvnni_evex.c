/* cpu_avxvnni_evex.c: kernels/cpu_avxvnni.c with AVX-512's encoding of the same instructions, so
 * that its code can be tested where AVX-512 VNNI is and AVX-VNNI is not. */
#define BACKEND_OPS suite_avxvnni_evex
#define BACKEND_NAME "cpu_avxvnni_evex"

#include "lanes_avx2.h"

#define DPBUSD _mm256_dpbusd_epi32
#define DPWSSD _mm256_dpwssd_epi32
#include "dot_vnni.h"

#include "fast_backend.h"
#include "suite.h"
