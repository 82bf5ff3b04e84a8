/* weight.c: see weight.h. A tile is 16 rows; its records (matmul.h) are made one after the other.
 */
#include "weight.h"

#include <limits.h>
#include <string.h>

#include "blocks.h"
#include "check.h"
#include "matmul.h"

enum { TILE = FR_CUDA_TILE_ROWS, CHUNK = FR_CUDA_CHUNK };

static fr_cuda_kind kind_of(fr_dtype t)
{
    switch (t) {
    case FR_F32:
        return FR_CUDA_F32;
    case FR_BF16:
        return FR_CUDA_BF16;
    case FR_F16:
        return FR_CUDA_F16;
    case FR_Q4_K:
        return FR_CUDA_Q4_K;
    case FR_Q5_K:
        return FR_CUDA_Q5_K;
    case FR_Q6_K:
        return FR_CUDA_Q6_K;
    case FR_Q4_0:
    case FR_Q4_1:
    case FR_Q5_0:
    case FR_Q5_1:
    case FR_Q8_0:
        break;
    }
    return FR_CUDA_CODES;
}

static bool has_shifts(fr_dtype t)
{
    return t == FR_Q4_1 || t == FR_Q5_1;
}

static bool row_major(const fr_weight *w)
{
    return w->kind == FR_CUDA_F32 || w->kind == FR_CUDA_BF16 || w->kind == FR_CUDA_F16;
}

static size_t record_bytes(const fr_weight *w)
{
    if (w->kind == FR_CUDA_CODES)
        return FR_CUDA_CODES_BYTES(has_shifts(w->dtype));
    return w->kind == FR_CUDA_Q4_K ? FR_CUDA_Q4_K_BYTES : FR_CUDA_Q8_K_BYTES;
}

static int64_t padded(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

fr_status fr_cuda_weight_describe(const fr_matrix *src, fr_weight *out)
{
    const fr_dtype_info *info = fr_dtype_find(src->dtype);
    if (!info)
        return fr_fail(FR_EUNSUPPORTED, "matrix of unknown type %d", (int)src->dtype);
    if (src->rows <= 0 || src->cols <= 0 || src->cols % info->block_values != 0)
        return fr_fail(FR_EINVAL,
                       "%s matrix of %lld x %lld: rows must hold whole blocks of %d values",
                       info->name, (long long)src->rows, (long long)src->cols, info->block_values);
    if (src->rows > INT_MAX / 2 || src->cols > INT_MAX / 2)
        return fr_fail(FR_EUNSUPPORTED, "%s matrix of %lld x %lld: too large", info->name,
                       (long long)src->rows, (long long)src->cols);
    fr_weight w = {.dtype = src->dtype,
                   .kind = kind_of(src->dtype),
                   .rows = (int32_t)src->rows,
                   .cols = (int32_t)src->cols};
    w.stride = w.kind == FR_CUDA_F32
                   ? w.cols
                   : (int32_t)padded(w.cols, row_major(&w) ? FR_CUDA_ROW_PAD : CHUNK);
    w.bytes = fr_cuda_weight_offset(&w, w.rows);
    *out = w;
    return FR_OK;
}

int fr_cuda_weight_line_rows(const fr_weight *w)
{
    return row_major(w) ? 1 : TILE;
}

size_t fr_cuda_weight_offset(const fr_weight *w, int64_t row)
{
    if (row_major(w))
        return (size_t)row * (size_t)w->stride * (w->kind == FR_CUDA_F32 ? 4 : 2);
    return (size_t)((row + TILE - 1) / TILE) * (size_t)(w->stride / CHUNK) * record_bytes(w);
}

static void pack_rows(const fr_weight *w, const fr_matrix *src, int64_t first, int64_t end,
                      uint8_t *out)
{
    const size_t used = fr_dtype_row_bytes(w->dtype, w->cols), all = fr_cuda_weight_offset(w, 1);
    for (int64_t r = first; r < end; r++, out += all) {
        memcpy(out, (const uint8_t *)src->data + (size_t)r * src->row_bytes, used);
        memset(out + used, 0, all - used);
    }
}

/* The codes of 16 rows in a chunk, and what goes with them. */
typedef struct chunk_values {
    uint8_t codes[TILE][CHUNK];
    uint16_t scales[TILE][8], shifts[TILE][8]; /* CODES; f16 */
    uint16_t d[TILE][2];                       /* K types */
    uint8_t super_scales[TILE][16], super_mins[TILE][8];
} chunk_values;

/* Blocks of 32 values of one row. */
static void read_blocks(fr_dtype t, const uint8_t *block, int blocks, chunk_values *v, int row)
{
    const size_t bytes = fr_dtype_row_bytes(t, 32);
    for (int b = 0; b < blocks; b++, block += bytes) {
        uint8_t codes[FR_BLOCK_MAX];
        fr_block_codes(t, block, codes);
        for (int i = 0; i < 32; i++) /* Q8_0's are signed, and come with 128 added */
            v->codes[row][b * 32 + i] = t == FR_Q8_0 ? codes[i] ^ 0x80 : codes[i];
        memcpy(&v->scales[row][b], block, 2);
        if (has_shifts(t))
            memcpy(&v->shifts[row][b], block + 2, 2);
    }
}

static void read_super(fr_dtype t, const uint8_t *block, chunk_values *v, int row)
{
    fr_block_codes(t, block, v->codes[row]);
    if (t == FR_Q6_K) {
        memcpy(&v->d[row][0], block + offsetof(fr_block_q6_k, d), 2);
        memcpy(v->super_scales[row], block + offsetof(fr_block_q6_k, scales), 16);
        return;
    }
    memcpy(v->d[row], block, 4); /* d, dmin */
    fr_block_k_scales(block + offsetof(fr_block_q4_k, scales), v->super_scales[row],
                      v->super_mins[row]);
}

/* Rows past the end stay zeros. */
static void read_chunk(const fr_weight *w, const fr_matrix *src, int64_t tile, int64_t chunk,
                       chunk_values *v)
{
    memset(v, 0, sizeof *v);
    const int64_t left = (w->cols - chunk * CHUNK) / 32;
    for (int row = 0; row < TILE && tile * TILE + row < w->rows; row++) {
        const uint8_t *block = (const uint8_t *)src->data +
                               (size_t)(tile * TILE + row) * src->row_bytes +
                               fr_dtype_row_bytes(w->dtype, chunk * CHUNK);
        if (w->kind == FR_CUDA_CODES)
            read_blocks(w->dtype, block, left < 8 ? (int)left : 8, v, row);
        else
            read_super(w->dtype, block, v, row);
    }
}

/* The four codes that lane `lane` has in word `word` of a block of 32 columns (mma.cuh). */
static const uint8_t *lane_codes(const chunk_values *v, int block, int lane, int word)
{
    return &v->codes[lane / 4 + word % 2 * 8][block * 32 + word / 2 * 16 + lane % 4 * 4];
}

static uint8_t *put(uint8_t *out, const void *from, size_t bytes)
{
    memcpy(out, from, bytes);
    return out + bytes;
}

static uint8_t *put_codes(const chunk_values *v, bool nibbles, uint8_t *out)
{
    for (int block = 0; block < 8; block += nibbles ? 2 : 1)
        for (int i = 0; i < 32 * 4; i++, out += 4) {
            memcpy(out, lane_codes(v, block, i / 4, i % 4), 4);
            for (int k = 0; nibbles && k < 4; k++)
                out[k] |= (uint8_t)(lane_codes(v, block + 1, i / 4, i % 4)[k] << 4);
        }
    return out;
}

static void put_record(const fr_weight *w, const chunk_values *v, uint8_t *out)
{
    out = put_codes(v, w->kind == FR_CUDA_Q4_K, out);
    if (w->kind == FR_CUDA_CODES) {
        out = put(out, v->scales, sizeof v->scales);
        if (has_shifts(w->dtype))
            put(out, v->shifts, sizeof v->shifts);
        return;
    }
    out = put(out, v->d, sizeof v->d);
    if (w->kind == FR_CUDA_Q6_K) {
        put(out, v->super_scales, sizeof v->super_scales);
        return;
    }
    for (int row = 0; row < TILE; row++)
        out = put(out, v->super_scales[row], 8);
    put(out, v->super_mins, sizeof v->super_mins);
}

void fr_cuda_weight_pack(const fr_weight *w, const fr_matrix *src, int64_t first, int64_t end,
                         void *out)
{
    if (row_major(w)) {
        pack_rows(w, src, first, end, out);
        return;
    }
    uint8_t *at = out;
    for (int64_t tile = first / TILE; tile * TILE < end; tile++)
        for (int64_t chunk = 0; chunk < w->stride / CHUNK; chunk++, at += record_bytes(w)) {
            chunk_values values;
            read_chunk(w, src, tile, chunk, &values);
            put_record(w, &values, at);
        }
}
