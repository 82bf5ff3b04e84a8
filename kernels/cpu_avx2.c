/* cpu_avx2.c: the fast backend for AVX2, FMA and F16C. The code is in the fast_*.h templates, the
 * instructions in lanes_avx2.h. Compiled with those flags, so nothing here may run before ops.c has
 * asked the processor. */
#include <stdbool.h>

#include "lanes_avx2.h"

#include "fast_attention.h"
#include "fast_candidates.h"
#include "fast_matmul.h"
#include "fast_ops.h"
#include "ops_cpu.h"

const fr_ops fr_ops_cpu_avx2 = {
    .name = "cpu_avx2",
    .open = fr_cpu_open,
    .close = fr_cpu_close,
    .mem_alloc = fr_cpu_mem_alloc,
    .mem_free = fr_cpu_mem_free,
    .upload = fr_cpu_copy,
    .download = fr_cpu_copy,
    .weight_new = fast_weight_new,
    .weight_free = fr_tiles_free,
    .matmul = fast_matmul,
    .embed = fr_cpu_embed,
    .rms_norm = fast_rms_norm,
    .add = fast_add,
    .add_bias = fast_add_bias,
    .silu_mul = fast_silu_mul,
    .rope = fast_rope,
    .kv_write = fast_kv_write,
    .kv_copy = fr_cpu_kv_copy,
    .attention = fast_attention,
    .candidates = fast_candidates,
    .sync = fr_cpu_sync,
};
