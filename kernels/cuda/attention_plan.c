/* attention_plan.c: see attention_plan.h. Nothing here touches the device. */
#include "attention_plan.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "grow.h"

_Static_assert(sizeof(fr_cuda_attention_args) <= 256, "launch arguments");
_Static_assert(sizeof(fr_cuda_attention_args) == 10 * sizeof(void *) + 10 * sizeof(int32_t),
               "launch arguments without padding");
_Static_assert(FR_PAGE == 16, "attention_block.cuh");
_Static_assert(sizeof(fr_cuda_attention_run) % sizeof(int32_t) == 0, "whole words");

enum {
    CHUNK = FR_ATTENTION_CHUNK,
    WHOLE_CHUNKS = 2,    /* up to here a block is done sooner than a merge could start */
    MANY_BLOCKS = 128,   /* fill a GPU (132 multiprocessors, of which one holds one or two) */
    MOST_CHUNKS = 8,     /* of one task, when there is more than enough work */
    MOST_PARTIALS = 8192 /* (row, chunk) pairs: 136 MB with 32 heads of 128 */
};

/* A row's view, its page lists as places in the plan's. */
typedef struct fr_cuda_attention_span {
    int32_t trunk_at, n_trunk, branch_at, n_positions;
} span;

typedef struct page_list {
    const int32_t *source;
    int at, n;
} page_list;

static int least(int a, int b)
{
    return a < b ? a : b;
}

static int divide_up(int a, int b)
{
    return (a + b - 1) / b;
}

static int power_of_two(int at_least)
{
    int n = 1;
    while (n < at_least)
        n *= 2;
    return at_least > 0 ? n : 0;
}

static fr_status find_runs(fr_cuda_attention_plan *p, const int32_t *kv_of_head, int heads)
{
    FR_TRY(fr_grow((void **)&p->runs, &p->cap_runs, heads, sizeof *p->runs));
    p->n_runs = 0;
    for (int h = 0; h < heads; h++) {
        fr_cuda_attention_run *last = p->n_runs > 0 ? &p->runs[p->n_runs - 1] : NULL;
        if (last && last->kv_head == kv_of_head[h] && last->n_heads < FR_ATTENTION_NARROW)
            last->n_heads++;
        else
            p->runs[p->n_runs++] = (fr_cuda_attention_run){h, 1, kv_of_head[h]};
    }
    return FR_OK;
}

/* Makes `list`, the one placed last of its kind, the first n pages of `source`. Rows of one append
 * and the probes hanging off it name the same pages, in arrays of their own or not: they get one
 * place, which also tells that they may share tasks. */
static fr_status place_pages(fr_cuda_attention_plan *p, page_list *list, const int32_t *source,
                             int n)
{
    if (n == 0)
        return FR_OK;
    int known = least(n, list->n);
    bool same = known > 0 && (source == list->source ||
                              memcmp(source, p->pages + list->at, (size_t)known * 4) == 0);
    if (same && n <= list->n)
        return FR_OK;
    bool longer = same && list->at + list->n == p->n_pages;
    int first = longer ? known : 0;
    FR_TRY(fr_grow((void **)&p->pages, &p->cap_pages, p->n_pages + n, sizeof *p->pages));
    memcpy(p->pages + p->n_pages, source + first, (size_t)(n - first) * sizeof *p->pages);
    *list = (page_list){source, longer ? list->at : p->n_pages, n};
    p->n_pages += n - first;
    return FR_OK;
}

static fr_status place_views(fr_cuda_attention_plan *p, const fr_attn_view *views, int n)
{
    page_list trunk = {0}, branch = {0};
    FR_TRY(fr_grow((void **)&p->spans, &p->cap_spans, n, sizeof *p->spans));
    FR_TRY(fr_grow((void **)&p->rows, &p->cap_rows, n, sizeof *p->rows));
    p->n_pages = 0;
    for (int r = 0; r < n; r++) {
        const fr_attn_view *v = &views[r];
        FR_TRY(place_pages(p, &trunk, v->trunk_pages, divide_up(v->n_trunk, FR_PAGE)));
        FR_TRY(place_pages(p, &branch, v->branch_pages, divide_up(v->n_branch, FR_PAGE)));
        p->spans[r] = (span){trunk.at, v->n_trunk, branch.at, v->n_trunk + v->n_branch};
        p->rows[r] = (fr_cuda_attention_row){v->n_trunk + v->n_branch, -1};
    }
    return FR_OK;
}

/* How many leading positions lie in the same slots for both. */
static int agreement(const span *a, const span *b)
{
    if (a->trunk_at != b->trunk_at)
        return 0;
    int shorter = least(a->n_positions, b->n_positions);
    if (a->n_trunk == b->n_trunk && a->branch_at == b->branch_at)
        return shorter;
    return least(shorter, least(a->n_trunk, b->n_trunk));
}

static fr_status push_task(fr_cuda_attention_plan *p, const fr_cuda_attention_task *task,
                           int run_heads)
{
    if (task->n_rows * run_heads <= FR_ATTENTION_NARROW) {
        FR_TRY(fr_grow((void **)&p->narrow, &p->cap_narrow, p->n_narrow + 1, sizeof *task));
        p->narrow[p->n_narrow++] = *task;
    } else {
        const int pairs = power_of_two(task->n_rows * run_heads);
        p->wide_pairs = pairs > p->wide_pairs ? pairs : p->wide_pairs;
        FR_TRY(fr_grow((void **)&p->wide, &p->cap_wide, p->n_wide + 1, sizeof *task));
        p->wide[p->n_wide++] = *task;
    }
    return FR_OK;
}

/* Deals out rows first .. end-1 and chunks first_chunk .. first_chunk+n_chunks-1. Neighbours share a
 * task as long as they agree about every position of these chunks that both see. */
static fr_status push_tasks(fr_cuda_attention_plan *p, int first, int end, int first_chunk,
                            int n_chunks, int run_heads, int most_rows)
{
    const int from = first_chunk * CHUNK, to = from + n_chunks * CHUNK;
    for (int r = first; r < end;) {
        const span *lead = &p->spans[r]; /* the row of the task that sees most */
        const int begin = r++;
        if (lead->n_positions <= from)
            continue;
        for (; r < end && r - begin < most_rows; r++) {
            const span *s = &p->spans[r];
            int both = least(to, least(lead->n_positions, s->n_positions));
            if (s->n_positions <= from || agreement(lead, s) < both)
                break;
            if (s->n_positions > lead->n_positions)
                lead = s;
        }
        int chunks = least(n_chunks, divide_up(lead->n_positions, CHUNK) - first_chunk);
        FR_TRY(push_task(p,
                         &(fr_cuda_attention_task){begin, r - begin, first_chunk, chunks,
                                                   lead->trunk_at, lead->n_trunk, lead->branch_at,
                                                   least(lead->n_positions, to)},
                         run_heads));
    }
    return FR_OK;
}

/* Neighbouring rows with one trunk. Split, their chunks are dealt out to tasks of a few chunks each,
 * which fills the GPU when there are few rows, but costs memory and a merge; else one task takes all
 * chunks of its rows. */
typedef struct fr_cuda_attention_family {
    int first, end;       /* rows */
    int chunks, partials; /* of the longest row, of all rows */
    int blocks;           /* for one chunk */
    bool split;
} family;

static fr_status find_families(fr_cuda_attention_plan *p, int n, int most_rows)
{
    int partials = 0;
    p->n_families = 0;
    for (int r = 0; r < n;) {
        family f = {.first = r};
        for (; r < n && p->spans[r].trunk_at == p->spans[f.first].trunk_at; r++) {
            int chunks = divide_up(p->spans[r].n_positions, CHUNK);
            f.partials += chunks;
            f.chunks = chunks > f.chunks ? chunks : f.chunks;
        }
        f.end = r;
        f.blocks = divide_up(f.end - f.first, most_rows) * p->n_runs;
        f.split = f.chunks > WHOLE_CHUNKS && f.blocks < MANY_BLOCKS &&
                  f.partials <= MOST_PARTIALS - partials;
        partials += f.split ? f.partials : 0;
        FR_TRY(fr_grow((void **)&p->families, &p->cap_families, p->n_families + 1, sizeof f));
        p->families[p->n_families++] = f;
    }
    return FR_OK;
}

/* Chunks of one task of a split family: as many as leave every multiprocessor something to do. */
static int choose_task_chunks(const fr_cuda_attention_plan *p)
{
    int64_t blocks = 0;
    for (const family *f = p->families; f < p->families + p->n_families; f++)
        blocks += f->split ? (int64_t)f->blocks * f->chunks : 0;
    int64_t chunks = blocks / (2 * MANY_BLOCKS);
    return chunks < 1 ? 1 : chunks > MOST_CHUNKS ? MOST_CHUNKS : (int)chunks;
}

/* A row that one task sees whole needs no partial results. */
static void give_partials(fr_cuda_attention_plan *p, const family *f, int task_chunks)
{
    for (int r = f->first; r < f->end; r++) {
        int chunks = divide_up(p->spans[r].n_positions, CHUNK);
        if (chunks <= task_chunks)
            continue;
        p->rows[r].first_partial = p->n_partials;
        p->n_partials += chunks;
    }
}

/* Later rows of an append see more. Their tasks come first, for the last blocks to be short. */
static fr_status deal_out(fr_cuda_attention_plan *p, int run_heads, int most_rows)
{
    const int task_chunks = choose_task_chunks(p);
    p->n_narrow = p->n_wide = p->n_partials = p->wide_pairs = 0;
    for (const family *f = p->families; f < p->families + p->n_families; f++) {
        int step = f->split ? task_chunks : f->chunks;
        for (int c = 0; c < f->chunks; c += step)
            FR_TRY(push_tasks(p, f->first, f->end, c, step, run_heads, most_rows));
        give_partials(p, f, step);
    }
    return FR_OK;
}

static void put_backwards(int32_t *words, const fr_cuda_attention_task *tasks, int n)
{
    for (int i = 0; i < n; i++)
        memcpy(words + (size_t)i * (sizeof *tasks / sizeof *words), &tasks[n - 1 - i],
               sizeof *tasks);
}

/* Copies everything into one array, with room up to the bounds. */
static fr_status lay_out(fr_cuda_attention_plan *p, int n)
{
    enum { WORD = sizeof(int32_t), TASK = sizeof(fr_cuda_attention_task) / WORD };
    p->max_narrow = power_of_two(p->n_narrow);
    p->max_wide = power_of_two(p->n_wide);
    p->runs_at = 0;
    p->rows_at = p->runs_at + p->n_runs * (int)(sizeof *p->runs / WORD);
    p->narrow_at = p->rows_at + n * (int)(sizeof *p->rows / WORD);
    p->wide_at = p->narrow_at + p->max_narrow * TASK;
    p->pages_at = p->wide_at + p->max_wide * TASK;
    p->n_words = p->pages_at + p->n_pages;
    FR_TRY(fr_grow((void **)&p->words, &p->cap_words, p->n_words, WORD));
    memset(p->words + p->narrow_at, 0, (size_t)(p->pages_at - p->narrow_at) * WORD);
    memcpy(p->words + p->runs_at, p->runs, (size_t)p->n_runs * sizeof *p->runs);
    memcpy(p->words + p->rows_at, p->rows, (size_t)n * sizeof *p->rows);
    put_backwards(p->words + p->narrow_at, p->narrow, p->n_narrow);
    put_backwards(p->words + p->wide_at, p->wide, p->n_wide);
    if (p->n_pages > 0)
        memcpy(p->words + p->pages_at, p->pages, (size_t)p->n_pages * sizeof *p->pages);
    return FR_OK;
}

/* Are the first n pages of `source` those placed at `at`? compared: what was found to be, last of its kind. */
static bool has_pages(const fr_cuda_attention_plan *p, page_list *compared, const int32_t *source, int at, int n)
{
    const bool known = source == compared->source && at == compared->at;
    const int first = known ? least(n, compared->n) : 0;
    if (n > first && memcmp(p->pages + at + first, source + first, (size_t)(n - first) * sizeof *source) != 0)
        return false;
    if (n > first)
        *compared = (page_list){source, at, n};
    return true;
}

/* The plan is a matter of how many positions and of which pages there are, not of where they are told. */
static bool is_made(const fr_cuda_attention_plan *p, const fr_attn_view *views, int n, const int32_t *kv_of_head,
                    int heads, int head_dim)
{
    page_list trunk = {0}, branch = {0};
    if (!p->made || p->n != n || p->heads != heads || p->head_dim != head_dim ||
        memcmp(p->kv_of_head, kv_of_head, (size_t)heads * sizeof *kv_of_head) != 0)
        return false;
    for (int r = 0; r < n; r++) {
        const fr_attn_view *v = &views[r];
        const span *s = &p->spans[r];
        if (v->n_trunk != s->n_trunk || v->n_trunk + v->n_branch != s->n_positions ||
            !has_pages(p, &trunk, v->trunk_pages, s->trunk_at, divide_up(v->n_trunk, FR_PAGE)) ||
            !has_pages(p, &branch, v->branch_pages, s->branch_at, divide_up(v->n_branch, FR_PAGE)))
            return false;
    }
    return true;
}

static fr_status note_request(fr_cuda_attention_plan *p, int n, const int32_t *kv_of_head, int heads, int head_dim)
{
    FR_TRY(fr_grow((void **)&p->kv_of_head, &p->cap_kv_of_head, heads, sizeof *kv_of_head));
    memcpy(p->kv_of_head, kv_of_head, (size_t)heads * sizeof *kv_of_head);
    p->n = n;
    p->heads = heads;
    p->head_dim = head_dim;
    return FR_OK;
}

fr_status fr_cuda_attention_plan_make(fr_cuda_attention_plan *p, const fr_attn_view *views, int n,
                                      const int32_t *kv_of_head, int heads, int head_dim)
{
    if (is_made(p, views, n, kv_of_head, heads, head_dim))
        return FR_OK;
    p->made = false;
    FR_TRY(note_request(p, n, kv_of_head, heads, head_dim));
    FR_TRY(find_runs(p, kv_of_head, heads));
    FR_TRY(place_views(p, views, n));
    int run_heads = 1;
    for (int i = 0; i < p->n_runs; i++)
        if (p->runs[i].n_heads > run_heads)
            run_heads = p->runs[i].n_heads;
    const int most_rows = fr_cuda_attention_wide(head_dim) / run_heads;
    FR_TRY(find_families(p, n, most_rows));
    FR_TRY(deal_out(p, run_heads, most_rows));
    FR_TRY(lay_out(p, n));
    p->made = true;
    return FR_OK;
}

void fr_cuda_attention_plan_free(fr_cuda_attention_plan *p)
{
    if (!p)
        return;
    free(p->words);
    free(p->pages);
    free(p->narrow);
    free(p->wide);
    free(p->rows);
    free(p->runs);
    free(p->spans);
    free(p->families);
    free(p->kv_of_head);
    *p = (fr_cuda_attention_plan){0};
}

void fr_cuda_attention_plan_bind(const fr_cuda_attention_plan *p, const int32_t *staged,
                                 fr_cuda_attention_args *args)
{
    args->runs = (const fr_cuda_attention_run *)(staged + p->runs_at);
    args->rows = (const fr_cuda_attention_row *)(staged + p->rows_at);
    args->narrow = (const fr_cuda_attention_task *)(staged + p->narrow_at);
    args->wide = (const fr_cuda_attention_task *)(staged + p->wide_at);
    args->pages = staged + p->pages_at;
    args->n_runs = p->n_runs;
    args->max_narrow = p->max_narrow;
    args->max_wide = p->max_wide;
    args->merge = p->n_partials > 0;
    args->wide_pairs = p->wide_pairs;
}

static size_t partials_bytes(int n_partials, int heads, int head_dim)
{
    size_t pairs = (size_t)power_of_two(n_partials) * (size_t)heads;
    return pairs * (size_t)(FR_ATTENTION_RECORD + head_dim) * sizeof(float);
}

size_t fr_cuda_attention_scratch_bytes(const fr_cuda_attention_plan *p, int heads, int head_dim)
{
    return partials_bytes(p->n_partials, heads, head_dim);
}

/* (row, chunk) pairs that lie in split families. */
static int64_t most_partials(int n, int n_positions)
{
    int64_t pairs = (int64_t)n * divide_up(n_positions, CHUNK);
    return pairs < MOST_PARTIALS ? pairs : MOST_PARTIALS;
}

size_t fr_cuda_attention_most_scratch(int n, int n_positions, int heads, int head_dim)
{
    return partials_bytes((int)most_partials(n, n_positions), heads, head_dim);
}

/* A task of a split family has a pair of its own, one of another family a row. Either list is less than doubled by its
 * round bound. Rows without a page in common have lists of their own, of which the branch's begins a page anew. */
size_t fr_cuda_attention_most_words(int n, int n_positions, int heads)
{
    const size_t rows = (size_t)n, tasks = 2 * (rows + (size_t)most_partials(n, n_positions)),
                 pages = rows * (size_t)(divide_up(n_positions, FR_PAGE) + 1);
    return ((size_t)heads * sizeof(fr_cuda_attention_run) + rows * sizeof(fr_cuda_attention_row) +
            tasks * sizeof(fr_cuda_attention_task)) / sizeof(int32_t) + pages;
}
