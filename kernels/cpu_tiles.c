/* cpu_tiles.c: repacks matrices into tiles (cpu_tiles.h). A model is repacked at every start, so
 * this works on four codes at a time (a group of one row is a 32-bit word) and on all threads. */
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

static void put_group(uint8_t *quants, int lanes, int vector, int lane, uint32_t codes)
{
    memcpy(quants + (vector * lanes + lane) * 4, &codes, sizeof codes);
}

/* The codes of 32 columns of one row into a block's planes. */
static void put_codes(uint8_t *quants, int lanes, int lane, const uint8_t codes[32], int lane_bytes)
{
    uint32_t group[8];
    memcpy(group, codes, sizeof group);
    if (lane_bytes == 32) {
        for (int g = 0; g < 8; g++)
            put_group(quants, lanes, g, lane, group[g]);
        return;
    }
    for (int v = 0; v < 4; v++)
        put_group(quants, lanes, v, lane,
                  (group[2 * v] & 0x0f0f0f0fu) | (group[2 * v + 1] & 0x0f0f0f0fu) << 4);
    if (lane_bytes == 20) {
        uint32_t high = 0;
        for (int g = 0; g < 8; g++)
            high |= (group[g] >> 4 & 0x01010101u) << g;
        put_group(quants, lanes, 4, lane, high);
    }
}

/* The scales of one block of 32, where they belong in the tile's scales. `at` is the block's share
 * of them. */
static void put_scales(fr_dtype t, const uint8_t *block, uint8_t *at, int lanes, int lane)
{
    uint8_t *f16 = at + 2 * lane;
    memcpy(f16, block, 2);
    if (t == FR_Q4_1 || t == FR_Q5_1)
        memcpy(f16 + 2 * lanes, block + 2, 2);
}

/* The same of a super-block. */
static void put_super_scales(fr_dtype t, const uint8_t *block, uint8_t *at, int lanes, int lane)
{
    if (t == FR_Q6_K) {
        memcpy(at + 2 * lane, block + offsetof(fr_block_q6_k, d), 2);
        for (int pair = 0; pair < 8; pair++)
            memcpy(at + (2 + 2 * pair) * lanes + 2 * lane,
                   block + offsetof(fr_block_q6_k, scales) + 2 * pair, 2);
        return;
    }
    uint8_t scales[8], mins[8];
    fr_block_k_scales(block + offsetof(fr_block_q4_k, scales), scales, mins);
    memcpy(at + 2 * lane, block, 2);
    memcpy(at + 2 * lanes + 2 * lane, block + 2, 2);
    for (int g = 0; g < 8; g++)
        at[(4 + g) * lanes + lane] = scales[g];
    for (int pair = 0; pair < 4; pair++)
        memcpy(at + (12 + 2 * pair) * lanes + 2 * lane, mins + 2 * pair, 2);
}

/* Where a super-block's words of codes lie in the file. */
static size_t first_word_at(fr_dtype t)
{
    _Static_assert(offsetof(fr_block_q5_k, qs) == offsetof(fr_block_q5_k, qh) + 32,
                   "one run of words");
    _Static_assert(offsetof(fr_block_q6_k, qh) == offsetof(fr_block_q6_k, ql) + 128,
                   "one run of words");
    return t == FR_Q4_K   ? offsetof(fr_block_q4_k, qs)
           : t == FR_Q5_K ? offsetof(fr_block_q5_k, qh)
                          : offsetof(fr_block_q6_k, ql);
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
    const int lane_bytes = fr_tiles_lane_bytes(t);
    const size_t block_bytes = fr_dtype_find(t)->block_bytes;
    const size_t scale_step = lane_scale_bytes(t, FR_TILE_BLOCK) * (size_t)lanes;
    uint8_t codes[FR_BLOCK_MAX];
    for (int64_t b = 0; b < blocks; b++) {
        fr_block_codes(t, src, codes);
        put_codes(quants, lanes, lane, codes, lane_bytes);
        put_scales(t, src, scales, lanes, lane);
        quants += lane_bytes * lanes;
        scales += scale_step;
        src += block_bytes;
    }
}

/* The same of super-blocks. */
static inline void pack_super_run(fr_dtype t, const uint8_t *src, int64_t blocks, uint8_t *quants,
                                  uint8_t *scales, int lanes, int lane)
{
    const int words = fr_tiles_lane_bytes(t) * (FR_TILE_SUPER / FR_TILE_BLOCK) / 4;
    const size_t block_bytes = fr_dtype_find(t)->block_bytes, first_word = first_word_at(t);
    const size_t scale_step = lane_scale_bytes(t, FR_TILE_SUPER) * (size_t)lanes;
    for (int64_t b = 0; b < blocks; b++) {
        for (int w = 0; w < words; w++)
            memcpy(quants + (w * lanes + lane) * 4, src + first_word + 4 * w, 4);
        put_super_scales(t, src, scales, lanes, lane);
        quants += words * lanes * 4;
        scales += scale_step;
        src += block_bytes;
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
                (fr_tiles_super(w->dtype) ? pack_super_run : pack_run)(
                    w->dtype, src + fr_dtype_row_bytes(w->dtype, c), cols / values, quants, scales,
                    w->lanes, lane);
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
 * page walks show. */
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
    size_t acts = fr_tiles_super(src->dtype)
                      ? (size_t)(src->cols / FR_TILE_SUPER) * sizeof(fr_act_k)
                      : (size_t)((src->cols + FR_TILE_BLOCK - 1) / FR_TILE_BLOCK) * sizeof(fr_act);
    void *scratch = NULL;
    FR_TRY(fr_cpu_scratch(dev, acts * FR_TILE_TOKENS, &scratch));
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
