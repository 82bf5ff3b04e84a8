/* dtype.h: the tensor types Forerun reads, with the block layouts of GGUF (ggml's spec,
 * docs/gguf.md). The enumerators carry GGUF's own type numbers. */
#ifndef FR_DTYPE_H
#define FR_DTYPE_H

#include <stddef.h>
#include <stdint.h>

/* X(name, gguf number, values a block, bytes a block, text) */
#define FR_DTYPE_MAP(X)              \
    X(FR_F32, 0, 1, 4, "F32")        \
    X(FR_F16, 1, 1, 2, "F16")        \
    X(FR_Q4_0, 2, 32, 18, "Q4_0")    \
    X(FR_Q4_1, 3, 32, 20, "Q4_1")    \
    X(FR_Q5_0, 6, 32, 22, "Q5_0")    \
    X(FR_Q5_1, 7, 32, 24, "Q5_1")    \
    X(FR_Q8_0, 8, 32, 34, "Q8_0")    \
    X(FR_Q4_K, 12, 256, 144, "Q4_K") \
    X(FR_Q5_K, 13, 256, 176, "Q5_K") \
    X(FR_Q6_K, 14, 256, 210, "Q6_K") \
    X(FR_BF16, 30, 1, 2, "BF16")

#define X(name, number, values, bytes, text) name = number,
typedef enum { FR_DTYPE_MAP(X) } fr_dtype;
#undef X

typedef struct fr_dtype_info {
    const char *name;
    int block_values; /* values that share a block: rows split only at multiples of this */
    int block_bytes;
} fr_dtype_info;

/* NULL when `number` is not a type Forerun reads. */
const fr_dtype_info *fr_dtype_find(uint32_t number);
/* Bytes of a row of `cols` values; cols must be a multiple of the block. */
size_t fr_dtype_row_bytes(fr_dtype t, int64_t cols);
/* Widens n values (a multiple of the block) at src to f32: the one plain definition of every
 * layout. */
void fr_dtype_to_f32(fr_dtype t, const void *src, float *dst, int64_t n);

float fr_f16_to_f32(uint16_t h);
uint16_t fr_f32_to_f16(float f); /* round to nearest even */

#endif
