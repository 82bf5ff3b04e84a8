/* mirror.c: see mirror.h. */
#include "mirror.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

static void entry_free(fr_mirror_entry *e)
{
    fr_ids_free(&e->ids);
    free(e);
}

void fr_mirror_free(fr_mirror *m)
{
    for (int i = 0; i < m->n; i++)
        entry_free(m->entries[i]);
    free(m->entries);
    *m = (fr_mirror){0};
}

static int shared(const fr_ids *have, const int32_t *ids, int n)
{
    int i = 0;
    while (i < n && (size_t)i < have->len && have->data[i] == ids[i])
        i++;
    return i;
}

static int sequence_used(const fr_mirror *m, uint32_t group, uint64_t job, uint32_t sequence)
{
    for (int i = 0; i < m->n; i++) {
        const fr_mirror_entry *e = m->entries[i];
        if (e->group == group && e->job == job && e->sequence == sequence)
            return 1;
    }
    return 0;
}

static fr_status add(fr_mirror *m, uint32_t group, uint64_t job, fr_mirror_entry **out)
{
    if (m->n == m->cap) {
        int cap = m->cap ? 2 * m->cap : 16;
        fr_mirror_entry **entries = realloc(m->entries, (size_t)cap * sizeof *entries);
        if (!entries)
            return fr_no_memory();
        m->entries = entries;
        m->cap = cap;
    }
    fr_mirror_entry *e = calloc(1, sizeof *e);
    if (!e)
        return fr_no_memory();
    e->group = group;
    e->job = job;
    while (sequence_used(m, group, job, e->sequence))
        e->sequence++;
    m->entries[m->n++] = e;
    *out = e;
    return FR_OK;
}

fr_status fr_mirror_take(fr_mirror *m, uint32_t group, uint64_t job, const int32_t *ids, int n,
                         fr_mirror_entry **out, int *n_shared_out)
{
    fr_mirror_entry *best = NULL;
    int n_best = 0;
    for (int i = 0; i < m->n; i++) {
        fr_mirror_entry *e = m->entries[i];
        if (e->group != group || e->job != job || e->busy)
            continue;
        int k = shared(&e->ids, ids, n);
        if (!best || k > n_best) {
            best = e;
            n_best = k;
        }
    }
    if (!best)
        FR_TRY(add(m, group, job, &best));
    best->busy = 1;
    *out = best;
    *n_shared_out = n_best;
    return FR_OK;
}

void fr_mirror_set(fr_mirror_entry *e, const int32_t *ids, int n, const int32_t *more, int n_more)
{
    int same = shared(&e->ids, ids, n);
    e->ids.len = (size_t)same;
    if ((n > same && fr_ids_put(&e->ids, ids + same, (size_t)(n - same)) != FR_OK) ||
        fr_ids_put(&e->ids, more, (size_t)n_more) != FR_OK)
        e->ids.len = 0;
}

void fr_mirror_drop(fr_mirror *m, uint32_t group, uint64_t job)
{
    int kept = 0;
    for (int i = 0; i < m->n; i++) {
        fr_mirror_entry *e = m->entries[i];
        if ((group == 0 || e->group == group) && (job == 0 || e->job == job))
            entry_free(e);
        else
            m->entries[kept++] = e;
    }
    m->n = kept;
}

int fr_mirror_has(const fr_mirror *m, uint32_t group, uint64_t job)
{
    for (int i = 0; i < m->n; i++)
        if (m->entries[i]->group == group && m->entries[i]->job == job)
            return 1;
    return 0;
}
