/* cpu_tiles.c: repacks matrices into tiles (cpu_tiles.h). A model is repacked at every start, so
 * this works on eight codes at a time, without spelling them out (a group of one row is a 32-bit
 * word), and on all threads. */
#include "cpu_tiles.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "blocks.h"
#include "check.h"

#define HUGE_PAGE ((size_t)2 << 20)

bool fr_tiles_super(fr_dtype t)
{
    return t == FR_Q4_K || t == FR_Q5_K || t == FR_Q6_K;
}

size_t fr_tiles_acts_k_bytes(int64_t cols)
{
    return (size_t)(cols / FR_TILE_SUPER) * sizeof(fr_act_k) * FR_TILE_TOKENS;
}

int fr_tiles_lane_bytes(fr_dtype t)
{
    switch (t) {
    case FR_Q4_0:
    case FR_Q4_1:
    case FR_Q4_K:
        return 16;
    case FR_Q5_0:
    case FR_Q5_1:
    case FR_Q5_K:
        return 20;
    case FR_Q6_K:
        return 24;
    case FR_Q8_0:
        return 32;
    case FR_F16:
    case FR_BF16:
        return 64;
    case FR_F32:
        break;
    }
    return 128;
}

/* Bytes of scales of one lane over a whole row. */
static size_t lane_scale_bytes(fr_dtype t, int64_t cols)
{
    switch (t) {
    case FR_Q4_0:
    case FR_Q5_0:
    case FR_Q8_0:
        return (size_t)(cols / 32) * 2;
    case FR_Q4_1:
    case FR_Q5_1:
        return (size_t)(cols / 32) * 4;
    case FR_Q4_K:
    case FR_Q5_K:
        return (size_t)(cols / 256) * 20;
    case FR_Q6_K:
        return (size_t)(cols / 256) * 18;
    case FR_F32:
    case FR_F16:
    case FR_BF16:
        break;
    }
    return 0;
}

/* Where the next word of one row goes: words of a row are a vector apart. */
typedef struct row_out {
    uint8_t *at;
    size_t step;
} row_out;

static inline void put(row_out *out, uint32_t word)
{
    memcpy(out->at, &word, sizeof word);
    out->at += out->step;
}

static inline uint64_t load_8(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

#define NIBBLES 0x0f0f0f0f0f0f0f0fu

/* Eight codes -> the word with the first four in the low nibbles, the others in the high ones. */
static inline uint32_t join_nibbles(uint64_t codes)
{
    return (uint32_t)codes | (uint32_t)(codes >> 28);
}

static inline uint32_t swap_bits(uint32_t x, uint32_t mask, int distance)
{
    uint32_t differ = (x ^ x >> distance) & mask;
    return x ^ differ ^ differ << distance;
}

/* Bit 4 g + c -> bit 8 c + g: the fifth bits in the order of columns -> the plane's word. In the
 * number of a bit, its own bits 4 and 1 change places, then 3 and 0, 2 and 1, 1 and 0. */
static inline uint32_t transpose_bits(uint32_t x)
{
    x = swap_bits(x, 0x0000ccccu, 14);
    x = swap_bits(x, 0x00aa00aau, 7);
    x = swap_bits(x, 0x0c0c0c0cu, 2);
    return swap_bits(x, 0x22222222u, 1);
}

/* Q4_0, Q4_1, Q5_0, Q5_1: columns i and i + 16 share a byte. `qh`: fifth bits, or NULL. */
static inline void put_codes_32(row_out *out, const uint8_t *qs, const uint8_t *qh)
{
    for (int shift = 0; shift <= 4; shift += 4)
        for (int v = 0; v < 2; v++)
            put(out, join_nibbles(load_8(qs + 8 * v) >> shift & NIBBLES));
    if (qh) {
        uint32_t high;
        memcpy(&high, qh, sizeof high);
        put(out, transpose_bits(high));
    }
}

static inline void put_codes_8(row_out *out, const uint8_t *qs)
{
    for (int v = 0; v < 4; v++) {
        uint64_t codes = load_8(qs + 8 * v) ^ 0x8080808080808080u; /* two's complement + 128 */
        put(out, (uint32_t)codes);
        put(out, (uint32_t)(codes >> 32));
    }
}

/* A super-block's codes, as they are. */
static inline void put_words(row_out *out, const uint8_t *from, int n)
{
    for (int w = 0; w < n; w++) {
        uint32_t word;
        memcpy(&word, from + 4 * w, sizeof word);
        put(out, word);
    }
}

_Static_assert(offsetof(fr_block_q5_k, qs) == offsetof(fr_block_q5_k, qh) + 32, "one run of words");
_Static_assert(offsetof(fr_block_q6_k, qh) == offsetof(fr_block_q6_k, ql) + 128,
               "one run of words");

/* The codes of one block of a row into the planes. */
static inline void put_codes(fr_dtype t, row_out *out, const uint8_t *block)
{
    switch (t) {
    case FR_Q4_0:
        put_codes_32(out, block + offsetof(fr_block_q4_0, qs), NULL);
        break;
    case FR_Q4_1:
        put_codes_32(out, block + offsetof(fr_block_q4_1, qs), NULL);
        break;
    case FR_Q5_0:
        put_codes_32(out, block + offsetof(fr_block_q5_0, qs), block + offsetof(fr_block_q5_0, qh));
        break;
    case FR_Q5_1:
        put_codes_32(out, block + offsetof(fr_block_q5_1, qs), block + offsetof(fr_block_q5_1, qh));
        break;
    case FR_Q8_0:
        put_codes_8(out, block + offsetof(fr_block_q8_0, qs));
        break;
    case FR_Q4_K:
        put_words(out, block + offsetof(fr_block_q4_k, qs), 32);
        break;
    case FR_Q5_K:
        put_words(out, block + offsetof(fr_block_q5_k, qh), 40);
        break;
    case FR_Q6_K:
        put_words(out, block + offsetof(fr_block_q6_k, ql), 48);
        break;
    case FR_F32:
    case FR_F16:
    case FR_BF16:
        break; /* not quantised */
    }
}

/* The scales of one block of a row, where they belong in the tile's scales. `at` is the block's
 * share of them. */
static void put_scales(fr_dtype t, const uint8_t *block, uint8_t *at, int lanes, int lane)
{
    uint8_t *f16 = at + 2 * lane;
    if (t == FR_Q6_K) {
        memcpy(f16, block + offsetof(fr_block_q6_k, d), 2);
        for (int pair = 0; pair < 8; pair++)
            memcpy(at + (2 + 2 * pair) * lanes + 2 * lane,
                   block + offsetof(fr_block_q6_k, scales) + 2 * pair, 2);
        return;
    }
    memcpy(f16, block, 2);
    if (t == FR_Q4_1 || t == FR_Q5_1) {
        memcpy(f16 + 2 * lanes, block + 2, 2);
    } else if (t == FR_Q4_K || t == FR_Q5_K) {
        uint8_t scales[8], mins[8];
        memcpy(f16 + 2 * lanes, block + 2, 2);
        fr_block_k_scales(block + offsetof(fr_block_q4_k, scales), scales, mins);
        for (int g = 0; g < 8; g++)
            at[(4 + g) * lanes + lane] = scales[g];
        for (int pair = 0; pair < 4; pair++)
            memcpy(at + (12 + 2 * pair) * lanes + 2 * lane, mins + 2 * pair, 2);
    }
}

typedef struct pack_job {
    const fr_matrix *src;
    fr_weight *w;
} pack_job;

/* The source of a tile's row, or NULL past the matrix's end. */
static const uint8_t *source_row(const pack_job *job, int64_t tile, int lane)
{
    int64_t row = tile * job->w->lanes + lane;
    return row < job->w->rows ? (const uint8_t *)job->src->data + (size_t)row * job->src->row_bytes
                              : NULL;
}

static void pack_plain_tile(const pack_job *job, int64_t tile, uint8_t *quants)
{
    const fr_weight *w = job->w;
    size_t size = (size_t)fr_dtype_find(w->dtype)->block_bytes, step = size * (size_t)w->lanes;
    for (int lane = 0; lane < w->lanes; lane++, quants += size) {
        const uint8_t *src = source_row(job, tile, lane);
        for (int64_t c = 0; src && size == 2 && c < w->cols; c++)
            memcpy(quants + (size_t)c * step, src + c * 2, 2);
        for (int64_t c = 0; src && size == 4 && c < w->cols; c++)
            memcpy(quants + (size_t)c * step, src + c * 4, 4);
    }
}

/* The blocks of one row in PACK_COLS columns. */
static inline void pack_run(fr_dtype t, const uint8_t *src, int64_t blocks, uint8_t *quants,
                            uint8_t *scales, int lanes, int lane)
{
    const fr_dtype_info *info = fr_dtype_find(t);
    const size_t scale_step = lane_scale_bytes(t, info->block_values) * (size_t)lanes;
    row_out out = {quants + 4 * lane, 4 * (size_t)lanes};
    for (int64_t b = 0; b < blocks; b++) {
        put_codes(t, &out, src);
        put_scales(t, src, scales, lanes, lane);
        scales += scale_step;
        src += info->block_bytes;
    }
}

/* So many columns of all rows at a time: what is written stays in the nearest caches until it is
 * whole. */
#define PACK_COLS 2048

static void pack_quantised_tile(const pack_job *job, int64_t tile, uint8_t *quants, uint8_t *scales)
{
    const fr_weight *w = job->w;
    const int values = fr_dtype_find(w->dtype)->block_values;
    for (int64_t c = 0; c < w->cols; c += PACK_COLS) {
        int64_t cols = w->cols - c < PACK_COLS ? w->cols - c : PACK_COLS;
        for (int lane = 0; lane < w->lanes; lane++) {
            const uint8_t *src = source_row(job, tile, lane);
            if (src)
                pack_run(w->dtype, src + fr_dtype_row_bytes(w->dtype, c), cols / values, quants,
                         scales, w->lanes, lane);
        }
        quants += (size_t)fr_tiles_lane_bytes(w->dtype) * (size_t)(cols / 32 * w->lanes);
        scales += lane_scale_bytes(w->dtype, cols) * (size_t)w->lanes;
    }
}

static void pack_tiles(void *ctx, int64_t begin, int64_t end)
{
    const pack_job *job = ctx;
    const fr_weight *w = job->w;
    for (int64_t t = begin; t < end; t++) {
        uint8_t *quants = w->quants + (size_t)t * w->tile_quants,
                *scales = w->scales + (size_t)t * w->tile_scales;
        if (w->tile_scales == 0)
            pack_plain_tile(job, t, quants);
        else
            pack_quantised_tile(job, t, quants, scales);
    }
}

/* Large matrices get huge pages where the kernel grants them: a pass reads all of memory once, and
 * page walks show. Tiles are touched first by the pool's threads, padding by its caller: where
 * those are bound (cpu_place.h), the weights lie on their NUMA node. */
static uint8_t *alloc_tiles(size_t bytes)
{
    void *mem = NULL;
    bool large = bytes >= 2 * HUGE_PAGE;
    if (posix_memalign(&mem, large ? HUGE_PAGE : 64, bytes) != 0)
        return NULL;
    if (large)
        (void)madvise(mem, bytes, MADV_HUGEPAGE); /* only advice */
    return mem;
}

fr_status fr_tiles_new(fr_device *dev, const fr_matrix *src, int lanes, fr_weight **out)
{
    FR_TRY(fr_cpu_check_matrix(src));
    size_t blocks = (size_t)((src->cols + FR_TILE_BLOCK - 1) / FR_TILE_BLOCK);
    void *scratch = NULL;
    FR_TRY(fr_cpu_scratch(
        dev, fr_tiles_acts_k_bytes(src->cols) + blocks * sizeof(fr_act) * FR_TILE_TOKENS,
        &scratch));
    fr_weight *w = calloc(1, sizeof *w);
    if (!w)
        return fr_no_memory();
    w->dtype = src->dtype;
    w->lanes = lanes;
    w->rows = src->rows;
    w->cols = src->cols;
    w->tiles = (src->rows + lanes - 1) / lanes;
    w->tile_quants =
        (size_t)fr_tiles_lane_bytes(src->dtype) * (size_t)src->cols / 32 * (size_t)lanes;
    w->tile_scales = lane_scale_bytes(src->dtype, src->cols) * (size_t)lanes;
    size_t quants = w->tile_quants * (size_t)w->tiles, scales = w->tile_scales * (size_t)w->tiles;
    w->quants = alloc_tiles(quants + scales);
    if (!w->quants) {
        fr_tiles_free(dev, &w);
        return fr_no_memory();
    }
    w->scales = w->quants + quants;
    if (w->rows % lanes != 0) {
        memset(w->scales - w->tile_quants, 0, w->tile_quants);
        memset(w->scales + scales - w->tile_scales, 0, w->tile_scales);
    }
    pack_job job = {src, w};
    fr_pool_run(dev->pool, w->tiles, 16, pack_tiles, &job);
    *out = w;
    return FR_OK;
}

void fr_tiles_free(fr_device *dev, fr_weight **pw)
{
    (void)dev;
    fr_weight *w = *pw;
    if (!w)
        return;
    free(w->quants);
    free(w);
    *pw = NULL;
}
