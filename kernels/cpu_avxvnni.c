/* cpu_avxvnni.c: the fast backend for AVX2, FMA, F16C and AVX-VNNI: Intel's cores without AVX-512,
 * from Alder Lake on. See fast_backend.h. */
#define BACKEND_OPS fr_ops_cpu_avxvnni
#define BACKEND_NAME "cpu_avxvnni"

#include "lanes_avx2.h"

#define DPBUSD _mm256_dpbusd_avx_epi32
#define DPWSSD _mm256_dpwssd_avx_epi32
#include "dot_vnni.h"

#include "fast_backend.h"
