/* ops_cpu.h: the CPU backends that ops.c chooses from. FR_HAVE_X86 comes from CMake. Internal to
 * kernels/. */
#ifndef FR_OPS_CPU_H
#define FR_OPS_CPU_H

#include "ops.h"

#if FR_HAVE_X86
extern const fr_ops fr_ops_cpu_avx512;
extern const fr_ops fr_ops_cpu_avxvnni;
extern const fr_ops fr_ops_cpu_avx512bw;
extern const fr_ops fr_ops_cpu_avx2;
#endif

#endif
