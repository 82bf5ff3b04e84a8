/* fast_backend.h: the compute table of a fast backend. Such a backend is a short .c file that picks
 * its instructions: a lanes_*.h (the width of a vector), a dot_*.h (how integers are multiplied),
 * then this file with all the templates that are written in them (fast_*.h). It defines BACKEND_OPS
 * and BACKEND_NAME first: the table's symbol and its name. It is compiled with the flags of its
 * instructions, so nothing in it may run before ops.c has asked the processor. */
#ifndef FR_FAST_BACKEND_H
#define FR_FAST_BACKEND_H

#include <stdbool.h>

#include "fast_attention.h"
#include "fast_candidates.h"
#include "fast_matmul.h"
#include "fast_ops.h"
#include "ops_cpu.h"

const fr_ops BACKEND_OPS = {
    .name = BACKEND_NAME,
    .host_memory = true,
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

#endif
