/* cpu_rope.c: see cpu_rope.h. A direct-mapped table: position p lives in slot p % SLOTS. */
#include "cpu_rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS 512

struct fr_rope_table {
    int half; /* n_rot / 2; 0: nothing in use */
    float scale;
    float inv_freq[FR_HEAD_MAX / 2];
    int32_t pos[SLOTS]; /* -1: empty */
    float rows[SLOTS][FR_HEAD_MAX];
};

fr_status fr_rope_table_use(fr_device *dev, const fr_rope *rope)
{
    if (rope->n_rot <= 0 || rope->n_rot > FR_HEAD_MAX || rope->n_rot % 2 != 0)
        return fr_fail(FR_EUNSUPPORTED, "rope over %d values: want an even number up to %d",
                       rope->n_rot, FR_HEAD_MAX);
    struct fr_rope_table *t = dev->rope;
    if (!t) {
        t = dev->rope = calloc(1, sizeof *t);
        if (!t)
            return fr_no_memory();
    }
    int half = rope->n_rot / 2;
    size_t bytes = (size_t)half * sizeof t->inv_freq[0];
    if (t->half == half && t->scale == rope->scale &&
        memcmp(t->inv_freq, rope->inv_freq, bytes) == 0)
        return FR_OK;
    t->half = half;
    t->scale = rope->scale;
    memcpy(t->inv_freq, rope->inv_freq, bytes);
    for (int i = 0; i < SLOTS; i++)
        t->pos[i] = -1;
    return FR_OK;
}

const float *fr_rope_table_at(fr_device *dev, int32_t pos)
{
    struct fr_rope_table *t = dev->rope;
    uint32_t slot = (uint32_t)pos % SLOTS;
    float *row = t->rows[slot];
    if (t->pos[slot] == pos && pos >= 0)
        return row;
    for (int i = 0; i < t->half; i++) {
        float angle = (float)pos * t->inv_freq[i];
        row[i] = cosf(angle) * t->scale;
        row[t->half + i] = sinf(angle) * t->scale;
    }
    t->pos[slot] = pos;
    return row;
}
