/* plan.c: see plan.h. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "grow.h"

void fr_plan_free(fr_plan *p)
{
    free(p->rows);
    free(p->pages);
    free(p->queries);
    free(p->copies);
    *p = (fr_plan){0};
}

void fr_plan_clear(fr_plan *p)
{
    p->n_rows = p->n_pages = p->n_queries = p->n_copies = 0;
}

fr_status fr_plan_reserve(fr_plan *p, int rows, int pages, int queries, int copies)
{
    FR_TRY(fr_grow((void **)&p->rows, &p->cap_rows, p->n_rows + rows, sizeof *p->rows));
    FR_TRY(fr_grow((void **)&p->pages, &p->cap_pages, p->n_pages + pages, sizeof *p->pages));
    FR_TRY(fr_grow((void **)&p->queries, &p->cap_queries, p->n_queries + queries, sizeof *p->queries));
    return fr_grow((void **)&p->copies, &p->cap_copies, p->n_copies + copies, sizeof *p->copies);
}

fr_status fr_plan_encode(fr_command command, const fr_plan *p, fr_buf *out)
{
    int32_t head[5] = {command};
    if (p) {
        head[1] = p->n_rows;
        head[2] = p->n_pages;
        head[3] = p->n_queries;
        head[4] = p->n_copies;
    }
    out->len = 0;
    FR_TRY(fr_buf_put(out, head, sizeof head));
    if (!p)
        return FR_OK;
    FR_TRY(fr_buf_put(out, p->rows, (size_t)p->n_rows * sizeof *p->rows));
    FR_TRY(fr_buf_put(out, p->pages, (size_t)p->n_pages * sizeof *p->pages));
    FR_TRY(fr_buf_put(out, p->queries, (size_t)p->n_queries * sizeof *p->queries));
    return fr_buf_put(out, p->copies, (size_t)p->n_copies * sizeof *p->copies);
}

/* The next n things of a size each; their number was checked against the whole. */
static const uint8_t *take(const uint8_t *at, void *out, int n, size_t size)
{
    if (n > 0)
        memcpy(out, at, (size_t)n * size);
    return at + (size_t)n * size;
}

static fr_status check_head(const int32_t head[5], size_t n)
{
    const size_t sizes[4] = {sizeof(fr_plan_row), sizeof(int32_t), sizeof(fr_plan_query), sizeof(fr_page_copy)};
    uint64_t want = 5 * sizeof *head;
    if (head[0] != FR_COMMAND_PASS && head[0] != FR_COMMAND_CLOSE)
        return fr_fail(FR_EFORMAT, "plan of a pass: there is no command %d", head[0]);
    for (int i = 0; i < 4; i++) {
        if (head[i + 1] < 0)
            return fr_fail(FR_EFORMAT, "plan of a pass: negative count");
        want += (uint64_t)head[i + 1] * sizes[i];
    }
    if (want != n)
        return fr_fail(FR_EFORMAT, "plan of a pass: it has %zu bytes, and tells of %llu", n, (unsigned long long)want);
    return FR_OK;
}

fr_status fr_plan_decode(const void *data, size_t n, fr_command *command_out, fr_plan *out)
{
    int32_t head[5];
    const uint8_t *at = data;
    if (n < sizeof head)
        return fr_fail(FR_EFORMAT, "plan of a pass: %zu bytes are no command", n);
    at = take(at, head, 5, sizeof *head);
    FR_TRY(check_head(head, n));
    *command_out = (fr_command)head[0];
    fr_plan_clear(out);
    FR_TRY(fr_plan_reserve(out, head[1], head[2], head[3], head[4]));
    at = take(at, out->rows, head[1], sizeof *out->rows);
    at = take(at, out->pages, head[2], sizeof *out->pages);
    at = take(at, out->queries, head[3], sizeof *out->queries);
    take(at, out->copies, head[4], sizeof *out->copies);
    out->n_rows = head[1];
    out->n_pages = head[2];
    out->n_queries = head[3];
    out->n_copies = head[4];
    return FR_OK;
}

/* 0 <= value < n, for any int32_t. */
static bool is_below(int32_t value, int n)
{
    return value >= 0 && value < n;
}

static bool has_list(const fr_plan *p, int32_t at, int32_t n_positions)
{
    const int64_t n_pages = ((int64_t)n_positions + FR_PAGE - 1) / FR_PAGE;
    return n_positions >= 0 && at >= 0 && at + n_pages <= p->n_pages;
}

static fr_status check_row(const fr_plan *p, int i, const fr_plan_bounds *b)
{
    const fr_plan_row *r = &p->rows[i];
    if (!is_below(r->token, b->n_vocab))
        return fr_fail(FR_EFORMAT, "plan of a pass: row %d has token %d of a vocabulary of %d", i, r->token,
                       b->n_vocab);
    if (!is_below(r->pos, b->context))
        return fr_fail(FR_EFORMAT, "plan of a pass: row %d is at position %d of a context of %d", i, r->pos,
                       b->context);
    if (!is_below(r->slot, b->n_pages * FR_PAGE))
        return fr_fail(FR_EFORMAT, "plan of a pass: row %d goes to slot %d of a KV cache of %d positions", i, r->slot,
                       b->n_pages * FR_PAGE);
    if (!has_list(p, r->trunk_at, r->n_trunk) || !has_list(p, r->branch_at, r->n_branch) ||
        (int64_t)r->n_trunk + r->n_branch != r->pos + 1LL)
        return fr_fail(FR_EFORMAT,
                       "plan of a pass: row %d at position %d sees %d and %d positions, from pages %d and %d of %d on",
                       i, r->pos, r->n_trunk, r->n_branch, r->trunk_at, r->branch_at, p->n_pages);
    return FR_OK;
}

static fr_status check_query(const fr_plan *p, int i, const fr_plan_bounds *b)
{
    const fr_plan_query *q = &p->queries[i];
    if (!is_below(q->row, p->n_rows))
        return fr_fail(FR_EFORMAT, "plan of a pass: query %d is about row %d of %d", i, q->row, p->n_rows);
    if (!is_below(q->rough, b->has_rough_head ? 2 : 1))
        return fr_fail(FR_EFORMAT, "plan of a pass: query %d is for head %d, which is not there", i, q->rough);
    if (!is_below(q->query.n_top, FR_TOP_MAX + 1) || !is_below(q->query.n_wanted, FR_WANTED_MAX + 1))
        return fr_fail(FR_EFORMAT, "plan of a pass: query %d is for %d candidates and %d tokens", i, q->query.n_top,
                       q->query.n_wanted);
    return FR_OK;
}

fr_status fr_plan_check(const fr_plan *p, const fr_plan_bounds *b)
{
    for (int i = 0; i < p->n_rows; i++)
        FR_TRY(check_row(p, i, b));
    for (int i = 0; i < p->n_pages; i++)
        if (!is_below(p->pages[i], b->n_pages))
            return fr_fail(FR_EFORMAT, "plan of a pass: page %d of a KV cache of %d", p->pages[i], b->n_pages);
    for (int i = 0; i < p->n_queries; i++)
        FR_TRY(check_query(p, i, b));
    for (int i = 0; i < p->n_copies; i++) {
        const fr_page_copy *c = &p->copies[i];
        if (!is_below(c->from, b->n_pages) || !is_below(c->to, b->n_pages) || !is_below(c->n, FR_PAGE + 1))
            return fr_fail(FR_EFORMAT,
                           "plan of a pass: %d positions of page %d go to page %d, in a KV cache of %d pages",
                           c->n, c->from, c->to, b->n_pages);
    }
    return FR_OK;
}
