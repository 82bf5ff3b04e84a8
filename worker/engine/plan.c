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

static fr_status take(fr_reader *r, void *out, int n, size_t size)
{
    const uint8_t *bytes = NULL;
    FR_TRY(fr_read_bytes(r, (size_t)n * size, &bytes));
    if (n > 0)
        memcpy(out, bytes, (size_t)n * size);
    return FR_OK;
}

fr_status fr_plan_decode(const void *data, size_t n, fr_command *command_out, fr_plan *out)
{
    fr_reader r = {.at = data, .end = (const uint8_t *)data + n, .what = "plan of a pass"};
    int32_t head[5];
    FR_TRY(take(&r, head, 5, sizeof *head));
    *command_out = (fr_command)head[0];
    fr_plan_clear(out);
    for (int i = 1; i < 5; i++)
        if (head[i] < 0)
            return fr_fail(FR_EFORMAT, "plan of a pass: negative count");
    FR_TRY(fr_plan_reserve(out, head[1], head[2], head[3], head[4]));
    FR_TRY(take(&r, out->rows, head[1], sizeof *out->rows));
    FR_TRY(take(&r, out->pages, head[2], sizeof *out->pages));
    FR_TRY(take(&r, out->queries, head[3], sizeof *out->queries));
    FR_TRY(take(&r, out->copies, head[4], sizeof *out->copies));
    out->n_rows = head[1];
    out->n_pages = head[2];
    out->n_queries = head[3];
    out->n_copies = head[4];
    return FR_OK;
}
